"""Map a function over pairs in blocks that fit into the cache of a CPU, with its derivative by the distance in forward mode.

Forces need the derivative of a radial network with respect to one number per pair, the distance. Computing that derivative
forward, together with the value, costs less than backpropagation through the network and stores no intermediate results.
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
"""Largest number of pairs in one block on a CPU. Small, since the last block is computed whole even if few rows hold pairs."""
SINGLE_BLOCK_ROWS = 2048
"""Number of rows up to which pairs are not divided into blocks."""
FAR = PADDING_VECTOR[0]
"""Distance (Å) in empty rows."""

PairArrays = tuple[Float[Array, "pairs ..."], ...]
"""Arrays with one row for each pair."""
Function = Callable[[Any, Float[Array, " pairs"], PairArrays], Float[Array, "pairs q"]]
"""Function of variables, distances (Å) and further arrays of pairs. A static argument of JAX: it must not close over arrays."""


def blocked_map(
    function: Function, variables: Any, r: Float[Array, " pairs"], others: PairArrays, pairs: Pairs, symmetric: bool = False
) -> Float[Array, "pairs q"]:
    """Compute ``function(variables, r, others)`` for all pairs; the values in empty rows are arbitrary.

    Args:
        function: Function whose output in the row of a pair depends on the inputs in that row alone.
        variables: Parameters of the function, a pytree.
        r: Distances (Å).
        others: Further arrays with one row for each pair.
        pairs: Pairs that the rows belong to.
        symmetric: Whether ``others`` are equal for both directed pairs of two atoms; the function is then computed only once.
    """
    return _map(function, variables, r, others, pairs.count, pairs.undirected if symmetric else None)


def _map_rows(
    function: Function, variables: Any, r: Array, others: PairArrays, count: Array, apply: Callable = lambda f, r: f(r)
) -> Any:
    """Compute the function for ``count`` rows: in blocks on a CPU, at once elsewhere, since blocks are computed in sequence.

    ``apply(f, r)`` says what of the function f of the distances is computed: its value, or also its derivative.
    """

    def at_once(variables: Any, r: Array, others: PairArrays, count: Array) -> Any:
        return apply(lambda r: function(variables, r, others), r)

    def in_blocks(variables: Any, r: Array, others: PairArrays, count: Array) -> Any:
        return apply(lambda r: _map_blocks(function, variables, r, others, count), r)

    if len(r) <= SINGLE_BLOCK_ROWS:
        return at_once(variables, r, others, count)
    return jax.lax.platform_dependent(variables, r, others, count, cpu=in_blocks, default=at_once)


def _map_blocks(function: Function, variables: Any, r: Array, others: PairArrays, count: Array) -> Array:
    """Compute the function block by block up to row ``count``. Differentiation recomputes the inside of each block."""
    n = len(r)
    blocks = -(-n // BLOCK)
    size = -(-n // blocks)
    # Copies of the last row, since zero may be no sensible distance or radius.
    longer = lambda x: jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    split = lambda x: longer(x).reshape(blocks, size, *x.shape[1:])
    shape = jax.eval_shape(function, variables, r[:size], tuple(x[:size] for x in others))

    @jax.checkpoint
    def block(start: Array, r: Array, others: PairArrays) -> Array:
        empty = lambda r, others: jnp.zeros(shape.shape, shape.dtype)
        return jax.lax.cond(start < count, partial(function, variables), empty, r, others)

    starts = jnp.arange(blocks, dtype=jnp.int32) * size
    out = jax.lax.map(lambda x: block(*x), (starts, split(r), tuple(map(split, others))))
    return out.reshape(blocks * size, *out.shape[2:])[:n]


def _map_pairs(
    function: Function, variables: Any, r: Array, others: PairArrays, count: Array, undirected: UndirectedPairs | None
) -> Array:
    """Compute the function for all directed pairs, once for each undirected pair where these are given."""
    if undirected is None:
        return _map_rows(function, variables, r, others, count)
    once = _map_rows(function, variables, *_to_undirected(undirected, r, others), undirected.count)
    return undirected.to_directed(once)


def _to_undirected(undirected: UndirectedPairs, r: Array, others: PairArrays) -> tuple[Array, PairArrays]:
    """Select the rows of undirected pairs; in empty rows the distance is ``FAR`` and other arrays are one."""
    empty = undirected.representative < 0

    def fill(x: Array, value: float) -> Array:
        mask = empty.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(mask, jnp.asarray(value, x.dtype), undirected.from_directed(x))

    return fill(r, FAR), tuple(fill(x, 1.0) for x in others)


_map = jax.custom_jvp(_map_pairs, nondiff_argnums=(0,))


def _jvp(function: Function, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Differentiate by the distance alone in one forward pass; by variables and other arrays in JAX's own way."""
    variables, r, others, count, undirected = primals
    dvariables, dr, dothers, *_ = tangents
    zero = lambda t: isinstance(t, jax.custom_derivatives.SymbolicZero)
    if all(map(zero, jax.tree.leaves((dvariables, dothers), is_leaf=zero))):
        inside, rest, used = r, others, count
        if undirected is not None:
            (inside, rest), used = _to_undirected(undirected, r, others), undirected.count
        # The derivative is taken inside of the choice of a platform: outside, all branches would be traced twice.
        both = lambda f, r: jax.jvp(f, (r,), (jnp.ones_like(r),))
        value, slope = _map_rows(function, variables, inside, rest, used, both)
        if undirected is not None:
            # Each directed pair keeps the derivative by its own distance, which the virials of atoms depend on.
            value, slope = undirected.to_directed(value), undirected.to_directed(slope)
        return value, jnp.zeros_like(value) if zero(dr) else slope * dr[:, None]
    real = lambda t, x: jnp.zeros_like(x) if zero(t) else t
    filled = jax.tree.map(real, (dvariables, dr, dothers), (variables, r, others), is_leaf=zero)
    whole = lambda variables, r, others: _map_pairs(function, variables, r, others, count, undirected)
    return jax.jvp(whole, (variables, r, others), filled)


_map.defjvp(_jvp, symbolic_zeros=True)
