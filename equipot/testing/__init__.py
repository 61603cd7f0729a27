"""The laws of physics as tests for anybody's term.

>>> import pytest
>>> from equipot.testing import laws
>>> @pytest.mark.parametrize("case", laws.cases(MyTerm(cutoff=4.0)), ids=str)
... def test_the_laws(case):
...     case()
"""
