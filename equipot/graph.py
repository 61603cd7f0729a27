"""The padded neighbour graph that every model sees, and every convention of the package.

Conventions
    vector      r[neighbor] + shift . cell - r[atom]: from the gathering atom to its neighbour, in Å.
    cell        rows are lattice vectors; a zero row where the system is open. Left-handed cells are allowed: V = |det cell|.
    shift       counts lattice vectors, not Å, so that a strain of the cell reaches every vector.
    stress      (1/V) dE/d(strain), symmetric, eV/Å^3, positive under tension (ASE's sign).
    virial      dE/d(strain) in eV, the stress times V.
    forces      -dE/dr, eV/Å.
    energy      on the device without E0 of the isolated atoms, which the host adds in double precision.
    charge      total charge of a graph, e; spin is the number of unpaired electrons.
    field       external homogeneous electric field, V/Å; it acts on a charge q with the force q times the field.

Padding (``data.batch.pad``)
    slot        points to its own atom, shift 0, ``reverse`` to itself; masked by ``slot_mask``; has the vector
                ``PADDING_VECTOR``, beyond any cutoff.
    atom        Z = 0, at the origin, in the last graph (also where that one is a system); masked by ``node_mask``.
    graph       cell, charge, spin, field and head 0; masked by ``graph_mask``. Its stress is zero, that of an open system NaN.
    label       0, with weight 0 (``data.batch.Targets``).
    pair        index -1, vector ``PADDING_VECTOR`` (``neighbors.packed.Pairs``).

Two linear maps carry everything between atoms and slots, each the transpose of the other: ``gather`` (features of an atom into
the slots that point to it) and ``scatter`` (values of slots, summed onto the atoms that they point to). Where the list is
symmetric, ``reverse`` makes ``scatter`` a sum of gathered rows as well, and both are one primitive
(``kernels.rows.sum_rows``): fast on CPUs, deterministic on GPUs, and differentiable to any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.arrays import AnyArray
from equipot.extent import Extent
from equipot.kernels.rows import add_rows, sum_rows

__all__ = [
    "Graph", "Shell", "choose_head", "complete_cell", "computed_once", "edge_vectors", "gather", "scatter", "sum_graphs",
    "sum_segments", "to_atoms", "volume",
]  # fmt: skip

PADDING_VECTOR = (1.0e3, 0.0, 0.0)
"""Vector of an unused slot (Å)."""


class Shell(NamedTuple):
    """Room for the neighbours within a cutoff that is shorter than that of the list, see ``neighbors.shells``."""

    cutoff: float
    """Å."""
    slots: int
    """Number of first slots of each atom that hold all neighbours within the cutoff."""
    pairs: int | None = None
    """Capacity for directed pairs within the cutoff; None for as many as there are slots."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "positions", "numbers", "cell", "neighbors", "shifts", "reverse", "slot_mask", "node_mask", "node_graph",
        "graph_mask", "charge", "spin", "head", "positions_residual", "cell_residual", "pbc", "field",
    ],
    meta_fields=["shells", "pair_capacity", "extent"],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Graph:
    """A padded batch of systems with a fixed number of neighbour slots for each atom.

    Arrays are NumPy's on the host and JAX's on the device; the fields are the leaves of a pytree, ``shells``, ``pair_capacity``
    and ``extent`` are static.
    """

    positions: Float[AnyArray, "atoms 3"] | None
    """Positions (Å). None inside a term that does not need ``space``."""
    numbers: Int[AnyArray, " atoms"]
    """Atomic numbers Z; 0 for padding."""
    cell: Float[AnyArray, "graphs 3 3"] | None
    """Cells (Å), rows are lattice vectors; zeros where open. None inside a term that does not need ``space``."""
    neighbors: Int[AnyArray, "atoms slots"]
    """Index of the atom in each slot."""
    shifts: Int[AnyArray, "atoms slots 3"]
    """Lattice image of each neighbour, in counts of cell vectors."""
    reverse: Int[AnyArray, "atoms slots"] | None
    """Flat slot (atom * slots + slot) of the reverse pair, from neighbour to atom; None if the list is not symmetric."""
    slot_mask: Bool[AnyArray, "atoms slots"]
    """Whether a slot holds a neighbour."""
    node_mask: Bool[AnyArray, " atoms"]
    """Whether an atom is real, not padding."""
    node_graph: Int[AnyArray, " atoms"]
    """Index of the graph that each atom belongs to, ascending."""
    graph_mask: Bool[AnyArray, " graphs"]
    """Whether a graph is real, not padding."""
    charge: Float[AnyArray, " graphs"] | None
    """Total charge (e). None inside a term that does not need ``charge``."""
    spin: Float[AnyArray, " graphs"] | None
    """Number of unpaired electrons. None inside a term that does not need ``spin``."""
    head: Int[AnyArray, " graphs"] | None = None
    """Index of the potential's head (level of theory) that each graph is evaluated with; None for a potential without heads."""
    positions_residual: Float[AnyArray, "atoms 3"] | None = None
    """Low-order part of the positions (Å), used in single precision only. positions + positions_residual has more digits than
    float32 holds; ``positions`` are multiples of one step, so that their differences are exact in float32."""
    cell_residual: Float[AnyArray, "graphs 3 3"] | None = None
    """Low-order part of the cell (Å); ``cell`` then holds multiples of the step of ``positions``."""
    shells: tuple[Shell, ...] = ()
    """Room for the neighbours within shorter cutoffs, which then stand in the first slots."""
    pair_capacity: int | None = None
    """Capacity for directed pairs within the cutoff; None for as many as there are slots. More pairs make all energies NaN."""
    pbc: Bool[AnyArray, "graphs 3"] | None = None
    """Whether each system repeats along each row of its cell; None for wherever that row is not zero."""
    field: Float[AnyArray, "graphs 3"] | None = None
    """External electric field (V/Å). None for none, and inside a term that does not need ``field``."""
    extent: Extent | None = None
    """Atoms and waves of the systems, for terms that need ``space``; None for a graph of which no term knows more."""

    @property
    def num_atoms(self) -> int:
        """Number of atoms, padding included."""
        return self.numbers.shape[0]

    @property
    def dtype(self) -> Any:
        """Precision of the positions."""
        assert self.positions is not None, "hidden from a term that does not need space"
        return self.positions.dtype

    @property
    def num_slots(self) -> int:
        """Number of neighbour slots of each atom."""
        return self.neighbors.shape[1]

    @property
    def num_graphs(self) -> int:
        """Number of graphs, padding included."""
        return self.graph_mask.shape[0]

    def replace(self, **changes: Any) -> Graph:
        """Replace fields. New positions without a ``positions_residual`` set the residual to None; so does a new cell."""
        residuals = {"positions": "positions_residual", "cell": "cell_residual"}
        dropped = {residual: None for name, residual in residuals.items() if name in changes}
        return dataclasses.replace(self, **dropped | changes)

    def astype(self, dtype: Any) -> Graph:
        """Convert the real-valued fields to ``dtype``."""
        real = ("positions", "cell", "charge", "spin", "field", "positions_residual", "cell_residual")
        present = {name: getattr(self, name) for name in real}
        return self.replace(**{name: value.astype(dtype) for name, value in present.items() if value is not None})


