"""Machine code made while the program runs: LLVM compiles it for this processor, and XLA calls it as a custom call.

A kernel treats a range of rows (atoms); the rows are divided into parts in a way that depends on their number alone, so that
results do not depend on the number of threads. The layout of what XLA passes is that of its typed foreign-function interface
(xla/ffi/api/c_api.h in jaxlib).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from equipot.files import write_atomically

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
NULL = ir.Constant(POINTER, None)
REAL = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
"""Types of numbers that kernels are written for."""

# Byte offsets in XLA_FFI_CallFrame (of the extension, the interface, the context, the lists of arguments and of results), in
# XLA_FFI_Buffer, in XLA_FFI_Metadata_Extension and XLA_FFI_Metadata, and in XLA_FFI_Api.
EXTENSION, API, CONTEXT, ARGUMENTS, RESULTS = 8, 16, 24, 72, 112
DATA, DIMENSIONS = 24, 40
METADATA, MAJOR, MINOR, TRAITS = 24, 24, 28, 32
SCHEDULE, THREADS = 136, 144
VERSION = 0, 1
"""Of the interface: the oldest that jaxlib still accepts, with the same layout."""

PART = 16
"""Rows of a part, as long as that makes no more than ``MOST_PARTS``."""
MOST_PARTS = 64
DIGEST = 32
"""Bytes of a checksum."""

_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []
"""Kept for good: XLA holds addresses of their code."""


def target() -> llvm.TargetMachine:
    """This processor with everything it can do; an engine takes it over, so that each needs its own."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )


@functools.cache
def vector_bytes() -> int:
    """Width of the widest vector register."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def vector_registers() -> int:
    return 16 if vector_bytes() == 32 else 32


def parts(rows: int) -> int:
    """Into how many parts so many rows are divided."""
    return max(1, min(MOST_PARTS, -(-rows // PART)))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a kernel is called with."""

    inputs: tuple[ir.Value, ...]
    """Pointers to the operands' elements."""
    outputs: tuple[ir.Value, ...]
    shape: tuple[ir.Value, ir.Value]
    """The first two dimensions of the first operand."""
    part: ir.Value
    count: ir.Value
    """Which of how many parts this call is about."""

    def rows(self, builder: ir.IRBuilder) -> tuple[ir.Value, ir.Value]:
        """First row of this part, and the one after its last."""
        border = lambda k: builder.sdiv(builder.mul(self.shape[0], k), self.count)
        return border(self.part), border(builder.add(self.part, I64(1)))


Write = Callable[[ir.IRBuilder, Arguments], None]
"""Writes the body of a kernel."""


def call(
    kind: str,
    static: Any,
    write: Write,
    operands: Sequence[Any],
    results: Sequence[jax.ShapeDtypeStruct],
    fixed: int | None = None,
) -> list[Any]:
    """Custom call of the kernel that ``write`` writes for the hyper-parameters ``static``; their repr must tell them apart.

    There are ``fixed`` parts, or where that is left out ``parts`` of the rows of the first operand.
    """
    name = _kernel(kind, static, str(operands[-1].dtype), write, len(operands), len(results), fixed)
    return jax.ffi.ffi_call(name, list(results))(*operands)


_known: dict[str, str] = {}


def _kernel(kind: str, static: Any, dtype: str, write: Write, inputs: int, outputs: int, fixed: int | None) -> str:
    """Name of the custom call, compiled and registered."""
    told = repr((kind, static, dtype, inputs, outputs, fixed))
    with _lock:
        if told not in _known:
            triple = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
            key = hashlib.sha256(repr((told, triple, llvmlite.__version__, _sources())).encode()).hexdigest()[:24]
            name = f"equipot_{kind}_{key}"
            address = _compile(name, lambda: _module(name, write, inputs, outputs, fixed))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.CFUNCTYPE(ctypes.c_void_p)(address)), platform="cpu")
            _known[told] = name
        return _known[told]


