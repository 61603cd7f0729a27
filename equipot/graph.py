"""The padded neighbour graph that every model sees, and every convention of the package.

Conventions
    vector      r[neighbor] + shift . cell - r[atom]: from the gathering atom to its neighbour, in Å.
    cell        rows are lattice vectors; a zero row where the system is open. Left-handed cells are allowed: V = |det cell|.
    shift       counts lattice vectors, not Å, so that a strain of the cell reaches every vector.
    stress      (1/V) dE/d(strain), symmetric, eV/Å^3, positive under tension (ASE's sign).
    virial      dE/d(strain) in eV, the stress times V.
    padding     unused slots point to their own atom and are masked; their vector is ``PADDING_VECTOR``, beyond any cutoff.
                Padding atoms have Z = 0, belong to the last graph and are masked by ``node_mask``.

Two linear maps carry everything between atoms and slots, each the other's transpose: ``gather`` (an atom's features into
the slots that point to it) and ``scatter`` (slot values summed back onto the atoms they point to). Where the list is
symmetric, ``reverse`` makes the second a sum of gathered rows as well, and both are one primitive (``sum_rows``): fast on
CPU, deterministic on GPU, and differentiable to any order in both modes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Float, Int

from equipot.kernels import rows_code

PADDING_VECTOR = (1.0e3, 0.0, 0.0)
"""Vector of an unused slot (Å)."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "positions", "numbers", "cell", "neighbors", "shifts", "reverse", "slot_mask", "node_mask", "node_graph",
        "graph_mask", "charge", "spin", "head", "positions_residual", "cell_residual",
    ],
    meta_fields=["pairs"],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Graph:
    """A padded batch of systems with a fixed number of neighbour slots per atom."""

    positions: Float[Array, "atoms 3"]
    """Å."""
    numbers: Int[Array, " atoms"]
    """Atomic numbers Z; 0 for padding."""
    cell: Float[Array, "graphs 3 3"]
    """Å, rows are lattice vectors; zeros where open."""
    neighbors: Int[Array, "atoms slots"]
    """Index of the atom in each slot."""
    shifts: Int[Array, "atoms slots 3"]
    """Lattice image of each neighbour, in counts of cell vectors."""
    reverse: Int[Array, "atoms slots"] | None
    """Flat slot (atom * slots + slot) of the same pair seen from the other side; None where the list is not symmetric."""
    slot_mask: Bool[Array, "atoms slots"]
    node_mask: Bool[Array, " atoms"]
    node_graph: Int[Array, " atoms"]
    """Which graph an atom belongs to, ascending."""
    graph_mask: Bool[Array, " graphs"]
    charge: Float[Array, " graphs"]
    """Total charge, e."""
    spin: Float[Array, " graphs"]
    """Unpaired electrons."""
    head: Int[Array, " graphs"] | None = None
    """Which head of a potential with several gives the energy; None for one without."""
    positions_residual: Float[Array, "atoms 3"] | None = None
    """Low-order part of the positions (Å), held in single precision alone: positions + residual is the position to far more
    digits, and the differences of the positions themselves, which are multiples of one step, are exact."""
    cell_residual: Float[Array, "graphs 3 3"] | None = None
    """Low-order part of the cell (Å), whose high-order part is of multiples of the same step."""
    pairs: int | None = None
    """Room for directed pairs within the cutoff, where that is known to be less than for slots; more make energies NaN."""

    @property
    def num_atoms(self) -> int:
        """Number of rows, padding included."""
        return self.positions.shape[0]

    @property
    def num_slots(self) -> int:
        return self.neighbors.shape[1]

    @property
    def num_graphs(self) -> int:
        return self.graph_mask.shape[0]

    def replace(self, **changes: Any) -> Graph:
        """Replace fields. New positions drop ``positions_residual``, a new cell ``cell_residual``, unless given too."""
        residuals = {"positions": "positions_residual", "cell": "cell_residual"}
        dropped = {residual: None for name, residual in residuals.items() if name in changes}
        return dataclasses.replace(self, **dropped | changes)

    def astype(self, dtype: Any) -> Graph:
        """The same graph with its real-valued fields in ``dtype``."""
        real = ("positions", "cell", "charge", "spin", "positions_residual", "cell_residual")
        present = {name: getattr(self, name) for name in real}
        return self.replace(**{name: value.astype(dtype) for name, value in present.items() if value is not None})


