"""Machine code made while the program runs: LLVM compiles it for this processor, and XLA calls it as a custom call.

A kernel treats a range of rows (atoms); the rows are divided into parts in a way that depends on their number alone, so that
results do not depend on the number of threads. The layout of what XLA passes is that of its typed foreign-function interface
(xla/ffi/api/c_api.h in jaxlib).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
NULL = ir.Constant(POINTER, None)
REAL = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
"""Types of numbers that kernels are written for."""

# Byte offsets in XLA_FFI_CallFrame (of the extension, and of the lists of arguments and of results), in XLA_FFI_Buffer, and in
# XLA_FFI_Metadata_Extension and XLA_FFI_Metadata.
EXTENSION, ARGUMENTS, RESULTS = 8, 72, 112
DATA, DIMENSIONS = 24, 40
METADATA, MAJOR, MINOR, TRAITS = 24, 24, 28, 32
VERSION = 0, 1
"""Of the interface: the oldest that jaxlib still accepts, with the same layout."""

PART = 16
"""Rows of a part, as long as that makes no more than ``MOST_PARTS``."""
MOST_PARTS = 64

_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []
"""Kept for good: XLA holds addresses of their code."""


@functools.cache
def target() -> llvm.TargetMachine:
    """This processor with everything it can do."""
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
    parsed = llvm.parse_assembly(str(module()))
    parsed.triple = llvm.get_process_triple()
    parsed.data_layout = str(target().target_data)
    parsed.verify()
    # Everything is written as vectors already.
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(target(), tuning)
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, target())
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)


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

    handler = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), name)
    builder = ir.IRBuilder(handler.append_basic_block("entry"))
    (frame,) = handler.args
    _answer_metadata(builder, frame)
    count = I64(fixed) if fixed else _count(builder, _dimensions(builder, frame)[0])
    head, body, done = (handler.append_basic_block(label) for label in ("head", "body", "done"))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(I64(0), before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, done)
    builder.position_at_end(body)
    following = builder.add(index, I64(1))
    builder.call(kernel, [frame, index, count])
    index.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    builder.ret(NULL)
    return module


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
            builder.store(I32(value), builder.gep(metadata, [I64(offset)], source_etype=I8))
        builder.ret(NULL)


def _dimensions(builder: ir.IRBuilder, frame: ir.Value) -> tuple[ir.Value, ir.Value]:
    dimensions = _load(builder, _load(builder, _load(builder, frame, ARGUMENTS), 0), DIMENSIONS)
    return _load(builder, dimensions, 0, I64), _load(builder, dimensions, 8, I64)


def _load(builder: ir.IRBuilder, base: ir.Value, offset: int, kind: ir.Type = POINTER) -> ir.Value:
    return builder.load(builder.gep(base, [I64(offset)], source_etype=I8), typ=kind)


@functools.cache
def available() -> bool:
    """Whether LLVM knows this processor and XLA this interface: a kernel that adds one is asked what one and one are."""

    def write(builder: ir.IRBuilder, a: Arguments) -> None:
        place = lambda base: builder.gep(base, [I64(0)], source_etype=ir.FloatType())
        value = builder.load(place(a.inputs[0]), typ=ir.FloatType())
        builder.store(builder.fadd(value, ir.Constant(ir.FloatType(), 1.0)), place(a.outputs[0]))

    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            one = jnp.ones((1, 1), jnp.float32)
            (two,) = jax.jit(lambda x: call("probe", None, write, [x], [jax.ShapeDtypeStruct((1, 1), jnp.float32)]))(one)
            return float(two[0, 0]) == 2.0
    except Exception:
        return False
