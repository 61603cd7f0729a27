"""LLVM code of the function that XLA calls for a kernel; the function divides the rows among the threads of XLA's pool.

XLA passes one pointer to a structure of its typed foreign-function interface (xla/ffi/api/c_api.h in jaxlib), whose layout
``FfiLayout`` states. ``ffi_check`` checks that the installed jaxlib has this layout.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
NULL = ir.Constant(POINTER, None)

PART = 16
"""Number of rows of a part, unless that gives more than ``MOST_PARTS`` parts."""
MOST_PARTS = 64
"""Largest number of parts."""

VERSION = 0, 1
"""Major and minor version of the interface: the oldest that jaxlib still accepts, with the same layout."""

NEXT, DONE, USERS, COUNT, FRAME, JOB = 0, 8, 16, 24, 32, 40
"""Byte offsets in a job: next part to compute, number of parts done, number of threads that use the job, number of parts,
XLA's call frame; and the size of a job."""


@dataclasses.dataclass(frozen=True)
class FfiLayout:
    """Byte offsets of members in the structures of XLA's foreign-function interface."""

    extension: int = 8
    """Extension in XLA_FFI_CallFrame; null unless XLA asks for metadata."""
    api: int = 16
    """Table of functions in XLA_FFI_CallFrame."""
    context: int = 24
    """Execution context in XLA_FFI_CallFrame."""
    arguments: int = 72
    """List of arguments in XLA_FFI_CallFrame."""
    results: int = 112
    """List of results in XLA_FFI_CallFrame."""
    data: int = 24
    """Elements in XLA_FFI_Buffer."""
    dimensions: int = 40
    """Shape in XLA_FFI_Buffer."""
    metadata: int = 24
    """Metadata in XLA_FFI_Metadata_Extension."""
    major: int = 24
    """Major version in XLA_FFI_Metadata."""
    minor: int = 28
    """Minor version in XLA_FFI_Metadata."""
    traits: int = 32
    """Traits in XLA_FFI_Metadata."""
    schedule: int = 136
    """XLA_FFI_ThreadPool_Schedule in XLA_FFI_Api."""
    threads: int = 144
    """XLA_FFI_ThreadPool_NumThreads in XLA_FFI_Api."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """Properties of a kernel that its handler depends on."""

    inputs: int
    """Number of operands."""
    outputs: int
    """Number of results."""
    parts: int | None = None
    """Number of parts that the work is divided into; None for ``parts(rows)`` of the rows of the first operand."""
    layout: FfiLayout = FfiLayout()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """LLVM values that the body of a kernel can use."""

    inputs: tuple[ir.Value, ...]
    """Pointers to the elements of the operands."""
    outputs: tuple[ir.Value, ...]
    """Pointers to the elements of the results."""
    shape: tuple[ir.Value, ir.Value]
    """First two dimensions of the first operand."""
    part: ir.Value
    """Index of the part that this call computes."""
    count: ir.Value
    """Number of parts."""

    def rows(self, builder: ir.IRBuilder) -> tuple[ir.Value, ir.Value]:
        """Return the first row of this part, and the row after its last."""
        border = lambda k: builder.sdiv(builder.mul(self.shape[0], k), self.count)
        return border(self.part), border(builder.add(self.part, I64(1)))


Write = Callable[[ir.IRBuilder, Arguments], None]
"""Function that writes the body of a kernel."""


def parts(rows: int) -> int:
    """Return the number of parts that ``rows`` rows are divided into."""
    return max(1, min(MOST_PARTS, -(-rows // PART)))


def module(name: str, write: Write, signature: Signature) -> ir.Module:
    """Write a module with the handler ``name``, which XLA calls, and the kernel, which the handler calls for each part."""
    made = ir.Module(name)
    kernel = ir.Function(made, ir.FunctionType(ir.VoidType(), [POINTER, I64, I64]), f"{name}_part")
    kernel.linkage = "internal"
    builder = ir.IRBuilder(kernel.append_basic_block("entry"))
    pointer, part, among = kernel.args
    frame = _Frame(builder, pointer, signature.layout)
    inputs = frame.buffers(signature.layout.arguments, signature.inputs)
    outputs = frame.buffers(signature.layout.results, signature.outputs)
    start = kernel.append_basic_block("start")
    builder.branch(start)
    builder.position_at_end(start)
    write(builder, Arguments(inputs, outputs, frame.dimensions(), part, among))
    builder.ret_void()
    _handler(made, name, kernel, signature)
    return made


def _handler(made: ir.Module, name: str, kernel: ir.Function, signature: Signature) -> None:
    """Write the function that XLA calls, which shares the parts with other threads of XLA's pool and returns after the last.

    Helper threads and the calling thread take one part after the other from a counter. A helper that starts after the last part
    was taken returns at once; the last thread that leaves the job frees its memory.
    """
    helper = ir.Function(made, ir.FunctionType(ir.VoidType(), [POINTER]), f"{name}_help")
    helper.linkage = "internal"
    builder = ir.IRBuilder(helper.append_basic_block("entry"))
    _take_parts(builder, helper.args[0], kernel)
    _leave(builder, helper.args[0])
    builder.ret_void()

    handler = ir.Function(made, ir.FunctionType(POINTER, [POINTER]), name)
    builder = ir.IRBuilder(handler.append_basic_block("entry"))
    frame = _Frame(builder, handler.args[0], signature.layout)
    frame.answer_metadata()
    count = I64(signature.parts) if signature.parts else _count(builder, frame.dimensions()[0])
    job = builder.call(external(made, "malloc", POINTER, [I64]), [I64(JOB)])
    threads = frame.threads()
    helpers = builder.sub(builder.select(builder.icmp_signed("<", threads, count), threads, count), I64(1))
    for offset, value in ((NEXT, I64(0)), (DONE, I64(0)), (USERS, builder.add(helpers, I64(1))), (COUNT, count)):
        builder.store(value, _at(builder, job, offset))
    builder.store(frame.pointer, _at(builder, job, FRAME))
    request = _room(builder, 5)
    with counting(builder, I64(0), helpers):
        for offset, value in ((0, I64(40)), (8, NULL), (16, frame.context()), (24, helper), (32, job)):
            builder.store(value, _at(builder, request, offset))
        failed = frame.call(signature.layout.schedule, request)
        with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(failed, I64), I64(0))):
            _leave(builder, job)
    _take_parts(builder, job, kernel)
    wait, done = handler.append_basic_block("wait"), handler.append_basic_block("done")
    builder.branch(wait)
    builder.position_at_end(wait)
    ready = builder.load_atomic(_at(builder, job, DONE), "acquire", 8, typ=I64)
    builder.cbranch(builder.icmp_signed("<", ready, count), wait, done)
    builder.position_at_end(done)
    _leave(builder, job)
    builder.ret(NULL)


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The XLA_FFI_CallFrame that ``pointer`` points to."""

    builder: ir.IRBuilder
    pointer: ir.Value
    layout: FfiLayout

    def buffers(self, offset: int, count: int) -> tuple[ir.Value, ...]:
        """Load the pointers to the elements of ``count`` buffers, from the list at ``offset``."""
        b = self.builder
        return tuple(_load(b, _load(b, _load(b, self.pointer, offset), 8 * k), self.layout.data) for k in range(count))

    def dimensions(self) -> tuple[ir.Value, ir.Value]:
        """Load the first two dimensions of the first argument."""
        b = self.builder
        shape = _load(b, _load(b, _load(b, self.pointer, self.layout.arguments), 0), self.layout.dimensions)
        return _load(b, shape, 0, I64), _load(b, shape, 8, I64)

    def context(self) -> ir.Value:
        """Load the pointer to XLA's execution context."""
        return _load(self.builder, self.pointer, self.layout.context)

    def call(self, offset: int, request: ir.Value) -> ir.Value:
        """Call the function of the interface at ``offset``; the returned value is a pointer to an error, or null."""
        kind = ir.FunctionType(POINTER, [POINTER]).as_pointer()
        function = _load(self.builder, _load(self.builder, self.pointer, self.layout.api), offset, kind)
        return self.builder.call(function, [request])

    def threads(self) -> ir.Value:
        """Ask for the number of threads of XLA's pool; 1 without a pool."""
        b = self.builder
        found, request = _room(b, 1), _room(b, 4)
        b.store(I64(1), found)
        for offset, value in ((0, I64(32)), (8, NULL), (16, self.context()), (24, found)):
            b.store(value, _at(b, request, offset))
        failed = self.call(self.layout.threads, request)
        found = b.load(found, typ=I64)
        usable = b.and_(b.icmp_unsigned("==", b.ptrtoint(failed, I64), I64(0)), b.icmp_signed(">", found, I64(1)))
        return b.select(usable, found, I64(1))

    def answer_metadata(self) -> None:
        """Answer with the version of the interface and return if XLA asks for metadata, when a handler is registered."""
        b = self.builder
        extension = _load(b, self.pointer, self.layout.extension)
        with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(extension, I64), I64(0))):
            metadata = _load(b, extension, self.layout.metadata)
            answers = (self.layout.major, VERSION[0]), (self.layout.minor, VERSION[1]), (self.layout.traits, 0)
            for offset, value in answers:
                b.store(I32(value), _at(b, metadata, offset))
            b.ret(NULL)


