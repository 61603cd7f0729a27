"""Total charge and unpaired electrons in a network: spread over the atoms, and fed back into the features of these.

The idea is that of SpookyNet (Unke et al., Nat. Commun. 12, 7273 (2021), arXiv:2105.00304): a number that belongs to a whole
system is divided among the atoms by weights that the network learns. Each of the three numbers n_k (positive charge, negative
charge, unpaired electrons) has weights of its own, w_ik > 0, functions of the invariant features x_i of an atom:

    a_ik = n_k w_ik / sum_j w_jk,    sum_i a_ik = n_k    (sums over the atoms of a system)

and the features change by f(sum_k a_ik v_k(x_i, s_i)), with v_k linear in x_i plus a vector of the species s_i, and f a network
without biases, so that f(0) = 0.

What holds exactly: a neutral singlet has the features, and so the energy, of the network without electrons, whatever the
parameters; equal systems far apart share charge and unpaired electrons equally, so that n copies have n times the energy, and a
repeated cell likewise. What does not hold: unlike systems far apart share a charge in the ratio of their sums of weights. A
neutral spectator takes the share W_B / (W_A + W_B) of the charge of an ion, and the energy of the pair differs from the sum of
the energies by an amount that vanishes with this share. The weights span six orders of magnitude, so that training on pairs far
apart can make the share as small as that. A charge is never confined to one of two fragments exactly: nothing in a graph says
which of them it belongs to.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph, sum_graphs, to_atoms
from equipot.nn.radial import MLP

NUMBERS = 3
"""Numbers of a system that are spread: positive charge (e), negative charge (-e), unpaired electrons."""
FLOOR = 1e-6
"""Smallest weight: weights that are all small are still divided by a number that single precision holds."""


@dataclasses.dataclass(frozen=True)
class Electrons:
    """Choice of a network that sees total charge and unpaired electrons, after its first interaction."""

    width: int = 16
    """Width of the hidden layers that give the weights of an atom and the change of its features."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width} must be at least 1")


def numbers_of(graph: Graph) -> Float[Array, "graphs 3"]:
    """Return positive charge, negative charge and unpaired electrons of each system, all zero or positive."""
    assert graph.charge is not None and graph.spin is not None, "a network with electrons needs both"
    charge = jnp.asarray(graph.charge)
    return jnp.stack([jnp.maximum(charge, 0), jnp.maximum(-charge, 0), jnp.asarray(graph.spin)], axis=-1)


def shares(weights: Float[Array, "atoms 3"], graph: Graph) -> Float[Array, "atoms 3"]:
    """Divide charge and unpaired electrons of each system among its atoms, in proportion to positive weights.

    Padding atoms get nothing. The shares of a system sum to its charge and spin, see ``numbers_of``.
    """
    weights = jnp.where(graph.node_mask[:, None], weights, 0)
    total = sum_graphs(weights, graph)
    # A graph of padding has no atoms, and no weights either.
    per_weight = numbers_of(graph).astype(weights.dtype) / jnp.where(total > 0, total, 1)
    return weights * to_atoms(per_weight, graph)


class SpreadElectrons(nn.Module):
    """Divide charge and unpaired electrons among the atoms, and compute the change of the atoms' invariant features."""

    width: int
    """See ``Electrons``."""
    count: int
    """Number of species."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "atoms channels"], species: Int[Array, " atoms"], graph: Graph
    ) -> tuple[Float[Array, "atoms channels"], Float[Array, "atoms 3"]]:
        """Return the change of the features, zero for neutral singlets, and the shares of each atom."""
        bias = self.param("bias", nn.initializers.zeros, (self.count, NUMBERS)).astype(x.dtype)
        weights = jax.nn.softplus(MLP((self.width, NUMBERS), name="weight")(x) + bias[species]) + FLOOR
        own = shares(weights, graph)
        states = self.param("states", nn.initializers.normal(1.0), (self.count, NUMBERS, self.width)).astype(x.dtype)
        values = states[species] + MLP((NUMBERS * self.width,), name="value")(x).reshape(-1, NUMBERS, self.width)
        return MLP((self.width, x.shape[-1]), name="update")(jnp.sum(own[..., None] * values, axis=1)), own
