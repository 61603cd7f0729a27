"""What the program, and only the program, sets in JAX: precision, host devices and the cache of compiled functions."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from equipot import files


def prepare(dtype: str, devices: int = 1) -> None:
    """Configures JAX before the first computation.

    ``dtype`` is float32 or float64. ``devices`` is the number of CPU devices for data-parallel work; it has no effect on GPUs,
    nor once JAX has computed something. Compiled functions are kept between runs in ``$EQUIPOT_CACHE`` (``off`` for nowhere).
    """
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    folder = cache_folder()
    if folder is not None and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if max(devices, 1) != max(jax.config.jax_num_cpu_devices, 1):
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:
            # JAX runs already, as in a notebook or a test: what it has must do.
            pass


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path | None:
    """Where compiled functions are kept, made on first use; None where caching is off or the folder cannot be written.

    Code compiled for one kind of processor may crash on another, so that each kind has its own folder.
    """
    return files.cache_folder("compiled", processor())


def processor() -> str:
    """A short name of this kind of processor."""
    text = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text += "".join(sorted({line for line in file if line.startswith(("flags", "Features", "model name"))}))
    except OSError:
        pass
    return hashlib.sha256(text.encode()).hexdigest()[:12]
