"""Settings of an estimate of uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

from equipot.posterior import UncertaintyMethod
from equipot.uncertainty.calibration import Calibrator, Linear
from equipot.uncertainty.last_layer import LastLayer


@dataclass(frozen=True)
class UncertaintyConfig:
    """Method and calibration of the uncertainty of a potential."""

    method: UncertaintyMethod = LastLayer()
    calibrator: Calibrator = Linear()
    """Relation of deviations before and after calibration."""
