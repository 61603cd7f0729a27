"""Setting of glibc's allocator to keep freed memory.

XLA allocates the memory of all intermediate results at each call. glibc returns blocks of more than 32 MiB to the system as
soon as they are freed, and the system clears every page before handing it out again, which takes a quarter of the time of
evaluating 1,000 atoms on one core.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
"""Numbers of ``mallopt``, from glibc's malloc.h."""
MOST = 2**31 - 1
"""Free bytes kept at the end of the heap."""


def keep_freed_memory() -> bool:
    """Make the process keep freed memory for its next use; the program ``equipot`` does so when it starts.

    Evaluations that take more than 32 MiB, of a few hundred atoms or more, become faster on a CPU. The process does not shrink
    between evaluations, and threads share one heap. Call this function right after the import, before any use of JAX and before
    ``equipot.load``: threads that exist already keep their own heaps, which the setting does not reach.

    Returns:
        True if the setting was made; False without glibc, or if the environment sets the allocator (``MALLOC_...``, or
        ``glibc.malloc`` in ``GLIBC_TUNABLES``), or, with a warning, if JAX has started. A preloaded allocator is not noticed.
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
    """Whether JAX has started threads of XLA; False if this version of JAX does not tell."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "backends_are_initialized", bool)())


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
