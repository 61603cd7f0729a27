"""Frame slices of a source, ``FILE@0:100``, in ASE's notation after the last @."""

from __future__ import annotations

from pathlib import Path


def split_index(source: str) -> tuple[Path, str]:
    """Split a source into path and frame index at the last @; if a file has the whole name, the index is ``:``."""
    if "@" in source and not Path(source).exists():
        path, _, index = source.rpartition("@")
        return Path(path), index
    return Path(source), ":"


def frame_slice(index: str, source: str) -> slice:
    """Convert an index, ``3``, ``-1`` or ``0:100:2``, to a slice; ``source`` is for the message.

    Raises:
        ValueError: the index is neither a number nor a slice.
    """
    try:
        if ":" not in index:
            k = int(index)
            return slice(k, k + 1 or None)
        return slice(*(int(part) if part else None for part in index.split(":")))
    except (ValueError, TypeError):
        raise ValueError(f"{source}: @{index} is not a frame number or a slice such as @0:100") from None


def no_frames(label: str, index: str, count: int) -> str:
    """Write the message for a source without frames."""
    if index == ":" or not count:
        return f"{label}: has no frames, it is empty; fetch or write it again"
    return f"{label}: no frames in @{index}, there are {count} (0 to {count - 1})"
