"""Pad structures to graphs and labels to targets: the only crossing from host to device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from equipot.arrays import AnyArray
from equipot.extent import Extent
from equipot.graph import Graph, Shell
from equipot.hessian_labels import drawn
from equipot.isolated_atoms import isolated_atom_energy
from equipot.neighbors import Slots, neighbor_list, slots
from equipot.neighbors.shells import nearest_first
from equipot.quantities import HESSIAN, LABELLED, Quantity
from equipot.structure import Structure

__all__ = ["Batch", "Shape", "Targets", "pad", "pad_targets"]


class Shape(NamedTuple):
    """Static size of a padded batch."""

    atoms: int
    slots: int
    """Neighbour slots of each atom."""
    graphs: int
    pairs: int | None = None
    """Capacity for directed pairs, see ``Graph.pair_capacity``; None for as many as there are slots."""


def find_slots(structure: Structure, cutoff: float, nearest: bool = False) -> Slots:
    """Find the neighbour slots of a structure within the cutoff (Å): as many slots as the atom with most neighbours needs.

    Args:
        structure: Structure.
        cutoff: Å.
        nearest: Whether the slots of an atom are sorted by distance, as a graph with shells needs.
    """
    found = slots(neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff), len(structure))
    return nearest_first(found, structure.positions, structure.cell) if nearest else found


def smallest_shape(found: Sequence[Slots]) -> Shape:
    """Return the smallest shape that holds structures with the given neighbour slots."""
    return Shape(sum(len(s.mask) for s in found), max((s.mask.shape[1] for s in found), default=1), len(found))


GRID_BITS = 23
"""Single precision adds and subtracts multiples of a step exactly up to 2^GRID_BITS steps."""


def on_grid(positions: np.ndarray, cell: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round positions and cell to multiples of a power of two (Å), so that single precision computes edge vectors exactly.

    Args:
        positions: (atoms, 3), Å.
        cell: (3, 3), Å.
        shifts: (..., 3) shifts of all pairs, in cell vectors.
    """
    images = np.abs(shifts).reshape(-1, 3).max(axis=0, initial=0) @ np.abs(cell)
    reach = 2 * np.abs(positions).max(initial=0) + images.max() + 1.0
    step = 2.0 ** (np.ceil(np.log2(reach)) - GRID_BITS)
    return np.round(positions / step) * step, np.round(cell / step) * step


def centred(structure: Structure) -> np.ndarray:
    """Return positions (atoms, 3), Å, relative to their mean: far from the origin float32 would resolve edges poorly.

    Those of an ion in an electric field are returned as they are, since its energy depends on the place.
    """
    anchored = not len(structure) or (structure.charge and structure.field.any())
    return structure.positions if anchored else structure.positions - structure.positions.mean(axis=0)


def geometry(structure: Structure, shifts: np.ndarray, dtype: Any) -> dict[str, np.ndarray | None]:
    """Return positions (atoms, 3) and cell (3, 3), Å, for a graph, with residuals in single precision (see ``on_grid``).

    In double precision the residuals are None.
    """
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
    extent: Extent | None = None,
    shells: tuple[Shell, ...] = (),
) -> Graph:
    """Pad several structures to one graph of numpy arrays.

    In single precision, edge vectors are rounded once, at the end; between atoms more than a million Å apart the residuals are
    rounded too. Padding atoms belong to the last graph and are masked even if that graph is not padding.

    Args:
        cutoff: Å.
        shape: size of the graph; None for the smallest.
        found: neighbour slots of each structure, if known.
        headed: whether an empty batch has heads; otherwise the structures decide.
        extent: atoms and waves for a term that needs ``space``, see ``Potential.extent``.
        shells: room for the neighbours within shorter cutoffs; ``found`` must then be sorted by distance.

    Raises:
        ValueError: the structures do not fit ``shape``, or only some of them have a head.
    """
    found = [find_slots(s, cutoff, bool(shells)) for s in structures] if found is None else found
    shape = fitting(found, shape)
    atoms, _, graphs, capacity = shape
    numbers = np.zeros(atoms, np.int32)
    positions, positions_residual = np.zeros((2, atoms, 3), dtype)
    cell, cell_residual = np.zeros((2, graphs, 3, 3), dtype)
    node_graph = np.full(atoms, graphs - 1, np.int32)
    charge, spin = np.zeros(graphs, dtype), np.zeros(graphs, dtype)
    pbc, field = np.zeros((graphs, 3), bool), np.zeros((graphs, 3), dtype)
    single, first = np.dtype(dtype) == np.float32, 0
    for k, (structure, s) in enumerate(zip(structures, found, strict=True)):
        rows = slice(first, first + len(s.mask))
        numbers[rows], node_graph[rows] = structure.numbers, k
        placed = geometry(structure, s.shifts, dtype)
        positions[rows], cell[k] = placed["positions"], placed["cell"]
        if single:
            positions_residual[rows], cell_residual[k] = placed["positions_residual"], placed["cell_residual"]
        charge[k], spin[k], pbc[k], field[k] = structure.charge, structure.spin, structure.pbc, structure.field
        first = rows.stop
    joined = joined_slots(found, shape)
    return Graph(
        positions, numbers, cell, joined.neighbors, joined.shifts, joined.reverse, joined.mask,
        node_mask=np.arange(atoms) < first, node_graph=node_graph, graph_mask=np.arange(graphs) < len(structures),
        charge=charge, spin=spin, head=_heads(structures, graphs, headed),
        positions_residual=positions_residual if single else None, cell_residual=cell_residual if single else None,
        pbc=pbc, field=field, extent=extent, shells=shells, pair_capacity=capacity,
    )  # fmt: skip


