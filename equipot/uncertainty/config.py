"""Settings of an estimate of uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field

from equipot.data.config import Reading
from equipot.posterior import UncertaintyMethod
from equipot.potential import Potential
from equipot.uncertainty import default_method
from equipot.uncertainty.calibration import Calibrator, Linear
from equipot.uncertainty.last_layer import LastLayer
from equipot.uncertainty.sampler import Sampler


@dataclass(frozen=True)
class UncertaintyConfig:
    """Method and calibration of the uncertainty of a potential."""

    method: UncertaintyMethod = LastLayer()
    """For a committee, ``Spread`` where nothing else is chosen."""
    sampler: Sampler | None = None
    """How potentials with other parameters are drawn first, to be the members of a committee; None to keep the potential."""
    data: Reading = field(default_factory=Reading)
    """How `equipot uncertainty` reads and checks files; a training run has its own settings for that."""
    calibrator: Calibrator = Linear()
    """Relation of deviations before and after calibration."""

    def method_for(self, potential: Potential) -> UncertaintyMethod:
        """Return the method, or that for a committee where none but the default for single networks is chosen."""
        return default_method(potential) if self.method == LastLayer() else self.method
