import pytest


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Laws are checked in float64."""