HEADS = "heads"
"""Name of the scope of the variables that differ between heads: each leaf has a leading axis of heads."""


def choose_head(heads: Sequence[str]) -> str:
    """Return the error message for a potential that has several heads when none was chosen."""
    return (
        f"the potential has several heads, {', '.join(heads)}: choose one, with potential.head({heads[0]!r}), or with "
        f"FILE@{heads[0]} wherever a potential is named"
    )


def edge_vectors(graph: Graph) -> Float[Array, "atoms slots 3"]:
    """Compute the vector from each atom to the neighbour in each slot (Å), v = r[neighbor] + shift . cell - r[atom].

    Unused slots hold ``PADDING_VECTOR``. In single precision the vector is rounded once, where the residuals are added.
    """
    assert graph.positions is not None and graph.cell is not None, "a term gets its vectors as an argument"
    vectors = (gather(graph.positions, graph) - graph.positions[:, None]) + _images(graph.cell, graph)
    # Differences of the high-order parts are exact so far: a vector is rounded here, once.
    fine = graph.positions_residual
    correction = 0 if fine is None else gather(fine, graph) - fine[:, None]
    vectors += correction if graph.cell_residual is None else correction + _images(graph.cell_residual, graph)
    vectors = jnp.where(graph.slot_mask[..., None], vectors, jnp.asarray(PADDING_VECTOR, vectors.dtype))
    return computed_once(vectors, graph, PADDING_VECTOR)


