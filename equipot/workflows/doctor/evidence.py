"""What the pictures of a report are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

_nothing = lambda: np.zeros(0)


@dataclass(frozen=True, eq=False)
class Curve:
    """Two atoms alone at all distances, and what is remarkable about that."""

    pair: str
    """Such as ``Si-O``."""
    distance: Float[np.ndarray, " points"]
    """Å, ascending, up to the cutoff."""
    energy: Float[np.ndarray, " points"]
    """eV, less that of the two atoms beyond the cutoff."""
    force: Float[np.ndarray, " points"]
    """-dE/d(distance), eV/Å."""
    radii: float
    """Sum of the covalent radii, Å."""
    minimum: float
    """Distance of the lowest energy outside of any hole, Å; NaN where nothing binds."""
    depth: float
    """Of that minimum, eV."""
    hole: float
    """Distance below which the energy falls towards contact, Å; 0 where it does not."""
    barrier: float
    """Energy (eV) that it takes to come from the lowest minimum to the hole, or without one to the shortest distance."""
    bottom: float
    """Lowest energy in the hole (eV), from the minimum outside of it; NaN without a hole."""
    wiggle: float
    """Prominence (eV) of the largest hump, or second minimum, outside of the wall."""

    def figures(self) -> dict[str, float | str]:
        """The numbers by name."""
        names = ("pair", "radii", "minimum", "depth", "hole", "barrier", "bottom", "wiggle")
        return {name: getattr(self, name) for name in names}

    def row(self) -> tuple[str, ...]:
        """The numbers as text, in the order of the report's table of pairs."""
        show = lambda value: f"{value:.3g}" if math.isfinite(value) else "-"
        numbers = (self.minimum, self.depth, self.minimum / self.radii, self.hole or math.nan, self.barrier, self.bottom)
        return (self.pair, *map(show, numbers))


@dataclass(frozen=True, eq=False)
class Passage:
    """An atom carried through the cutoff of another."""

    label: str
    offset: Float[np.ndarray, " points"]
    """Distance less the cutoff, Å, ascending."""
    energy: Float[np.ndarray, " points"]
    """eV, less that beyond the cutoff."""
    force: Float[np.ndarray, " points"]
    """-dE/d(distance) on the atom, eV/Å."""


@dataclass(frozen=True, eq=False)
class EnergyRun:
    """A short run of dynamics at constant energy."""

    label: str
    time: Float[np.ndarray, " lines"]
    """fs."""
    total: Float[np.ndarray, " lines"]
    """Total energy, meV/atom, from its start."""
    temperature: Float[np.ndarray, " lines"]
    """K."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Arrays behind the findings; empty where something was not examined."""

    slopes: Float[np.ndarray, " directions"] = field(default_factory=_nothing)
    """Forces along random directions, eV/Å."""
    differences: Float[np.ndarray, " directions"] = field(default_factory=_nothing)
    """The same by finite differences of the energy, eV/Å."""
    dimers: tuple[Curve, ...] = ()
    passages: tuple[Passage, ...] = ()
    runs: tuple[EnergyRun, ...] = ()