@functools.cache
def _sources() -> str:
    """Of the files that write kernels: code that other files wrote must not be taken for theirs."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(name: str, module: Callable[[], ir.Module]) -> int:
    """Address of the function ``name``."""
    code = kept(name) or keep(name, _translate(module()))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)


def _translate(module: ir.Module) -> bytes:
    """Object file of a module."""
    machine = target()
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = llvm.get_process_triple()
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    # Everything is written as vectors already.
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_object(parsed)


def _file(name: str) -> Path | None:
    """Where the code of a kernel is kept: in the folder of JAX's cache of compiled functions, where there is one."""
    folder = jax.config.jax_compilation_cache_dir
    return Path(folder) / f"{name}.o" if folder and jax.config.jax_enable_compilation_cache and "://" not in folder else None


def kept(name: str) -> bytes | None:
    """Object file from the cache; None where there is none or it is damaged."""
    path = _file(name)
    try:
        digest, code = (content := path.read_bytes())[:DIGEST], content[DIGEST:]
    except (AttributeError, OSError):
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def keep(name: str, code: bytes) -> bytes:
    """Writes an object file into the cache, behind its checksum; a cache that cannot be written is no error."""
    path = _file(name)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(code).digest() + code)
        except OSError:
            pass
    return code


def _module(name: str, write: Write, inputs: int, outputs: int, fixed: int | None) -> ir.Module:
    """A module with the handler ``name``, which XLA calls, and the kernel, which it calls for each part."""
    module = ir.Module(name)
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64, I64]), f"{name}_part")
    kernel.linkage = "internal"
    builder = ir.IRBuilder(kernel.append_basic_block("entry"))
    frame, part, among = kernel.args
    pointers = [
        tuple(_load(builder, _load(builder, _load(builder, frame, which), 8 * k), DATA) for k in range(count))
        for which, count in ((ARGUMENTS, inputs), (RESULTS, outputs))
    ]
    start = kernel.append_basic_block("start")
    builder.branch(start)
    builder.position_at_end(start)
    write(builder, Arguments(*pointers, _dimensions(builder, frame), part, among))
    builder.ret_void()

    _handler(module, name, kernel, fixed)
    return module


def _handler(module: ir.Module, name: str, kernel: ir.Function, fixed: int | None) -> None:
    """What XLA calls: asks for help by the other threads of its pool, takes part itself, and waits until all parts are done.

    Helpers and caller take one part after the other from a counter. A helper that comes too late finds nothing left; the
    job's memory is freed by whoever leaves last.
    """
    helper = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), f"{name}_help")
    helper.linkage = "internal"
    builder = ir.IRBuilder(helper.append_basic_block("entry"))
    _take_parts(builder, helper.args[0], kernel)
    _leave(builder, helper.args[0])
    builder.ret_void()

    handler = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), name)
    builder = ir.IRBuilder(handler.append_basic_block("entry"))
    (frame,) = handler.args
    _answer_metadata(builder, frame)
    count = I64(fixed) if fixed else _count(builder, _dimensions(builder, frame)[0])
    job = builder.call(external(module, "malloc", POINTER, [I64]), [I64(JOB)])
    threads = _threads(builder, frame)
    helpers = builder.sub(builder.select(builder.icmp_signed("<", threads, count), threads, count), I64(1))
    for offset, value in ((NEXT, I64(0)), (DONE, I64(0)), (USERS, builder.add(helpers, I64(1))), (COUNT, count)):
        builder.store(value, _at(builder, job, offset))
    builder.store(frame, _at(builder, job, FRAME))
    request = _room(builder, 5)
    with counting(builder, I64(0), helpers):
        for offset, value in ((0, I64(40)), (8, NULL), (16, _load(builder, frame, CONTEXT)), (24, helper), (32, job)):
            builder.store(value, _at(builder, request, offset))
        failed = _api(builder, frame, SCHEDULE, request)
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


NEXT, DONE, USERS, COUNT, FRAME, JOB = 0, 8, 16, 24, 32, 40
"""Offsets in a job, and its size: the next part, parts that are done, threads that look at it, how many parts, XLA's frame."""


def _take_parts(builder: ir.IRBuilder, job: ir.Value, kernel: ir.Function) -> None:
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
    users = builder.atomic_rmw("sub", _at(builder, job, USERS), I64(1), "seq_cst")
    with builder.if_then(builder.icmp_signed("==", users, I64(1))):
        builder.call(external(builder.module, "free", ir.VoidType(), [POINTER]), [job])