HEADS = "heads"
"""Scope of the variables that every head has of its own: each leaf is stacked along a leading axis of heads."""


def choose_head(heads: Sequence[str]) -> str:
    """What to say where a potential has several heads and nobody has chosen one."""
    return (
        f"the potential has several heads, {', '.join(heads)}: choose one, with potential.head({heads[0]!r}), or with "
        f"FILE@{heads[0]} wherever a potential is named"
    )


def edge_vectors(graph: Graph) -> Float[Array, "atoms slots 3"]:
    """Vector from each atom to the neighbour in each slot (Å); ``PADDING_VECTOR`` in unused slots."""
    vectors = (gather(graph.positions, graph) - graph.positions[:, None]) + _images(graph.cell, graph)
    # What stands on the grid is exact so far: this is where a vector is rounded, once.
    fine = graph.positions_residual
    correction = 0 if fine is None else gather(fine, graph) - fine[:, None]
    vectors += correction if graph.cell_residual is None else correction + _images(graph.cell_residual, graph)
    return jnp.where(graph.slot_mask[..., None], vectors, jnp.asarray(PADDING_VECTOR, vectors.dtype))


def _images(cell: Float[Array, "graphs 3 3"], graph: Graph) -> Float[Array, "atoms slots 3"]:
    cell = cell[graph.node_graph]
    # An accelerator must not round lattice vectors to 19 bits.
    return jnp.einsum("nki,nij->nkj", graph.shifts.astype(cell.dtype), cell, precision="highest")


def volume(graph: Graph) -> Float[Array, " graphs"]:
    """|det cell| in Å^3; zero where the system is open along a missing lattice vector."""
    cell = graph.cell if graph.cell_residual is None else graph.cell + graph.cell_residual
    a, b, c = cell[:, 0], cell[:, 1], cell[:, 2]
    return jnp.abs(jnp.sum(a * jnp.cross(b, c), axis=-1))


