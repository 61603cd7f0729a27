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

from equipot.graph import PADDING_VECTOR
from equipot.neighbors.packed import Halves, Pairs

BLOCK = 512
"""Most pairs in one block on a CPU: few, since a block that is only begun is computed to its end."""
WHOLE = 2048
"""Pairs up to which they are not divided."""
FAR = PADDING_VECTOR[0]
"""Distance (Å) in empty rows."""

Others = tuple[Float[Array, " pairs *n"], ...]
Function = Callable[[Any, Float[Array, " pairs"], Others], Float[Array, "pairs q"]]
"""Of variables, distances and other arrays of pairs; static, so that it holds no arrays itself."""


def map_pairs(
    function: Function, variables: Any, r: Float[Array, " pairs"], others: Others, pairs: Pairs, symmetric: bool = False
) -> Float[Array, "pairs q"]:
    """``function(variables, r, others)``; empty rows hold anything.

    ``symmetric`` says that the other arrays are the same for both directed pairs of two atoms: one of them is computed then.
    """
    return _map(function, pairs.packed, variables, r, others, pairs.count, pairs.halves if symmetric else None)


def _blocks(function: Function, packed: bool, variables: Any, r: Array, others: Others, count: Array) -> Array:
    """Blocks behind the last pair are skipped; what is inside of a block is computed again where it is differentiated.

    On an accelerator, where blocks would run one after the other, all pairs are one.
    """
    n = len(r)
    if n <= WHOLE or not packed:
        return function(variables, r, others)
    blocks = -(-n // BLOCK)
    size = -(-n // blocks)
    # Copies of the last row, since zero may be no sensible distance or radius.
    longer = lambda x: jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    split = lambda x: longer(x).reshape(blocks, size, *x.shape[1:])
    shape = jax.eval_shape(function, variables, r[:size], tuple(x[:size] for x in others))

    @jax.checkpoint
    def block(start: Array, r: Array, others: Others) -> Array:
        empty = lambda r, others: jnp.zeros(shape.shape, shape.dtype)
        return jax.lax.cond(start < count, partial(function, variables), empty, r, others)

    starts = jnp.arange(blocks, dtype=jnp.int32) * size
    out = jax.lax.map(lambda x: block(*x), (starts, split(r), tuple(map(split, others))))
    return out.reshape(blocks * size, *out.shape[2:])[:n]


def _all(
    function: Function, packed: bool, variables: Any, r: Array, others: Others, count: Array, halves: Halves | None
) -> Array:
    if halves is None:
        return _blocks(function, packed, variables, r, others, count)
    return halves.spread(_blocks(function, packed, variables, *_halved(halves, r, others), halves.count))


def _halved(halves: Halves, r: Array, others: Others) -> tuple[Array, Others]:
    """Arguments for one pair of two; in empty rows far away, and one."""
    empty = halves.one < 0
    fill = lambda x, value: jnp.where(empty.reshape(-1, *[1] * (x.ndim - 1)), jnp.asarray(value, x.dtype), halves.pick(x))
    return fill(r, FAR), tuple(fill(x, 1.0) for x in others)


_map = jax.custom_jvp(_all, nondiff_argnums=(0, 1))


def _jvp(function: Function, packed: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    variables, r, others, count, halves = primals
    dvariables, dr, dothers, *_ = tangents
    zero = lambda t: isinstance(t, jax.custom_derivatives.SymbolicZero)
    if all(map(zero, jax.tree.leaves((dvariables, dothers), is_leaf=zero))):
        inside, rest, used = r, others, count
        if halves is not None:
            (inside, rest), used = _halved(halves, r, others), halves.count
        along = lambda r: _blocks(function, packed, variables, r, rest, used)
        value, slope = jax.jvp(along, (inside,), (jnp.ones_like(inside),))
        if halves is not None:
            # Each directed pair keeps the derivative by its own distance: virials of atoms depend on that.
            value, slope = halves.spread(value), halves.spread(slope)
        return value, jnp.zeros_like(value) if zero(dr) else slope * dr[:, None]
    real = lambda t, x: jnp.zeros_like(x) if zero(t) else t
    filled = jax.tree.map(real, (dvariables, dr, dothers), (variables, r, others), is_leaf=zero)
    return jax.jvp(lambda *x: _all(function, packed, *x, count, halves), (variables, r, others), filled)


_map.defjvp(_jvp, symbolic_zeros=True)
