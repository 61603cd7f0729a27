"""Kernels compiled at run time: LLVM compiles a kernel for this processor, and XLA runs the kernel as a custom call.

A kernel computes a range of rows (atoms). The division of the rows into parts depends on the number of rows alone, so that
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
"""Number of bytes of a checksum."""

_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []
"""Engines, never freed, since XLA holds addresses of their code."""
_registered: dict[str, str] = {}
"""Names of the registered custom calls, by the identity of their kernels."""


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
        static: Hyper-parameters of the kernel; different kernels of one kind must differ in the repr of ``static``.
        write: Function that writes the body of the kernel.
        operands: Arrays that the kernel reads; the rows of the first are divided into parts.
        results: Shapes and types of the arrays that the kernel writes.
        signature: Signature with other parts or another layout than the default.

    Returns:
        The arrays that the kernel writes.

    Raises:
        RuntimeError, OSError: LLVM cannot compile for this processor.
    """
    signature = signature or Signature(len(operands), len(results))
    name = _register(kind, repr((kind, static, str(operands[-1].dtype), signature)), write, signature)
    return list(jax.ffi.ffi_call(name, list(results))(*operands))


def _register(kind: str, identity: str, write: Write, signature: Signature) -> str:
    """Compile and register a kernel with a unique ``identity`` at the first call; return the name of its custom call."""
    with _lock:
        if identity not in _registered:
            key = hashlib.sha256(repr((identity, processor(), llvmlite.__version__, _sources())).encode()).hexdigest()[:24]
            name = f"equipot_{kind}_{key}"
            address = _compile(name, lambda: module(name, write, signature))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.CFUNCTYPE(ctypes.c_void_p)(address)), platform="cpu")
            _registered[identity] = name
        return _registered[identity]


def processor() -> tuple[str, str, str]:
    """Return the target triple, name and features of this processor, as LLVM names them."""
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@functools.cache
def vector_bytes() -> int:
    """Return the width of the widest vector register, in bytes."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def vector_registers() -> int:
    """Return the number of vector registers."""
    return 16 if vector_bytes() == 32 else 32


@functools.cache
def _sources() -> str:
    """Return a digest of the files that write kernels, so that machine code of other versions is not taken from the cache."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _target() -> llvm.TargetMachine:
    """Return this processor with all of its features as a target; each engine owns its target, so that each needs a new one."""
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
    """Return the address of the function ``name`` of a module, whose machine code is taken from the cache or compiled."""
    code = kept(name) or keep(name, _translate(make()))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)


def _translate(made: ir.Module) -> bytes:
    """Compile a module to an object file."""
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
    """Return the path of a kernel's object file in the folder of JAX's compilation cache; None without such a folder."""
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    return Path(folder) / f"{name}.o" if folder and enabled and "://" not in folder else None


def kept(name: str) -> bytes | None:
    """Read an object file from the cache; None if there is none or its checksum is wrong."""
    path = _file(name)
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST], content[DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(name: str, code: bytes) -> bytes:
    """Write an object file, preceded by its checksum, into the cache if the cache is writable; return the object file."""
    path = _file(name)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(code).digest() + code)
        except OSError:
            pass
    return code