def computed_once(
    values: Float[Array, "atoms slots ..."], graph: Graph, empty: float | tuple[float, ...]
) -> Float[Array, "atoms slots ..."]:
    """Return values of slots unchanged, computed once: XLA for CPUs would compute them again in every loop that reads them.

    A barrier does not keep it from that, a branch does; so it is with the derivative by the values.

    Args:
        empty: The values where the graph has no pair at all.
    """
    other = lambda x: jnp.broadcast_to(jnp.asarray(empty, x.dtype), x.shape)
    branch = lambda x, used: jax.lax.cond(used, lambda x: x, other, x)
    return jax.lax.platform_dependent(values, jnp.any(graph.slot_mask), cpu=branch, default=lambda x, used: x)


def _images(cell: Float[AnyArray, "graphs 3 3"], graph: Graph) -> Float[Array, "atoms slots 3"]:
    """Compute the lattice vector shift . cell (Å) of the neighbour in each slot."""
    rows = cell[graph.node_graph][:, None]
    counts = graph.shifts.astype(cell.dtype)
    # No matrix product: XLA makes none of so small ones on a processor, and an accelerator rounds their factors to 19 bits.
    a, b, c = (counts[..., k, None] * rows[..., k, :] for k in range(3))
    return jnp.asarray(a + b + c)


def volume(graph: Graph) -> Float[Array, " graphs"]:
    """Compute the volume of each cell, |det cell| (Å^3); zero for a system that is open along any direction."""
    assert graph.cell is not None, "hidden from a term that does not need space"
    cell = graph.cell if graph.cell_residual is None else graph.cell + graph.cell_residual
    a, b, c = cell[:, 0], cell[:, 1], cell[:, 2]
    return jnp.abs(jnp.sum(a * jnp.cross(b, c), axis=-1))


def complete_cell(cell: Float[Array, "graphs 3 3"]) -> Float[Array, "graphs 3 3"]:
    """Replace zero rows of each cell (Å) by unit vectors orthogonal to all other rows, so that the cell has an inverse.

    Derivatives pass through the added rows, which rotate with the given ones: so the virial of an open system is symmetric. A
    cell of zeros becomes the unit matrix. With a single given row, the rotation of the added rows about that row is arbitrary.
    """
    axes = jnp.eye(3, dtype=cell.dtype)
    given = jnp.any(cell != 0, axis=-1)
    count = jnp.sum(given, axis=-1)
    cell = jnp.where((count == 0)[:, None, None], axes, cell)
    for k in range(3):
        # The row after a single one: at right angles to it and to the axis that it is farthest from.
        own = cell[:, (k + 2) % 3]
        other = axes[jnp.argmin(jnp.abs(own), axis=-1)]
        alone = (count == 1) & given[:, (k + 2) % 3]
        cell = cell.at[:, k].set(jnp.where(alone[:, None], _unit_normal(own, other, alone), cell[:, k]))
    present = jnp.any(cell != 0, axis=-1)
    for k in range(3):
        last = ~present[:, k]
        normal = _unit_normal(cell[:, (k + 1) % 3], cell[:, (k + 2) % 3], last)
        cell = cell.at[:, k].set(jnp.where(last[:, None], normal, cell[:, k]))
    return cell


def _unit_normal(a: Float[Array, "n 3"], b: Float[Array, "n 3"], used: Bool[Array, " n"]) -> Float[Array, "n 3"]:
    """Compute the unit vector along a x b in the rows that are ``used``; other rows hold any finite vector."""
    normal = jnp.cross(a, b)
    # Parallel rows that nobody asked about have no normal, and the slope of a square root at zero none either.
    squared = jnp.where(used, jnp.sum(normal**2, axis=-1), 1)
    return normal / jnp.sqrt(squared)[:, None]


