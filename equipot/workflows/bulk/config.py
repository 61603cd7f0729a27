"""Settings of ``equipot bulk``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from equipot.workflows.relax import RelaxConfig


@dataclass(frozen=True)
class EquationOfState:
    """Energies of the cell at several volumes, with shape and atoms relaxed at each, and a fit."""

    fit: Literal["birchmurnaghan", "vinet", "murnaghan", "birch", "pouriertarantola"] = "birchmurnaghan"
    """Equation that is fitted, as ``ase.eos`` names it."""
    span: float = 0.06
    """Largest relative change of the volume, to either side."""
    points: int = 11
    """Number of volumes."""

    def __post_init__(self) -> None:
        if not 0 < self.span < 0.5:
            raise ValueError(f"span {self.span} must lie between 0 and 0.5: it is a relative change of the volume")
        if self.points < 5:
            raise ValueError(f"points {self.points} must be at least 5: four parameters are fitted")


@dataclass(frozen=True)
class Elasticity:
    """Elastic tensor from exact second derivatives, with atoms relaxed, and finite strains beside it as a check."""

    check: float = 0.002
    """Strain of the check by finite strains; 0 for no check."""

    def __post_init__(self) -> None:
        if not 0 <= self.check < 0.1:
            raise ValueError(f"check {self.check} must lie between 0 and 0.1: it is a strain; 0 leaves the check out")


@dataclass(frozen=True)
class Tension:
    """Stress-strain curve along a direction, step by step, with all other components of the stress relaxed."""

    direction: Literal["xx", "yy", "zz"] = "xx"
    """Component of the strain that grows."""
    span: float = 0.3
    """Largest engineering strain; negative for a compression."""
    steps: int = 30
    """Number of steps."""

    def __post_init__(self) -> None:
        if not -0.9 < self.span <= 2 or self.span == 0:
            raise ValueError(f"span {self.span} must lie between -0.9 and 2 and not be 0: it is a strain")
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} must be at least 1")


@dataclass(frozen=True)
class BulkConfig:
    """What is computed of a crystal. Several structures are ranked by energy or enthalpy first, and the first of them examined.

    Raises:
        ValueError: the cell is not relaxed.
    """

    relax: RelaxConfig = RelaxConfig(cell="full", fmax=1e-4, smax_GPa=0.001)
    """How each structure is relaxed first; its pressure is that of the elastic tensor."""
    equation_of_state: EquationOfState | None = EquationOfState()
    """Equation of state; None to leave it out."""
    elasticity: Elasticity | None = Elasticity()
    """Elastic tensor; None to leave it out."""
    tension: Tension | None = None
    """Stress-strain curve; None for none."""

    def __post_init__(self) -> None:
        if self.relax.stress_GPa is not None:
            raise ValueError("relax.stress_GPa: structures are ranked by enthalpy under a pressure; give relax.pressure_GPa")
        if self.relax.cell not in ("full", "isotropic"):
            raise ValueError(f"relax.cell {self.relax.cell} keeps the volume: a bulk property wants full or isotropic")
