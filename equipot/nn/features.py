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

from equipot.arrays import AnyArray

Features = dict[e3nn.Irrep, Float[Array, "_rows _m _channels"]]
"""Features by irrep; m = 2l+1 components."""

FEW_SPECIES = 4
"""Up to this many species, per-species weights are applied to a one-hot expansion; beyond, they are gathered for each atom."""


@dataclasses.dataclass(frozen=True)
class PerSpecies:
    """Choice of one set of weights for each species."""

    def kinds(self, count: int, species: Int[Array, " atoms"]) -> tuple[int, Int[Array, " atoms"]]:
        """Return the number of sets of weights for ``count`` species, and the index of the set that each atom uses."""
        return count, species

    def weight_axes(self, count: int) -> tuple[int, ...]:
        """Return the shape of the leading axes of a weight, before [inputs, outputs], for ``count`` species."""
        return (count,)

    def linear(self, x: Features, species: Int[Array, " atoms"], irreps: str, count: int, name: str) -> Features:
        """Map ``x`` linearly to ``irreps``; a compact module calls this method and gets a submodule ``name``."""
        return SpeciesLinear(irreps, count, name=name)(x, species)


@dataclasses.dataclass(frozen=True)
class Shared:
    """Choice of one set of weights for all species. Methods are described in ``PerSpecies``."""

    def kinds(self, count: int, species: Int[Array, " atoms"]) -> tuple[int, Int[Array, " atoms"]]:
        return 1, jnp.zeros_like(species)

    def weight_axes(self, count: int) -> tuple[int, ...]:
        return ()

    def linear(self, x: Features, species: Int[Array, " atoms"], irreps: str, count: int, name: str) -> Features:
        return Linear(irreps, name=name)(x)


def regroup(irreps: str | e3nn.Irreps) -> dict[e3nn.Irrep, int]:
    """Return the multiplicity of each irrep, in e3nn's order."""
    out: dict[e3nn.Irrep, int] = {}
    for mul, ir in e3nn.Irreps(irreps).sort().irreps.simplify():
        out[ir] = mul
    return out


def check_elements(elements: tuple[int, ...]) -> None:
    """Check a table of atomic numbers.

    Raises:
        ValueError: a number outside 1 to 118, or a number that is repeated.
    """
    wrong = [z for z in elements if not 1 <= z <= 118]
    if wrong:
        raise ValueError(f"elements: {wrong[0]} is not an atomic number from 1 to 118")
    if len(set(elements)) < len(elements):
        raise ValueError(f"elements: {list(elements)} has one of them twice")


def species_index(
    numbers: Int[AnyArray, " atoms"], elements: tuple[int, ...]
) -> tuple[Int[Array, " atoms"], Float[Array, " atoms"]]:
    """Return the index of each atom's element in ``elements`` (0 for padding), and a factor: 1, or NaN if not in the table."""
    table = np.full(120, -1)
    table[0] = 0
    table[list(elements)] = np.arange(len(elements))
    index = jnp.asarray(table, jnp.int32)[numbers]
    return jnp.maximum(index, 0), jnp.where(index < 0, jnp.nan, 1.0)


def one_hot(species: Int[Array, " atoms"], count: int, dtype: jnp.dtype) -> Float[Array, "atoms species"]:
    """Return 1 in the column of each atom's species and 0 in all others."""
    return (species[:, None] == jnp.arange(count)[None]).astype(dtype)


class Linear(nn.Module):
    """Linear map y[ir] = x[ir] W[ir] / sqrt(fan_in), W ~ N(0, 1) at initialisation.

    The output lacks the irreps that the input lacks.
    """

    irreps: str
    """Output irreps with their numbers of channels."""
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
                    out[ir] += self.param("b", nn.initializers.zeros, (mul,)).astype(x[ir].dtype)[None, None]
        return out


class SpeciesLinear(nn.Module):
    """Linear map as ``Linear``, with one set of weights for each species."""

    irreps: str
    """Output irreps with their numbers of channels."""
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
    """Compute x[n] @ w[species[n]] for every atom n."""
    count, fan, width = w.shape
    if count == 1:
        return x @ w[0]
    if count > FEW_SPECIES:
        return jnp.einsum("nmi,nio->nmo", x, w[species])
    chosen = one_hot(species, count, x.dtype)[:, None, :, None] * x[:, :, None, :]
    return chosen.reshape(*x.shape[:2], count * fan) @ w.reshape(count * fan, width)


def add(x: Features, y: Features) -> Features:
    """Add two features irrep by irrep; an irrep that only one of them has is copied."""
    return {ir: x[ir] + y[ir] if ir in x and ir in y else value for ir, value in {**x, **y}.items()}


def scalars(x: Features) -> Float[Array, "atoms channels"]:
    """Select the invariant channels (irrep 0e)."""
    return x[e3nn.Irrep("0e")][:, 0]
