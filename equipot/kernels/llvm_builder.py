"""Loops, vectors and small matrix products as LLVM instructions."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from llvmlite import ir

from equipot.kernels.ffi_handler import I8, I32, I64, POINTER, counting, external
from equipot.kernels.xla_ffi import vector_bytes, vector_registers

Index: TypeAlias = ir.Value | int
"""An index, known when the kernel is written (int) or when it runs (ir.Value)."""

ROWS = 6
"""Rows of a register tile in a matrix product: of 32 registers, six rows of four vectors leave eight for the factors."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A matrix in memory."""

    strides: tuple[int, int]
    """Number of elements from one row to the next, and from one column to the next."""
    base: ir.Value
    """Address of the first element."""


class Emitter:
    """Writes instructions of a function. Operations on indices that are Python integers are computed at once, not written."""

    def __init__(self, builder: ir.IRBuilder, real: ir.Type) -> None:
        self.b = builder
        self.real = real
        self.bytes = 4 if isinstance(real, ir.FloatType) else 8
        self.lanes = vector_bytes() // self.bytes

    # Integers

    def index(self, value: Index) -> ir.Value:
        """Convert a Python integer to a constant."""
        return I64(value) if isinstance(value, int) else value

    def add(self, x: Index, y: Index) -> Index:
        """Add two indices."""
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if x == 0 and isinstance(x, int):
            return y
        if y == 0 and isinstance(y, int):
            return x
        return self.b.add(self.index(x), self.index(y))

    def mul(self, x: Index, y: Index) -> Index:
        """Multiply two indices."""
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if isinstance(y, int) and y == 1:
            return x
        return self.b.mul(self.index(x), self.index(y))

    def at(self, row: Index, stride: Index, *offsets: Index) -> Index:
        """Compute the index row * stride + sum of offsets."""
        out = self.mul(row, stride)
        for offset in offsets:
            out = self.add(out, offset)
        return out

    def round_up(self, x: Index, multiple: int) -> Index:
        """Return the smallest multiple of ``multiple`` that is at least x."""
        if isinstance(x, int):
            return -(-x // multiple) * multiple
        return self.b.mul(self.b.udiv(self.b.add(x, I64(multiple - 1)), I64(multiple)), I64(multiple))

    @contextlib.contextmanager
    def loop(self, count: Index, step: int = 1, start: Index = 0) -> Iterator[ir.Value]:
        """Write the loop ``for index in range(start, count, step)``."""
        with counting(self.b, self.index(start), self.index(count), step) as index:
            yield index

    # Memory

    def pointer(self, base: ir.Value, offset: Index, kind: ir.Type | None = None) -> ir.Value:
        """Return the address of element ``offset`` of an array."""
        return self.b.gep(base, [self.index(offset)], inbounds=True, source_etype=kind or self.real)

    def load(self, base: ir.Value, offset: Index, lanes: int = 1, kind: ir.Type | None = None) -> ir.Value:
        """Load ``lanes`` elements from element ``offset`` on."""
        kind = kind or self.real
        size = 8 if kind in (I64, ir.DoubleType()) else 1 if kind == I8 else 4
        return self.b.load(self.pointer(base, offset, kind), typ=self.vector(lanes, kind), align=size)

    def store(self, value: ir.Value, base: ir.Value, offset: Index, kind: ir.Type | None = None) -> None:
        """Store a number or a vector from element ``offset`` on."""
        kind = kind or self.real
        size = 8 if kind in (I64, ir.DoubleType()) else 1 if kind == I8 else 4
        self.b.store(value, self.pointer(base, offset, kind), align=size)

    def variable(self, value: ir.Value) -> ir.Value:
        """Reserve memory, which the optimiser turns into a register, for a value that changes; return its address."""
        with self.b.goto_entry_block():
            place = self.b.alloca(value.type)
        self.b.store(value, place)
        return place

    def read(self, place: ir.Value) -> ir.Value:
        """Load the value of a ``variable``."""
        return self.b.load(place, typ=place.allocated_type)

    def malloc(self, count: Index) -> ir.Value:
        """Allocate memory for ``count`` numbers, aligned to a cache line, to be freed by ``free``."""
        line = 64
        reserved = self.b.add(self.b.mul(self.index(count), I64(self.bytes)), I64(2 * line))
        raw = self.b.call(external(self.b.module, "malloc", POINTER, [I64]), [reserved])
        number = self.b.and_(self.b.add(self.b.ptrtoint(raw, I64), I64(2 * line - 1)), I64(-line))
        memory = self.b.inttoptr(number, POINTER)
        # The address that malloc returned is stored before the aligned memory.
        self.b.store(raw, self.b.gep(memory, [I64(-8)], source_etype=I8))
        return memory

    def free(self, memory: ir.Value) -> None:
        """Free memory of ``malloc``."""
        raw = self.b.load(self.b.gep(memory, [I64(-8)], source_etype=I8), typ=POINTER)
        self.b.call(external(self.b.module, "free", ir.VoidType(), [POINTER]), [raw])

    # Vectors

    def vector(self, lanes: int, kind: ir.Type | None = None) -> ir.Type:
        """Return the type of ``lanes`` numbers."""
        return (kind or self.real) if lanes == 1 else ir.VectorType(kind or self.real, lanes)

    def zero(self, lanes: int) -> ir.Value:
        """Return zero in all lanes."""
        return self.constant(0.0, lanes)

    def constant(self, value: float, lanes: int) -> ir.Value:
        """Return one number in all lanes."""
        if lanes == 1:
            return ir.Constant(self.real, value)
        return ir.Constant(ir.VectorType(self.real, lanes), [value] * lanes)

    def constants(self, values: list[float]) -> ir.Value:
        """Return a vector of given numbers."""
        return ir.Constant(ir.VectorType(self.real, len(values)), values)

    def splat(self, scalar: ir.Value, lanes: int) -> ir.Value:
        """Copy a number to all lanes."""
        if lanes == 1:
            return scalar
        kind = ir.VectorType(self.real, lanes)
        first = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
        mask = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)

    def widen(self, value: ir.Value, lanes: int) -> ir.Value:
        """Extend a vector by zeros to ``lanes``."""
        have = value.type.count if isinstance(value.type, ir.VectorType) else 1
        if have == lanes:
            return value
        kind = ir.VectorType(self.real, lanes)
        if have == 1:
            return self.b.insert_element(ir.Constant(kind, [0.0] * lanes), value, I32(0))
        order = [k if k < have else have for k in range(lanes)]
        mask = ir.Constant(ir.VectorType(I32, lanes), order)
        return self.b.shuffle_vector(value, ir.Constant(value.type, [0.0] * have), mask)

    def fma(self, x: ir.Value, y: ir.Value, z: ir.Value | None) -> ir.Value:
        """Compute x y + z, or x y if z is None."""
        if z is None:
            return self.b.fmul(x, y)
        vector = isinstance(x.type, ir.VectorType)
        kind = "f32" if isinstance(self.real, ir.FloatType) else "f64"
        name = f"llvm.fmuladd.{f'v{x.type.count}' if vector else ''}{kind}"
        function = self.b.module.globals.get(name)
        if function is None:
            function = ir.Function(self.b.module, ir.FunctionType(x.type, [x.type] * 3), name)
        return self.b.call(function, [x, y, z])

    def sum(self, value: ir.Value) -> ir.Value:
        """Sum over the lanes of a vector, by repeatedly adding its halves."""
        lanes = value.type.count if isinstance(value.type, ir.VectorType) else 1
        while lanes > 1:
            half = lanes // 2
            undefined = ir.Constant(value.type, ir.Undefined)
            pick = lambda ks: ir.Constant(ir.VectorType(I32, len(ks)), list(ks))
            if half == 1:
                return self.b.fadd(self.b.extract_element(value, I64(0)), self.b.extract_element(value, I64(1)))
            low = self.b.shuffle_vector(value, undefined, pick(range(half)))
            high = self.b.shuffle_vector(value, undefined, pick(range(half, lanes)))
            value, lanes = self.b.fadd(low, high), half
        return value

    # Patterns

    def blocks(self, size: int, body: Callable[[Index, int], None]) -> None:
        """Write ``body(offset, lanes)`` for ``size`` elements: whole vectors first, then smaller vectors for the remainder."""
        whole = size // self.lanes
        if whole > 2:
            with self.loop(whole * self.lanes, self.lanes) as offset:
                body(offset, self.lanes)
        else:
            for k in range(whole):
                body(k * self.lanes, self.lanes)
        for offset, lanes in self.tails(size):
            body(offset, lanes)

    def tails(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield offset and lanes of vectors of decreasing powers of two that cover the remainder of ``size``."""
        offset, lanes = size - size % self.lanes, self.lanes
        while offset < size:
            lanes //= 2
            if size - offset >= lanes:
                yield offset, lanes
                offset += lanes

    def matmul(self, a: Matrix, b: Matrix, c: Matrix, rows: Index, inner: Index, columns: int, add: bool) -> None:
        """Write the matrix product c = a b, or c += a b with ``add``; ``inner`` is the dimension that is summed over.

        If ``rows`` is not an int, its value at run time must be a multiple of ``ROWS``. The elements of a row of b and of c are
        contiguous.
        """
        known = rows if isinstance(rows, int) else None
        key = f"matmul_{columns}_{known}_{add}_" + "_".join(str(m.strides) for m in (a, b, c))
        name = re.sub(r"[^A-Za-z0-9]+", "_", key)
        function = self.b.module.globals.get(name)
        if function is None:
            function = ir.Function(self.b.module, ir.FunctionType(ir.VoidType(), [POINTER] * 3 + [I64] * 2), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            start = function.append_basic_block("start")
            builder.branch(start)
            builder.position_at_end(start)
            inside = Emitter(builder, self.real)
            x, y, z = (Matrix(m.strides, p) for m, p in zip((a, b, c), function.args, strict=False))
            inside._tiles(x, y, z, known or function.args[3], function.args[4], columns, add)
            builder.ret_void()
        self.b.call(function, [a.base, b.base, c.base, self.index(rows), self.index(inner)])

    def _tiles(self, a: Matrix, b: Matrix, c: Matrix, rows: Index, inner: Index, columns: int, add: bool) -> None:
        """Write a matrix product as tiles that fit into the registers."""
        group = 4 if vector_registers() >= 32 else 2
        whole = columns // self.lanes
        tiles = [(first * self.lanes, [self.lanes] * min(group, whole - first)) for first in range(0, whole, group)]
        tiles += [(offset, [lanes]) for offset, lanes in self.tails(columns)]
        left = rows % ROWS if isinstance(rows, int) else 0
        for offset, widths in tiles:
            with self.loop(rows - left if left else rows, ROWS) as i:
                self._tile(a, b, c, i, ROWS, inner, offset, widths, add)
            if left:
                self._tile(a, b, c, rows - left, left, inner, offset, widths, add)

    def _tile(
        self, a: Matrix, b: Matrix, c: Matrix, i: Index, count: int, inner: Index, offset: int, widths: list[int], add: bool
    ) -> None:
        """Write a tile of a matrix product: ``count`` rows from ``i``, vectors of ``widths`` lanes from column ``offset``."""
        starts = [offset + sum(widths[:k]) for k in range(len(widths))]
        sums = [[self.variable(self.zero(lanes)) for lanes in widths] for _ in range(count)]
        with self.loop(inner) as r:
            right = [self.load(b.base, self.at(r, b.strides[0], s), lanes) for s, lanes in zip(starts, widths, strict=True)]
            for k in range(count):
                left = self.load(a.base, self.add(self.mul(self.add(i, k), a.strides[0]), self.mul(r, a.strides[1])))
                for place, value, lanes in zip(sums[k], right, widths, strict=True):
                    self.b.store(self.fma(self.splat(left, lanes), value, self.read(place)), place)
        for k in range(count):
            for place, s, lanes in zip(sums[k], starts, widths, strict=True):
                value, where = self.read(place), self.at(self.add(i, k), c.strides[0], s)
                if add:
                    value = self.b.fadd(value, self.load(c.base, where, lanes))
                self.store(value, c.base, where)