def _threads(builder: ir.IRBuilder, frame: ir.Value) -> ir.Value:
    """Threads of XLA's pool; 1 where it has none."""
    found, request = _room(builder, 1), _room(builder, 4)
    builder.store(I64(1), found)
    for offset, value in ((0, I64(32)), (8, NULL), (16, _load(builder, frame, CONTEXT)), (24, found)):
        builder.store(value, _at(builder, request, offset))
    failed = _api(builder, frame, THREADS, request)
    found = builder.load(found, typ=I64)
    usable = builder.and_(
        builder.icmp_unsigned("==", builder.ptrtoint(failed, I64), I64(0)), builder.icmp_signed(">", found, I64(1))
    )
    return builder.select(usable, found, I64(1))


def _api(builder: ir.IRBuilder, frame: ir.Value, offset: int, request: ir.Value) -> ir.Value:
    """Calls a function of the interface; what comes back is an error or null."""
    kind = ir.FunctionType(POINTER, [POINTER]).as_pointer()
    return builder.call(_load(builder, _load(builder, frame, API), offset, kind), [request])


def _room(builder: ir.IRBuilder, words: int) -> ir.Value:
    """Memory on the stack."""
    return builder.inttoptr(builder.ptrtoint(builder.alloca(ir.ArrayType(I64, words)), I64), POINTER)


def _at(builder: ir.IRBuilder, base: ir.Value, offset: int) -> ir.Value:
    return builder.gep(base, [I64(offset)], source_etype=I8)


def external(module: ir.Module, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
    """A function of the C library."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


@contextlib.contextmanager
def counting(builder: ir.IRBuilder, start: ir.Value, end: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """``for index in range(start, end, step)``."""
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


def _count(builder: ir.IRBuilder, rows: ir.Value) -> ir.Value:
    """``parts``."""
    wanted = builder.sdiv(builder.add(rows, I64(PART - 1)), I64(PART))
    least = builder.select(builder.icmp_signed("<", wanted, I64(1)), I64(1), wanted)
    return builder.select(builder.icmp_signed(">", least, I64(MOST_PARTS)), I64(MOST_PARTS), least)


def _answer_metadata(builder: ir.IRBuilder, frame: ir.Value) -> None:
    """When it is registered, a handler is asked for the version of the interface that it was written for."""
    extension = _load(builder, frame, EXTENSION)
    with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(extension, I64), I64(0))):
        metadata = _load(builder, extension, METADATA)
        for offset, value in ((MAJOR, VERSION[0]), (MINOR, VERSION[1]), (TRAITS, 0)):
            builder.store(I32(value), _at(builder, metadata, offset))
        builder.ret(NULL)


def _dimensions(builder: ir.IRBuilder, frame: ir.Value) -> tuple[ir.Value, ir.Value]:
    dimensions = _load(builder, _load(builder, _load(builder, frame, ARGUMENTS), 0), DIMENSIONS)
    return _load(builder, dimensions, 0, I64), _load(builder, dimensions, 8, I64)


def _load(builder: ir.IRBuilder, base: ir.Value, offset: int, kind: ir.Type = POINTER) -> ir.Value:
    return builder.load(_at(builder, base, offset), typ=kind)


@functools.cache
def available() -> bool:
    """Whether LLVM knows this processor and XLA this interface: a kernel that adds one is asked what one and one are.

    Where they do not, a warning says why once.
    """

    def write(builder: ir.IRBuilder, a: Arguments) -> None:
        place = lambda base: builder.gep(base, [I64(0)], source_etype=ir.FloatType())
        value = builder.load(place(a.inputs[0]), typ=ir.FloatType())
        builder.store(builder.fadd(value, ir.Constant(ir.FloatType(), 1.0)), place(a.outputs[0]))

    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            one = jnp.ones((1, 1), jnp.float32)
            (two,) = jax.jit(lambda x: call("probe", None, write, [x], [jax.ShapeDtypeStruct((1, 1), jnp.float32)]))(one)
            return float(two[0, 0]) == 2.0
    except (RuntimeError, OSError) as error:
        warnings.warn(
            f"no machine code can be made for this processor ({error}); equipot computes the same by XLA alone, but slower",
            stacklevel=2,
        )
        return False
