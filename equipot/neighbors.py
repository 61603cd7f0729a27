"""Neighbour lists: on the host through vesin; on the device our own (``device_list``), planned here."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from equipot.device_list import FULL, MARGIN, DeviceList, ListSpec, allocate, complete_cell, is_stale, to_graph, update

__all__ = [
    "DeviceList", "Edges", "ListSpec", "Slots", "allocate", "complete_cell", "grow", "is_stale", "more_pairs",
    "neighbor_list", "plan", "slots", "to_graph", "update",
]  # fmt: skip

FLATTEST = 1.0e-3
"""Smallest height of a cell, in cutoffs, along a direction that repeats: below it the cell counts as having no volume."""
VESIN_CELLS = 5.0e4
"""Grid cells of cutoff size up to which vesin is safe whatever the shape of the cell."""
ROOM = 0.95
"""A plan holds until the cell is this much flatter than it was."""


class Edges(NamedTuple):
    """Directed pairs within the cutoff, sorted by centre, neighbour and shift; both directions of every pair are present."""

    centers: np.ndarray
    """(edges,) gathering atom."""
    neighbors: np.ndarray
    """(edges,) its neighbour."""
    shifts: np.ndarray
    """(edges, 3) lattice image of the neighbour, in counts of cell vectors."""


class Slots(NamedTuple):
    """The same pairs as rows of slots, one row an atom (see ``graph.Graph``)."""

    neighbors: np.ndarray
    shifts: np.ndarray
    reverse: np.ndarray
    mask: np.ndarray


def neighbor_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    """Every pair closer than ``cutoff`` (Å), all periodic images included, for atoms inside or outside of the cell.

    Rows of ``cell`` that do not repeat are ignored. Two atoms at the same place are a pair like any other.

    Raises:
        ValueError: a cutoff that is not positive, a coordinate that is not finite, or a cell without volume.
    """
    positions, cell, pbc = _checked(positions, cell, pbc, cutoff)
    n = len(positions)
    if not n:
        return Edges(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))
    # Where the system is open, a row long enough to keep images apart takes the place of whatever the cell says.
    full = complete_cell(cell, pbc)
    fraction = positions @ np.linalg.inv(full)
    extent = np.ptp(fraction, axis=0) + 2 * cutoff
    full = np.where(np.array(pbc)[:, None], full, full * extent[:, None])
    offset = np.where(pbc, np.floor(fraction), 0)
    i, j, shifts = _search(positions - offset @ full, full, cutoff)
    offset = offset.astype(np.int64)
    edges = Edges(i.astype(np.int32), j.astype(np.int32), shifts + offset[i] - offset[j])
    order = np.argsort(_key(edges, n))
    return Edges(edges.centers[order], edges.neighbors[order], edges.shifts[order].astype(np.int32))


def _search(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unsorted pairs of a system that repeats in all directions."""
    cells = np.maximum(1, _heights(cell) / cutoff)
    excess = np.cbrt(np.prod(cells) / VESIN_CELLS)
    if excess > 1 and np.min(cells) < 1.5 * excess:
        # vesin 0.6 dies of a division by zero here: it shortens its grid alike in all directions, to nothing in the thin one.
        from ase.neighborlist import primitive_neighbor_list

        return primitive_neighbor_list("ijS", [True] * 3, cell, positions, float(cutoff))
    import vesin

    return vesin.NeighborList(cutoff=cutoff, full_list=True).compute(
        points=positions, box=cell, periodic=True, quantities="ijS"
    )


