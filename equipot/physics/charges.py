"""Where the charges of atoms come from: constants, the features of a network, flows along pairs, or equilibration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph, sum_graphs, to_atoms
from equipot.nn.edge_features import pairs_within
from equipot.nn.radial import Bessel, PolynomialEnvelope
from equipot.nn.readout import BiasedMLP
from equipot.physics.coulomb import COULOMB, Coulomb
from equipot.physics.response import Systems, solved
from equipot.quantities import CHARGES, DIPOLE, QUADRUPOLE, Quantity

TYPICAL = 0.1
"""Charge (e) of an atom that a network predicts with parameters of order one."""


class Surroundings(NamedTuple):
    """What charges may depend on."""

    graph: Graph
    vectors: Float[Array, "atoms slots 3"]
    """Å."""
    species: Int[Array, " atoms"]
    elements: int
    """Number of species."""
    latent: Float[Array, "atoms features"] | None
    """Invariant features of a network; None without a network."""
    cutoff: float
    """Å."""
    coulomb: Coulomb

    @property
    def positions(self) -> Float[Array, "atoms 3"]:
        """Å."""
        return self.coulomb.space.positions

    @property
    def field(self) -> Float[Array, "atoms 3"]:
        """External electric field at each atom, V/Å."""
        given = self.graph.field
        return jnp.zeros_like(self.positions) if given is None else to_atoms(given.astype(self.positions.dtype), self.graph)

    @property
    def features(self) -> Float[Array, "atoms features"]:
        """Features of a network.

        Raises:
            ValueError: there are none.
        """
        if self.latent is None:
            raise ValueError("these charges come from features of a network: give a base that has some, MACE for example")
        # A network whose variables are more precise than the geometry is so, too.
        return self.latent.astype(self.vectors.dtype)

    def spread(self, total: Float[Array, " graphs"], weights: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Distribute a number for each graph over its atoms in proportion to positive weights."""
        own, graph = jnp.where(self.graph.node_mask, weights, 0), self.graph
        whole = sum_graphs(own, graph)
        return own * (total / jnp.where(whole > 0, whole, 1))[graph.node_graph]

    def conserved(self, charges: Float[Array, " atoms"], weights: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Add to charges (e) what they lack of the total charge of each graph, in proportion to positive weights."""
        charges = jnp.where(self.graph.node_mask, charges, 0)
        return charges + self.spread(self.total - sum_graphs(charges, self.graph), weights)

    @property
    def total(self) -> Float[Array, " graphs"]:
        """Total charge of each graph, e."""
        assert self.graph.charge is not None, "electrostatics need the charge"
        return jnp.asarray(self.graph.charge, self.vectors.dtype)


class Charged(NamedTuple):
    """Charges of the atoms, their energy besides the Coulomb energy and that in an external field, and dipoles."""

    charges: Float[Array, " atoms"]
    """e."""
    energy: Float[Array, " atoms"]
    """eV."""
    moved: Float[Array, "atoms 3"] | None = None
    """Dipole moment (e Å) of the charge that has moved to each atom along vectors to its neighbours; None where only charges
    are known, so that a system that repeats has no dipole moment."""
    resting: Float[Array, " atoms"] | None = None
    """Charge (e) of each atom that has not moved along any vector; None where ``moved`` is."""
    dipoles: Float[Array, "atoms 3"] | None = None
    """Dipole moments (e Å) of the atoms beside those of their charges; None for charges alone."""

    def moment(self, positions: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """Compute the contribution of each atom to the dipole moment (e Å) about the origin of ``positions`` (Å)."""
        placed = self.charges if self.resting is None else self.resting
        moment = placed[:, None] * positions
        for part in (self.moved, self.dipoles):
            moment = moment if part is None else moment + part
        return moment


class Found(NamedTuple):
    """Variables that a source has found, and the charges that follow from them."""

    variables: Any
    charged: Callable[[Any], Charged]

    @classmethod
    def directly(cls, charged: Charged) -> Found:
        """Return charges that are variables themselves."""
        return cls(charged, lambda variables: variables)


@dataclass(frozen=True)
class ChargeSource(ABC):
    """Base of the sources of charges. A subclass in any package can be used in a config as ``kind: package.module:Class``."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "PerSpecies": "equipot.physics.charges:PerSpecies",
        "Predicted": "equipot.physics.charges:Predicted",
        "Flows": "equipot.physics.charges:Flows",
        "Equilibrated": "equipot.physics.charges:Equilibrated",
        "Polarizable": "equipot.physics.polarizable:Polarizable",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""
    supervised: ClassVar[bool] = False
    """Whether the source is trained only on data that have charges or dipole moments."""
    flow: ClassVar[bool] = False
    """Whether charges move along pairs of neighbours, so that a system that repeats has a dipole moment."""
    minimises: ClassVar[bool] = False
    """Whether the variables are those at which the energy is least."""
    provides: ClassVar[tuple[Quantity, ...]] = (CHARGES, DIPOLE, QUADRUPOLE)
    """Quantities that follow from the charges."""

    @abstractmethod
    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        """Compute the charges of all atoms, with parameters in the ``scope`` of a compact module.

        The sum of the charges of a graph is its total charge.
        """


def check_widths(hidden: tuple[int, ...]) -> None:
    """Raise ValueError for a hidden layer without units."""
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden {list(hidden)}: a layer has at least 1 unit")


@dataclass(frozen=True)
class PerSpecies(ChargeSource):
    """One charge for each element, and an equal share for every atom of what the total charge is more."""

    values: tuple[float, ...] = ()
    """e, in the order of ``elements``; trained, starting from small random numbers, where left out."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"charges.values {list(self.values)} must be numbers, in e")

    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        if self.values and len(self.values) != around.elements:
            raise ValueError(f"charges.values has {len(self.values)} numbers for {around.elements} elements; give one for each")
        table = jnp.asarray(self.values, around.vectors.dtype)
        if not self.values:
            # At zero, the energy would not change with the charges.
            table = scope.param("charges", nn.initializers.normal(0.3), (around.elements,))
        charges = jnp.asarray(table, around.vectors.dtype)[around.species]
        conserved = around.conserved(charges, jnp.ones_like(charges))
        return Found.directly(Charged(conserved, jnp.zeros_like(conserved)))


@dataclass(frozen=True)
class Predicted(ChargeSource):
    """Charges that a network reads from its features, q_i = q'_i + (Q - sum_j q'_j) w_i / sum_j w_j with w_i > 0 by element.

    Q is the total charge. The last part reaches over any distance: atoms of separate molecules share what their charges lack.
    Such charges are learned from charges or dipole moments in the data, never from energies and forces alone.
    """

    supervised: ClassVar[bool] = True
    hidden: tuple[int, ...] = (32,)
    """Hidden widths of the network that reads charges from features."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)

    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        raw = TYPICAL * BiasedMLP((*self.hidden, 1), name="charges")(around.features)[:, 0]
        softness = scope.param("softness", nn.initializers.zeros, (around.elements,))
        weights = jax.nn.softplus(jnp.asarray(softness, raw.dtype))[around.species]
        charges = around.conserved(raw, weights)
        return Found.directly(Charged(charges, jnp.zeros_like(charges)))


