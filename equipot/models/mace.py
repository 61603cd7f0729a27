"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv:2206.07697)."""

from __future__ import annotations

import e3nn_jax as e3nn
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.contraction import SymmetricContraction
from equipot.nn.edges import embed_edges
from equipot.nn.features import Linear, add, check_elements, scalars
from equipot.nn.interaction import Interaction, Plain, Residual
from equipot.nn.radial import MLP, Radial
from equipot.nn.readout import Embedding, finish
from equipot.potential import Atomic, Term


class MACE(Term):
    """Each layer gathers neighbours into the atomic basis, multiplies it with itself and reads out an energy."""

    elements: tuple[int, ...] = ()
    """Atomic numbers it knows; taken from the data where left out."""
    channels: int = 64
    """Width of every irrep."""
    hidden_l: int = 1
    """Highest l of the features passed between layers."""
    l_max: int = 3
    """Highest l of the spherical harmonics."""
    correlation: int = 3
    """Factors in the symmetric contraction: body order less one."""
    layers: int = 2
    radial: Radial = Radial()
    first: Plain | Residual = Residual()
    """Interaction of the first layer."""
    others: Plain | Residual = Residual()
    """Interaction of the other layers."""
    readout: tuple[int, ...] = (16,)
    """Hidden widths of the last layer's readout; the other layers read out linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elements(self.elements)
        self.at_least(1, "channels", "correlation", "layers")
        self.at_least(0, "hidden_l", "l_max")

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        count = len(self.elements)
        edges = embed_edges(self, graph, vectors)
        avg_num_neighbors = self.variable("constants", "avg_num_neighbors", lambda: jnp.ones(())).value
        table = {e3nn.Irrep("0e"): Embedding(self.channels, count, name="embedding")()[:, None]}
        x = {ir: value[edges.species] for ir, value in table.items()}
        energy, latent = 0.0, []
        for layer in range(self.layers):
            last = layer == self.layers - 1
            irreps = hidden_irreps(self.channels, 0 if last else self.hidden_l)
            choice = self.first if layer == 0 else self.others
            block = Interaction(choice, irreps, self.channels, self.l_max, self.radial.mlp, count, name=f"interaction{layer}")
            a, skip = block(x, edges, avg_num_neighbors, graph, table if layer == 0 else None)
            b = SymmetricContraction(irreps, self.correlation, count, name=f"contraction{layer}")(a, edges.species)
            x = add(Linear(irreps, name=f"linear{layer}")(b), skip)
            latent.append(scalars(x))
            widths = (*self.readout, 1) if last else (1,)
            energy += MLP(widths, name=f"readout{layer}")(latent[-1])[:, 0]
        return Atomic(finish(self, energy, edges), latent=jnp.concatenate(latent, axis=-1))


def hidden_irreps(channels: int, l_max: int) -> str:
    """``channels`` of each l <= l_max with natural parity, such as 64x0e+64x1o."""
    return str(e3nn.Irreps([(channels, ir) for _, ir in e3nn.Irreps.spherical_harmonics(l_max)]))