def slots(edges: Edges, num_atoms: int, num_slots: int | None = None) -> Slots:
    """Rows of slots from directed pairs; the number of slots defaults to the largest degree (at least one).

    Raises:
        ValueError: an atom with more neighbours than slots, or a pair without its reverse.
    """
    degree = np.bincount(edges.centers, minlength=num_atoms)
    width = max(1, int(degree.max(initial=0))) if num_slots is None else num_slots
    if degree.max(initial=0) > width:
        raise ValueError(f"an atom has {degree.max()} neighbours, but there are only {width} slots; raise the number of slots")
    start = np.concatenate([[0], np.cumsum(degree)[:-1]]).astype(np.int64)
    slot = np.arange(len(edges.centers)) - start[edges.centers]
    flat = edges.centers.astype(np.int64) * width + slot
    neighbors = np.repeat(np.arange(num_atoms, dtype=np.int32)[:, None], width, axis=1)
    shifts = np.zeros((num_atoms, width, 3), np.int32)
    reverse = np.arange(num_atoms * width, dtype=np.int32).reshape(num_atoms, width)
    mask = np.zeros((num_atoms, width), bool)
    neighbors.flat[flat] = edges.neighbors
    shifts.reshape(-1, 3)[flat] = edges.shifts
    mask.flat[flat] = True
    # Sorting the pairs as seen from the other side puts the reverse of the k-th pair at place k.
    here = _key(edges, num_atoms)
    there = _key(Edges(edges.neighbors, edges.centers, -edges.shifts), num_atoms)
    forward, other = np.argsort(here), np.argsort(there)
    if not np.array_equal(here[forward], there[other]):
        raise ValueError("a pair of the neighbour list lacks its reverse; give both directions of every pair")
    reverse.flat[flat[other]] = flat[forward]
    return Slots(neighbors, shifts, reverse, mask)


def plan(positions: Any, cell: Any, pbc: Any, cutoff: float, skin: float = 0.5, slack: float = 1.25) -> ListSpec:
    """Capacities of a device list from what this geometry needs, times ``slack``.

    Raises:
        ValueError: as ``neighbor_list``, or no atoms, a negative skin, a slack below one, or more slots than int32 can count.
    """
    _check_cutoff(cutoff)
    if not (skin >= 0 and math.isfinite(skin)):
        raise ValueError(f"the skin is {skin} Å; give a number >= 0")
    if not slack >= 1:
        raise ValueError(f"the slack is {slack}; give a factor >= 1")
    positions, cell, pbc = _checked(positions, cell, pbc, cutoff + skin)
    if not len(positions):
        raise ValueError("a neighbour list needs at least one atom")
    return _plan(positions, cell, ListSpec(float(cutoff), float(skin), pbc, 1, (1, 1, 1), (0, 0, 0), 1, float(slack)), ROOM)


def grow(spec: ListSpec, positions: Any, cell: Any) -> ListSpec:
    """A larger spec after an overflow, from the geometry at which it happened or a state shortly before.

    No capacity shrinks, and where this geometry alone would not ask for more, all of them are raised by ``spec.slack`` or 10 %.

    Raises:
        ValueError: as ``plan``; so coordinates that are not finite, which set the overflow flag too, end here.
    """
    positions, cell, _ = _checked(positions, cell, spec.pbc, spec.radius)
    wanted = _plan(positions, cell, spec, ROOM)
    enough = spec.pairs is None or wanted.pairs <= spec.pairs
    if wanted.slots <= spec.slots and wanted.occupancy <= spec.occupancy and enough and _holds(spec, cell):
        factor = max(spec.slack, 1.1)
        wanted = _plan(positions, cell, spec, ROOM / factor)
        pairs = None if spec.pairs is None else _more(spec.pairs, factor)
        spec = dataclasses.replace(
            spec, slots=_more(spec.slots, factor), occupancy=_more(spec.occupancy, factor), pairs=pairs
        )
    slots = max(spec.slots, wanted.slots)
    pairs = None if spec.pairs is None else min(len(positions) * slots, max(spec.pairs, wanted.pairs))
    return dataclasses.replace(wanted, slots=slots, occupancy=max(spec.occupancy, wanted.occupancy), pairs=pairs)


def more_pairs(spec: ListSpec, num_atoms: int) -> ListSpec | None:
    """Room for twice as many pairs within the cutoff; None where there is room for all that fit into the slots already."""
    most = num_atoms * spec.slots
    if spec.pairs is None or spec.pairs >= most:
        return None
    return dataclasses.replace(spec, pairs=min(most, 2 * spec.pairs))


