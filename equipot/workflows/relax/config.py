"""Settings of a relaxation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from equipot.units import GPa
from equipot.workflows.relax.lbfgs import LBFGS
from equipot.workflows.relax.optimizers import Optimizer

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Names of the components of a stress or strain, in ASE's order."""
CLOSE = 0.3
"""Share of its first volume below which a cell has collapsed; above the inverse of it, it has come apart."""


@dataclass(frozen=True)
class RelaxConfig:
    """How structures are relaxed.

    Raises:
        ValueError: a value out of range, or settings that contradict each other.
    """

    cell: Literal["fixed", "isotropic", "shape", "full"] = "fixed"
    """What of the cell may change: nothing, its volume, its shape at a fixed volume, or both. Vectors along which nothing
    repeats always stay."""
    strains: tuple[str, ...] = VOIGT
    """Components of the strain that may change with ``cell: full`` or ``shape``: any of xx, yy, zz, yz, xz, xy."""
    fmax: float = 0.001
    """Largest force on an atom at the end, eV/Å."""
    smax_GPa: float = 0.01
    """Largest component of the stress less its target at the end, GPa, where the cell changes."""
    pressure_GPa: float = 0.0
    """Pressure, GPa, where the cell changes."""
    stress_GPa: tuple[float, ...] | None = None
    """Target stress (GPa, positive under tension) instead of a pressure, with ``cell: full``: xx, yy, zz, yz, xz, xy."""
    symmetry: bool = True
    """Whether the space group of a crystal is kept, as far as target stress and chosen strains have it too. A structure that
    would lower it stays where it is, then."""
    symprec: float = 1e-4
    """Distance (Å) within which atoms count as images of each other when the space group is found."""
    optimizer: Optimizer = LBFGS()
    """Method: LBFGS, FIRE or Newton."""
    cheaper: str | None = None
    """Another potential (a file or a name) whose Hessian stands in for that of the potential, for Newton."""
    max_steps: int = 1000
    """Largest number of evaluations of a structure."""
    skin: float = 0.5
    """Reach of the neighbour lists beyond the cutoff, Å."""
    batch_size: int | None = None
    """Structures that are relaxed at once; None for as many as is useful."""

    def __post_init__(self) -> None:
        if not 0 < self.fmax < math.inf:
            raise ValueError(f"fmax {self.fmax} eV/Å must be positive; 0.001 to 0.01 are usual")
        if not 0 < self.smax_GPa < math.inf:
            raise ValueError(f"smax_GPa {self.smax_GPa} must be positive; 0.01 to 0.1 are usual")
        if unknown := [name for name in self.strains if name not in VOIGT]:
            raise ValueError(f"strains: {unknown[0]!r} is none of {', '.join(VOIGT)}")
        if not self.strains:
            raise ValueError("strains: none is left; write `cell: fixed` for a cell that stays")
        if self.strains != VOIGT and self.cell not in ("full", "shape"):
            raise ValueError(f"strains are chosen with `cell: full` or `shape` only; the cell is {self.cell}")
        given = self.stress_GPa is not None
        if given and (self.cell != "full" or self.pressure_GPa or len(self.stress_GPa or ()) != 6):
            raise ValueError("stress_GPa takes six components, xx, yy, zz, yz, xz, xy, with `cell: full` and no pressure_GPa")
        if self.pressure_GPa and self.cell in ("fixed", "shape"):
            raise ValueError(f"pressure_GPa {self.pressure_GPa} does nothing to a fixed volume; set cell to isotropic or full")
        if self.cheaper is not None and not self.optimizer.uses_hessian:
            raise ValueError(f"cheaper: {type(self.optimizer).__name__} uses no Hessian; set optimizer.kind to Newton")
        if self.max_steps < 1:
            raise ValueError(f"max_steps {self.max_steps} must be at least 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if not 0 < self.skin < math.inf or not 0 < self.symprec < 1:
            raise ValueError(f"skin {self.skin} Å must be positive, and symprec {self.symprec} Å between 0 and 1")

    @property
    def moves_cells(self) -> bool:
        """Whether cells may change."""
        return self.cell != "fixed"

    @property
    def lowers_symmetry(self) -> bool:
        """Whether a target stress, or a choice of strains, may have a lower symmetry than the crystal."""
        return self.stress_GPa is not None or self.strains != VOIGT

    @property
    def smax(self) -> float:
        """``smax_GPa`` in eV/Å^3."""
        return self.smax_GPa * GPa