def complete_cell(cell: Float[Array, "graphs 3 3"]) -> Float[Array, "graphs 3 3"]:
    """Fill zero rows of the cell (Å) with unit vectors at right angles to all other rows, so that the cell has an inverse.

    The added rows turn with the others: derivatives pass through them, which keeps the virial of an open system symmetric. No
    row left gives the unit matrix; of two rows to add, the direction of the first about the given one is arbitrary.
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
    normal = jnp.cross(a, b)
    # Parallel rows that nobody asked about have no normal, and the slope of a square root at zero none either.
    squared = jnp.where(used, jnp.sum(normal**2, axis=-1), 1)
    return normal / jnp.sqrt(squared)[:, None]


def sum_graphs(values: Float[Array, "atoms ..."], graph: Graph) -> Float[Array, "graphs ..."]:
    """Sum of a per-atom quantity over the real atoms of each graph."""
    mask = graph.node_mask.reshape(-1, *([1] * (values.ndim - 1)))
    values = jnp.where(mask, values, 0)
    return jax.ops.segment_sum(values, graph.node_graph, graph.num_graphs, indices_are_sorted=True)


def gather(x: Float[Array, "atoms ..."], graph: Graph) -> Float[Array, "atoms slots ..."]:
    """Features of the neighbour in each slot; zero in unused slots. The transpose of ``scatter``."""
    to, back = _used(graph.neighbors, graph), _used(graph.reverse, graph)
    return sum_rows(x, to.reshape(-1, 1), back).reshape(*to.shape, *x.shape[1:])


def scatter(y: Float[Array, "atoms slots ..."], graph: Graph) -> Float[Array, "atoms ..."]:
    """Sum over the used slots that point to each atom. The transpose of ``gather``."""
    to, back = _used(graph.neighbors, graph), _used(graph.reverse, graph)
    flat = y.reshape(-1, *y.shape[2:])
    if back is None:
        return add_rows(flat, to.reshape(-1), len(y))
    return sum_rows(flat, back, to.reshape(-1, 1))


def _used(index: Array | None, graph: Graph) -> Array | None:
    return None if index is None else jnp.where(graph.slot_mask, index, -1).astype(jnp.int32)


def sum_rows(x: Float[Array, "n ..."], index: Int[Array, "m k"], back: Int[Array, "n l"] | None) -> Float[Array, "m ..."]:
    """y[i] = sum_k x[index[i, k]], where -1 stands for nothing; ``back`` says the same of the transposed map.

    Without it, the gradient is an ordinary scatter.
    """
    if back is None:
        return _sum_rows(x, index, index)
    return rows_p.bind(x, index, back)


def add_rows(x: Float[Array, "n ..."], to: Int[Array, " n"], count: int) -> Float[Array, "count ..."]:
    """Each row of ``x`` added to row ``to`` of ``count``; -1 stands for nowhere."""
    return jnp.zeros((count, *x.shape[1:]), x.dtype).at[jnp.where(to < 0, count, to)].add(x, mode="drop")


def _sum_rows(x: Array, index: Array, back: Array) -> Array:
    found = x.at[jnp.maximum(index, 0)].get(mode="promise_in_bounds")
    kept = jnp.where((index >= 0).reshape(*index.shape, *([1] * (x.ndim - 1))), found, 0)
    return kept[:, 0] if index.shape[1] == 1 else jnp.sum(kept, axis=1, dtype=x.dtype)


def _native(x: Array, index: Array, back: Array) -> Array:
    return rows_code.call(x, index) if rows_code.possible(x.dtype) else _sum_rows(x, index, back)


rows_p = Primitive("equipot_sum_rows")
rows_p.def_impl(jax.jit(lambda x, index, back: rows_p.bind(x, index, back)))
rows_p.def_abstract_eval(lambda x, index, back: jax.core.ShapedArray((index.shape[0], *x.shape[1:]), x.dtype))
mlir.register_lowering(rows_p, mlir.lower_fun(_sum_rows, multiple_results=False))
mlir.register_lowering(rows_p, mlir.lower_fun(_native, multiple_results=False), platform="cpu")


def _jvp(primals: tuple, tangents: tuple) -> tuple:
    x, index, back = primals
    out, (tangent, *_) = rows_p.bind(x, index, back), tangents
    return out, ad.Zero.from_primal_value(out) if type(tangent) is ad.Zero else rows_p.bind(tangent, index, back)


def _transpose(cotangent: Any, x: Any, index: Array, back: Array) -> tuple:
    return ad.Zero(x.aval) if type(cotangent) is ad.Zero else rows_p.bind(cotangent, back, index), None, None


def _batch(arguments: tuple, axes: tuple) -> tuple:
    x, index, back = arguments
    if not any(isinstance(axis, int) for axis in axes[1:]):
        # The map acts on the leading axis only, so a mapped axis may simply ride along at the end.
        return rows_p.bind(jnp.moveaxis(x, axes[0], -1), index, back), x.ndim - 1
    # One system with the rows of all.
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if isinstance(axis, int))
    front = lambda a, axis: jnp.moveaxis(a, axis, 0) if isinstance(axis, int) else jnp.broadcast_to(a, (size, *a.shape))
    x, index, back = (front(a, axis) for a, axis in zip(arguments, axes, strict=True))
    shift = lambda i, rows: jnp.where(i < 0, -1, i + rows * jnp.arange(size, dtype=i.dtype)[:, None, None])
    whole = lambda a: a.reshape(-1, *a.shape[2:])
    out = rows_p.bind(whole(x), whole(shift(index, x.shape[1])), whole(shift(back, index.shape[1])))
    return out.reshape(size, -1, *out.shape[1:]), 0


ad.primitive_jvps[rows_p] = _jvp
ad.primitive_transposes[rows_p] = _transpose
batching.primitive_batchers[rows_p] = _batch