def fitting(found: Sequence[Slots], shape: Shape | None) -> Shape:
    """Return a shape that holds structures with the given neighbour slots: the given one, or the smallest for None.

    Raises:
        ValueError: the structures do not fit the given shape.
    """
    need = smallest_shape(found)
    if shape is None:
        return need
    pairs = sum(int(s.mask.sum()) for s in found) if shape.pairs is not None else 0
    if any(n > limit for n, limit in zip(need[:3], shape[:3], strict=True)) or pairs > (shape.pairs or 0):
        raise ValueError(f"a batch of {need._replace(pairs=pairs)} does not fit {shape}; choose larger buckets")
    return shape


def joined_slots(found: Sequence[Slots], shape: Shape) -> Slots:
    """Join the neighbour slots of several structures, with atoms counted through; padding slots point to their own atom."""
    atoms, width = shape.atoms, shape.slots
    neighbors = np.repeat(np.arange(atoms, dtype=np.int32)[:, None], width, axis=1)
    shifts = np.zeros((atoms, width, 3), np.int32)
    reverse = np.arange(atoms * width, dtype=np.int32).reshape(atoms, width)
    mask, first = np.zeros((atoms, width), bool), 0
    for s in found:
        n, w = s.mask.shape
        rows = slice(first, first + n)
        neighbors[rows, :w] = s.neighbors + first
        shifts[rows, :w], mask[rows, :w] = s.shifts, s.mask
        row, slot = np.divmod(s.reverse, w)
        reverse[rows, :w] = (row + first) * width + slot
        first += n
    return Slots(neighbors, shifts, reverse, mask)


def _heads(structures: Sequence[Structure], graphs: int, headed: bool) -> np.ndarray | None:
    """Pad the indices of the heads of structures to (graphs,); None where there are no heads."""
    heads = [s.head for s in structures]
    headed = any(head is not None for head in heads) if heads else headed
    if headed and None in heads:
        raise ValueError(f"{structures[heads.index(None)].name}: has no head, but others in its batch do; give it one")
    return np.array([*heads, *[0] * (graphs - len(heads))], np.int32) if headed else None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["labels", "weights", "present", "atoms", "frame", "directions"],
    meta_fields=["quantities"],
)
@dataclasses.dataclass(frozen=True)
class Targets:
    """Reference labels of a padded batch by the name of their quantity; zero for missing labels and padding."""

    quantities: tuple[Quantity, ...]
    """Quantities with labels."""
    labels: Mapping[str, Float[AnyArray, "..."]]
    """[graphs, *shape] or [atoms, *shape], in the unit of the quantity; energies less E0, which the host subtracts in double
    precision. Of a Hessian [atoms, 3], its product with ``directions``."""
    weights: Mapping[str, Float[AnyArray, " graphs"]]
    """Factor on the penalty of each graph in the loss."""
    present: Mapping[str, Bool[AnyArray, " graphs"]]
    """Whether each graph has the label."""
    atoms: Int[AnyArray, " graphs"]
    """Number of atoms of each graph; 1 for padding, to allow division."""
    frame: Int[AnyArray, " graphs"]
    """Index of each structure in its set; -1 for padding."""
    directions: Float[AnyArray, "atoms 3"] | None = None
    """Direction that the Hessian of each graph is multiplied by, of length sqrt(3 atoms): see ``hessian_labels.drawn``. Zero
    for a graph without a label of it, None where no graph of the set has one."""


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
    key: tuple[int, ...] = (),
) -> Targets:
    """Pad the labels of several structures, in the layout of ``pad``.

    Args:
        atomic_energies: E0, eV by Z.
        frames: index of each structure in its set.
        key: numbers, such as seed and epoch, that together with the index of a frame decide which random direction its Hessian
            is multiplied by, whatever batch the frame is in.

    Raises:
        ValueError: an element without E0.
    """
    labels = {q.name: np.zeros((shape.atoms if q.of_atoms else shape.graphs, *q.target_shape), dtype) for q in quantities}
    directions = np.zeros((shape.atoms, 3), dtype) if HESSIAN in quantities else None
    weights = {q.name: np.zeros(shape.graphs, dtype) for q in quantities}
    present = {q.name: np.zeros(shape.graphs, bool) for q in quantities}
    size, frame = np.ones(shape.graphs, np.int32), np.full(shape.graphs, -1, np.int32)
    first = 0
    for k, s in enumerate(structures):
        own = slice(first, first + len(s))
        first += len(s)
        size[k], frame[k] = len(s), frames[k]
        for q in quantities:
            value = s.labels.get(q)
            present[q.name][k], weights[q.name][k] = value is not None, s.weight_of(q)
            if value is not None:
                if q.from_isolated_atoms:
                    e0 = isolated_atom_energy(s.numbers, atomic_energies, s.name)
                    value = value - (e0 if q.per == "atom" else e0.sum())
                if q.per == "pair" and directions is not None:
                    directions[own], value = drawn(value, np.random.default_rng([*key, frames[k]]))
                labels[q.name][own if q.of_atoms else k] = value
    return Targets(quantities, labels, weights, present, size, frame, directions)
