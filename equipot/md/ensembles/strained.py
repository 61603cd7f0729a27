"""Exact kicks and drifts of atoms in a cell that is strained at a constant rate v, through the eigenvectors of v."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def strained_kick(
    momentum: Float[Array, "atoms 3"], force: Float[Array, "atoms 3"], rate: Float[Array, "3 3"], time: float, n: int
) -> Float[Array, "atoms 3"]:
    """Integrate dp/dt = F - (v + tr(v) / 3n) p over ``time`` for constant F and v; ``n`` is the number of atoms."""
    values, axes = jnp.linalg.eigh(rate)
    x = -(values + jnp.sum(values) / (3 * n))[None] * time
    return ((momentum @ axes) * jnp.exp(x) + (force @ axes) * time * expm1_over(x)) @ axes.T


def strained_drift(
    position: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    velocity: Float[Array, "atoms 3"],
    rate: Float[Array, "3 3"],
    time: float,
) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
    """Integrate dr/dt = p/m + v r and dh/dt = v h over ``time`` for constant p/m and v; return positions and cell, Å."""
    values, axes = jnp.linalg.eigh(rate)
    x = values[None] * time
    grow = lambda rows: rows + ((rows @ axes) * jnp.expm1(x)) @ axes.T
    return grow(position) + ((velocity @ axes) * time * expm1_over(x)) @ axes.T, grow(cell)


def expm1_over(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Compute (exp(x) - 1) / x, 1 at x = 0."""
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.expm1(safe) / safe)
