"""Available memory, of an accelerator from its own statistics and of the host from Linux and its control groups; and the
memory that a compiled program needs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import jax

ROOT = Path("/")
"""Folder that holds ``proc`` and ``sys``."""


def available(device: jax.Device) -> int | None:
    """Return the bytes that can still be allocated on a device, or None where the device does not report them."""
    if device.platform == "cpu":
        return available_on_host()
    found = device.memory_stats() or {}
    if "bytes_limit" not in found:
        return None
    return max(0, found["bytes_limit"] - found.get("bytes_in_use", 0))


def needed(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that a program needs on each device besides its arguments; 0 if XLA does not report them."""
    said = compiled.memory_analysis()
    return 0 if said is None else said.temp_size_in_bytes + max(0, said.output_size_in_bytes - said.alias_size_in_bytes)


def available_on_host(root: Path = ROOT) -> int | None:
    """Return the bytes of host memory that this process can still allocate, or None where Linux does not report them.

    The value is MemAvailable, or what a control group of the process leaves where that is less.
    """
    known = [_mem_available(root / "proc/meminfo"), *_groups(root)]
    return min((n for n in known if n is not None), default=None)


def _mem_available(path: Path) -> int | None:
    for line in _lines(path):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _groups(root: Path) -> list[int]:
    """List the bytes left in every control group that holds this process, parent groups included."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers != "" and "memory" not in controllers.split(","):
            continue
        old = controllers != ""
        top = root / "sys/fs/cgroup" / ("memory" if old else "")
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        # A container sees its own group as the top, whatever its name outside.
        for group in (PurePosixPath(name), *PurePosixPath(name).parents):
            folder = top / str(group).lstrip("/")
            if (most := _number(folder / limit)) is not None and (taken := _number(folder / used)) is not None:
                left.append(max(0, most - taken + _reclaimable(folder)))
    return left


def _reclaimable(folder: Path) -> int:
    """Return the bytes of a control group's cached files, which the kernel frees on demand."""
    return sum(int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.split()[0] == "inactive_file")


def _number(path: Path) -> int | None:
    """Read an integer from a file; None if the file is missing or holds ``max``."""
    found = _lines(path)
    return int(found[0]) if found and found[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError:
        return []
