"""Interaction block of MACE: sums of neighbours' features form the atomic basis A (arXiv:2206.07697, eqs. 8-9)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import e3nn_jax as e3nn
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph
from equipot.nn.edge_features import Edges
from equipot.nn.features import Features, Linear, SpeciesLinear, add, scalars
from equipot.nn.gate import gate, gated_irreps, sigmoid
from equipot.nn.normalize import Density, MeanNeighbors, Normalization, Normalize, PairDensity, UnitVariance
from equipot.nn.radial import Radial
from equipot.nn.radial_network import EndpointMLP, Endpoints, RadialMLP, SpeciesMLP, splines_of
from equipot.nn.tensor_product import Convolution


@dataclasses.dataclass(frozen=True)
class InteractionKind:
    """Base of the kinds of interaction block: radial network, map from messages to the atomic basis, and bypass.

    ``block`` is the compact module that calls a method; submodules that the method makes belong to ``block``.
    """

    weights_see_species: ClassVar[bool] = False
    """Whether the radial weights depend on the species of both atoms."""
    weights_may_stay: ClassVar[bool] = False
    """Whether the radial weights do not vanish with the radial features, so that the envelope must be on the weights."""
    has_bypass: ClassVar[bool] = True
    """Whether features of the atom itself bypass the block."""

    @property
    def normalization(self) -> Normalization:
        """Normalization of the sum over neighbours."""
        raise NotImplementedError

    def radial_network(self, block: Interaction, x: Features) -> tuple[Callable, Endpoints | None]:
        """Return the class of the radial network, and the contribution of each atom's features ``x`` to its first layer."""
        return RadialMLP, None

    def atomic_basis(
        self, block: Interaction, message: Features, up: Features, species: Int[Array, " atoms"] | None
    ) -> Features:
        """Map normalized messages to the atomic basis A.

        ``up`` holds the features that atoms send: one row for each species if ``species`` is given, else one for each atom.
        """
        return Linear(block.basis, name="down")(message)

    def output(self, block: Interaction, a: Features, x: Features, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        """Return the atomic basis A and the features that bypass the block, computed from the atoms' features ``x``."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Plain(InteractionKind):
    """A species-dependent linear map acts on the message; nothing bypasses the block (MACE's RealAgnostic)."""

    has_bypass: ClassVar[bool] = False
    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()
    """Normalisation of the sum over neighbours."""

    def output(self, block: Interaction, a: Features, x: Features, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        return SpeciesLinear(block.basis, block.count, name="skip")(a, species), {}


@dataclasses.dataclass(frozen=True)
class Residual(InteractionKind):
    """The atom's own features bypass the block through a species-dependent linear map (MACE's RealAgnosticResidual)."""

    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()
    """Normalisation of the sum over neighbours."""

    def output(self, block: Interaction, a: Features, x: Features, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        return a, SpeciesLinear(block.irreps_skip, block.count, name="skip")(x, species)


@dataclasses.dataclass(frozen=True)
class Attention(InteractionKind):
    """Radial weights also depend on the invariants of both atoms; the bypass is one linear map for all species.

    MACE's RealAgnosticAttResidual.
    """

    weights_may_stay: ClassVar[bool] = True
    normalization: UnitVariance | MeanNeighbors | Density = UnitVariance()
    """Normalisation of the sum over neighbours."""

    def radial_network(self, block: Interaction, x: Features) -> tuple[Callable, Endpoints | None]:
        width = f"{block.radial.mlp[0]}x0e"
        return EndpointMLP, Endpoints(scalars(Linear(width, name="sender")(x)), scalars(Linear(width, name="receiver")(x)))

    def output(self, block: Interaction, a: Features, x: Features, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        return a, Linear(block.irreps_skip, name="skip")(x)


@dataclasses.dataclass(frozen=True)
class NonLinear(InteractionKind):
    """A gate acts on the message; the radial weights and the normalization depend on the species of both atoms.

    MACE's RealAgnosticResidualNonLinear. The atom's own features bypass both the message and the block.
    """

    weights_see_species: ClassVar[bool] = True
    weights_may_stay: ClassVar[bool] = True
    normalization: PairDensity = PairDensity()
    """Normalisation of the sum over neighbours."""

    def radial_network(self, block: Interaction, x: Features) -> tuple[Callable, Endpoints | None]:
        return functools.partial(SpeciesMLP, count=block.count), None

    def atomic_basis(
        self, block: Interaction, message: Features, up: Features, species: Int[Array, " atoms"] | None
    ) -> Features:
        gated = gated_irreps(block.basis)
        a = Linear(gated, name="down")(message)
        own = Linear(gated, name="bypass")(up)
        own = own if species is None else {ir: value[species] for ir, value in own.items()}
        return Linear(block.basis, name="mix")(gate(add(a, own), block.basis, sigmoid))

    def output(self, block: Interaction, a: Features, x: Features, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        return a, Linear(block.irreps_skip, name="skip")(x)


class Interaction(nn.Module):
    """Map features of atoms to the atomic basis, with ``channels`` of each l <= l_max, and to the features of the bypass."""

    kind: InteractionKind
    irreps_skip: str
    """Irreps of the bypass."""
    channels: int
    message_channels: int
    """Number of channels of the features that neighbours send."""
    l_max: int
    radial: Radial
    cutoff: float
    """Cutoff radius (Å)."""
    count: int
    """Number of species."""

    @property
    def basis(self) -> str:
        """Irreps of the atomic basis."""
        return str(e3nn.Irreps([(self.channels, ir) for _, ir in e3nn.Irreps.spherical_harmonics(self.l_max)]))

    @nn.compact
    def __call__(
        self,
        x: Features,
        edges: Edges,
        avg_num_neighbors: Float[Array, ""],
        graph: Graph,
        table: Features | None = None,
    ) -> tuple[Features, Features]:
        """Return the atomic basis A and the features that bypass the block.

        ``table`` holds the features of each species if ``x`` depends on the species alone, as in the first layer.
        """
        rows = None if table is None else edges.species
        up = Linear(str(e3nn.Irreps([(self.message_channels, ir) for ir in x])), name="up")(x if table is None else table)
        if self.radial.table is None:
            network, ends = self.kind.radial_network(self, x)
        else:
            network, ends = splines_of(self.radial.table, self.cutoff, self.count), None
        convolution = Convolution(self.basis, self.l_max, self.radial.mlp, network, name="convolution")
        message = convolution(up, edges, table is not None, ends)
        normalize = Normalize(self.kind.normalization, self.count, name="normalize")
        message = normalize(message, edges, avg_num_neighbors, graph)
        a = self.kind.atomic_basis(self, message, up, rows)
        return self.kind.output(self, a, x, edges.species)
