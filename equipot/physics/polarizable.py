"""Charges that flow along pairs and induced dipoles of atoms, at the minimum of the energy, with a limited response."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.neighbors.packed import Pairs
from equipot.nn.edge_features import pairs_within
from equipot.nn.radial import PolynomialEnvelope
from equipot.nn.readout import BiasedMLP
from equipot.physics.charges import Charged, ChargeSource, Found, Surroundings, check_widths
from equipot.physics.coulomb import COULOMB, Felt
from equipot.physics.response import Elastic, Systems, minimum
from equipot.quantities import ATOMIC_DIPOLES, CHARGES, DIPOLE, QUADRUPOLE, Quantity

TYPICAL = 0.3
"""Flow along a pair (e) and dipole of an atom (e Å) for a potential of 1 V, and a field of 1 V/Å, are the square of it."""

MOST = 1.5, 2.0
"""Largest logarithm of the factor of a network on either."""


class Moved(NamedTuple):
    """Variables of the minimum, in units in which each has the energy y^2 / 2 (sqrt(eV))."""

    flows: Float[Array, " undirected"]
    """Of each pair."""
    dipoles: Float[Array, "atoms 3"]
    """Of each atom."""

    @property
    def vectors(self) -> tuple[Float[Array, "undirected 1"], Float[Array, "atoms 3"]]:
        """Return both as rows of vectors."""
        return self.flows[:, None], self.dipoles

    @classmethod
    def of(cls, flows: Float[Array, "undirected 1"], dipoles: Float[Array, "atoms 3"]) -> Moved:
        """Make the variables of ``vectors``."""
        return cls(flows[:, 0], dipoles)


@dataclass(frozen=True)
class Polarizable(ChargeSource):
    """Charges that flow along pairs within the cutoff, and induced dipoles of the atoms, at the minimum of the energy.

    q_i = b_i + sum_j p_ij with p_ij = -p_ji, b_i the share of atom i in the total charge. The energy is that of the charges and
    dipoles in each other's field and an external one, plus sum_i chi_i q_i + J_i q_i^2 / 2, plus W(p_ij; g_ij) of each pair and
    W(|d_i|; a_i) of each dipole, with W(x; s) = x^2 / (2 s^2) at small x. It is split-charge equilibration (R. A. Nistor, J. G.
    Polihronov, M. H. Müser and N. J. Mosey, J. Chem. Phys. 125, 094108, 2006) with the induced dipoles of B. T. Thole, Chem.
    Phys. 59, 341 (1981), between Gaussian densities. A network reads chi, g and a from its features; g_ij ends at the cutoff.
    So separate molecules keep their charge, and the dipole moment is that of the system also where it repeats.

    The electrostatic energy of densities is never negative, so that the minimum is unique for all parameters: there is no
    polarization catastrophe. W(x; s) = m^2 / s^2 [1 - sqrt(1 - x^2 / m^2)] keeps a flow or a dipole below a limit m in any
    field: energies then fall in proportion to the field instead of its square.
    """

    flow: ClassVar[bool] = True
    minimises: ClassVar[bool] = True
    provides: ClassVar[tuple[Quantity, ...]] = (CHARGES, DIPOLE, QUADRUPOLE, ATOMIC_DIPOLES)
    hidden: tuple[int, ...] = (32,)
    """Hidden widths of the network that reads electronegativities, and how easily charges flow and dipoles form."""
    flow_limit: float | None = 2.0
    """Largest charge that flows along one pair, e; None for no limit."""
    dipole_limit: float | None = 2.0
    """Largest induced dipole of an atom, e Å; None for no limit."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)
        for name in ("flow_limit", "dipole_limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} {value} must be positive and finite; leave it empty for no limit")

    def __call__(self, scope: nn.Module, around: Surroundings) -> Found:
        pairs, vectors, r = pairs_within(around.graph, around.vectors, around.cutoff)
        if pairs.undirected is None:
            raise ValueError("charges flow along pairs that are known from both sides: this neighbour list is not symmetric")
        real = around.graph.node_mask
        found = BiasedMLP((*self.hidden, 3), name="electronegativity")(around.features)
        scales = scope.param("scales", nn.initializers.zeros, (around.elements, 2))
        raw = jnp.asarray(scales, r.dtype)[around.species].T + found[:, 1:].T
        # Bounded, so that no network makes a metal so good that single precision cannot solve for its charges.
        ease, size = (TYPICAL * jnp.exp(most * jnp.tanh(x / most)) for x, most in zip(raw, MOST, strict=True))
        chi, reach = found[:, 0], PolynomialEnvelope()(r, around.cutoff)
        flowing = jnp.where(pairs.slots < 0, 0, reach * pairs.from_centers(ease) * pairs.from_neighbors(ease) / TYPICAL)
        stiff = scope.param("hardness", nn.initializers.constant(1.0), (around.elements,))
        own = around.coulomb.kernel.own * COULOMB
        model = _Model(
            around=around,
            pairs=pairs,
            vectors=vectors,
            flowing=jnp.where(pairs.overflow, jnp.nan, flowing),
            dipole=jnp.where(real, size, 0),
            chi=jnp.where(real, chi, 0),
            hardness=own + COULOMB * jax.nn.softplus(jnp.asarray(stiff, chi.dtype))[around.species],
            resting=around.spread(around.total, jnp.ones_like(chi)),
            limits=(self.flow_limit, self.dipole_limit),
            felt=around.coulomb.prepared_felt(),
        )
        return Found(minimum(model.elastic, model.pull(), model.stiffness, model.systems), model.charged)


