"""From structures to padded graphs: the one crossing from host to device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph
from equipot.isolated_atoms import isolated_atom_energy
from equipot.neighbors import Slots, neighbor_list, slots
from equipot.quantities import LABELLED, Quantity
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


GRID_BITS = 23
"""Multiples of one step that single precision can add and subtract without rounding are below two to this power."""


def on_grid(positions: np.ndarray, cell: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell rounded to multiples of a power of two (Å) that keep every difference exact in single precision.

    ``shifts`` are those of all pairs, (..., 3).
    """
    images = np.abs(shifts).reshape(-1, 3).max(axis=0, initial=0) @ np.abs(cell)
    reach = 2 * np.abs(positions).max(initial=0) + images.max() + 1.0
    step = 2.0 ** (np.ceil(np.log2(reach)) - GRID_BITS)
    return np.round(positions / step) * step, np.round(cell / step) * step


def centred(structure: Structure) -> np.ndarray:
    """(atoms, 3) positions in Å about their mean: far from the origin float32 would resolve edges poorly."""
    return structure.positions - structure.positions.mean(axis=0) if len(structure) else structure.positions


def geometry(structure: Structure, shifts: np.ndarray, dtype: Any) -> dict[str, np.ndarray | None]:
    """Positions (atoms, 3) and cell (3, 3) of a structure as a graph holds them, with their residuals; see ``on_grid``."""
    # A row that does not repeat is kept where another does: it gives a slab its volume.
    exact = centred(structure), structure.cell if structure.pbc.any() else np.zeros((3, 3))
    if np.dtype(dtype) != np.float32:
        placed = {"positions": exact[0].astype(dtype), "cell": exact[1].astype(dtype)}
        return placed | {"positions_residual": None, "cell_residual": None}
    held = [x.astype(dtype) for x in on_grid(*exact, shifts)]
    residual = [(x - y).astype(dtype) for x, y in zip(exact, held, strict=True)]
    return {"positions": held[0], "cell": held[1], "positions_residual": residual[0], "cell_residual": residual[1]}


def pad(
    structures: Sequence[Structure],
    cutoff: float,
    shape: Shape | None = None,
    dtype: Any = np.float32,
    found: Sequence[Slots] | None = None,
    headed: bool = False,
) -> Graph:
    """One padded graph (numpy arrays) of several structures. In single precision, edge vectors are exact but for one rounding
    (and, where atoms are more than a million Å apart, for that of what the grid leaves).

    ``found`` are their neighbour slots where they are known already. Padding atoms belong to the last graph; where there are
    padding atoms but no padding graph they are masked all the same. ``headed`` says of no structures whether they have heads.

    Raises:
        ValueError: the structures do not fit ``shape``, or only some of them have a head.
    """
    found = [find_slots(s, cutoff) for s in structures] if found is None else found
    need = smallest_shape(found)
    shape = need if shape is None else shape
    if any(n > limit for n, limit in zip(need, shape, strict=True)):
        raise ValueError(f"a batch of {need} does not fit {shape}; choose larger buckets")
    atoms, width, graphs = shape
    numbers = np.zeros(atoms, np.int32)
    positions, positions_residual = np.zeros((2, atoms, 3), dtype)
    cell, cell_residual = np.zeros((2, graphs, 3, 3), dtype)
    neighbors = np.repeat(np.arange(atoms, dtype=np.int32)[:, None], width, axis=1)
    shifts = np.zeros((atoms, width, 3), np.int32)
    reverse = np.arange(atoms * width, dtype=np.int32).reshape(atoms, width)
    mask = np.zeros((atoms, width), bool)
    node_graph = np.full(atoms, graphs - 1, np.int32)
    charge, spin = np.zeros(graphs, dtype), np.zeros(graphs, dtype)
    heads = [s.head for s in structures]
    headed = any(head is not None for head in heads) if heads else headed
    if headed and None in heads:
        raise ValueError(f"{structures[heads.index(None)].name}: has no head, but others in its batch do; give it one")
    head = np.array([*heads, *[0] * (graphs - len(heads))], np.int32) if headed else None
    single, first = np.dtype(dtype) == np.float32, 0
    for k, (structure, s) in enumerate(zip(structures, found, strict=True)):
        n, w = s.mask.shape
        rows = slice(first, first + n)
        numbers[rows], node_graph[rows] = structure.numbers, k
        placed = geometry(structure, s.shifts, dtype)
        positions[rows], cell[k] = placed["positions"], placed["cell"]
        if single:
            positions_residual[rows], cell_residual[k] = placed["positions_residual"], placed["cell_residual"]
        neighbors[rows, :w] = s.neighbors + first
        shifts[rows, :w], mask[rows, :w] = s.shifts, s.mask
        row, slot = np.divmod(s.reverse, w)
        reverse[rows, :w] = (row + first) * width + slot
        charge[k], spin[k] = structure.charge, structure.spin
        first += n
    return Graph(
        positions, numbers, cell, neighbors, shifts, reverse, mask,
        node_mask=np.arange(atoms) < first, node_graph=node_graph, graph_mask=np.arange(graphs) < len(structures),
        charge=charge, spin=spin, head=head,
        positions_residual=positions_residual if single else None, cell_residual=cell_residual if single else None,
    )  # fmt: skip


