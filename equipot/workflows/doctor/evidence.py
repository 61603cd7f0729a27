"""Arrays for the figures of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

_nothing = lambda: np.zeros(0)


@dataclass(frozen=True, eq=False)
class Curve:
    """Energy and force of two atoms as functions of distance, and their features."""

    pair: str
    """Symbols of the two elements, such as ``Si-O``."""
    distance: Float[np.ndarray, " points"]
    """Å, ascending, up to the cutoff."""
    energy: Float[np.ndarray, " points"]
    """Energy relative to the two atoms beyond the cutoff, eV."""
    force: Float[np.ndarray, " points"]
    """-dE/d(distance), eV/Å."""
    radii: float
    """Sum of the covalent radii, Å."""
    minimum: float
    """Distance of the lowest energy outside any hole, Å; NaN if the atoms do not bind."""
    depth: float
    """Depth of the minimum, eV."""
    hole: float
    """Distance below which the energy falls towards contact, Å; 0 without such a hole."""
    barrier: float
    """Energy barrier (eV) from the lowest minimum to the hole, or without a hole to the shortest distance."""
    bottom: float
    """Lowest energy in the hole relative to the minimum outside, eV; NaN without a hole."""
    wiggle: float
    """Prominence (eV) of the largest hump or second minimum outside the wall."""

    def figures(self) -> dict[str, float | str]:
        """Return the features by name."""
        names = ("pair", "radii", "minimum", "depth", "hole", "barrier", "bottom", "wiggle")
        return {name: getattr(self, name) for name in names}

    def row(self) -> tuple[str, ...]:
        """Write the features as text, in the order of the columns ``findings.PAIRS``."""
        show = lambda value: f"{value:.3g}" if math.isfinite(value) else "-"
        numbers = (self.minimum, self.depth, self.minimum / self.radii, self.hole or math.nan, self.barrier, self.bottom)
        return (self.pair, *map(show, numbers))


@dataclass(frozen=True, eq=False)
class Passage:
    """Energy and force while an atom moves through the cutoff of another."""

    label: str
    offset: Float[np.ndarray, " points"]
    """Distance less the cutoff, Å, ascending."""
    energy: Float[np.ndarray, " points"]
    """Energy relative to that beyond the cutoff, eV."""
    force: Float[np.ndarray, " points"]
    """-dE/d(distance) on the atom, eV/Å."""


@dataclass(frozen=True, eq=False)
class EnergyRun:
    """A short run at constant energy."""

    label: str
    time: Float[np.ndarray, " lines"]
    """fs."""
    total: Float[np.ndarray, " lines"]
    """Total energy relative to the start, meV/atom."""
    temperature: Float[np.ndarray, " lines"]
    """K."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Arrays behind the findings; empty for a check that did not run."""

    slopes: Float[np.ndarray, " directions"] = field(default_factory=_nothing)
    """Forces along random directions, eV/Å."""
    differences: Float[np.ndarray, " directions"] = field(default_factory=_nothing)
    """Forces along these directions by finite differences of the energy, eV/Å."""
    dimers: tuple[Curve, ...] = ()
    passages: tuple[Passage, ...] = ()
    runs: tuple[EnergyRun, ...] = ()