def _take_parts(builder: ir.IRBuilder, job: ir.Value, kernel: ir.Function) -> None:
    """Write the loop that takes part after part from the counter of a job, and computes each part."""
    frame, count = _load(builder, job, FRAME), _load(builder, job, COUNT, I64)
    again, work, over = (builder.append_basic_block(label) for label in ("again", "work", "over"))
    builder.branch(again)
    builder.position_at_end(again)
    part = builder.atomic_rmw("add", _at(builder, job, NEXT), I64(1), "seq_cst")
    builder.cbranch(builder.icmp_signed("<", part, count), work, over)
    builder.position_at_end(work)
    builder.call(kernel, [frame, part, count])
    builder.atomic_rmw("add", _at(builder, job, DONE), I64(1), "seq_cst")
    builder.branch(again)
    builder.position_at_end(over)


def _leave(builder: ir.IRBuilder, job: ir.Value) -> None:
    """Write the end of a thread's use of a job; the last thread frees the memory of the job."""
    users = builder.atomic_rmw("sub", _at(builder, job, USERS), I64(1), "seq_cst")
    with builder.if_then(builder.icmp_signed("==", users, I64(1))):
        builder.call(external(builder.module, "free", ir.VoidType(), [POINTER]), [job])


def _count(builder: ir.IRBuilder, rows: ir.Value) -> ir.Value:
    """Write the computation of ``parts(rows)`` at run time."""
    wanted = builder.sdiv(builder.add(rows, I64(PART - 1)), I64(PART))
    least = builder.select(builder.icmp_signed("<", wanted, I64(1)), I64(1), wanted)
    return builder.select(builder.icmp_signed(">", least, I64(MOST_PARTS)), I64(MOST_PARTS), least)


def _room(builder: ir.IRBuilder, words: int) -> ir.Value:
    """Reserve 64-bit words on the stack."""
    return builder.inttoptr(builder.ptrtoint(builder.alloca(ir.ArrayType(I64, words)), I64), POINTER)


def _at(builder: ir.IRBuilder, base: ir.Value, offset: int) -> ir.Value:
    """Return the address ``offset`` bytes behind ``base``."""
    return builder.gep(base, [I64(offset)], source_etype=I8)


def _load(builder: ir.IRBuilder, base: ir.Value, offset: int, kind: ir.Type = POINTER) -> ir.Value:
    """Load a value ``offset`` bytes behind ``base``."""
    return builder.load(_at(builder, base, offset), typ=kind)


def external(made: ir.Module, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
    """Declare a function of the C library."""
    return made.globals.get(name) or ir.Function(made, ir.FunctionType(result, arguments), name)


@contextlib.contextmanager
def counting(builder: ir.IRBuilder, start: ir.Value, end: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """Write the loop ``for index in range(start, end, step)``."""
    before = builder.block
    head, body, after = (builder.append_basic_block(label) for label in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", index, end), body, after)
    builder.position_at_end(body)
    yield index
    index.add_incoming(builder.add(index, I64(step)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