def _plan(positions: np.ndarray, cell: np.ndarray, spec: ListSpec, room: float) -> ListSpec:
    n = len(positions)
    full = complete_cell(cell, spec.pbc)
    height = _heights(full)
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
    # A shell at the cutoff counts, on whichever side of it rounding puts it.
    inside = int(np.sum(np.sum(vectors**2, axis=1) < (spec.cutoff * (1 + 2 * MARGIN)) ** 2))
    width = _more(degree, spec.slack)
    if not any(spec.pbc):
        width = min(width, max(1, n - 1))
    if n * width >= 2**31:
        raise ValueError(f"{n} atoms x {width} slots exceed what 32-bit indices can count; split the system")
    occupancy = min(n, _more(crowd, spec.slack))
    # Sums over all atoms fluctuate less than the degree of one.
    pairs = min(n * width, math.ceil(inside * (1 + (spec.slack - 1) / 3) / FULL) + 4 * width)
    return dataclasses.replace(
        spec, slots=width, grid=tuple(map(int, grid)), reach=tuple(map(int, reach)), occupancy=occupancy, pairs=pairs
    )


def _more(count: int, factor: float) -> int:
    """``count`` times ``factor``, at least two more."""
    return max(math.ceil(count * factor), count + 2)


def _holds(spec: ListSpec, cell: np.ndarray) -> bool:
    """Whether the planned reach suffices for this cell."""
    covered = _heights(complete_cell(cell, spec.pbc)) * spec.reach > (1 + 2 * MARGIN) * spec.radius
    return bool(np.all(covered[list(spec.pbc)]))


def _heights(cell: np.ndarray) -> np.ndarray:
    """(3,) distance between the faces of a cell that each lattice vector connects, Å; zero for a cell without volume."""
    area = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return np.divide(abs(np.linalg.det(cell)), area, out=np.zeros(3), where=area > 0)


def _check_cutoff(cutoff: float) -> None:
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise ValueError(f"the cutoff is {cutoff} Å; give a positive number")


def _checked(positions: Any, cell: Any, pbc: Any, cutoff: float) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    positions = np.asarray(positions, np.float64).reshape(-1, 3)
    cell = np.asarray(cell, np.float64)
    pbc = tuple(map(bool, np.broadcast_to(np.asarray(pbc, bool), (3,))))
    _check_cutoff(cutoff)
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ValueError(f"the position of atom {bad[0]} is {positions[bad[0]]}: not finite ({len(bad)} such atoms)")
    if cell.shape != (3, 3) or not np.isfinite(cell[list(pbc)]).all():
        raise ValueError(f"the cell is {cell.tolist()}; give three finite lattice vectors")
    if not any(pbc):
        return positions, cell, pbc
    with np.errstate(invalid="ignore", divide="ignore"):
        height = np.nan_to_num(_heights(complete_cell(cell, pbc)))
    flat = [k for k in range(3) if pbc[k] and height[k] < FLATTEST * cutoff]
    if flat:
        raise ValueError(
            f"the cell {cell.tolist()} repeats along {', '.join('abc'[k] for k in range(3) if pbc[k])}, but has no volume: its "
            f"height along {'abc'[flat[0]]} is {height[flat[0]]:.2g} Å; correct the cell or switch pbc off in that direction"
        )
    return positions, cell, pbc


def _key(edges: Edges, num_atoms: int) -> np.ndarray:
    """One integer a pair that sorts by centre, neighbour and shift."""
    most = int(np.abs(edges.shifts).max(initial=0))
    if num_atoms**2 * (2 * most + 1) ** 3 >= 2**63:
        raise ValueError(f"{num_atoms} atoms, up to {most} cells apart, are too many to number; wrap the atoms into the cell")
    key = edges.centers.astype(np.int64) * num_atoms + edges.neighbors
    for k in range(3):
        key = key * (2 * most + 1) + (edges.shifts[:, k] + most)
    return key
