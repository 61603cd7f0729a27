import pytest
import synthetic_dispersion

from equipot.physics import dispersion


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Laws are checked in float64."""


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    """Laws hold whatever the coefficients are."""
    monkeypatch.setattr(dispersion, "reference", synthetic_dispersion.reference)
