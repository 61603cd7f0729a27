"""Settings of ``equipot spectra``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpectraConfig:
    """Spectra of a trajectory.

    Raises:
        ValueError: a value out of range.
    """

    resolution_THz: float = 0.5
    """Full width at half maximum of a sharp line, THz (1 THz is 33.4 cm^-1); a finer resolution needs a longer trajectory."""
    skip_ps: float = 0.0
    """Beginning of the trajectory that is left out, ps."""
    interval_fs: float | None = None
    """Time between frames, fs, for a file that does not say it."""
    temperature_K: float | None = None
    """Temperature for intensities, K; that of the velocities where left out."""

    def __post_init__(self) -> None:
        for name in ("resolution_THz", "interval_fs", "temperature_K"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value} must be above zero")
        if not self.skip_ps >= 0:
            raise ValueError(f"skip_ps {self.skip_ps} must not be negative")
