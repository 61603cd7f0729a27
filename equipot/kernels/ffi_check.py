"""Check of whether machine code can be used: a small kernel is called in a subprocess, which may crash.

The layout of XLA's structures that kernels are compiled for is not part of jaxlib's documented interface. A kernel compiled for
a wrong layout reads and writes at wrong addresses. The verdict is kept in equipot's cache for each jaxlib, LLVM and processor.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jaxlib
import llvmlite
import numpy as np
from llvmlite import ir

from equipot.files import cache_folder, write_atomically
from equipot.kernels import xla_ffi
from equipot.kernels.ffi_handler import Arguments, FfiLayout, Signature, counting

PATIENCE = 60.0
"""Seconds that the subprocess may take: wrong addresses may also make a kernel wait for ever."""
ROWS, COLUMNS = 64, 3
"""Shape of the arrays of the small kernel: enough rows for several parts."""
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, getattr(signal, "SIGBUS", signal.SIGSEGV)}
"""Signals that end the subprocess if the layout is wrong."""
VERDICT = "equipot-ffi-verdict:"
"""Start of the line with the verdict in the output of the subprocess."""
CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from equipot.kernels import ffi_check
ffi_check.tell(sys.argv[1])
"""
"""Program of the subprocess."""
LAYOUT = FfiLayout()


@functools.cache
def available() -> bool:
    """Return whether machine code can be compiled for this processor and called by this jaxlib; if not, warn once."""
    reason = complaint(LAYOUT)
    if reason is None:
        return True
    warnings.warn(f"{reason}; equipot computes the same by XLA alone, but slower", stacklevel=2)
    return False


def complaint(layout: FfiLayout) -> str | None:
    """Return the reason why machine code cannot be used with this layout; None if machine code can be used."""
    file = _file(layout)
    if file is not None:
        try:
            return json.loads(file.read_text(encoding="utf-8"))["complaint"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
    reason, final = _ask_process(layout)
    if file is not None and final:
        try:
            write_atomically(file, json.dumps({"complaint": reason, "jaxlib": jaxlib.__version__}).encode())
        except OSError:
            pass
    return reason


def _file(layout: FfiLayout) -> Path | None:
    """Return the cache file of the verdict; None without a cache folder."""
    folder = cache_folder("ffi")
    told = repr((jaxlib.__version__, llvmlite.__version__, xla_ffi.processor(), layout))
    return None if folder is None else folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"


def _ask_process(layout: FfiLayout) -> tuple[str | None, bool]:
    """Run the trial in a subprocess, or in this process if none can be started, as in a program that embeds Python.

    Returns:
        The reason why machine code cannot be used, or None; and whether another subprocess would give the same verdict.
    """
    shifted = f"jaxlib {jaxlib.__version__} does not call machine code in the way that equipot knows"
    # Two threads, so that work is shared as on any processor; no accelerator, whose start takes seconds.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": "2", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    arguments = [sys.executable, "-c", CODE, json.dumps(dataclasses.asdict(layout)), json.dumps(sys.path)]
    try:
        done = subprocess.run(
            arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"{shifted} (a trial did not end within {PATIENCE:.0f} s)", False
    except (OSError, ValueError, TypeError):
        return trial(layout), False
    if -done.returncode in CRASHES:
        return f"{shifted} (a trial ended by {signal.Signals(-done.returncode).name})", True
    for line in done.stdout.splitlines():
        if line.startswith(VERDICT):
            found = json.loads(line.removeprefix(VERDICT))
            return found and f"{shifted} ({found})" if found is None or found.startswith("wrong") else found, True
    return trial(layout), False


def tell(layout: str) -> None:
    """Print the verdict on a layout, given as JSON; called in the subprocess."""
    print(VERDICT + json.dumps(trial(FfiLayout(**json.loads(layout)))), flush=True)


def trial(layout: FfiLayout) -> str | None:
    """Call the small kernel in this process, which may crash if the layout is wrong.

    Returns:
        The reason why machine code cannot be used; None if the kernel gives right numbers.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, ROWS, COLUMNS)).astype(np.float32)
    result = jax.ShapeDtypeStruct(x.shape, x.dtype)
    run = jax.jit(lambda *xy: xla_ffi.call("probe", None, _write, xy, [result, result], Signature(2, 2, layout=layout)))
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            total, difference = map(np.asarray, run(x, y))
    except (RuntimeError, OSError) as error:
        return f"no machine code can be made and called on this processor ({error})"
    right = np.array_equal(total, x + y) and np.array_equal(difference, x - y)
    return None if right else "wrong numbers in a trial"


def _write(builder: ir.IRBuilder, arguments: Arguments) -> None:
    """Write the small kernel: sum and difference of two arrays."""
    real = ir.FloatType()
    begin, end = (builder.mul(row, arguments.shape[1]) for row in arguments.rows(builder))
    with counting(builder, begin, end) as k:
        place = lambda base: builder.gep(base, [k], source_etype=real)
        x, y = (builder.load(place(base), typ=real) for base in arguments.inputs)
        for base, value in zip(arguments.outputs, (builder.fadd(x, y), builder.fsub(x, y)), strict=True):
            builder.store(value, place(base))
