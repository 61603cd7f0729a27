"""Interaction block of MACE: neighbours' features gathered into the atomic basis A (arXiv:2206.07697, eqs. 8-9)."""

from __future__ import annotations

import dataclasses

import e3nn_jax as e3nn
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edges import Edges
from equipot.nn.features import Features, Linear, SpeciesLinear
from equipot.nn.normalize import Density, MeanNeighbors, Normalize, UnitVariance
from equipot.nn.tensor_product import Convolution


@dataclasses.dataclass(frozen=True)
class Plain:
    """Species act on the message; nothing bypasses the block (MACE's RealAgnostic)."""

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()


@dataclasses.dataclass(frozen=True)
class Residual:
    """The atom's own features bypass the block through a species-dependent linear map (MACE's RealAgnosticResidual)."""

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()


class Interaction(nn.Module):
    """Node features to the atomic basis with ``channels`` of each l <= l_max, and what bypasses the block."""

    choice: Plain | Residual
    irreps_skip: str
    """Irreps of the bypass."""
    channels: int
    l_max: int
    mlp: tuple[int, ...]
    count: int
    """Number of species."""

    @nn.compact
    def __call__(
        self,
        x: Features,
        edges: Edges,
        avg_num_neighbors: Float[Array, ""],
        graph: Graph,
        table: Features | None = None,
    ) -> tuple[Features, Features]:
        """``table`` holds the features of each species where ``x`` depends on nothing else, as in the first layer."""
        target = e3nn.Irreps.spherical_harmonics(self.l_max)
        basis = str(e3nn.Irreps([(self.channels, ir) for _, ir in target]))
        skip = {}
        if isinstance(self.choice, Residual):
            skip = SpeciesLinear(self.irreps_skip, self.count, name="skip")(x, edges.species)
        up = Linear(_same(x), name="up")(x if table is None else table)
        message = Convolution(basis, self.l_max, self.mlp, name="convolution")(up, edges, graph, per_species=table is not None)
        message = Normalize(self.choice.normalization, name="normalize")(message, edges, avg_num_neighbors, graph)
        a = Linear(basis, name="down")(message)
        if isinstance(self.choice, Plain):
            a = SpeciesLinear(basis, self.count, name="skip")(a, edges.species)
        return a, skip


def _same(x: Features) -> str:
    return str(e3nn.Irreps([(value.shape[-1], ir) for ir, value in x.items()]))
