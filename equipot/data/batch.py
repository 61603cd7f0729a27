"""From structures to padded graphs: the one crossing from host to device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from equipot.graph import Graph
from equipot.neighbors import Slots, neighbor_list, slots
from equipot.structure import Structure


class Shape(NamedTuple):
    """Static size of a padded batch."""

    atoms: int
    slots: int
    graphs: int


def find_slots(structure: Structure, cutoff: float) -> Slots:
    """Neighbour slots of one structure, as many as its best-connected atom needs."""
    return slots(neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff), len(structure))


def smallest_shape(found: Sequence[Slots]) -> Shape:
    """The shape that these structures fill without padding, but for unequal degrees."""
    return Shape(sum(len(s.mask) for s in found), max((s.mask.shape[1] for s in found), default=1), len(found))


def pad(
    structures: Sequence[Structure],
    cutoff: float,
    shape: Shape | None = None,
    dtype: Any = np.float32,
    found: Sequence[Slots] | None = None,
) -> Graph:
    """One padded graph (numpy arrays) of several structures.

    ``found`` are their neighbour slots where they are known already. Padding atoms belong to the last graph; where there are
    padding atoms but no padding graph they are masked all the same.

    Raises:
        ValueError: the structures do not fit ``shape``.
    """
    found = [find_slots(s, cutoff) for s in structures] if found is None else found
    need = smallest_shape(found)
    shape = need if shape is None else shape
    if any(n > limit for n, limit in zip(need, shape, strict=True)):
        raise ValueError(f"a batch of {need} does not fit {shape}; choose larger buckets")
    atoms, width, graphs = shape
    numbers = np.zeros(atoms, np.int32)
    positions = np.zeros((atoms, 3), dtype)
    cell = np.zeros((graphs, 3, 3), dtype)
    neighbors = np.repeat(np.arange(atoms, dtype=np.int32)[:, None], width, axis=1)
    shifts = np.zeros((atoms, width, 3), np.int32)
    reverse = np.arange(atoms * width, dtype=np.int32).reshape(atoms, width)
    mask = np.zeros((atoms, width), bool)
    node_graph = np.full(atoms, graphs - 1, np.int32)
    charge, spin = np.zeros(graphs, dtype), np.zeros(graphs, dtype)
    first = 0
    for k, (structure, s) in enumerate(zip(structures, found, strict=True)):
        n, w = s.mask.shape
        rows = slice(first, first + n)
        numbers[rows], positions[rows], node_graph[rows] = structure.numbers, structure.positions, k
        cell[k] = np.where(structure.pbc[:, None], structure.cell, complete(structure))
        neighbors[rows, :w] = s.neighbors + first
        shifts[rows, :w], mask[rows, :w] = s.shifts, s.mask
        row, slot = np.divmod(s.reverse, w)
        reverse[rows, :w] = (row + first) * width + slot
        charge[k], spin[k] = structure.charge, structure.spin
        first += n
    return Graph(
        positions, numbers, cell, neighbors, shifts, reverse, mask,
        node_mask=np.arange(atoms) < first, node_graph=node_graph, graph_mask=np.arange(graphs) < len(structures),
        charge=charge, spin=spin,
    )  # fmt: skip


def complete(structure: Structure) -> np.ndarray:
    """Rows of the cell that do not repeat: kept where any direction repeats (they give a slab its volume), else zero."""
    return structure.cell if structure.pbc.any() else np.zeros((3, 3))
