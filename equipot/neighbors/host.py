"""Neighbour lists on the host, in numpy: every pair of a structure through vesin, and the pairs as rows of slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot import memory
from equipot.neighbors.cells import checked_geometry, complete_cell, heights

PAIR_BYTES = 100
"""Memory that the search takes for each directed pair, in bytes: indices, shifts, sorting keys and copies of these."""
MANY_PAIRS = 10**7
"""Number of pairs from which on the free memory is checked before the search."""
VESIN_CELLS = 5.0e4
"""Number of grid cells of cutoff size up to which vesin is safe whatever the shape of the cell."""


class Edges(NamedTuple):
    """Directed pairs within the cutoff, sorted by centre, neighbour and shift; both directions of every pair are present."""

    centers: np.ndarray
    """(edges,) gathering atom of each pair."""
    neighbors: np.ndarray
    """(edges,) neighbour of each pair."""
    shifts: np.ndarray
    """(edges, 3) lattice image of the neighbour, in counts of cell vectors."""


class Slots(NamedTuple):
    """Directed pairs as rows of slots, one row for each atom, with the conventions of ``graph.Graph``."""

    neighbors: np.ndarray
    """(atoms, slots) index of the atom in each slot; the own atom in unused slots."""
    shifts: np.ndarray
    """(atoms, slots, 3) lattice image of the neighbour, in counts of cell vectors."""
    reverse: np.ndarray
    """(atoms, slots) flat slot of the reverse pair, from neighbour to atom; the own slot in unused slots."""
    mask: np.ndarray
    """(atoms, slots) whether a slot holds a neighbour."""


def neighbor_list(positions: np.ndarray, cell: np.ndarray, pbc: bool | Sequence[bool] | np.ndarray, cutoff: float) -> Edges:
    """Find all directed pairs closer than the cutoff, periodic images included, for atoms inside or outside of the cell.

    Two atoms at one position are a pair too.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, Å; rows that are not periodic are ignored.
        pbc: One bool, or one for each row.
        cutoff: Cutoff radius (Å).

    Raises:
        ValueError: a cutoff that is not positive, a coordinate that is not finite, a cell without volume, or more pairs than
            memory has room for.
    """
    positions, cell, repeats = checked_geometry(positions, cell, pbc, cutoff)
    n = len(positions)
    if all(repeats):
        _check_room(n, float(abs(np.linalg.det(cell))), cutoff)
    if not n:
        return Edges(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))
    # Where the system is open, a row long enough to keep images apart replaces the row of the cell.
    full = complete_cell(cell, repeats)
    fraction = positions @ np.linalg.inv(full)
    extent = np.ptp(fraction, axis=0) + 2 * cutoff
    full = np.where(np.array(repeats)[:, None], full, full * extent[:, None])
    offset = np.where(pbc, np.floor(fraction), 0)
    i, j, shifts = _search(positions - offset @ full, full, cutoff)
    offset = offset.astype(np.int64)
    edges = Edges(i.astype(np.int32), j.astype(np.int32), shifts + offset[i] - offset[j])
    order = np.argsort(_key(edges, n))
    return Edges(edges.centers[order], edges.neighbors[order], edges.shifts[order].astype(np.int32))


def _check_room(atoms: int, volume: float, cutoff: float) -> None:
    """Check that the pairs of a crystal, as many as its density suggests, fit into the free memory.

    Args:
        atoms: Number of atoms.
        volume: Volume of the cell (Å^3).
        cutoff: Cutoff radius (Å).

    Raises:
        ValueError: the pairs do not fit.
    """
    neighbours = atoms / volume * 4 / 3 * np.pi * cutoff**3
    if atoms * neighbours < MANY_PAIRS:
        return
    needed, available = PAIR_BYTES * atoms * neighbours, memory.available_on_host()
    if available is not None and needed > available:
        fitting = cutoff * np.cbrt(available / needed)
        raise ValueError(
            f"cutoff {cutoff:g} Å: {atoms} atoms with about {neighbours:.0f} neighbours each need {needed / 2**30:.1f} GiB "
            f"or so for their list, but {available / 2**30:.1f} GiB are free; a cutoff below {fitting:.1f} Å would fit"
        )


def _search(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of a system that is periodic in all directions: unsorted centres, neighbours and shifts."""
    cells = np.maximum(1, heights(cell) / cutoff)
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
    """Arrange directed pairs as rows of slots.

    Args:
        edges: Both directions of every pair.
        num_atoms: Number of rows.
        num_slots: Slots of each atom; the largest number of neighbours, at least one, where None.

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


def _key(edges: Edges, num_atoms: int) -> np.ndarray:
    """Compute an integer for each pair whose order is the order by centre, neighbour and shift.

    Raises:
        ValueError: there are too many combinations for 64 bits.
    """
    most = int(np.abs(edges.shifts).max(initial=0))
    if num_atoms**2 * (2 * most + 1) ** 3 >= 2**63:
        raise ValueError(f"{num_atoms} atoms, up to {most} cells apart, are too many to number; wrap the atoms into the cell")
    key = edges.centers.astype(np.int64) * num_atoms + edges.neighbors
    for k in range(3):
        key = key * (2 * most + 1) + (edges.shifts[:, k] + most)
    return key
