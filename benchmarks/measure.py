"""How things are measured: after a warm-up, again and again, the median and the least of processor time and of wall time."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

WARM_UP = 2
LEAST = 3
"""Repetitions, however long they take."""


def timing(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Milliseconds of one call, repeated for so many seconds. ``call`` returns arrays, which are waited for.

    Processor time counts all threads of this process. On a machine that others use too it is the steadier figure, as long as
    the work is done by processors.
    """
    return in_turn({"": (call, 1)}, seconds)[""]


def in_turn(calls: Mapping[str, tuple[Callable[[], Any], int]], seconds: float) -> dict[str, dict[str, float]]:
    """The same of several calls to be compared, which take turns, so that all meet the same moods of the machine.

    A call comes with how often it is made in its turn; given is the mean of a turn's, and the median and the least over turns.
    """
    for call, _ in calls.values():
        for _ in range(WARM_UP):
            jax.block_until_ready(call())
    wall, cpu = ({name: [] for name in calls} for _ in range(2))
    turns, end = 0, time.perf_counter() + seconds * len(calls)
    while turns < LEAST or time.perf_counter() < end:
        turns += 1
        for name, (call, repeats) in calls.items():
            began = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                jax.block_until_ready(call())
            wall[name].append(1e3 * (time.perf_counter() - began[0]) / repeats)
            cpu[name].append(1e3 * (time.process_time() - began[1]) / repeats)
    return {
        name: {
            "cpu_ms": statistics.median(cpu[name]),
            "cpu_ms_min": min(cpu[name]),
            "wall_ms": statistics.median(wall[name]),
            "wall_ms_min": min(wall[name]),
            "repeats": turns,
        }
        for name in calls
    }


def compiled(function: Callable, *arguments: Any) -> tuple[Callable[[], Any], dict[str, float]]:
    """A call without arguments, compiled; the time that took, the memory that XLA plans, the FLOP and bytes that it counts.

    XLA sees nothing of what kernels of machine code do.
    """
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    facts = {"compile_s": time.perf_counter() - began}
    memory = program.memory_analysis()
    if memory is not None:
        facts["temp_bytes"] = memory.temp_size_in_bytes
    cost = program.cost_analysis() or {}
    names = {"flops": "xla_flop", "bytes accessed": "xla_bytes"}
    facts |= {ours: cost[theirs] for theirs, ours in names.items() if theirs in cost}
    return lambda: program(*arguments), facts


def memory() -> dict[str, float]:
    """Peak memory of this process, and of the device where JAX counts it; MB."""
    # Linux counts kilobytes, macOS bytes.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    out = {"peak_rss_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        out["peak_device_MB"] = stats["peak_bytes_in_use"] / 1e6
    return out


def device() -> str:
    return f"{jax.local_devices()[0].device_kind} ({jax.default_backend()})"
