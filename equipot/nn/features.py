"""Equivariant features and the linear maps between them.

Features are a mapping from irrep to an array [atoms, 2l+1, channels]. The channel axis is last: every mixing of channels is
then one matrix product on contiguous memory. Components of an irrep stand in e3nn's order and normalisation.
"""

from __future__ import annotations

import dataclasses
import math

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

Features = dict[e3nn.Irrep, Float[Array, "atoms m channels"]]

FEW_SPECIES = 4
"""Up to this many species, per-species weights are applied to a one-hot expansion; beyond, they are gathered for each atom."""


@dataclasses.dataclass(frozen=True)
class PerSpecies:
    """Weights of their own for every species."""

    def kinds(self, count: int, species: Int[Array, " atoms"]) -> tuple[int, Int[Array, " atoms"]]:
        """Number of sets of weights for ``count`` species, and the set of each atom."""
        return count, species

    def linear(self, x: Features, species: Int[Array, " atoms"], irreps: str, count: int, name: str) -> Features:
        """Linear map to ``irreps`` by a module ``name`` of the compact module that calls this."""
        return SpeciesLinear(irreps, count, name=name)(x, species)


@dataclasses.dataclass(frozen=True)
class Shared:
    """The same weights for all species."""

    def kinds(self, count: int, species: Int[Array, " atoms"]) -> tuple[int, Int[Array, " atoms"]]:
        """As ``PerSpecies.kinds``: one set, the same for each atom."""
        return 1, jnp.zeros_like(species)

    def linear(self, x: Features, species: Int[Array, " atoms"], irreps: str, count: int, name: str) -> Features:
        """As ``PerSpecies.linear``."""
        return Linear(irreps, name=name)(x)


def regroup(irreps: str | e3nn.Irreps) -> dict[e3nn.Irrep, int]:
    """Multiplicity of each irrep, in e3nn's order."""
    out: dict[e3nn.Irrep, int] = {}
    for mul, ir in e3nn.Irreps(irreps).sort().irreps.simplify():
        out[ir] = mul
    return out


def check_elements(elements: tuple[int, ...]) -> None:
    """ValueError for a table of elements with one that is none, or twice the same."""
    wrong = [z for z in elements if not 1 <= z <= 118]
    if wrong:
        raise ValueError(f"elements: {wrong[0]} is not an atomic number from 1 to 118")
    if len(set(elements)) < len(elements):
        raise ValueError(f"elements: {list(elements)} has one of them twice")


def species_index(
    numbers: Int[Array, " atoms"], elements: tuple[int, ...]
) -> tuple[Int[Array, " atoms"], Float[Array, " atoms"]]:
    """Row of each atom in ``elements`` (the first for padding), and a factor that is NaN for an element that is not there."""
    table = np.full(120, -1)
    table[0] = 0
    table[list(elements)] = np.arange(len(elements))
    index = jnp.asarray(table, jnp.int32)[numbers]
    return jnp.maximum(index, 0), jnp.where(index < 0, jnp.nan, 1.0)


def one_hot(species: Int[Array, " atoms"], count: int, dtype: jnp.dtype) -> Float[Array, "atoms species"]:
    return (species[:, None] == jnp.arange(count)).astype(dtype)


class Linear(nn.Module):
    """y[ir] = x[ir] W[ir] / sqrt(fan_in), W ~ N(0, 1); irreps that the input lacks are left out."""

    irreps: str
    bias: bool = False
    """Add a learned constant, zero at first, to even scalars."""

    @nn.compact
    def __call__(self, x: Features) -> Features:
        out = {}
        for ir, mul in regroup(self.irreps).items():
            if ir in x:
                w = self.param(f"w{ir}", nn.initializers.normal(1.0), (x[ir].shape[-1], mul))
                out[ir] = x[ir] @ (w / math.sqrt(w.shape[0])).astype(x[ir].dtype)
                if self.bias and ir == e3nn.Irrep("0e"):
                    out[ir] += self.param("b", nn.initializers.zeros, (mul,)).astype(x[ir].dtype)
        return out


class SpeciesLinear(nn.Module):
    """A ``Linear`` with weights of its own for every species."""

    irreps: str
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, x: Features, species: Int[Array, " atoms"]) -> Features:
        out = {}
        for ir, mul in regroup(self.irreps).items():
            if ir in x:
                fan = x[ir].shape[-1]
                w = self.param(f"w{ir}", nn.initializers.normal(1.0), (self.count, fan, mul))
                out[ir] = species_matmul(x[ir], (w / math.sqrt(fan)).astype(x[ir].dtype), species)
        return out


def species_matmul(
    x: Float[Array, "atoms m inputs"], w: Float[Array, "species inputs outputs"], species: Int[Array, " atoms"]
) -> Float[Array, "atoms m outputs"]:
    """x[n] @ w[species[n]]."""
    count, fan, width = w.shape
    if count == 1:
        return x @ w[0]
    if count > FEW_SPECIES:
        return jnp.einsum("nmi,nio->nmo", x, w[species])
    chosen = one_hot(species, count, x.dtype)[:, None, :, None] * x[:, :, None, :]
    return chosen.reshape(*x.shape[:2], count * fan) @ w.reshape(count * fan, width)


def add(x: Features, y: Features) -> Features:
    """Sum over the irreps of either."""
    return {ir: x[ir] + y[ir] if ir in x and ir in y else x.get(ir, y.get(ir)) for ir in {**x, **y}}


def scalars(x: Features) -> Float[Array, "atoms channels"]:
    """The invariant channels."""
    return x[e3nn.Irrep("0e")][:, 0]
