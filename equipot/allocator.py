"""What becomes of memory that is freed.

XLA asks for the memory of all intermediate results anew at each call. glibc gives pieces of more than 32 MiB back to the system
as soon as they are freed, and the system clears every page before it hands it out again: a quarter of the time of evaluating
1,000 atoms on one core.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
"""Numbers of ``mallopt``, from glibc's malloc.h."""
MOST = 2**31 - 1
"""Bytes at the end of the heap that are kept."""


def keep_freed_memory() -> bool:
    """Has the process keep the memory that it frees, for its next use; the program ``equipot`` does so when it starts.

    Evaluations that take more than 32 MiB, of a few hundred atoms or more, become faster on a CPU. The process does not shrink
    between them, and threads share one heap. Call it right after the import, before anything of JAX and before
    ``equipot.load``: threads that exist already keep heaps of their own, which it does not reach.

    Returns:
        Whether it was done: not without glibc, nor where the environment (any ``glibc.malloc`` in ``GLIBC_TUNABLES``, or
        ``MALLOC_...``) says already how memory is allocated, nor where JAX has started, of which there is a warning. Another
        allocator put before glibc's does not count as such.
    """
    decided = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name.startswith("MALLOC_") for name in os.environ)
    if decided or not _has_glibc():
        return False
    if _jax_has_started():
        warnings.warn("keep_freed_memory comes too late, since JAX has started; call it right after the import", stacklevel=2)
        return False
    set_option = ctypes.CDLL(None).mallopt
    # Other heaps than the first map large pieces whatever they are told.
    return all([set_option(key, value) for key, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, MOST), (ARENA_MAX, 1))])


def _jax_has_started() -> bool:
    """Whether there are threads of XLA; False where this JAX does not say so."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "backends_are_initialized", bool)())


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
