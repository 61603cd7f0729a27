"""Interaction block of MACE: neighbours' features gathered into the atomic basis A (arXiv:2206.07697, eqs. 8-9)."""

from __future__ import annotations

import dataclasses
import functools

import e3nn_jax as e3nn
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edge_features import Edges
from equipot.nn.features import Features, Linear, SpeciesLinear, add, scalars
from equipot.nn.gate import gate, gated_irreps, sigmoid
from equipot.nn.normalize import Density, MeanNeighbors, Normalize, PairDensity, UnitVariance
from equipot.nn.radial import Radial
from equipot.nn.radial_network import Ends, EndsMLP, PairMLP, SpeciesMLP, SplineTable
from equipot.nn.tensor_product import Convolution


@dataclasses.dataclass(frozen=True)
class Plain:
    """Species act on the message; nothing bypasses the block (MACE's RealAgnostic)."""

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()


@dataclasses.dataclass(frozen=True)
class Residual:
    """The atom's own features bypass the block through a species-dependent linear map (MACE's RealAgnosticResidual)."""

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()


@dataclasses.dataclass(frozen=True)
class Attention:
    """As ``Residual`` with one map for all species, and radial weights that also depend on the invariants of both atoms.

    MACE's RealAgnosticAttResidual.
    """

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()


@dataclasses.dataclass(frozen=True)
class NonLinear:
    """A gate acts on the message; radial weights and its normalization depend on the species of both atoms.

    MACE's RealAgnosticResidualNonLinear. The atom's own features bypass both the message and the block.
    """

    normalization: PairDensity = PairDensity()


Choice = Plain | Residual | Attention | NonLinear


class Interaction(nn.Module):
    """Node features to the atomic basis with ``channels`` of each l <= l_max, and what bypasses the block."""

    choice: Choice
    irreps_skip: str
    """Irreps of the bypass."""
    channels: int
    message_channels: int
    """Width of what neighbours send."""
    l_max: int
    radial: Radial
    cutoff: float
    """Å."""
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
        basis = str(e3nn.Irreps([(self.channels, ir) for _, ir in e3nn.Irreps.spherical_harmonics(self.l_max)]))
        up = Linear(str(e3nn.Irreps([(self.message_channels, ir) for ir in x])), name="up")(x if table is None else table)
        gated = isinstance(self.choice, NonLinear)
        network = functools.partial(SpeciesMLP, count=self.count) if gated else PairMLP
        ends = None
        if self.radial.table is not None:
            network = functools.partial(SplineTable, splines=self.radial.table, cutoff=self.cutoff, count=self.count)
        elif isinstance(self.choice, Attention):
            network, ends = EndsMLP, self._ends(x)
        convolution = Convolution(basis, self.l_max, self.radial.mlp, network, name="convolution")
        message = convolution(up, edges, table is not None, ends)
        message = Normalize(self.choice.normalization, self.count, name="normalize")(message, edges, avg_num_neighbors, graph)
        a = Linear(gated_irreps(basis) if gated else basis, name="down")(message)
        if gated:
            own = Linear(gated_irreps(basis), name="bypass")(up)
            own = own if table is None else {ir: value[edges.species] for ir, value in own.items()}
            a = Linear(basis, name="mix")(gate(add(a, own), basis, sigmoid))
        if isinstance(self.choice, Plain):
            return SpeciesLinear(basis, self.count, name="skip")(a, edges.species), {}
        if isinstance(self.choice, Residual):
            return a, SpeciesLinear(self.irreps_skip, self.count, name="skip")(x, edges.species)
        return a, Linear(self.irreps_skip, name="skip")(x)

    def _ends(self, x: Features) -> Ends:
        width = f"{self.radial.mlp[0]}x0e"
        return Ends(scalars(Linear(width, name="sender")(x)), scalars(Linear(width, name="receiver")(x)))
