"""Machine code of the last radial layer for one path and all pairs of an atom: radial weights, and derivatives back."""

from __future__ import annotations

from typing import Protocol

from llvmlite import ir

from equipot.kernels.convolution_forms import CouplingPath, Layout
from equipot.kernels.ffi_handler import I64
from equipot.kernels.llvm_builder import Emitter, Index, Matrix


class Writer(Protocol):
    """Interface of the writer of a convolution's kernel that the functions of this file use."""

    e: Emitter
    layout: Layout
    inputs: list[ir.Value]
    """Pointers to the operands."""
    outputs: list[ir.Value]
    """Pointers to the results."""
    transposed: dict[int, ir.Value]
    """Pointers to transposed last layers, by operand."""
    start: ir.Value | None
    """Pointer to the first of the rows of the last layer that apply to each pair; None if all rows apply to every pair."""
    rows: int
    """Number of rows of the last layer."""
    address: dict[object, ir.Value]
    """Pointers to intermediate results in working memory, by their names."""
    count: Index
    """Number of pairs of the atom."""
    padded: Index
    """Number of pairs of the atom, rounded up to a multiple of ``llvm_builder.ROWS``."""

    def copy(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        """Write the copy of ``size`` numbers."""

    def add(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        """Write the addition of ``size`` numbers to the target."""


def weigh(w: Writer, path: CouplingPath, u: int, last: int) -> None:
    """Write the radial weights of all pairs for a path: the product of hidden features and the columns of the last layer."""
    e, q, c, target = w.e, w.layout.hidden, path.channels, w.address["weights", (u, last)]
    if w.layout.direct:
        with e.loop(w.count) as k:
            w.copy(w.address["hidden", u], e.at(k, q, path.column), target, e.mul(k, c), c)
        return
    columns = e.pointer(w.inputs[last], path.column * w.rows)
    if w.start is None:
        hidden = Matrix((q, 1), w.address["hidden", u])
        e.matmul(hidden, Matrix((c, 1), columns), Matrix((c, 1), target), w.padded, q, c, add=False)
        return
    with e.loop(w.count) as k:
        values = [e.load(w.address["hidden", u], e.at(k, q, j)) for j in range(q)]
        row = e.mul(e.load(w.address["start"], k, kind=I64), c)

        def block(offset: Index, lanes: int) -> None:
            total = None
            for j, value in enumerate(values):
                total = e.fma(e.splat(value, lanes), e.load(columns, e.add(row, e.add(j * c, offset)), lanes), total)
            e.store(total, target, e.at(k, c, offset))

        e.blocks(c, block)


def return_hidden(w: Writer, path: CouplingPath, o: int, last: int, slope: int) -> None:
    """Write the derivatives with respect to hidden features, given the derivatives with respect to radial weights."""
    e, q, c, target = w.e, w.layout.hidden, path.channels, w.address["result", o]
    if w.layout.direct:
        with e.loop(w.count) as k:
            w.add(w.address["slope", slope], e.mul(k, c), target, e.at(k, q, path.column), c)
        return
    if w.start is None:
        slopes, rows = Matrix((c, 1), w.address["slope", slope]), e.pointer(w.transposed[last], path.column * q)
        e.matmul(slopes, Matrix((q, 1), rows), Matrix((q, 1), target), w.padded, c, q, add=True)
        return
    columns = e.pointer(w.inputs[last], path.column * w.rows)
    with e.loop(w.count) as k:
        row = e.mul(e.load(w.address["start"], k, kind=I64), c)
        sums = [e.variable(e.zero(e.lanes)) for _ in range(q)]

        def block(offset: Index, lanes: int) -> None:
            value = e.load(w.address["slope", slope], e.at(k, c, offset), lanes)
            for j, place in enumerate(sums):
                part = e.b.fmul(value, e.load(columns, e.add(row, e.add(j * c, offset)), lanes))
                e.b.store(e.b.fadd(e.read(place), e.widen(part, e.lanes)), place)

        e.blocks(c, block)
        for j, place in enumerate(sums):
            where = e.at(k, q, j)
            e.store(e.b.fadd(e.load(target, where), e.sum(e.read(place))), target, where)


def return_last(w: Writer, path: CouplingPath, o: int, u: int, slope: int) -> None:
    """Write the derivatives with respect to the last layer, given the derivatives with respect to radial weights."""
    e, q, c = w.e, w.layout.hidden, path.channels
    slopes, target = w.address["slope", slope], e.pointer(w.outputs[o], path.column * w.rows)
    if w.start is None:
        hidden = Matrix((1, q), w.address["hidden", u])
        e.matmul(hidden, Matrix((c, 1), slopes), Matrix((c, 1), target), q, w.count, c, add=True)
        return
    with e.loop(w.count) as k:
        values = [e.load(w.address["hidden", u], e.at(k, q, j)) for j in range(q)]
        row = e.mul(e.load(w.address["start"], k, kind=I64), c)

        def block(offset: Index, lanes: int) -> None:
            part = e.load(slopes, e.at(k, c, offset), lanes)
            for j, value in enumerate(values):
                where = e.add(row, e.add(j * c, offset))
                e.store(e.fma(e.splat(value, lanes), part, e.load(target, where, lanes)), target, where)

        e.blocks(c, block)