@dataclass(frozen=True)
class Flows(ChargeSource):
    """Charges that flow along pairs within the cutoff, q_i = b_i + sum_j p_ij with p_ij = -p_ji.

    p_ij = sum_k R_k(r_ij) (u_ik v_jk - v_ik u_jk), with u and v linear in the features of each atom and R_k linear in radial
    functions that end at the cutoff; b_i is the share of atom i in the total charge. Charge is conserved without a correction,
    separate neutral molecules stay neutral, and the dipole moment sum_i b_i r_i - sum_ij p_ij r_ij / 2, with r_ij the vector
    from i to j, is that of the system also where it repeats.
    """

    flow: ClassVar[bool] = True

    rank: int = 16
    """Number of terms of the sum over k."""
    radial: int = 6
    """Number of radial functions."""

    def __post_init__(self) -> None:
        for name in ("rank", "radial"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")

    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        pairs, vectors, r = pairs_within(around.graph, around.vectors, around.cutoff)
        both = BiasedMLP((2 * self.rank,), name="ends")(around.features) * (TYPICAL / self.rank) ** 0.5
        own, other = pairs.from_centers(both), pairs.from_neighbors(both)
        split = lambda x: (x[:, : self.rank], x[:, self.rank :])
        (u_i, v_i), (u_j, v_j) = split(own), split(other)
        basis = Bessel(self.radial)(r, around.cutoff) * PolynomialEnvelope()(r, around.cutoff)[:, None]
        mixing = scope.param("mixing", nn.initializers.normal(1.0), (self.radial, self.rank))
        flow = jnp.sum((basis @ jnp.asarray(mixing, r.dtype)) * (u_i * v_j - v_i * u_j), axis=1)
        # Of pairs without room nothing is known.
        flow = jnp.where(pairs.overflow, jnp.nan, jnp.where(pairs.slots < 0, 0, flow))
        softness = scope.param("softness", nn.initializers.zeros, (around.elements,))
        resting = around.spread(around.total, jax.nn.softplus(jnp.asarray(softness, r.dtype))[around.species])
        real = around.graph.node_mask
        charges = jnp.where(real, resting + pairs.sum_to_centers(flow), 0)
        moved = jnp.where(real[:, None], -0.5 * pairs.sum_to_centers(flow[:, None] * vectors), 0)
        return Found.directly(Charged(charges, jnp.zeros_like(charges), moved, resting))


@dataclass(frozen=True)
class Equilibrated(ChargeSource):
    """Charges at which electronegativities are equal (A. K. Rappe and W. A. Goddard, J. Phys. Chem. 95, 3358, 1991).

    They minimise sum_i chi_i q_i + J_i q_i^2 / 2 plus the Coulomb energy at the given total charge, with electronegativities
    chi_i (V) that a network reads from its features and hardnesses J_i = Ke / (sqrt(pi) w_i) + softplus(h), h by element, so
    that the minimum is unique: the first part is the repulsion of a Gaussian charge with itself. Charge moves over any
    distance: far apart, molecules of different electronegativity carry charges.
    """

    minimises: ClassVar[bool] = True

    hidden: tuple[int, ...] = (32,)
    """Hidden widths of the network that reads electronegativities from features."""
    steps: int = 200
    """Most iterations of the conjugate gradients."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} must be at least 1")

    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        graph, real = around.graph, around.graph.node_mask
        chi = jnp.where(real, BiasedMLP((*self.hidden, 1), name="electronegativity")(around.features)[:, 0], 0)
        stiff = scope.param("hardness", nn.initializers.constant(1.0), (around.elements,))
        own = around.coulomb.kernel.own * COULOMB
        hardness = own + COULOMB * jax.nn.softplus(jnp.asarray(stiff, chi.dtype))[around.species]
        first = around.spread(around.total, jnp.ones_like(chi))
        count = jnp.maximum(sum_graphs(jnp.ones_like(chi), graph), 1)
        mean = lambda x: jnp.where(real, (sum_graphs(x, graph) / count)[graph.node_graph], 0)
        coulomb = around.coulomb.prepared()
        slope = lambda q: jnp.where(real, hardness * q, 0) + coulomb(q)

        def operator(x: Array) -> Array:
            """Slope on the subspace that conserves charge; the identity on what changes it."""
            x = jnp.where(real, x, 0)
            change = x - mean(x)
            pulled = slope(change)
            return jnp.where(real, pulled - mean(pulled) + own * mean(x), 0)

        pull = chi - jnp.where(real, jnp.sum(around.field * around.positions, axis=1), 0)
        wanted = -(pull + slope(first))
        systems = Systems(graph.num_graphs, jnp.asarray(graph.node_graph))
        change = solved(operator, jnp.where(real, wanted - mean(wanted), 0), systems, self.steps)
        return Found(first + change - mean(change), lambda q: Charged(q, chi * q + hardness * q**2 / 2))
