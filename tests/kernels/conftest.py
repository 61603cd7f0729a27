import pytest


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Kernels are checked in float64."""
