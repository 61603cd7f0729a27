"""Neighbour lists: on the host through vesin, on the device one of our own that jits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Edges(NamedTuple):
    """Directed pairs within the cutoff, sorted by ``centers``; both directions of every pair are present."""

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
    """Every pair closer than ``cutoff`` (Å), all periodic images included."""
    import vesin

    i, j, shifts = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(
        points=positions, box=cell, periodic=pbc, quantities="ijS"
    )
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, i))
    return Edges(i[order].astype(np.int32), j[order].astype(np.int32), shifts[order].astype(np.int32))


def slots(edges: Edges, num_atoms: int, num_slots: int | None = None) -> Slots:
    """Rows of slots from directed pairs; the number of slots defaults to the largest degree (at least one)."""
    degree = np.bincount(edges.centers, minlength=num_atoms)
    width = max(1, int(degree.max(initial=0))) if num_slots is None else num_slots
    if degree.max(initial=0) > width:
        raise ValueError(f"an atom has {degree.max()} neighbours, but there are only {width} slots; raise the number of slots")
    start = np.concatenate([[0], np.cumsum(degree)[:-1]])
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
    s = edges.shifts
    other = np.lexsort((-s[:, 2], -s[:, 1], -s[:, 0], edges.centers, edges.neighbors))
    forward = np.lexsort((s[:, 2], s[:, 1], s[:, 0], edges.neighbors, edges.centers))
    reverse.flat[flat[other]] = flat[forward]
    return Slots(neighbors, shifts, reverse, mask)
