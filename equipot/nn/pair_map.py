"""A function of every pair, in blocks that stay in the cache, differentiated by the distance while it is computed.

Of what a pair's network says, forces need the derivative by one number, the distance: to compute it forward together with the
value costs less than to go back through the network, and nothing inside the network has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.pairs import Pairs

BLOCK = 2048
"""Pairs in one block on a CPU."""

Others = tuple[Float[Array, "pairs *n"], ...]
Function = Callable[[Any, Float[Array, "pairs"], Others], Float[Array, "pairs q"]]
"""Of variables, distances and other arrays of pairs; static, so that it holds no arrays itself."""


def map_pairs(
    function: Function, variables: Any, r: Float[Array, "pairs"], others: Others, pairs: Pairs
) -> Float[Array, "pairs q"]:
    """``function(variables, r, others)``; zeros in blocks of empty rows."""
    return _map(function, pairs.packed, variables, r, others, pairs.count)


def _blocks(function: Function, packed: bool, variables: Any, r: Array, others: Others, count: Array) -> Array:
    """Blocks behind the last pair are skipped; what is inside of a block is computed again where it is differentiated.

    On an accelerator, where blocks would run one after the other, all pairs are one.
    """
    n = len(r)
    if n <= BLOCK or not packed:
        return function(variables, r, others)
    blocks = -(-n // BLOCK)
    split = lambda x: jnp.pad(x, [(0, blocks * BLOCK - n)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, BLOCK, *x.shape[1:])
    shape = jax.eval_shape(function, variables, r[:BLOCK], tuple(x[:BLOCK] for x in others))

    @jax.checkpoint
    def block(start: Array, r: Array, others: Others) -> Array:
        empty = lambda r, others: jnp.zeros(shape.shape, shape.dtype)
        return jax.lax.cond(start < count, partial(function, variables), empty, r, others)

    starts = jnp.arange(blocks, dtype=jnp.int32) * BLOCK
    out = jax.lax.map(lambda x: block(*x), (starts, split(r), tuple(map(split, others))))
    return out.reshape(blocks * BLOCK, *out.shape[2:])[:n]


_map = jax.custom_jvp(_blocks, nondiff_argnums=(0, 1))


def _jvp(function: Function, packed: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    variables, r, others, count = primals
    dvariables, dr, dothers, _ = tangents
    zero = lambda t: isinstance(t, jax.custom_derivatives.SymbolicZero)
    if all(map(zero, jax.tree.leaves((dvariables, dothers), is_leaf=zero))):
        along = lambda r: _blocks(function, packed, variables, r, others, count)
        value, slope = jax.jvp(along, (r,), (jnp.ones_like(r),))
        return value, jnp.zeros_like(value) if zero(dr) else slope * dr[:, None]
    real = lambda t, x: jnp.zeros_like(x) if zero(t) else t
    filled = jax.tree.map(real, (dvariables, dr, dothers), (variables, r, others), is_leaf=zero)
    return jax.jvp(lambda *x: _blocks(function, packed, *x, count), (variables, r, others), filled)


_map.defjvp(_jvp, symbolic_zeros=True)
