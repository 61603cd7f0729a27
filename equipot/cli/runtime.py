"""Settings of JAX that only the program makes: precision, CPU devices and the cache of compiled functions."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from equipot import files


def prepare(dtype: str, devices: int = 1) -> None:
    """Configure JAX before the first computation.

    Compiled functions are cached between runs in ``$EQUIPOT_CACHE`` (``off`` for no cache).

    Args:
        dtype: float32 or float64.
        devices: number of CPU devices for data-parallel work; no effect on GPUs, nor after the first computation.
    """
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    folder = cache_folder()
    if folder is not None and jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if max(devices, 1) != max(jax.config.jax_num_cpu_devices, 1):  # type: ignore[attr-defined]
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:
            # JAX runs already, as in a notebook or a test: what it has must do.
            pass


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path | None:
    """Return the cache folder of compiled functions, made on first use; None if caching is off or the folder is read-only.

    Each kind of processor has its own folder, because code compiled for one kind may crash on another.
    """
    return files.cache_folder("compiled", processor())


def processor() -> str:
    """Return a digest that identifies the kind of processor."""
    text = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text += "".join(sorted({line for line in file if line.startswith(("flags", "Features", "model name"))}))
    except OSError:
        pass
    return hashlib.sha256(text.encode()).hexdigest()[:12]
