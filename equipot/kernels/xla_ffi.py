"""Machine code made while the program runs: LLVM compiles a kernel for this processor, and XLA calls it as a custom call.

A kernel treats a range of rows (atoms); the rows are divided into parts in a way that depends on their number alone, so that
results do not depend on the number of threads (see ``ffi_handler``).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from equipot.files import write_atomically
from equipot.kernels.ffi_handler import Signature, Write, module

REAL = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
"""Types of numbers that kernels are written for."""
DIGEST = 32
"""Bytes of a checksum."""

_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []
"""Kept for good: XLA holds addresses of their code."""
_known: dict[str, str] = {}
"""Names of the custom calls that are registered, by what their kernels do."""


def call(
    kind: str,
    static: Any,
    write: Write,
    operands: Sequence[Any],
    results: Sequence[jax.ShapeDtypeStruct],
    signature: Signature | None = None,
) -> list[Any]:
    """Call a kernel on arrays, inside a function that XLA compiles for a CPU.

    Args:
        kind: Name of the kernel, part of the name of the custom call.
        static: Hyper-parameters of the kernel; their repr must tell any two kernels of a kind apart.
        write: Writes the body of the kernel.
        operands: Arrays that the kernel reads; the rows of the first are divided into parts.
        results: Shapes and types of the arrays that the kernel writes.
        signature: Where parts or layout are not the usual ones.

    Returns:
        The results.

    Raises:
        RuntimeError, OSError: LLVM makes no code for this processor.
    """
    signature = signature or Signature(len(operands), len(results))
    name = _register(kind, repr((kind, static, str(operands[-1].dtype), signature)), write, signature)
    return jax.ffi.ffi_call(name, list(results))(*operands)


def _register(kind: str, told: str, write: Write, signature: Signature) -> str:
    """Name of the custom call of a kernel that ``told`` tells from others, compiled and registered."""
    with _lock:
        if told not in _known:
            key = hashlib.sha256(repr((told, processor(), llvmlite.__version__, _sources())).encode()).hexdigest()[:24]
            name = f"equipot_{kind}_{key}"
            address = _compile(name, lambda: module(name, write, signature))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.CFUNCTYPE(ctypes.c_void_p)(address)), platform="cpu")
            _known[told] = name
        return _known[told]


def processor() -> tuple[str, str, str]:
    """Target triple, name and features of this processor, as LLVM names them."""
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@functools.cache
def vector_bytes() -> int:
    """Width of the widest vector register."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def vector_registers() -> int:
    """Number of vector registers."""
    return 16 if vector_bytes() == 32 else 32


@functools.cache
def _sources() -> str:
    """Digest of the files that write kernels, so that the code of other versions is not taken from the cache."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _target() -> llvm.TargetMachine:
    """This processor with all of its features; an engine takes the object over, so that each needs its own."""
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


def _compile(name: str, make: Callable[[], ir.Module]) -> int:
    """Address of the function ``name`` of a module, from the cache or compiled."""
    code = kept(name) or keep(name, _translate(make()))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)


def _translate(made: ir.Module) -> bytes:
    """Object file of a module."""
    machine = _target()
    parsed = llvm.parse_assembly(str(made))
    parsed.triple = llvm.get_process_triple()
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    # Kernels are written in vectors and unrolled already.
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_object(parsed)


def _file(name: str) -> Path | None:
    """File for the code of a kernel in the folder of JAX's cache of compiled functions; None where there is no such folder."""
    folder = jax.config.jax_compilation_cache_dir
    return Path(folder) / f"{name}.o" if folder and jax.config.jax_enable_compilation_cache and "://" not in folder else None


def kept(name: str) -> bytes | None:
    """Read an object file from the cache; None where there is none or it is damaged."""
    path = _file(name)
    try:
        digest, code = (content := path.read_bytes())[:DIGEST], content[DIGEST:]
    except (AttributeError, OSError):
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def keep(name: str, code: bytes) -> bytes:
    """Write an object file into the cache, behind its checksum, and return it; a cache that cannot be written is no error."""
    path = _file(name)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(code).digest() + code)
        except OSError:
            pass
    return code
