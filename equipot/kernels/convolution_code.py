"""Machine code of a bundle of convolutions.

For each atom, route by route, the radial weights of all pairs are made by a small matrix product that stays in the cache, and
used at once: channels lie along vector registers, the components of features, harmonics
and messages are unrolled. Derivatives with respect to the radial weights go back through the transposed product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from llvmlite import ir

from equipot.kernels import radial_code, xla_ffi
from equipot.kernels.convolution_bundle import OPEN, PER_PAIR, Bundle, Layout, Leg, Route, Term, coupling
from equipot.kernels.llvm_builder import ROWS, Emitter, Index
from equipot.kernels.xla_ffi import I32, I64, REAL, Arguments


def possible(dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for this type on this processor."""
    return str(dtype) in REAL and xla_ffi.available()


def call(bundle: Bundle, indices: Sequence[Int[Array, "..."]], operands: Sequence[Array]) -> list[Array]:
    """Results of a bundle."""
    layout, dtype, atoms, pairs = bundle.layout, operands[0].dtype, indices[0].shape[0], indices[2].shape
    packed = [_pack(layout, x) if leg is Leg.LAST else x for leg, x in zip(bundle.legs, operands, strict=True)]
    transposed = [operands[k].T for k in _transposed(bundle)]
    count = xla_ffi.parts(atoms)
    shapes = [
        (count, layout.numel * layout.depth) if leg is Leg.LAST else layout.shape(leg, atoms, pairs)
        for leg, _ in bundle.outputs
    ]
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    write = lambda builder, arguments: Writer(Emitter(builder, REAL[str(dtype)]), bundle, arguments).write()
    used = indices[: 3 + (layout.rows is not None)]
    found = xla_ffi.call("convolution", bundle, write, [*used, *packed, *transposed], results)
    legs = [leg for leg, _ in bundle.outputs]
    return [_unpack(layout, jnp.sum(y, axis=0)) if leg is Leg.LAST else y for leg, y in zip(legs, found, strict=True)]


def _pack(layout: Layout, last: Array) -> Array:
    """The last layer with the columns of each route as a contiguous block: rows far apart would evict each other."""
    if layout.direct:
        return last.reshape(-1)
    return jnp.concatenate([last[:, r.column : r.column + r.channels].reshape(-1) for r in layout.routes])


def _unpack(layout: Layout, packed: Array) -> Array:
    q = layout.depth
    blocks = [packed[r.column * q : (r.column + r.channels) * q].reshape(q, r.channels) for r in layout.routes]
    return jnp.concatenate(blocks, axis=1)


def _transposed(bundle: Bundle) -> list[int]:
    """Last layers that are needed with their columns as rows."""
    if bundle.layout.rows is not None or bundle.layout.direct:
        return []
    return sorted({term[Leg.LAST] for leg, terms in bundle.outputs if leg is Leg.HIDDEN for term in terms})


