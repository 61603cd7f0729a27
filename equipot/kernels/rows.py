"""Sums of rows, which move values between atoms, slots and pairs.

    y[i] = sum_k x[index[i, k]]

The transpose of such a sum is a scatter, x[j] = sum over all (i, k) with index[i, k] = j of y[i]. If the rows that add up to
x[j] are known, as in a symmetric list of neighbours, the transpose is a sum of rows too: fast on CPUs, and deterministic on all
platforms, since no two threads add to one number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from equipot.kernels import primitive, rows_code


def sum_rows(x: Num[Array, "n ..."], index: Int[Array, "m k"], reverse: Int[Array, "n l"] | None) -> Num[Array, "m ..."]:
    """Sum rows of ``x`` for each row of ``index``: y[i] = sum_k x[index[i, k]].

    Args:
        x: Rows that are summed.
        index: Indices of the rows to sum; -1 adds nothing.
        reverse: Indices of the transposed sum, x[j] = sum_l y[reverse[j, l]]; -1 adds nothing. With None the transpose is a
            scatter.
    """
    if reverse is None:
        return _gathered(x, index)
    (out,) = rows_p.bind(index.astype(jnp.int32), reverse.astype(jnp.int32), x, forms=RowSum())
    return out


def add_rows(x: Num[Array, "n ..."], to: Int[Array, " n"], count: int) -> Num[Array, "count ..."]:
    """Add row k of ``x`` to row ``to[k]`` of ``count`` rows of zeros; rows with ``to[k]`` = -1 are dropped."""
    return jnp.zeros((count, *x.shape[1:]), x.dtype).at[jnp.where(to < 0, count, to)].add(x, mode="drop")


@dataclasses.dataclass(frozen=True)
class RowSum:
    """A sum of rows of one operand, or of its transpose (see ``primitive.Forms``); index arrays: index and reverse."""

    operand: int | None = 0
    """Index of the operand that is summed; None for a result that is zero."""
    transposed: bool = False
    """Whether the sum is over the rows in ``reverse`` instead of ``index``."""

    indices = 2

    @property
    def outputs(self) -> tuple[int | None]:
        return (self.operand,)

    def chosen(self, index: Array, reverse: Array) -> Array:
        """Return the index array of the sum."""
        return reverse if self.transposed else index

    def shapes(self, index: tuple[int, ...], reverse: tuple[int, ...], x: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [((reverse if self.transposed else index)[0], *x[1:])]

    def tangent(self, varied: Sequence[int]) -> RowSum:
        return dataclasses.replace(self, operand=1 if varied else None)

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> RowSum:
        return RowSum(1 if given else None, not self.transposed)

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        return cotangent

    def pruned(self) -> tuple[RowSum, tuple[int, ...], tuple[int, ...]]:
        return (self, (), ()) if self.operand is None else (dataclasses.replace(self, operand=0), (self.operand,), (0,))


def _gathered(x: Array, index: Array) -> Array:
    """Compute sum_k x[index[i, k]] by a gather and a sum."""
    found = x.at[jnp.maximum(index, 0)].get(mode="promise_in_bounds")
    kept = jnp.where((index >= 0).reshape(*index.shape, *([1] * (x.ndim - 1))), found, 0)
    return kept[:, 0] if index.shape[1] == 1 else jnp.sum(kept, axis=1, dtype=x.dtype)


def plain(index: Array, reverse: Array, x: Array, *, forms: RowSum) -> list[Array]:
    """Compute a ``RowSum`` in JAX."""
    return [_gathered(x, forms.chosen(index, reverse))]


def native(index: Array, reverse: Array, x: Array, *, forms: RowSum) -> list[Array]:
    """Compute a ``RowSum`` by machine code; in JAX where there is none for this type of numbers."""
    sums = rows_code.call if rows_code.possible(x.dtype) else _gathered
    return [sums(x, forms.chosen(index, reverse))]


def _batch(arguments: Sequence, axes: Sequence, *, forms: RowSum) -> tuple:
    """Batch a sum of rows: along an axis of the rows if only ``x`` is batched, else as one system with all rows."""
    index, reverse, x = arguments
    if not any(isinstance(axis, int) for axis in axes[:2]):
        # The sum acts on the leading axis only, so that a batch axis may be the last axis of the rows.
        return rows_p.bind(index, reverse, jnp.moveaxis(x, axes[2], -1), forms=forms), [x.ndim - 1]
    # One system with the rows of all.
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if isinstance(axis, int))
    front = lambda a, axis: jnp.moveaxis(a, axis, 0) if isinstance(axis, int) else jnp.broadcast_to(a, (size, *a.shape))
    index, reverse, x = (front(a, axis) for a, axis in zip(arguments, axes, strict=True))
    shift = lambda i, rows: jnp.where(i < 0, -1, i + rows * jnp.arange(size, dtype=i.dtype)[:, None, None])
    whole = lambda a: a.reshape(-1, *a.shape[2:])
    shifted = shift(index, reverse.shape[1]), shift(reverse, index.shape[1])
    (out,) = rows_p.bind(*map(whole, (*shifted, x)), forms=forms)
    return [out.reshape(size, -1, *out.shape[1:])], [0]


rows_p = primitive.make("equipot_sum_rows", plain, native, _batch)