@partial(
    jax.tree_util.register_dataclass, data_fields=["labels", "weights", "present", "atoms", "frame"], meta_fields=["quantities"]
)
@dataclasses.dataclass(frozen=True)
class Targets:
    """Reference labels of a padded batch, by the name of their quantity; zero where a label is missing or a row is padding."""

    quantities: tuple[Quantity, ...]
    """What there are labels of."""
    labels: dict[str, Float[Array, "..."]]
    """[graphs, *shape] or [atoms, *shape], in the unit of the quantity; an energy less that of the isolated atoms, which is
    subtracted in double precision on the host."""
    weights: dict[str, Float[Array, " graphs"]]
    """Factor of each graph on the term of the loss."""
    present: dict[str, Bool[Array, " graphs"]]
    """Whether the graph has the label."""
    atoms: Int[Array, " graphs"]
    """Number of atoms; 1 for padding, so that it may divide."""
    frame: Int[Array, " graphs"]
    """Place of the structure in its set; -1 for padding."""


class Batch(NamedTuple):
    """A padded graph with its reference labels."""

    graph: Graph
    targets: Targets


def pad_targets(
    structures: Sequence[Structure],
    shape: Shape,
    atomic_energies: Mapping[int, float],
    frames: Sequence[int],
    dtype: Any = np.float32,
    quantities: tuple[Quantity, ...] = LABELLED,
) -> Targets:
    """Labels of several structures, laid out as ``pad`` lays out their atoms.

    ``frames`` are the places of the structures in their set; ``atomic_energies`` E0 of the isolated atoms by Z (eV).

    Raises:
        ValueError: an element without an isolated-atom energy.
    """
    atoms, _, graphs = shape
    rows = {"atom": atoms, "graph": graphs}
    labels = {q.name: np.zeros((rows[q.per], *q.shape), dtype) for q in quantities}
    weights = {q.name: np.zeros(graphs, dtype) for q in quantities}
    present = {q.name: np.zeros(graphs, bool) for q in quantities}
    size, frame = np.ones(graphs, np.int32), np.full(graphs, -1, np.int32)
    first = 0
    for k, s in enumerate(structures):
        own = {"atom": slice(first, first + len(s)), "graph": k}
        first += len(s)
        size[k], frame[k] = len(s), frames[k]
        for q in quantities:
            value = s.labels.get(q)
            present[q.name][k], weights[q.name][k] = value is not None, s.weight_of(q)
            if value is not None:
                if q.from_isolated_atoms:
                    e0 = isolated_atom_energy(s.numbers, atomic_energies, s.name)
                    value = value - (e0 if q.per == "atom" else e0.sum())
                labels[q.name][own[q.per]] = value
    return Targets(quantities, labels, weights, present, size, frame)
