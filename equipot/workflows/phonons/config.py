"""Settings of phonons, read by ``equipot phonons``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from equipot.workflows.force_constants import Displacements, Exact

STRESS = 1e-3
"""Stress less the pressure (GPa) at which the relaxation of a cell ends."""


@dataclass(frozen=True)
class QHAConfig:
    """The quasi-harmonic approximation: phonons at several volumes, and the volume of least free energy at each temperature."""

    volumes: int = 9
    """Number of volumes, at least 5."""
    smallest: float = 0.96
    """Smallest volume, as a fraction of that of the relaxed cell."""
    largest: float = 1.08
    """Largest volume, as a fraction of that of the relaxed cell."""
    pressure_GPa: float = 0.0
    """Pressure at which the free energy is least, GPa."""
    equation: Literal["vinet", "murnaghan", "birch_murnaghan"] = "vinet"
    """Equation of state that is fitted to the free energy at each temperature."""

    def __post_init__(self) -> None:
        if self.volumes < 5:
            raise ValueError(f"volumes {self.volumes} must be at least 5: an equation of state has four parameters")
        if not 0.5 < self.smallest < self.largest < 1.5:
            raise ValueError(
                f"smallest {self.smallest:g} and largest {self.largest:g} must be ascending fractions of the volume between "
                "0.5 and 1.5; 0.96 and 1.08 are usual"
            )
        if not math.isfinite(self.pressure_GPa):
            raise ValueError(f"pressure_GPa is {self.pressure_GPa}; give a number")


@dataclass(frozen=True)
class PhononsConfig:
    """Phonons of one crystal.

    Raises:
        ValueError: a value out of range.
    """

    relax: Literal["full", "isotropic", "fixed", "none"] = "full"
    """Relaxation before: positions and the whole cell, positions and the volume, positions alone, or none at all."""
    fmax: float = 1e-5
    """Largest force (eV/Å) at which the relaxation ends; that of the stress is 0.001 GPa."""
    pressure_GPa: float = 0.0
    """Pressure of the relaxation, GPa."""
    max_steps: int = 500
    """Most steps of the relaxation."""
    symprec: float = 1e-3
    """Distance (Å) up to which atoms of the given structure count as equivalent by symmetry."""
    supercell_length: float = 12.0
    """Length (Å) that no lattice vector of the supercell is shorter than; force constants should decay within half of it."""
    supercell: tuple[int, int, int] | None = None
    """Copies of the primitive cell along each of its vectors; None to choose by ``supercell_length``."""
    force_constants: Exact | Displacements = Exact()
    """How force constants are computed: by exact derivatives, or by finite displacements through phonopy."""
    non_analytic: Literal["auto", "none"] = "auto"
    """Whether polar crystals get the splitting of LO and TO modes, where Born charges and a dielectric constant exist."""
    born: str | None = None
    """File BORN of phonopy with Born effective charges and the dielectric tensor of the primitive cell, in the axes and the
    order of atoms that phonons.json has (seekpath's standard ones); None to take those that the potential provides."""
    dielectric: float | None = None
    """High-frequency dielectric constant, for a potential with Born effective charges but without a polarizability."""
    band_points: int = 101
    """Points of the longest segment of the path through the Brillouin zone; the others have as many per length."""
    mesh_length: float = 50.0
    """Density (Å) of the mesh of wave vectors for the density of states and thermal properties: the points along a reciprocal
    vector b are this length times |b| / (2 pi)."""
    max_temperature_K: float = 1000.0
    """Highest temperature of thermal properties, K."""
    temperature_step_K: float = 10.0
    """Step between temperatures, K."""
    imaginary_tolerance_THz: float = 0.05
    """Frequencies below minus this value are imaginary modes; acoustic modes near Gamma are noise above it."""
    follow: bool = False
    """Whether the most unstable imaginary mode is followed downhill, with the cell relaxed as ``relax`` says."""
    follow_amplitude: float = 0.1
    """Displacement (Å) of the atom that moves most, at the start of following a mode."""
    qha: QHAConfig | None = None
    """The quasi-harmonic approximation; None for none."""

    def __post_init__(self) -> None:
        positive = (
            "fmax", "max_steps", "symprec", "supercell_length", "mesh_length", "max_temperature_K", "temperature_step_K",
            "imaginary_tolerance_THz", "follow_amplitude",
        )  # fmt: skip
        for name in positive:
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above zero")
        if self.band_points < 2:
            raise ValueError(f"band_points is {self.band_points}; give at least 2, 101 for a smooth picture")
        if self.supercell is not None and min(self.supercell) < 1:
            raise ValueError(f"supercell is {self.supercell}; give three numbers of at least 1")
        if self.temperature_step_K > self.max_temperature_K / 2:
            raise ValueError(
                f"temperature_step_K {self.temperature_step_K:g} K leaves less than three temperatures up to max_temperature_K "
                f"{self.max_temperature_K:g} K; choose a smaller step"
            )
        if self.dielectric is not None and not self.dielectric >= 1:
            raise ValueError(f"dielectric is {self.dielectric}; a dielectric constant is at least 1, that of vacuum")
        if not math.isfinite(self.pressure_GPa):
            raise ValueError(f"pressure_GPa is {self.pressure_GPa}; give a number")
        if self.pressure_GPa and self.relax in ("fixed", "none"):
            raise ValueError(f"pressure_GPa {self.pressure_GPa:g} does nothing where the cell stays; set relax to full")
        if self.qha is not None and self.qha.pressure_GPa != self.pressure_GPa:
            two = f"{self.pressure_GPa:g} and qha.pressure_GPa {self.qha.pressure_GPa:g}"
            raise ValueError(f"pressure_GPa {two} differ; give both alike")
