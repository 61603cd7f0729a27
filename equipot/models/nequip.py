"""NequIP: gated equivariant convolutions (Batzner et al., Nat. Commun. 13, 2453 (2022), arXiv:2101.03164)."""

from __future__ import annotations

import e3nn_jax as e3nn
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edges import Edges, embed_edges
from equipot.nn.features import Features, Linear, PerSpecies, Shared, SpeciesLinear, add, check_elements, regroup, scalars
from equipot.nn.gate import gate, gated_irreps
from equipot.nn.normalize import Density, MeanNeighbors, Normalize, UnitVariance
from equipot.nn.radial import MLP, Radial
from equipot.nn.readout import Embedding, finish
from equipot.nn.tensor_product import Convolution, find_paths
from equipot.physics.zbl import ZBL
from equipot.potential import Atomic, Term


class NequIP(Term):
    """Layers of tensor-product convolution, self-connection and gate; the last layer's invariants give the energy."""

    elements: tuple[int, ...] = ()
    """Atomic numbers it knows; taken from the data where left out."""
    channels: int = 32
    """Width of every irrep."""
    l_max: int = 2
    """Highest l of features and spherical harmonics."""
    parity: bool = True
    """Also carry pseudo-scalars, pseudo-vectors and so on."""
    layers: int = 4
    radial: Radial = Radial(mlp=(64, 64))
    self_connection: PerSpecies | Shared | None = PerSpecies()
    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()
    readout: int = 16
    """Width of the last hidden layer."""
    repulsion: ZBL | None = None
    """What keeps nuclei apart where there are no data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elements(self.elements)
        self.at_least(1, "channels", "layers", "readout")
        self.at_least(0, "l_max")

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        count = len(self.elements)
        edges = embed_edges(self, graph, vectors)
        avg_num_neighbors = self.variable("constants", "avg_num_neighbors", lambda: jnp.ones(())).value
        table = {e3nn.Irrep("0e"): Embedding(self.channels, count, name="embedding")()[:, None]}
        x = {ir: value[edges.species] for ir, value in table.items()}
        for layer in range(self.layers):
            irreps = "0e" if layer == self.layers - 1 else self._irreps()
            wanted = reachable(x, self.l_max, f"{self.channels}x0e" if irreps == "0e" else irreps)
            x = Layer(
                wanted, self.self_connection, self.normalization, self.l_max, self.radial.mlp, count, name=f"layer{layer}"
            )(x, edges, avg_num_neighbors, graph, table if layer == 0 else None)  # fmt: skip
        hidden = scalars(Linear(f"{self.readout}x0e", name="hidden")(x))
        return Atomic(finish(self, MLP((1,), name="readout")(hidden)[:, 0], edges, graph), latent=scalars(x))

    def _irreps(self) -> str:
        return str(
            e3nn.Irreps([
                (self.channels, (l, p)) for l in range(self.l_max + 1) for p in ((1, -1) if self.parity else ((-1) ** l,))
            ])
        )  # fmt: skip


def reachable(x: Features, l_max: int, irreps: str) -> str:
    """The part of ``irreps`` that a convolution of ``x`` can produce."""
    wanted = regroup(irreps)
    found = {path.ir_out for path in find_paths(x, l_max, wanted)}
    return str(e3nn.Irreps([(mul, ir) for ir, mul in wanted.items() if ir in found]))


class Layer(nn.Module):
    """One interaction: linear, convolution, linear, plus self-connection, then the gate. Features in ``irreps`` come out."""

    irreps: str
    self_connection: PerSpecies | Shared | None
    normalization: UnitVariance | MeanNeighbors | Density
    l_max: int
    mlp: tuple[int, ...]
    count: int
    """Number of species."""

    @nn.compact
    def __call__(
        self, x: Features, edges: Edges, avg_num_neighbors: Float[Array, ""], graph: Graph, table: Features | None = None
    ) -> Features:
        """``table`` holds the features of each species where ``x`` depends on nothing else, as in the first layer."""
        irreps = gated_irreps(self.irreps)
        same = str(e3nn.Irreps([(value.shape[-1], ir) for ir, value in x.items()]))
        up = Linear(same, name="up")(x if table is None else table)
        message = Convolution(irreps, self.l_max, self.mlp, name="convolution")(up, edges, graph, table is not None)
        message = Normalize(self.normalization, self.count, name="normalize")(message, edges, avg_num_neighbors, graph)
        out = Linear(irreps, name="down")(message)
        if isinstance(self.self_connection, PerSpecies):
            out = add(out, SpeciesLinear(irreps, self.count, name="self")(x, edges.species))
        elif isinstance(self.self_connection, Shared):
            out = add(out, Linear(irreps, name="self")(x))
        return gate(out, self.irreps)
