import pytest


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Models are compared in float64."""
