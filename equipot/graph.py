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
symmetric, ``reverse`` makes the second a gather as well: fast on CPU, deterministic on GPU, and differentiable to any
order in both modes.
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

PADDING_VECTOR = (1.0e3, 0.0, 0.0)
"""Vector of an unused slot (Å)."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "positions", "numbers", "cell", "neighbors", "shifts", "reverse", "slot_mask", "node_mask", "node_graph",
        "graph_mask", "charge", "spin", "head",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Graph:
    """A padded batch of systems with a fixed number of neighbour slots per atom."""

    positions: Float[Array, "atoms 3"]
    """Å."""
    numbers: Int[Array, "atoms"]
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
    node_mask: Bool[Array, "atoms"]
    node_graph: Int[Array, "atoms"]
    """Which graph an atom belongs to, ascending."""
    graph_mask: Bool[Array, "graphs"]
    charge: Float[Array, "graphs"]
    """Total charge, e."""
    spin: Float[Array, "graphs"]
    """Unpaired electrons."""
    head: Int[Array, "graphs"] | None = None
    """Which head of a potential with several gives the energy; None for one without."""

    @property
    def num_atoms(self) -> int:
        """Number of rows, padding included."""
        return self.positions.shape[0]

    @property
    def num_slots(self) -> int:
        return self.neighbors.shape[1]

    @property
    def num_graphs(self) -> int:
        return self.cell.shape[0]

    def replace(self, **changes: Any) -> Graph:
        return dataclasses.replace(self, **changes)

    def astype(self, dtype: Any) -> Graph:
        """The same graph with its real-valued fields in ``dtype``."""
        real = ("positions", "cell", "charge", "spin")
        present = {name: getattr(self, name) for name in real}
        return self.replace(**{name: value.astype(dtype) for name, value in present.items() if value is not None})


def choose_head(heads: Sequence[str]) -> str:
    """What to say where a potential has several heads and nobody has chosen one."""
    return (
        f"the potential has several heads, {', '.join(heads)}: choose one, with potential.head({heads[0]!r}), or with "
        f"FILE@{heads[0]} wherever a potential is named"
    )


def edge_vectors(graph: Graph) -> Float[Array, "atoms slots 3"]:
    """Vector from each atom to the neighbour in each slot (Å); ``PADDING_VECTOR`` in unused slots."""
    cell = graph.cell[graph.node_graph]
    # An accelerator must not round lattice vectors to 19 bits.
    image = jnp.einsum("nki,nij->nkj", graph.shifts.astype(cell.dtype), cell, precision="highest")
    vectors = gather(graph.positions, graph) + image - graph.positions[:, None]
    return jnp.where(graph.slot_mask[..., None], vectors, jnp.asarray(PADDING_VECTOR, vectors.dtype))


def volume(graph: Graph) -> Float[Array, "graphs"]:
    """|det cell| in Å^3; zero where the system is open along a missing lattice vector."""
    a, b, c = graph.cell[:, 0], graph.cell[:, 1], graph.cell[:, 2]
    return jnp.abs(jnp.sum(a * jnp.cross(b, c), axis=-1))


def sum_graphs(values: Float[Array, "atoms ..."], graph: Graph) -> Float[Array, "graphs ..."]:
    """Sum of a per-atom quantity over the real atoms of each graph."""
    mask = graph.node_mask.reshape(-1, *([1] * (values.ndim - 1)))
    values = jnp.where(mask, values, 0)
    return jax.ops.segment_sum(values, graph.node_graph, graph.num_graphs, indices_are_sorted=True)


def gather(x: Float[Array, "atoms ..."], graph: Graph) -> Float[Array, "atoms slots ..."]:
    """Features of the neighbour in each slot; zero in unused slots. The transpose of ``scatter``."""
    if graph.reverse is None:
        return _gather(x, graph.neighbors, graph.neighbors, graph.slot_mask)
    return gather_p.bind(x, graph.neighbors, graph.reverse, graph.slot_mask)


def scatter(y: Float[Array, "atoms slots ..."], graph: Graph) -> Float[Array, "atoms ..."]:
    """Sum over the used slots that point to each atom. The transpose of ``gather``."""
    return scatter_slots(y, graph.neighbors, graph.reverse, graph.slot_mask)


def scatter_slots(y: Float[Array, "atoms slots ..."], neighbors: Array, reverse: Array | None, mask: Array) -> Array:
    """``scatter`` by the index arrays of a graph."""
    if reverse is None:
        kept = jnp.where(_expand(mask, y.ndim), y, 0)
        return jnp.zeros((y.shape[0], *y.shape[2:]), y.dtype).at[neighbors].add(kept)
    return scatter_p.bind(y, neighbors, reverse, mask)


def _expand(mask: Array, ndim: int) -> Array:
    return mask.reshape(*mask.shape, *([1] * (ndim - 2)))


def _gather(x: Array, neighbors: Array, reverse: Array, mask: Array) -> Array:
    return jnp.where(_expand(mask, x.ndim + 1), x[neighbors], 0)


def _scatter(y: Array, neighbors: Array, reverse: Array, mask: Array) -> Array:
    flat = y.reshape(-1, *y.shape[2:])
    return jnp.sum(jnp.where(_expand(mask, y.ndim), flat[reverse], 0), axis=1)


def _linear_primitive(name: str, implementation: Any) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(implementation))
    primitive.def_abstract_eval(
        lambda *avals: jax.core.ShapedArray(
            (shape := jax.eval_shape(implementation, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))).shape,
            shape.dtype,
        )
    )
    mlir.register_lowering(primitive, mlir.lower_fun(implementation, multiple_results=False))
    return primitive


gather_p = _linear_primitive("equipot_gather", _gather)
scatter_p = _linear_primitive("equipot_scatter", _scatter)


def _register(primitive: Primitive, transpose: Primitive, implementation: Any, lead: int) -> None:
    """Differentiation and batching rules; ``lead`` is the number of leading axes that the map acts on."""

    def jvp(primals: tuple, tangents: tuple) -> tuple:
        x, *indices = primals
        out = primitive.bind(x, *indices)
        tangent = tangents[0]
        return out, ad.Zero.from_primal_value(out) if type(tangent) is ad.Zero else primitive.bind(tangent, *indices)

    def transposed(cotangent: Any, x: Any, *indices: Any) -> tuple:
        zero = type(cotangent) is ad.Zero
        return (ad.Zero(x.aval) if zero else transpose.bind(cotangent, *indices), None, None, None)

    def batched(arguments: tuple, axes: tuple) -> tuple:
        x, *indices = arguments
        if not any(isinstance(axis, int) for axis in axes[1:]):
            # The map acts on leading axes only, so a mapped axis may simply ride along at the end.
            return primitive.bind(jnp.moveaxis(x, axes[0], -1), *indices), x.ndim - 1 + (1 if lead == 1 else -1)
        return jax.vmap(implementation, in_axes=tuple(a if isinstance(a, int) else None for a in axes))(*arguments), 0

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transposed
    batching.primitive_batchers[primitive] = batched


_register(gather_p, scatter_p, _gather, lead=1)
_register(scatter_p, gather_p, _scatter, lead=2)