def sum_graphs(values: Float[Array, "atoms ..."], graph: Graph) -> Float[Array, "graphs ..."]:
    """Sum values of atoms over the real atoms of each graph.

    A value that is not a number reaches the sum of its own graph only. The order of additions is fixed on every platform, so
    that equal inputs give equal bits.
    """
    real = graph.node_mask.reshape(-1, *([1] * (values.ndim - 1)))
    return sum_segments(jnp.where(real, values, 0), jnp.asarray(graph.node_graph), graph.num_graphs, ascending=True)


def sum_segments(
    values: Float[Array, "rows ..."], segment: Int[Array, " rows"], count: int, ascending: bool = False
) -> Float[Array, "segments ..."]:
    """Sum rows over each of ``count`` segments, in a fixed order on every platform.

    Args:
        values: rows.
        segment: segment of each row.
        count: number of segments.
        ascending: whether segments never fall from row to row.
    """
    if count == 1:
        return jnp.sum(values, axis=0, keepdims=True)
    scattered = partial(jax.ops.segment_sum, num_segments=count, indices_are_sorted=ascending)
    return jax.lax.platform_dependent(values, segment, cpu=scattered, default=partial(_sum_masked, count))


def _sum_masked(count: int, values: Array, segment: Array) -> Array:
    """Sum over all rows once for each segment, since a scatter on an accelerator adds in an order that differs between runs."""
    member = segment[None] == jnp.arange(count, dtype=segment.dtype)[:, None]
    return jnp.sum(jnp.where(member.reshape(*member.shape, *[1] * (values.ndim - 1)), values[None], 0), axis=1)


def to_atoms(values: Float[AnyArray, "graphs ..."], graph: Graph) -> Float[Array, "atoms ..."]:
    """Copy the values of graphs to their atoms. The transpose of ``sum_graphs``, and like it in a fixed order of additions."""
    values = jnp.asarray(values)
    if graph.num_graphs == 1:
        return jnp.broadcast_to(values, (graph.num_atoms, *values.shape[1:]))
    return jax.lax.platform_dependent(values, graph.node_graph, cpu=lambda x, k: x[k], default=_copy_masked)


def _copy_masked(values: Array, segment: Array) -> Array:
    """Select the row of each atom by sums over all graphs, whose transpose is no scatter, but sums too."""
    member = segment[:, None] == jnp.arange(len(values), dtype=segment.dtype)[None]
    return jnp.sum(jnp.where(member.reshape(*member.shape, *[1] * (values.ndim - 1)), values[None], 0), axis=1)


def gather(x: Float[AnyArray, "atoms ..."], graph: Graph) -> Float[Array, "atoms slots ..."]:
    """Copy the rows of atoms to the slots that point to them; zero in unused slots. The transpose of ``scatter``."""
    neighbor, reverse = _used(graph.neighbors, graph), _reverse(graph)
    return sum_rows(jnp.asarray(x), neighbor.reshape(-1, 1), reverse).reshape(*neighbor.shape, *x.shape[1:])


def scatter(y: Float[AnyArray, "atoms slots ..."], graph: Graph) -> Float[Array, "atoms ..."]:
    """Sum the values of slots over the used slots that point to each atom. The transpose of ``gather``."""
    neighbor, reverse = _used(graph.neighbors, graph), _reverse(graph)
    flat = jnp.asarray(y).reshape(-1, *y.shape[2:])
    if reverse is None:
        return add_rows(flat, neighbor.reshape(-1), len(y))
    return sum_rows(flat, reverse, neighbor.reshape(-1, 1))


def _used(index: Int[AnyArray, "atoms slots"], graph: Graph) -> Int[Array, "atoms slots"]:
    """Replace an index [atoms, slots] by -1 in unused slots."""
    return jnp.where(graph.slot_mask, index, -1).astype(jnp.int32)


def _reverse(graph: Graph) -> Int[Array, "atoms slots"] | None:
    """``graph.reverse`` with -1 in unused slots; None where the list is not symmetric."""
    return None if graph.reverse is None else _used(graph.reverse, graph)