class _Effect(NamedTuple):
    """What flows and dipoles change, linear in them."""

    charges: Float[Array, " atoms"]
    """e."""
    dipoles: Float[Array, "atoms 3"]
    """e Å."""
    carried: Float[Array, "atoms 3"]
    """Dipole moment of the charge that has moved, e Å."""


class _Model(NamedTuple):
    """Parameters of the energy whose minimum is sought."""

    around: Surroundings
    pairs: Pairs
    vectors: Float[Array, "pairs 3"]
    flowing: Float[Array, " pairs"]
    """g, e / sqrt(eV)."""
    dipole: Float[Array, " atoms"]
    """a, e Å / sqrt(eV)."""
    chi: Float[Array, " atoms"]
    """V."""
    hardness: Float[Array, " atoms"]
    """V/e."""
    resting: Float[Array, " atoms"]
    """b, e."""
    limits: tuple[float | None, float | None]
    """m of flows (e) and of dipoles (e Å)."""
    felt: Callable[[Array, Array], Felt]
    """Potential and field of charges and dipoles."""

    @property
    def none(self) -> Moved:
        """Neither flows nor dipoles."""
        assert self.pairs.undirected is not None
        return Moved(
            jnp.zeros(len(self.pairs.undirected.representative), self.chi.dtype), jnp.zeros_like(self.around.positions)
        )

    def effect(self, moved: Moved) -> _Effect:
        """Return what flows and dipoles change."""
        pairs, real = self.pairs, self.around.graph.node_mask
        assert pairs.undirected is not None
        forward = pairs.undirected.representative[pairs.undirected.undirected_of_pair] == jnp.arange(len(pairs.slots))
        flow = jnp.where(forward, 1, -1) * self.flowing * pairs.undirected.to_directed(moved.flows)
        charges = jnp.where(real, pairs.sum_to_centers(flow), 0)
        carried = jnp.where(real[:, None], -0.5 * pairs.sum_to_centers(flow[:, None] * self.vectors), 0)
        return _Effect(charges, self.dipole[:, None] * moved.dipoles, carried)

    def pull(self) -> Moved:
        """Return the slope of the energy where nothing has moved."""
        felt = self.felt(self.resting, jnp.zeros_like(self.around.positions))
        potential = self.chi + self.hardness * self.resting + felt.potential
        return self._onto(_Effect(potential, -felt.field - self.around.field, -self.around.field))

    def stiffness(self, moved: Moved) -> Moved:
        """Return the slope of the energy of what has moved in its own field."""
        effect = self.effect(moved)
        felt = self.felt(effect.charges, effect.dipoles)
        field = self._inside * effect.dipoles - felt.field
        return self._onto(_Effect(self.hardness * effect.charges + felt.potential, field, jnp.zeros_like(effect.carried)))

    def _onto(self, slopes: _Effect) -> Moved:
        """Convert slopes by charges (V), dipoles and moments (V/Å) to slopes by the variables."""
        real = self.around.graph.node_mask
        slopes = jax.tree.map(lambda x: jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, 0), slopes)
        return jax.linear_transpose(self.effect, self.none)(slopes)[0]

    @property
    def _inside(self) -> float:
        """Field of a Gaussian dipole in itself, V/Å for 1 e Å."""
        kernel = self.around.coulomb.kernel
        return COULOMB * kernel.own / (3 * kernel.smearing**2)

    def charged(self, gradient: Moved) -> Charged:
        """Return charges and dipoles, and their energy besides that in each other's and an external field, from the gradient of
        what they cost by themselves."""
        pairs, real, effect = self.pairs, self.around.graph.node_mask, self.effect(self.elastic.place(gradient))
        assert pairs.undirected is not None
        charges = self.resting + effect.charges
        cost = self.elastic.energy(gradient)
        elastic = 0.5 * pairs.sum_to_centers(pairs.undirected.to_directed(cost.flows)) + cost.dipoles
        inside = self._inside * jnp.sum(effect.dipoles**2, axis=1)
        energy = self.chi * charges + self.hardness * charges**2 / 2 + elastic + inside / 2
        return Charged(charges, jnp.where(real, energy, 0), effect.carried, self.resting, effect.dipoles)

    @property
    def elastic(self) -> Elastic:
        """The energy that flows and dipoles cost by themselves, eV."""
        limiting = self._limiting
        each = lambda function: (
            lambda moved, *more: Moved.of(
                *(function(w, c, *v) for w, c, *v in zip(moved.vectors, limiting, *(m.vectors for m in more), strict=True))
            )
        )
        return Elastic(
            place=each(_place),
            energy=lambda moved: Moved(*map(_energy, moved.vectors, limiting)),
            softness=each(_softness),
            hardness=each(_hardness),
            moved=each(_moved),
        )

    @property
    def systems(self) -> Systems:
        """To which system each flow and each dipole belongs."""
        graph = self.around.graph
        assert self.pairs.undirected is not None
        of_atoms = jnp.asarray(graph.node_graph)
        of_pairs = self.pairs.undirected.from_directed(self.pairs.from_centers(of_atoms.astype(self.chi.dtype)))
        return Systems(graph.num_graphs, Moved(of_pairs.astype(jnp.int32), of_atoms))

    @property
    def _limiting(self) -> tuple[Float[Array, " undirected"], Float[Array, " atoms"]]:
        """Return (s / m)^2 of each flow and of each dipole, 1/eV; zero without a limit."""
        assert self.pairs.undirected is not None
        scales = self.pairs.undirected.from_directed(self.flowing), self.dipole
        flows, dipoles = (jnp.zeros_like(s) if m is None else (s / m) ** 2 for s, m in zip(scales, self.limits, strict=True))
        return flows, dipoles


