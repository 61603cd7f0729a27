"""First and last layers of every network: species to features, invariant features to the energy of each atom."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.nn.radial import along_last, silu


class Embedding(nn.Module):
    """A learned vector for each species, unit variance."""

    width: int
    count: int

    @nn.compact
    def __call__(self) -> Float[Array, "species width"]:
        return self.param("w", nn.initializers.normal(1.0), (self.count, self.width))


class BiasedMLP(nn.Module):
    """Layers of x @ W / sqrt(fan_in) + b, W ~ N(0, 1), b = 0 at the start; SiLU between, none after the last."""

    widths: Sequence[int]

    @nn.compact
    def with_inputs(self, x: Float[Array, "*batch n"]) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch m"]]:
        """Return the inputs of the last layer over sqrt(fan_in), and the outputs: inputs @ W + b."""
        for k, width in enumerate(self.widths):
            fan, inputs = x.shape[-1], silu(x) if k else x
            w = self.param(f"w{k}", nn.initializers.normal(1.0), (fan, width))
            b = self.param(f"b{k}", nn.initializers.zeros, (width,))
            x = inputs @ (w / math.sqrt(fan)).astype(x.dtype)
            x = x + along_last(b.astype(x.dtype), x)
        return inputs / math.sqrt(fan), x

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        return self.with_inputs(x)[1]


def check_heads(heads: tuple[str, ...]) -> None:
    """ValueError for names of heads that cannot be told apart, or that a file name with ``@HEAD`` could not give."""
    wrong = [name for name in heads if not re.fullmatch(r"[\w.+-]+", name)]
    if wrong:
        raise ValueError(f"heads: {wrong[0]!r} is not one word of letters, digits and . + - _")
    if len(set(heads)) < len(heads):
        raise ValueError(f"heads: {list(heads)} has one of them twice")


class ReadOut(NamedTuple):
    """Energy of each atom, and what the last linear layer computes the energy from."""

    energy: Float[Array, " atoms"]
    """eV."""
    features: Float[Array, "atoms features"] | None
    """Features of which the energy is a linear function, but for a constant of each species; see ``Atomic.features``."""


def scaled(
    head: nn.Module,
    network: Float[Array, " atoms"],
    species: Int[Array, " atoms"],
    inputs: Float[Array, "atoms features"] | None = None,
) -> ReadOut:
    """Scale the output of a network to the energy of each atom in eV: scale[s] x network + shift[s].

    Both constants [species] come from the training set.

    Args:
        inputs: numbers of which ``network`` is a linear function; None for a network without uncertainty of its last layer.
    """
    scale = head.variable("constants", "scale", lambda: jnp.ones(head.count)).value
    shift = head.variable("constants", "shift", lambda: jnp.zeros(head.count)).value
    features = None if inputs is None else scale[species][:, None] * inputs
    return ReadOut(scale[species] * network + shift[species], features)
