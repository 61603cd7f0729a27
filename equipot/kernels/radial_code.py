"""Machine code between hidden radial features and radial weights: one route of the convolution for all pairs of an atom.

What the writer of the kernel has in its working memory, it names by ``place``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from equipot.kernels.convolution_bundle import Route
from equipot.kernels.llvm_builder import Index, Matrix
from equipot.kernels.xla_ffi import I64

if TYPE_CHECKING:
    from equipot.kernels.convolution_code import Writer


def weigh(w: Writer, r: Route, u: int, last: int) -> None:
    """Radial weights of all pairs for a route."""
    e, q, c, target = w.e, w.layout.hidden, r.channels, w.place["weights", (u, last)]
    if w.layout.direct:
        with e.loop(w.count) as k:
            w.copy(w.place["hidden", u], e.at(k, q, r.column), target, e.mul(k, c), c)
        return
    columns = e.pointer(w.inputs[last], r.column * w.rows)
    if w.start is None:
        hidden = Matrix((q, 1), w.place["hidden", u])
        e.matmul(hidden, Matrix((c, 1), columns), Matrix((c, 1), target), w.padded, q, c, add=False)
        return
    with e.loop(w.count) as k:
        values = [e.load(w.place["hidden", u], e.at(k, q, j)) for j in range(q)]
        row = e.mul(e.load(w.place["start"], k, kind=I64), c)

        def block(offset: Index, lanes: int) -> None:
            total = None
            for j, value in enumerate(values):
                total = e.fma(e.splat(value, lanes), e.load(columns, e.add(row, e.add(j * c, offset)), lanes), total)
            e.store(total, target, e.at(k, c, offset))

        e.blocks(c, block)


def return_hidden(w: Writer, r: Route, o: int, last: int, slope: int) -> None:
    """Derivatives with respect to radial weights back to the hidden features."""
    e, q, c, target = w.e, w.layout.hidden, r.channels, w.place["result", o]
    if w.layout.direct:
        with e.loop(w.count) as k:
            w.add(w.place["slope", slope], e.mul(k, c), target, e.at(k, q, r.column), c)
        return
    if w.start is None:
        slopes, rows = Matrix((c, 1), w.place["slope", slope]), e.pointer(w.transposed[last], r.column * q)
        e.matmul(slopes, Matrix((q, 1), rows), Matrix((q, 1), target), w.padded, c, q, add=True)
        return
    columns = e.pointer(w.inputs[last], r.column * w.rows)
    with e.loop(w.count) as k:
        row = e.mul(e.load(w.place["start"], k, kind=I64), c)
        sums = [e.variable(e.zero(e.lanes)) for _ in range(q)]

        def block(offset: Index, lanes: int) -> None:
            value = e.load(w.place["slope", slope], e.at(k, c, offset), lanes)
            for j, place in enumerate(sums):
                part = e.b.fmul(value, e.load(columns, e.add(row, e.add(j * c, offset)), lanes))
                e.b.store(e.b.fadd(e.read(place), e.widen(part, e.lanes)), place)

        e.blocks(c, block)
        for j, place in enumerate(sums):
            where = e.at(k, q, j)
            e.store(e.b.fadd(e.load(target, where), e.sum(e.read(place))), target, where)


def return_last(w: Writer, r: Route, o: int, u: int, slope: int) -> None:
    """Derivatives with respect to radial weights back to the last layer."""
    e, q, c = w.e, w.layout.hidden, r.channels
    slopes, target = w.place["slope", slope], e.pointer(w.outputs[o], r.column * w.rows)
    if w.start is None:
        hidden = Matrix((1, q), w.place["hidden", u])
        e.matmul(hidden, Matrix((c, 1), slopes), Matrix((c, 1), target), q, w.count, c, add=True)
        return
    with e.loop(w.count) as k:
        values = [e.load(w.place["hidden", u], e.at(k, q, j)) for j in range(q)]
        row = e.mul(e.load(w.place["start"], k, kind=I64), c)

        def block(offset: Index, lanes: int) -> None:
            part = e.load(slopes, e.at(k, c, offset), lanes)
            for j, value in enumerate(values):
                where = e.add(row, e.add(j * c, offset))
                e.store(e.fma(e.splat(value, lanes), part, e.load(target, where, lanes)), target, where)

        e.blocks(c, block)
