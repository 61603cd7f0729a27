"""Machine code of sums of rows, y[i] = sum_k x[index[i, k]]."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.kernels import ffi_check, xla_ffi
from equipot.kernels.ffi_handler import I32, I64, Arguments
from equipot.kernels.llvm_builder import Emitter
from equipot.kernels.xla_ffi import REAL

VECTORS = 8
"""Number of vector registers that hold partial sums of a row."""


def possible(dtype: jnp.dtype) -> bool:
    """Return whether machine code for this type of numbers can be compiled and called on this processor."""
    return str(dtype) in REAL and ffi_check.available()


def call(x: Float[Array, "n ..."], index: Int[Array, "m k"]) -> Float[Array, "m ..."]:
    """Compute y[i] = sum_k x[index[i, k]] by machine code; an index of -1 adds nothing."""
    width, single = math.prod(x.shape[1:]), index.shape[1] == 1
    result = jax.ShapeDtypeStruct((index.shape[0], width), x.dtype)
    write = lambda builder, arguments: _write(Emitter(builder, REAL[str(x.dtype)]), arguments, width, single)
    (out,) = xla_ffi.call("rows", (width, single), write, [index, x.reshape(len(x), width)], [result])
    return out.reshape(index.shape[0], *x.shape[1:])


def _write(e: Emitter, arguments: Arguments, width: int, single: bool) -> None:
    """Write the kernel for rows of ``width`` numbers; ``single`` for an index array with one column."""
    index, x = arguments.inputs
    (out,) = arguments.outputs
    chunk = VECTORS * e.lanes
    pieces = [(offset, [(k * e.lanes, e.lanes) for k in range(VECTORS)]) for offset in range(0, width - chunk + 1, chunk)]
    left = len(pieces) * chunk
    whole = range(0, (width - left) // e.lanes * e.lanes, e.lanes)
    rest = [(k, e.lanes) for k in whole] + list(e.tails(width - left))
    pieces += [(left, rest)] if rest else []
    begin, end = arguments.rows(e.b)
    with e.loop(end, start=begin) as i:
        for offset, parts in pieces:
            sums = [e.variable(e.zero(lanes)) for _, lanes in parts]
            with e.loop(1 if single else arguments.shape[1]) as k:
                row = e.b.sext(e.load(index, e.at(i, arguments.shape[1], k), kind=I32), I64)
                with e.b.if_then(e.b.icmp_signed(">=", row, I64(0))):
                    for place, (at, lanes) in zip(sums, parts, strict=True):
                        value = e.load(x, e.at(row, width, offset, at), lanes)
                        e.b.store(e.b.fadd(e.read(place), value), place)
            for place, (at, _) in zip(sums, parts, strict=True):
                e.store(e.read(place), out, e.at(i, width, offset, at))
