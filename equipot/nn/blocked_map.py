"""A function of every pair, in blocks that stay in the cache of a CPU, differentiated by the distance while it is computed.

Of the network of a pair, forces need the derivative with respect to one number, the distance: to compute that derivative
forward together with the value costs less than to go back through the network, and nothing inside the network is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import PADDING_VECTOR
from equipot.neighbors.packed import Pairs, UndirectedPairs

BLOCK = 512
"""Most pairs in one block on a CPU: few, since a block that is only begun is computed to its end."""
WHOLE = 2048
"""Number of rows up to which pairs are not divided into blocks."""
FAR = PADDING_VECTOR[0]
"""Distance (Å) in empty rows."""

Others = tuple[Float[Array, " pairs *n"], ...]
Function = Callable[[Any, Float[Array, " pairs"], Others], Float[Array, "pairs q"]]
"""Function of variables, distances and other arrays of pairs. It is static, so that it must hold no arrays itself."""


def blocked_map(
    function: Function, variables: Any, r: Float[Array, " pairs"], others: Others, pairs: Pairs, symmetric: bool = False
) -> Float[Array, "pairs q"]:
    """Compute ``function(variables, r, others)`` of all pairs; empty rows hold anything.

    Args:
        function: Acts on every pair alone.
        variables: Parameters, a pytree.
        r: Distances (Å).
        others: Other arrays with a row for each pair.
        pairs: Whose rows these are.
        symmetric: Whether the other arrays are equal for both directed pairs of two atoms: it is computed once for both then.
    """
    return _map(function, variables, r, others, pairs.count, pairs.undirected if symmetric else None)


def _blocks(function: Function, variables: Any, r: Array, others: Others, count: Array) -> Array:
    """All pairs at once but on a CPU, where they are many: an accelerator would compute blocks one after the other."""
    if len(r) <= WHOLE:
        return function(variables, r, others)
    whole = lambda variables, r, others, count: function(variables, r, others)
    return jax.lax.platform_dependent(variables, r, others, count, cpu=partial(_one_by_one, function), default=whole)


def _one_by_one(function: Function, variables: Any, r: Array, others: Others, count: Array) -> Array:
    """Block after block, but those behind the last pair. Differentiation computes the inside of a block again."""
    n = len(r)
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
    function: Function, variables: Any, r: Array, others: Others, count: Array, undirected: UndirectedPairs | None
) -> Array:
    if undirected is None:
        return _blocks(function, variables, r, others, count)
    once = _blocks(function, variables, *_once(undirected, r, others), undirected.count)
    return undirected.to_directed(once)


def _once(undirected: UndirectedPairs, r: Array, others: Others) -> tuple[Array, Others]:
    """Arguments of undirected pairs; in empty rows the distance is ``FAR`` and other arrays are one."""
    empty = undirected.representative < 0

    def fill(x: Array, value: float) -> Array:
        mask = empty.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(mask, jnp.asarray(value, x.dtype), undirected.from_directed(x))

    return fill(r, FAR), tuple(fill(x, 1.0) for x in others)


_map = jax.custom_jvp(_all, nondiff_argnums=(0,))


def _jvp(function: Function, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    variables, r, others, count, undirected = primals
    dvariables, dr, dothers, *_ = tangents
    zero = lambda t: isinstance(t, jax.custom_derivatives.SymbolicZero)
    if all(map(zero, jax.tree.leaves((dvariables, dothers), is_leaf=zero))):
        inside, rest, used = r, others, count
        if undirected is not None:
            (inside, rest), used = _once(undirected, r, others), undirected.count
        along = lambda r: _blocks(function, variables, r, rest, used)
        value, slope = jax.jvp(along, (inside,), (jnp.ones_like(inside),))
        if undirected is not None:
            # Each directed pair keeps the derivative by its own distance: virials of atoms depend on that.
            value, slope = undirected.to_directed(value), undirected.to_directed(slope)
        return value, jnp.zeros_like(value) if zero(dr) else slope * dr[:, None]
    real = lambda t, x: jnp.zeros_like(x) if zero(t) else t
    filled = jax.tree.map(real, (dvariables, dr, dothers), (variables, r, others), is_leaf=zero)
    return jax.jvp(lambda *x: _all(function, *x, count, undirected), (variables, r, others), filled)


_map.defjvp(_jvp, symbolic_zeros=True)