class Writer:
    """Writes the kernel of a bundle."""

    def __init__(self, e: Emitter, bundle: Bundle, arguments: Arguments) -> None:
        self.e, self.bundle, self.layout, self.arguments = e, bundle, bundle.layout, arguments
        _, self.first, self.neighbors, *rest = arguments.inputs
        self.start = rest.pop(0) if self.layout.rows is not None else None
        self.rows = self.layout.depth
        self.inputs = rest[: len(bundle.legs)]
        self.transposed = dict(zip(_transposed(bundle), rest[len(bundle.legs) :], strict=True))
        self.outputs = list(arguments.outputs)
        self.slots = arguments.shape[1]
        self.width = max(route.channels for route in self.layout.routes)
        self._plan()

    def _plan(self) -> None:
        """Which intermediate results there are, and where what a transfer matrix needs lies in working memory."""
        outputs = self.bundle.outputs
        terms = [term for _, of_output in outputs for term in of_output]
        self.harmonics = sorted({t[Leg.HARMONICS] for t in terms} - {OPEN})
        self.weights = sorted({(t[Leg.HIDDEN], t[Leg.LAST]) for t in terms if OPEN not in (t[Leg.HIDDEN], t[Leg.LAST])})
        self.hidden = sorted(
            {h for h, _ in self.weights} | {t[Leg.HIDDEN] for leg, ts in outputs if leg is Leg.LAST for t in ts}
        )
        # Derivatives with respect to radial weights: each is a sum over (harmonics, sender, message). Next, for which output
        # and with which last layer or hidden features it is multiplied.
        self.slopes: dict[tuple[tuple[int, int, int], ...], int] = {}
        self.returns: list[tuple[int, int, int]] = []
        for o, (leg, ts) in enumerate(outputs):
            if leg in (Leg.HIDDEN, Leg.LAST):
                other = Leg.LAST if leg is Leg.HIDDEN else Leg.HIDDEN
                for operand in sorted({t[other] for t in ts}):
                    key = tuple(sorted((t[Leg.HARMONICS], t[Leg.NODES], t[Leg.MESSAGE]) for t in ts if t[other] == operand))
                    self.returns.append((o, operand, self.slopes.setdefault(key, len(self.slopes))))
        self.entries: dict[tuple, tuple[int, dict[int, float]]] = {}
        for degrees in sorted({route.degrees for route in self.layout.routes}):
            c = coupling(*degrees)
            for m in range(c.shape[2]):
                for a in range(c.shape[0]):
                    found = {b: float(c[a, b, m]) for b in range(c.shape[1]) if abs(c[a, b, m]) > 1e-12}
                    if found:
                        self.entries[degrees, m, a] = (len(self.entries), found)
        self.stride = -(-len(self.entries) // self.e.lanes) * self.e.lanes

    def write(self) -> None:
        e, arguments = self.e, self.arguments
        self._allocate()
        for o, (leg, _) in enumerate(self.bundle.outputs):
            if leg is Leg.LAST:
                size = self.layout.numel * self.rows
                self.outputs[o] = e.pointer(self.outputs[o], e.mul(arguments.part, size))
                self.clear(self.outputs[o], 0, size)
        begin, end = arguments.rows(e.b)
        with e.loop(end, start=begin) as n:
            self._atom(n)
        e.free(self.memory)

    def _allocate(self) -> None:
        """One piece of working memory, in which every array begins with a cache line."""
        e, layout = self.e, self.layout
        rows = e.round_up(self.slots, ROWS)
        wanted: list[tuple[object, Index]] = [(("transfer", y), self.stride) for y in self.harmonics]
        wanted += [(("hidden", u), layout.hidden) for u in self.hidden]
        wanted += [(("weights", pair), self.width) for pair in self.weights]
        wanted += [(("slope", k), self.width) for k in self.slopes.values()]
        for o, (leg, _) in enumerate(self.bundle.outputs):
            if leg in (Leg.HIDDEN, Leg.HARMONICS):
                wanted.append((("result", o), layout.row(leg) * (1 if leg is Leg.HIDDEN else e.lanes)))
        wanted += [("row", 2), ("start", 2)]
        places, size = {}, 0
        for key, width in wanted:
            places[key], size = size, e.add(size, e.round_up(e.mul(rows, width), 16))
        self.memory = e.malloc(size)
        self.place = {key: e.pointer(self.memory, offset) for key, offset in places.items()}

    def _atom(self, n: ir.Value) -> None:
        """All results for one atom and its pairs."""
        e, layout = self.e, self.layout
        self._read_pairs(n)
        results = [(o, leg) for o, (leg, _) in enumerate(self.bundle.outputs) if leg in (Leg.HIDDEN, Leg.HARMONICS)]
        with e.loop(self.padded, start=self.count) as k:
            for u in self.hidden:
                self.clear(self.place["hidden", u], e.mul(k, layout.hidden), layout.hidden)
            for slope in self.slopes.values():
                self.clear(self.place["slope", slope], e.mul(k, self.width), self.width)
        with e.loop(self.padded) as k:
            for o, leg in results:
                width = layout.row(leg) * (1 if leg is Leg.HIDDEN else e.lanes)
                self.clear(self.place["result", o], e.mul(k, width), width)
        seen: set[int] = set()
        for route in layout.routes:
            self._route(n, route, route.sender not in seen)
            seen.add(route.sender)
        with e.loop(self.count) as k:
            at = e.add(self.begin, k)
            for o, leg in results:
                row = e.mul(at, layout.row(leg))
                if leg is Leg.HIDDEN:
                    self.copy(self.place["result", o], e.mul(k, layout.hidden), self.outputs[o], row, layout.hidden)
                    continue
                for b in range(layout.harmonics):
                    value = e.load(self.place["result", o], e.mul(e.at(k, layout.harmonics, b), e.lanes), e.lanes)
                    e.store(e.sum(value), self.outputs[o], e.add(row, b))

    def _read_pairs(self, n: ir.Value) -> None:
        """Indices, hidden features and transfer matrices of an atom's pairs; zeros into the rows behind them that are empty."""
        e, layout = self.e, self.layout
        read = lambda base, at: e.b.sext(e.load(base, at, kind=I32), I64)
        self.begin, end = read(self.first, n), read(self.first, e.add(n, 1))
        count = e.variable(I64(0))
        with e.loop(end, start=self.begin) as at:
            neighbor = read(self.neighbors, at)
            with e.b.if_else(e.b.icmp_signed(">=", neighbor, I64(0))) as (used, empty):
                with used:
                    c = e.read(count)
                    e.store(neighbor, self.place["row"], c, I64)
                    if self.start is not None:
                        e.store(read(self.start, at), self.place["start"], c, I64)
                    for u in self.hidden:
                        target = self.place["hidden", u]
                        self.copy(self.inputs[u], e.mul(at, layout.hidden), target, e.mul(c, layout.hidden), layout.hidden)
                    for y in self.harmonics:
                        self._transfer(y, at, c)
                    e.b.store(e.b.add(c, I64(1)), count)
                with empty:
                    for o, (leg, _) in enumerate(self.bundle.outputs):
                        if leg in PER_PAIR:
                            self.clear(self.outputs[o], e.mul(at, layout.row(leg)), layout.row(leg))
        self.count = e.read(count)
        self.padded = e.round_up(self.count, ROWS)

    def copy(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        e = self.e
        e.blocks(size, lambda j, lanes: e.store(e.load(source, e.add(offset, j), lanes), target, e.add(at, j)))

    def add(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        e = self.e

        def block(j: Index, lanes: int) -> None:
            there = e.load(target, e.add(at, j), lanes)
            e.store(e.b.fadd(there, e.load(source, e.add(offset, j), lanes)), target, e.add(at, j))

        e.blocks(size, block)

    def clear(self, target: ir.Value, at: Index, size: int) -> None:
        e = self.e
        e.blocks(size, lambda j, lanes: e.store(e.zero(lanes), target, e.add(at, j)))

    def _transfer(self, y: int, at: Index, c: Index) -> None:
        """sum_b C[a, b, m] Y_b of one pair, for all degrees and the (m, a) that couple."""
        e = self.e
        table: list[dict[int, float]] = [{} for _ in range(self.stride)]
        for (degrees, _, _), (offset, found) in self.entries.items():
            table[offset] = {degrees[1] ** 2 + b: value for b, value in found.items()}
        used = sorted({b for row in table for b in row})
        values = {b: e.load(self.inputs[y], e.at(at, self.layout.harmonics, b)) for b in used}
        for first in range(0, self.stride, e.lanes):
            group, total = table[first : first + e.lanes], None
            for b in sorted({b for row in group for b in row}):
                total = e.fma(e.splat(values[b], e.lanes), e.constants([row.get(b, 0.0) for row in group]), total)
            e.store(total, self.place["transfer", y], e.at(c, self.stride, first))

    def _route(self, n: ir.Value, r: Route, first: bool) -> None:
        """One route; ``first`` says that nothing was written yet to the results for the features that it reads."""
        e, outputs = self.e, self.bundle.outputs
        for u, last in self.weights:
            radial_code.weigh(self, r, u, last)
        for o, (leg, terms) in enumerate(outputs):
            if leg is Leg.MESSAGE:
                self._gather(n, r, o, terms)
        if any(leg is not Leg.MESSAGE for leg, _ in outputs):
            with e.loop(self.count) as k:
                self._pair(n, r, k, first)
        for o, operand, slope in self.returns:
            back = radial_code.return_hidden if outputs[o][0] is Leg.HIDDEN else radial_code.return_last
            back(self, r, o, operand, slope)

    def _matrix(self, r: Route, y: int, k: Index) -> dict[tuple[int, int], ir.Value]:
        """Elements (m, a) of a pair's transfer matrix."""
        base = self.e.mul(k, self.stride)
        return {
            (m, a): self.e.load(self.place["transfer", y], self.e.add(base, offset))
            for (degrees, m, a), (offset, _) in self.entries.items()
            if degrees == r.degrees
        }

    def _gather(self, n: ir.Value, r: Route, o: int, terms: Sequence[Term]) -> None:
        """Sum over pairs into an atom's message."""
        e = self.e
        row = e.at(n, self.layout.messages, r.message)

        def block(offset: Index, lanes: int) -> None:
            sums = [e.variable(e.zero(lanes)) for _ in range(2 * r.l_out + 1)]
            with e.loop(self.count) as k:
                for y in sorted({t[Leg.HARMONICS] for t in terms}):
                    x: list = [None] * (2 * r.l_in + 1)
                    for t in terms:
                        if t[Leg.HARMONICS] == y:
                            w = self._weight(r, t, k, offset, lanes)
                            x = [
                                e.fma(w, h, part)
                                for h, part in zip(self._sender(r, t[Leg.NODES], k, offset, lanes), x, strict=True)
                            ]
                    for (m, a), factor in self._matrix(r, y, k).items():
                        e.b.store(e.fma(e.splat(factor, lanes), x[a], e.read(sums[m])), sums[m])
            for m, place in enumerate(sums):
                e.store(e.read(place), self.outputs[o], e.add(row, e.add(m * r.message_stride, offset)))

        e.blocks(r.channels, block)

    def _weight(self, r: Route, term: Term, k: Index, offset: Index, lanes: int) -> ir.Value:
        return self.e.load(self.place["weights", (term[Leg.HIDDEN], term[Leg.LAST])], self.e.at(k, r.channels, offset), lanes)

    def _sender(self, r: Route, operand: int, k: Index, offset: Index, lanes: int) -> list[ir.Value]:
        e = self.e
        of_node = self.bundle.legs[operand] is Leg.NODES
        at = e.load(self.place["row"], k, kind=I64) if of_node else e.add(self.begin, k)
        row = e.at(at, self.layout.features, r.sender, offset)
        return [e.load(self.inputs[operand], e.add(row, a * r.sender_stride), lanes) for a in range(2 * r.l_in + 1)]

    def _pair(self, n: ir.Value, r: Route, k: Index, first: bool) -> None:
        """What belongs to one pair: derivatives with respect to radial weights, harmonics and the neighbour's features."""
        e, outputs = self.e, self.bundle.outputs
        at = e.add(self.begin, k)
        matrices = {y: self._matrix(r, y, k) for y in self.harmonics}
        keys = [(m, a) for (degrees, m, a) in self.entries if degrees == r.degrees]
        products: dict[int, dict] = {}
        for o, (leg, _) in enumerate(outputs):
            if leg is Leg.HARMONICS:
                products[o] = {key: e.variable(e.zero(e.lanes)) for key in keys}

        def block(offset: Index, lanes: int) -> None:
            values = _Values(self, n, r, k, offset, lanes, matrices)
            for terms, slope in self.slopes.items():
                total = None
                for y, h, g in terms:
                    for part, z in zip(values.sender(h), values.returned(y, g), strict=True):
                        total = e.fma(part, z, total)
                e.store(total, self.place["slope", slope], e.at(k, r.channels, offset))
            for o, (leg, terms) in enumerate(outputs):
                if leg is Leg.PAIRS:
                    total = [None] * (2 * r.l_in + 1)
                    for t in terms:
                        returned = values.returned(t[Leg.HARMONICS], t[Leg.MESSAGE])
                        total = [e.fma(values.weight(t), z, part) for z, part in zip(returned, total, strict=True)]
                    row = e.at(at, self.layout.features, r.sender, offset)
                    for a, value in enumerate(total):
                        where = e.add(row, a * r.sender_stride)
                        e.store(
                            value if first else e.b.fadd(value, e.load(self.outputs[o], where, lanes)), self.outputs[o], where
                        )
                if leg is Leg.HARMONICS:
                    for g in sorted({t[Leg.MESSAGE] for t in terms}):
                        x: list = [None] * (2 * r.l_in + 1)
                        for t in terms:
                            if t[Leg.MESSAGE] == g:
                                x = [
                                    e.fma(values.weight(t), h, part)
                                    for h, part in zip(values.sender(t[Leg.NODES]), x, strict=True)
                                ]
                        for (m, a), place in products[o].items():
                            if lanes == e.lanes:
                                value = e.fma(x[a], values.message(g)[m], e.read(place))
                            else:
                                value = e.b.fadd(e.read(place), e.widen(e.b.fmul(x[a], values.message(g)[m]), e.lanes))
                            e.b.store(value, place)

        e.blocks(r.channels, block)
        for o, places in products.items():
            totals: dict[int, ir.Value] = {}
            for (m, a), place in places.items():
                value = e.read(place)
                for b, factor in self.entries[r.degrees, m, a][1].items():
                    totals[b] = e.fma(value, e.constant(factor, e.lanes), totals.get(b))
            for b, total in totals.items():
                where = e.mul(e.at(k, self.layout.harmonics, r.l_edge**2 + b), e.lanes)
                e.store(e.b.fadd(total, e.load(self.place["result", o], where, e.lanes)), self.place["result", o], where)


class _Values:
    """What a pair needs of one block of channels, loaded or computed when first asked for."""

    def __init__(self, w: Writer, n: ir.Value, r: Route, k: Index, offset: Index, lanes: int, matrices: dict) -> None:
        self.w, self.n, self.r, self.k, self.offset, self.lanes, self.matrices = w, n, r, k, offset, lanes, matrices
        self.known: dict[tuple, object] = {}

    def _once(self, key: tuple, make: Callable[[], object]) -> object:
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def sender(self, operand: int) -> list[ir.Value]:
        return self._once(("sender", operand), lambda: self.w._sender(self.r, operand, self.k, self.offset, self.lanes))

    def weight(self, term: Term) -> ir.Value:
        key = "weight", term[Leg.HIDDEN], term[Leg.LAST]
        return self._once(key, lambda: self.w._weight(self.r, term, self.k, self.offset, self.lanes))

    def message(self, operand: int) -> list[ir.Value]:
        e, r = self.w.e, self.r
        row = e.at(self.n, self.w.layout.messages, r.message, self.offset)
        place = lambda m: e.add(row, m * r.message_stride)
        load = lambda: [e.load(self.w.inputs[operand], place(m), self.lanes) for m in range(2 * r.l_out + 1)]
        return self._once(("message", operand), load)

    def returned(self, y: int, g: int) -> list[ir.Value]:
        """A message's derivative carried back to the components of the neighbour's features, without the radial weight."""

        def make() -> list[ir.Value]:
            e = self.w.e
            z: list = [None] * (2 * self.r.l_in + 1)
            for (m, a), factor in self.matrices[y].items():
                z[a] = e.fma(e.splat(factor, self.lanes), self.message(g)[m], z[a])
            return [e.zero(self.lanes) if part is None else part for part in z]

        return self._once(("returned", y, g), make)
