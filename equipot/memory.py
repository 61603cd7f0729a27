"""How much memory there is: of an accelerator by what it says, of the host by what Linux and the limits of a job leave."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import jax

ROOT = Path("/")
"""Where ``proc`` and ``sys`` are."""


def there_is(device: jax.Device) -> int | None:
    """Bytes that may still be taken on a device; None where nobody says."""
    if device.platform == "cpu":
        return host()
    found = device.memory_stats() or {}
    if "bytes_limit" not in found:
        return None
    return max(0, found["bytes_limit"] - found.get("bytes_in_use", 0))


def host(root: Path = ROOT) -> int | None:
    """Bytes of the host's memory that this process may still take: MemAvailable, or less where a control group has less."""
    known = [_available(root / "proc/meminfo"), *_groups(root)]
    return min((n for n in known if n is not None), default=None)


def _available(path: Path) -> int | None:
    for line in _lines(path):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _groups(root: Path) -> list[int]:
    """What each control group that this process is in, directly or through another, has left."""
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
    """Bytes of files in memory that are given back when something else needs the room."""
    return sum(int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.split()[0] == "inactive_file")


def _number(path: Path) -> int | None:
    """None for a file that is not there, or says ``max``."""
    found = _lines(path)
    return int(found[0]) if found and found[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError:
        return []
