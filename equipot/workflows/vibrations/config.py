"""Settings of vibrations, read by ``equipot vibrations``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equipot.workflows.force_constants import Displacements, Exact
from equipot.workflows.vibrations.thermochemistry import Harmonic, QuasiRRHO


@dataclass(frozen=True)
class VibrationsConfig:
    """Normal modes, infrared intensities and thermochemistry of one structure.

    Raises:
        ValueError: a value out of range.
    """

    relax: bool = True
    """Whether positions are relaxed before, in a fixed cell."""
    fmax: float = 1e-5
    """Largest force (eV/Å) at which the relaxation ends."""
    max_steps: int = 500
    """Most steps of the relaxation."""
    hessian: Exact | Displacements = Exact()
    """How the Hessian is computed: by exact derivatives, or by central differences of the forces."""
    temperature_K: float = 298.15
    """Temperature of thermochemistry, K."""
    pressure_Pa: float = 101325.0
    """Pressure of the gas, Pa."""
    symmetry_number: int | None = None
    """Rotations that exchange equal atoms; None to find them."""
    symmetry_tolerance: float = 0.05
    """Distance (Å) within which a rotation must map atoms onto each other, where the symmetry number is found."""
    low_frequency: Harmonic | QuasiRRHO = Harmonic()
    """Entropy of modes: harmonic oscillators, or Grimme's quasi-RRHO, which replaces those of low frequency by free rotors."""
    imaginary_tolerance_per_cm: float = 1.0
    """Wavenumbers below minus this value (1/cm) are imaginary modes; those between are noise, and count as no vibration."""
    width_per_cm: float = 10.0
    """Full width at half maximum (1/cm) of the Lorentzian lines of the drawn spectrum."""

    def __post_init__(self) -> None:
        positive = (
            "fmax", "max_steps", "temperature_K", "pressure_Pa", "symmetry_tolerance", "imaginary_tolerance_per_cm",
            "width_per_cm",
        )  # fmt: skip
        for name in positive:
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above zero")
        if self.symmetry_number is not None and self.symmetry_number < 1:
            raise ValueError(f"symmetry_number is {self.symmetry_number}; it is at least 1, or left out to be found")