# W of a vector y with c = (s / m)^2 and x = s |y| is [1 - r] / c with r = sqrt(1 - c y^2). Its gradient is w = y / r, so that
# y = r w with r = 1 / sqrt(1 + c w^2), and its second derivative is (1 + c y y^T / r^2) / r = (1 + c w w^T) / r.


def _square(v: Float[Array, "n d"]) -> Float[Array, "n 1"]:
    return jnp.sum(v**2, axis=1, keepdims=True)


def _root(w: Float[Array, "n d"], c: Float[Array, " n"]) -> Float[Array, "n 1"]:
    """Compute r."""
    return 1 / jnp.sqrt(1 + c[:, None] * _square(w))


def _energy(w: Float[Array, "n d"], c: Float[Array, " n"]) -> Float[Array, " n"]:
    """Compute W of the y at which the gradient is w, eV."""
    root = _root(w, c)
    return (root**2 * _square(w) / (1 + root))[:, 0]


def _place(w: Float[Array, "n d"], c: Float[Array, " n"]) -> Float[Array, "n d"]:
    """Compute y."""
    return w * _root(w, c)


def _softness(w: Float[Array, "n d"], c: Float[Array, " n"], v: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Compute the root of the inverse of the second derivative, applied to v: r^(3/2) along w and r^(1/2) across."""
    root = _root(w, c)
    return jnp.sqrt(root) * (v - w * (c[:, None] * root**2 / (1 + root) * jnp.sum(w * v, axis=1, keepdims=True)))


def _hardness(w: Float[Array, "n d"], c: Float[Array, " n"], v: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Compute the inverse of ``_softness``."""
    root = _root(w, c)
    return (v + w * (c[:, None] * root / (1 + root) * jnp.sum(w * v, axis=1, keepdims=True))) / jnp.sqrt(root)


def _moved(w: Float[Array, "n d"], c: Float[Array, " n"], v: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return the gradient at y + v where that is a shorter vector, else w and the second derivative applied to v.

    The latter is always that of a place within the limit, where y + v may not be; on the way back it would lead too far.
    """
    root, c = _root(w, c), c[:, None]
    y, along = root * w, root * jnp.sum(w * v, axis=1, keepdims=True)
    # 1 - c (y + v)^2 from r^2, which is known to all digits.
    left = root**2 - c * (2 * along + _square(v))
    shorter = (along < 0) & (left > 0)
    straight = (y + v) / jnp.sqrt(jnp.where(shorter, left, 1))
    return jnp.where(shorter, straight, w + (v + w * (c * jnp.sum(w * v, axis=1, keepdims=True))) / root)
