"""Capacities of a device list, planned on the host for a geometry and enlarged after an overflow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from equipot.extent import Waves, waves_of
from equipot.graph import Shell
from equipot.neighbors.cells import check_cutoff, checked_geometry, complete_cell, heights
from equipot.neighbors.host import neighbor_list

WORD = 32
"""Number of bits of a word."""
MARGIN = 1.0e-4
"""Relative excess of the width of bins over what the list radius needs, so that rounding cannot hide a pair."""
FULL = 0.98
"""Share of the capacity for pairs that may be used."""
ROOM = 0.95
"""Smallest height of the cell, relative to its height at planning, for which the reach of a plan suffices."""


@dataclasses.dataclass(frozen=True)
class ListSpec:
    """Radius, periodicity and capacities of a device list: static and hashable, made by ``plan`` and enlarged by ``grow``."""

    cutoff: float
    """Cutoff radius (Å)."""
    skin: float
    """Excess (Å) of the list radius over the cutoff."""
    pbc: tuple[bool, bool, bool]
    slots: int
    """Capacity for neighbours of each atom."""
    grid: tuple[int, int, int]
    """Number of bins along each lattice vector."""
    reach: tuple[int, int, int]
    """Number of bins searched to either side along each lattice vector, periodic images included."""
    occupancy: int
    """Capacity for atoms of each bin."""
    slack: float
    """Factor by which the capacities exceed the need of the geometry that they were planned for."""
    shells: tuple[Shell, ...] = ()
    """Capacities for the neighbours within shorter cutoffs: slots within cutoff + skin, pairs within the cutoff."""
    pair_capacity: int | None = None
    """Capacity for directed pairs of the whole system within the cutoff, the number of pairs that a model computes; None for as
    many as there are slots."""
    longest_wave: float | None = None
    """Longest reciprocal vector (1/Å) that the waves must hold; None for a term without space."""
    waves: Waves | None = None
    """Waves of the system, see ``Extent.waves``."""

    @property
    def radius(self) -> float:
        """List radius, cutoff + skin (Å)."""
        return self.cutoff + self.skin

    @property
    def words(self) -> int:
        """Number of words that hold one bit for each atom of a bin."""
        return -(-self.occupancy // WORD)


def plan(
    positions: Any,
    cell: Any,
    pbc: Any,
    cutoff: float,
    skin: float = 0.5,
    slack: float = 1.25,
    longest_wave: float | None = None,
    inner_cutoffs: Sequence[float] = (),
) -> ListSpec:
    """Plan the capacities of a device list: the need of this geometry times ``slack``.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, Å.
        pbc: One bool, or one for each row.
        cutoff: Cutoff radius (Å).
        skin: Excess (Å) of the list radius over the cutoff; a list is valid until atoms have moved by about half the skin.
        slack: Factor by which the capacities exceed the need.
        longest_wave: Longest reciprocal vector (1/Å) of the term, see ``Term.longest_wave``.
        inner_cutoffs: Shorter cutoffs (Å) for which the list has shells.

    Raises:
        ValueError: as ``neighbor_list``, or no atoms, a negative skin, a slack below one, or more slots than int32 can count.
    """
    check_cutoff(cutoff)
    if not (skin >= 0 and math.isfinite(skin)):
        raise ValueError(f"the skin is {skin} Å; give a number >= 0")
    if not slack >= 1:
        raise ValueError(f"the slack is {slack}; give a factor >= 1")
    positions, cell, pbc = checked_geometry(positions, cell, pbc, cutoff + skin)
    if not len(positions):
        raise ValueError("a neighbour list needs at least one atom")
    first = ListSpec(float(cutoff), float(skin), pbc, 1, (1, 1, 1), (0, 0, 0), 1, float(slack), longest_wave=longest_wave)
    first = dataclasses.replace(first, shells=tuple(Shell(float(c), 1) for c in inner_cutoffs))
    return _plan(positions, cell, first, ROOM)


def grow(spec: ListSpec, positions: Any, cell: Any) -> ListSpec:
    """Enlarge the capacities after an overflow.

    No capacity shrinks. If the geometry needs no more than the present capacities, all are raised by ``spec.slack`` or 10 %.

    Args:
        spec: Present capacities.
        positions: (atoms, 3), Å, at the overflow or shortly before.
        cell: (3, 3), Å, at the overflow or shortly before.

    Raises:
        ValueError: as ``plan``; for instance for coordinates that are not finite, which also set the overflow flag.
    """
    positions, cell, _ = checked_geometry(positions, cell, spec.pbc, spec.radius)
    wanted = _plan(positions, cell, spec, ROOM)
    enough = spec.pair_capacity is None or _pairs(wanted) <= spec.pair_capacity
    waves = None
    if wanted.waves is not None and spec.waves is not None:
        a, b, c = map(max, wanted.waves, spec.waves)
        waves = a, b, c
    enough &= waves == spec.waves
    enough &= _larger(spec.shells, wanted.shells) == spec.shells
    if wanted.slots <= spec.slots and wanted.occupancy <= spec.occupancy and enough and _holds(spec, cell):
        factor = max(spec.slack, 1.1)
        wanted = _plan(positions, cell, spec, ROOM / factor)
        pairs = None if spec.pair_capacity is None else _more(spec.pair_capacity, factor)
        shells = tuple(Shell(s.cutoff, _more(s.slots, factor), _more(s.pairs or 0, factor)) for s in spec.shells)
        spec = dataclasses.replace(
            spec,
            slots=_more(spec.slots, factor),
            occupancy=_more(spec.occupancy, factor),
            shells=shells,
            pair_capacity=pairs,
        )
    slots = max(spec.slots, wanted.slots)
    pairs = None if spec.pair_capacity is None else min(len(positions) * slots, max(spec.pair_capacity, _pairs(wanted)))
    occupancy, shells = max(spec.occupancy, wanted.occupancy), _larger(spec.shells, wanted.shells)
    larger = dataclasses.replace(wanted, slots=slots, occupancy=occupancy, shells=shells)
    return dataclasses.replace(larger, pair_capacity=pairs, waves=waves)


def _larger(one: tuple[Shell, ...], other: tuple[Shell, ...]) -> tuple[Shell, ...]:
    """Return shells of the same cutoffs with the larger of two capacities each."""
    more = lambda a, b: max(a or 0, b or 0)
    return tuple(Shell(a.cutoff, max(a.slots, b.slots), more(a.pairs, b.pairs)) for a, b in zip(one, other, strict=True))


def more_pairs(spec: ListSpec, num_atoms: int) -> ListSpec | None:
    """Double the capacity for pairs within the cutoff; return None if the capacity is as large as the number of slots."""
    most = num_atoms * spec.slots
    rooms = [(num_atoms * s.slots, s) for s in spec.shells]
    wider = tuple(s if s.pairs is None else s._replace(pairs=min(room, 2 * s.pairs)) for room, s in rooms)
    pairs = None if spec.pair_capacity is None else min(most, 2 * spec.pair_capacity)
    grown = dataclasses.replace(spec, shells=wider, pair_capacity=pairs)
    return None if grown == spec else grown


def _pairs(planned: ListSpec) -> int:
    """Capacity for pairs of a list of ``_plan``, which always has one."""
    assert planned.pair_capacity is not None
    return planned.pair_capacity


def _plan(positions: np.ndarray, cell: np.ndarray, spec: ListSpec, room: float) -> ListSpec:
    """Plan capacities with the radius, periodicity and slack of ``spec``; ``room`` as ``ROOM``."""
    n = len(positions)
    full = complete_cell(cell, spec.pbc)
    height = heights(full)
    fraction = positions @ np.linalg.inv(full)
    low = np.where(spec.pbc, 0, fraction.min(axis=0))
    length = np.where(spec.pbc, height, fraction.max(axis=0) - low)
    size = room * length / (spec.radius * (1 + 2 * MARGIN))
    grid = np.maximum(1, np.floor(np.minimum(size, n))).astype(int)
    # Bins are worth their memory as long as there are not many more of them than atoms.
    while np.prod(grid) > max(64, 2 * n):
        grid[np.argmax(grid)] = -(-grid.max() * 3 // 4)
    reach = np.where(spec.pbc, np.ceil(grid / np.where(spec.pbc, size, 1)), grid > 1).astype(int)
    place = np.where(spec.pbc, (fraction - np.floor(fraction)), (fraction - low) / np.maximum(length, spec.radius * grid))
    bins = np.minimum(np.floor(place * grid).astype(int), grid - 1)
    crowd = int(np.bincount(np.ravel_multi_index(bins.T, grid)).max())
    edges = neighbor_list(positions, cell, spec.pbc, spec.radius)
    degree = int(np.bincount(edges.centers, minlength=1).max())
    vectors = positions[edges.neighbors] + edges.shifts @ cell - positions[edges.centers]
    # A shell at the cutoff counts, whether rounding puts its distance below or above the cutoff.
    squares = np.sum(vectors**2, axis=1)
    count = lambda c: np.bincount(edges.centers[squares < (c * (1 + 2 * MARGIN)) ** 2], minlength=1)
    inside = int(count(spec.cutoff).sum())
    width = _more(degree, spec.slack)
    if not any(spec.pbc):
        width = min(width, max(1, n - 1))
    if n * width >= 2**31:
        raise ValueError(f"{n} atoms x {width} slots exceed what 32-bit indices can count; split the system")
    occupancy = min(n, _more(crowd, spec.slack))
    # Sums over all atoms fluctuate less than the degree of one.
    enough = lambda inside, width: min(n * width, math.ceil(inside * (1 + (spec.slack - 1) / 3) / FULL) + 4 * width)
    near = [(s.cutoff, min(width, _more(int(count(s.cutoff + spec.skin).max()), spec.slack))) for s in spec.shells]
    shells = tuple(Shell(c, slots, enough(int(count(c).sum()), slots)) for c, slots in near)
    pairs = enough(inside, width)
    (a, b, c), (i, j, k) = grid.tolist(), reach.tolist()
    waves = None if spec.longest_wave is None else waves_of(positions, cell, spec.pbc, spec.longest_wave)
    planned = dataclasses.replace(spec, slots=width, shells=shells, occupancy=occupancy, pair_capacity=pairs)
    return dataclasses.replace(planned, grid=(a, b, c), reach=(i, j, k), waves=waves)


def _more(count: int, factor: float) -> int:
    """Return ``count`` times ``factor``, at least ``count + 2``."""
    return max(math.ceil(count * factor), count + 2)


def _holds(spec: ListSpec, cell: np.ndarray) -> bool:
    """Return whether the planned reach suffices for this cell."""
    covered = heights(complete_cell(cell, spec.pbc)) * spec.reach > (1 + 2 * MARGIN) * spec.radius
    return bool(np.all(covered[list(spec.pbc)]))
