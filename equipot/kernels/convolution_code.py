"""Machine code of convolutions and their derivatives.

For each atom and path, a small matrix product computes the radial weights of all pairs, which stay in the cache and are used at
once: channels lie along vector registers, the components of features, harmonics and messages are unrolled. Derivatives with
respect to the radial weights are propagated through the transposed product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from llvmlite import ir

from equipot.kernels import ffi_check, radial_code, xla_ffi
from equipot.kernels.convolution_forms import (
    OPEN,
    PER_PAIR,
    CouplingPath,
    Monomial,
    MultilinearForms,
    Operand,
    coupling,
    pack,
    unpack,
)
from equipot.kernels.ffi_handler import I32, I64, Arguments, parts
from equipot.kernels.llvm_builder import ROWS, Emitter, Index
from equipot.kernels.xla_ffi import REAL


def possible(dtype: jnp.dtype) -> bool:
    """Return whether machine code for this type of numbers can be compiled and called on this processor."""
    return str(dtype) in REAL and ffi_check.available()


def call(forms: MultilinearForms, indices: Sequence[Int[Array, "..."]], operands: Sequence[Array]) -> list[Array]:
    """Call the machine code of ``forms``; return the results."""
    layout, dtype, atoms, pairs = forms.layout, operands[0].dtype, indices[0].shape[0], indices[2].shape
    packed = [pack(layout, x) if kind is Operand.LAST else x for kind, x in zip(forms.kinds, operands, strict=True)]
    transposed = [operands[k].T for k in _transposed(forms)]
    count = parts(atoms)
    shapes = [
        (count, layout.numel * layout.depth) if kind is Operand.LAST else layout.shape(kind, atoms, pairs)
        for kind, _ in forms.outputs
    ]
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    write = lambda builder, arguments: Writer(Emitter(builder, REAL[str(dtype)]), forms, arguments).write()
    used = indices[: 3 + (layout.rows is not None)]
    found = xla_ffi.call("convolution", forms, write, [*used, *packed, *transposed], results)
    kinds = [kind for kind, _ in forms.outputs]
    return [unpack(layout, jnp.sum(y, axis=0)) if kind is Operand.LAST else y for kind, y in zip(kinds, found, strict=True)]


def _transposed(forms: MultilinearForms) -> list[int]:
    """Return the operands (last layers) whose transpose the kernel reads."""
    if forms.layout.rows is not None or forms.layout.direct:
        return []
    return sorted({term[Operand.LAST] for kind, terms in forms.outputs if kind is Operand.HIDDEN for term in terms})


class Writer:
    """Writes the kernel of one ``MultilinearForms``."""

    def __init__(self, e: Emitter, forms: MultilinearForms, arguments: Arguments) -> None:
        self.e, self.forms, self.layout, self.arguments = e, forms, forms.layout, arguments
        _, self.first, self.neighbors, *rest = arguments.inputs
        self.start = rest.pop(0) if self.layout.rows is not None else None
        self.rows = self.layout.depth
        self.inputs = rest[: len(forms.kinds)]
        self.transposed = dict(zip(_transposed(forms), rest[len(forms.kinds) :], strict=True))
        self.outputs = list(arguments.outputs)
        self.slots = arguments.shape[1]
        self.width = max(path.channels for path in self.layout.paths)
        self._plan()

    def _plan(self) -> None:
        """List the intermediate results, and the entries of transfer matrices with their offsets in working memory."""
        outputs = self.forms.outputs
        terms = [term for _, of_output in outputs for term in of_output]
        self.harmonics = sorted({t[Operand.HARMONICS] for t in terms} - {OPEN})
        self.weights = sorted(
            {(t[Operand.HIDDEN], t[Operand.LAST]) for t in terms if OPEN not in (t[Operand.HIDDEN], t[Operand.LAST])}
        )
        self.hidden = sorted(
            {h for h, _ in self.weights} | {t[Operand.HIDDEN] for kind, ts in outputs if kind is Operand.LAST for t in ts}
        )
        # Derivatives with respect to radial weights: each is a sum over (harmonics, sender, message). ``returns`` lists
        # (output, operand, derivative): the output is the derivative times the operand, a last layer or hidden features.
        self.slopes: dict[tuple[tuple[int, int, int], ...], int] = {}
        self.returns: list[tuple[int, int, int]] = []
        for o, (kind, ts) in enumerate(outputs):
            if kind in (Operand.HIDDEN, Operand.LAST):
                other = Operand.LAST if kind is Operand.HIDDEN else Operand.HIDDEN
                for operand in sorted({t[other] for t in ts}):
                    key = tuple(
                        sorted((t[Operand.HARMONICS], t[Operand.NODES], t[Operand.MESSAGE]) for t in ts if t[other] == operand)
                    )
                    self.returns.append((o, operand, self.slopes.setdefault(key, len(self.slopes))))
        self.entries: dict[tuple, tuple[int, dict[int, float]]] = {}
        for degrees in sorted({path.degrees for path in self.layout.paths}):
            c = coupling(*degrees)
            for m in range(c.shape[2]):
                for a in range(c.shape[0]):
                    found = {b: float(c[a, b, m]) for b in range(c.shape[1]) if abs(c[a, b, m]) > 1e-12}
                    if found:
                        self.entries[degrees, m, a] = (len(self.entries), found)
        self.stride = -(-len(self.entries) // self.e.lanes) * self.e.lanes

    def write(self) -> None:
        """Write the kernel: all results for the atoms of one part."""
        e, arguments = self.e, self.arguments
        self._allocate()
        for o, (kind, _) in enumerate(self.forms.outputs):
            if kind is Operand.LAST:
                size = self.layout.numel * self.rows
                self.outputs[o] = e.pointer(self.outputs[o], e.mul(arguments.part, size))
                self.clear(self.outputs[o], 0, size)
        begin, end = arguments.rows(e.b)
        with e.loop(end, start=begin) as n:
            self._atom(n)
        e.free(self.memory)

    def _allocate(self) -> None:
        """Write the allocation of one block of working memory; every array in the block begins at a cache line."""
        e, layout = self.e, self.layout
        rows = e.round_up(self.slots, ROWS)
        wanted: list[tuple[object, Index]] = [(("transfer", y), self.stride) for y in self.harmonics]
        wanted += [(("hidden", u), layout.hidden) for u in self.hidden]
        wanted += [(("weights", pair), self.width) for pair in self.weights]
        wanted += [(("slope", k), self.width) for k in self.slopes.values()]
        for o, (kind, _) in enumerate(self.forms.outputs):
            if kind in (Operand.HIDDEN, Operand.HARMONICS):
                wanted.append((("result", o), layout.row(kind) * (1 if kind is Operand.HIDDEN else e.lanes)))
        wanted += [("row", 2), ("start", 2)]
        places, size = {}, 0
        for key, width in wanted:
            places[key], size = size, e.add(size, e.round_up(e.mul(rows, width), 16))
        self.memory = e.malloc(size)
        self.address = {key: e.pointer(self.memory, offset) for key, offset in places.items()}

    def _atom(self, n: ir.Value) -> None:
        """Write all results for one atom and its pairs."""
        e, layout = self.e, self.layout
        self._read_pairs(n)
        results = [(o, kind) for o, (kind, _) in enumerate(self.forms.outputs) if kind in (Operand.HIDDEN, Operand.HARMONICS)]
        with e.loop(self.padded, start=self.count) as k:
            for u in self.hidden:
                self.clear(self.address["hidden", u], e.mul(k, layout.hidden), layout.hidden)
            for slope in self.slopes.values():
                self.clear(self.address["slope", slope], e.mul(k, self.width), self.width)
        with e.loop(self.padded) as k:
            for o, kind in results:
                width = layout.row(kind) * (1 if kind is Operand.HIDDEN else e.lanes)
                self.clear(self.address["result", o], e.mul(k, width), width)
        seen: set[int] = set()
        for path in layout.paths:
            self._path(n, path, path.sender not in seen)
            seen.add(path.sender)
        with e.loop(self.count) as k:
            at = e.add(self.begin, k)
            for o, kind in results:
                row = e.mul(at, layout.row(kind))
                if kind is Operand.HIDDEN:
                    self.copy(self.address["result", o], e.mul(k, layout.hidden), self.outputs[o], row, layout.hidden)
                    continue
                for b in range(layout.harmonics):
                    value = e.load(self.address["result", o], e.mul(e.at(k, layout.harmonics, b), e.lanes), e.lanes)
                    e.store(e.sum(value), self.outputs[o], e.add(row, b))

    def _read_pairs(self, n: ir.Value) -> None:
        """Write the part that reads an atom's pairs, computes their transfer matrices, and clears results in empty rows."""
        e, layout = self.e, self.layout
        read = lambda base, at: e.b.sext(e.load(base, at, kind=I32), I64)
        self.begin, end = read(self.first, n), read(self.first, e.add(n, 1))
        count = e.variable(I64(0))
        with e.loop(end, start=self.begin) as at:
            neighbor = read(self.neighbors, at)
            with e.b.if_else(e.b.icmp_signed(">=", neighbor, I64(0))) as (used, empty):
                with used:
                    c = e.read(count)
                    e.store(neighbor, self.address["row"], c, I64)
                    if self.start is not None:
                        e.store(read(self.start, at), self.address["start"], c, I64)
                    for u in self.hidden:
                        target = self.address["hidden", u]
                        self.copy(self.inputs[u], e.mul(at, layout.hidden), target, e.mul(c, layout.hidden), layout.hidden)
                    for y in self.harmonics:
                        self._transfer(y, at, c)
                    e.b.store(e.b.add(c, I64(1)), count)
                with empty:
                    for o, (kind, _) in enumerate(self.forms.outputs):
                        if kind in PER_PAIR:
                            self.clear(self.outputs[o], e.mul(at, layout.row(kind)), layout.row(kind))
        self.count = e.read(count)
        self.padded = e.round_up(self.count, ROWS)

    def copy(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        """Write the copy of ``size`` numbers."""
        e = self.e
        e.blocks(size, lambda j, lanes: e.store(e.load(source, e.add(offset, j), lanes), target, e.add(at, j)))

    def add(self, source: ir.Value, offset: Index, target: ir.Value, at: Index, size: int) -> None:
        """Write the addition of ``size`` numbers to the target."""
        e = self.e

        def block(j: Index, lanes: int) -> None:
            there = e.load(target, e.add(at, j), lanes)
            e.store(e.b.fadd(there, e.load(source, e.add(offset, j), lanes)), target, e.add(at, j))

        e.blocks(size, block)

    def clear(self, target: ir.Value, at: Index, size: int) -> None:
        """Write zeros to ``size`` numbers."""
        e = self.e
        e.blocks(size, lambda j, lanes: e.store(e.zero(lanes), target, e.add(at, j)))

    def _transfer(self, y: int, at: Index, c: Index) -> None:
        """Write the transfer matrices of one pair, sum_b C[a, b, m] Y_b, for all degrees and all coupled (m, a)."""
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
            e.store(total, self.address["transfer", y], e.at(c, self.stride, first))

    def _path(self, n: ir.Value, path: CouplingPath, first: bool) -> None:
        """Write one path of an atom; ``first`` for the first path with these features of the neighbour."""
        e, outputs = self.e, self.forms.outputs
        for u, last in self.weights:
            radial_code.weigh(self, path, u, last)
        for o, (kind, terms) in enumerate(outputs):
            if kind is Operand.MESSAGE:
                self._gather(n, path, o, terms)
        if any(kind is not Operand.MESSAGE for kind, _ in outputs):
            with e.loop(self.count) as k:
                self._pair(n, path, k, first)
        for o, operand, slope in self.returns:
            back = radial_code.return_hidden if outputs[o][0] is Operand.HIDDEN else radial_code.return_last
            back(self, path, o, operand, slope)

    def _matrix(self, path: CouplingPath, y: int, k: Index) -> dict[tuple[int, int], ir.Value]:
        """Load the elements of a pair's transfer matrix, by (m, a)."""
        base = self.e.mul(k, self.stride)
        return {
            (m, a): self.e.load(self.address["transfer", y], self.e.add(base, offset))
            for (degrees, m, a), (offset, _) in self.entries.items()
            if degrees == path.degrees
        }

    def _gather(self, n: ir.Value, path: CouplingPath, o: int, terms: Sequence[Monomial]) -> None:
        """Write the sum over pairs that is the message of an atom."""
        e = self.e
        row = e.at(n, self.layout.messages, path.message)

        def block(offset: Index, lanes: int) -> None:
            sums = [e.variable(e.zero(lanes)) for _ in range(2 * path.l_out + 1)]
            with e.loop(self.count) as k:
                for y in sorted({t[Operand.HARMONICS] for t in terms}):
                    x: list = [None] * (2 * path.l_in + 1)
                    for t in terms:
                        if t[Operand.HARMONICS] == y:
                            w = self._weight(path, t, k, offset, lanes)
                            x = [
                                e.fma(w, h, part)
                                for h, part in zip(self._sender(path, t[Operand.NODES], k, offset, lanes), x, strict=True)
                            ]
                    for (m, a), factor in self._matrix(path, y, k).items():
                        e.b.store(e.fma(e.splat(factor, lanes), x[a], e.read(sums[m])), sums[m])
            for m, place in enumerate(sums):
                e.store(e.read(place), self.outputs[o], e.add(row, e.add(m * path.message_stride, offset)))

        e.blocks(path.channels, block)

    def _weight(self, path: CouplingPath, term: Monomial, k: Index, offset: Index, lanes: int) -> ir.Value:
        """Load the radial weights of pair ``k`` for a block of channels."""
        return self.e.load(
            self.address["weights", (term[Operand.HIDDEN], term[Operand.LAST])], self.e.at(k, path.channels, offset), lanes
        )

    def _sender(self, path: CouplingPath, operand: int, k: Index, offset: Index, lanes: int) -> list[ir.Value]:
        """Load the components of the neighbour's features in pair ``k`` for a block of channels."""
        e = self.e
        of_node = self.forms.kinds[operand] is Operand.NODES
        at = e.load(self.address["row"], k, kind=I64) if of_node else e.add(self.begin, k)
        row = e.at(at, self.layout.features, path.sender, offset)
        return [e.load(self.inputs[operand], e.add(row, a * path.sender_stride), lanes) for a in range(2 * path.l_in + 1)]

    def _pair(self, n: ir.Value, path: CouplingPath, k: Index, first: bool) -> None:
        """Write the derivatives of one pair with respect to radial weights, harmonics and the neighbour's features."""
        e, outputs = self.e, self.forms.outputs
        at = e.add(self.begin, k)
        matrices = {y: self._matrix(path, y, k) for y in self.harmonics}
        keys = [(m, a) for (degrees, m, a) in self.entries if degrees == path.degrees]
        products: dict[int, dict] = {}
        for o, (kind, _) in enumerate(outputs):
            if kind is Operand.HARMONICS:
                products[o] = {key: e.variable(e.zero(e.lanes)) for key in keys}

        def block(offset: Index, lanes: int) -> None:
            values = _Values(self, n, path, k, offset, lanes, matrices)
            for triples, slope in self.slopes.items():
                total = None
                for y, h, g in triples:
                    for part, z in zip(values.sender(h), values.returned(y, g), strict=True):
                        total = e.fma(part, z, total)
                e.store(total, self.address["slope", slope], e.at(k, path.channels, offset))
            for o, (kind, terms) in enumerate(outputs):
                if kind is Operand.PAIRS:
                    sums: list = [None] * (2 * path.l_in + 1)
                    for t in terms:
                        returned = values.returned(t[Operand.HARMONICS], t[Operand.MESSAGE])
                        sums = [e.fma(values.weight(t), z, part) for z, part in zip(returned, sums, strict=True)]
                    row = e.at(at, self.layout.features, path.sender, offset)
                    for a, value in enumerate(sums):
                        where = e.add(row, a * path.sender_stride)
                        e.store(
                            value if first else e.b.fadd(value, e.load(self.outputs[o], where, lanes)), self.outputs[o], where
                        )
                if kind is Operand.HARMONICS:
                    for g in sorted({t[Operand.MESSAGE] for t in terms}):
                        x: list = [None] * (2 * path.l_in + 1)
                        for t in terms:
                            if t[Operand.MESSAGE] == g:
                                x = [
                                    e.fma(values.weight(t), h, part)
                                    for h, part in zip(values.sender(t[Operand.NODES]), x, strict=True)
                                ]
                        for (m, a), place in products[o].items():
                            if lanes == e.lanes:
                                value = e.fma(x[a], values.message(g)[m], e.read(place))
                            else:
                                value = e.b.fadd(e.read(place), e.widen(e.b.fmul(x[a], values.message(g)[m]), e.lanes))
                            e.b.store(value, place)

        e.blocks(path.channels, block)
        for o, places in products.items():
            totals: dict[int, ir.Value] = {}
            for (m, a), place in places.items():
                value = e.read(place)
                for b, factor in self.entries[path.degrees, m, a][1].items():
                    totals[b] = e.fma(value, e.constant(factor, e.lanes), totals.get(b))
            for b, total in totals.items():
                where = e.mul(e.at(k, self.layout.harmonics, path.l_edge**2 + b), e.lanes)
                e.store(e.b.fadd(total, e.load(self.address["result", o], where, e.lanes)), self.address["result", o], where)


class _Values:
    """Values of a pair for one block of channels, each loaded or computed at its first use."""

    def __init__(self, w: Writer, n: ir.Value, path: CouplingPath, k: Index, offset: Index, lanes: int, matrices: dict) -> None:
        self.w, self.n, self.path, self.k, self.offset, self.lanes, self.matrices = w, n, path, k, offset, lanes, matrices
        self.known: dict[tuple, Any] = {}

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Return the value ``key``, made by ``make`` at the first call."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def sender(self, operand: int) -> list[ir.Value]:
        """Return the components of the neighbour's features."""
        return self._once(("sender", operand), lambda: self.w._sender(self.path, operand, self.k, self.offset, self.lanes))

    def weight(self, term: Monomial) -> ir.Value:
        """Return the radial weights."""
        key = "weight", term[Operand.HIDDEN], term[Operand.LAST]
        return self._once(key, lambda: self.w._weight(self.path, term, self.k, self.offset, self.lanes))

    def message(self, operand: int) -> list[ir.Value]:
        """Return the components of the cotangent of the message."""
        e, path = self.w.e, self.path
        row = e.at(self.n, self.w.layout.messages, path.message, self.offset)
        place = lambda m: e.add(row, m * path.message_stride)
        load = lambda: [e.load(self.w.inputs[operand], place(m), self.lanes) for m in range(2 * path.l_out + 1)]
        return self._once(("message", operand), load)

    def returned(self, y: int, g: int) -> list[ir.Value]:
        """Return the cotangent of the neighbour's features by component, without the factor of the radial weight."""

        def make() -> list[ir.Value]:
            e = self.w.e
            z: list = [None] * (2 * self.path.l_in + 1)
            for (m, a), factor in self.matrices[y].items():
                z[a] = e.fma(e.splat(factor, self.lanes), self.message(g)[m], z[a])
            return [e.zero(self.lanes) if part is None else part for part in z]

        return self._once(("returned", y, g), make)
