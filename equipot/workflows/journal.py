"""Results of single pieces of work, kept as soon as each is there: lines of JSON that survive a kill at any moment."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from equipot.files import write_atomically

T = TypeVar("T")


class Journal:
    """File of finished pieces by their name.

    A line that a kill has cut is dropped when the file is opened again, so that its piece is done once more.

    Args:
        path: File; made where there is none. None to keep the pieces in memory only.
        resume: Whether lines that are there are kept; otherwise the file begins empty.
    """

    def __init__(self, path: Path | None = None, resume: bool = False) -> None:
        self.path = path
        self.done: dict[int | str, Any] = {}
        """Results by the name of the piece."""
        if path is None:
            return
        kept = b""
        if resume and path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    name, result = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                kept += line
                self.done[name] = result
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(len(kept))

    def add(self, name: int | str, result: Any) -> None:
        """Keep the result of a piece, plain values that JSON holds, and wait until it is on the disk.

        A result that is there is replaced: the state of work that goes on takes no more room than the last one.
        """
        known = name in self.done
        self.done[name] = result
        if self.path is None:
            return
        if known:
            write_atomically(self.path, b"".join(_line(*piece) for piece in self.done.items()))
            return
        with open(self.path, "ab") as file:
            file.write(_line(name, result))
            file.flush()
            os.fsync(file.fileno())

    def once(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """Return the result of a piece, which is computed unless it is kept.

        Args:
            name: Name of the piece.
            kind: Class of the result, as of ``unpacked``.
            compute: Computes the result.
        """
        if name not in self.done:
            self.add(name, packed(compute()))
        return unpacked(kind, self.done[name])


def _line(name: int | str, result: Any) -> bytes:
    return json.dumps([name, result], allow_nan=True).encode() + b"\n"


def packed(value: Any) -> Any:
    """Convert an array, a dataclass or a named tuple of arrays and plain values to what JSON holds, without rounding."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: packed(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: packed(inner) for name, inner in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [packed(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def unpacked(kind: Any, found: Any) -> Any:
    """Convert what ``packed`` made back.

    Args:
        kind: ``np.ndarray``, a class of plain values, or a dataclass or named tuple whose annotations are such classes,
            tuples of these, or unions of one of them with None.
        found: Plain values.
    """
    if found is None:
        return None
    origin, inside = typing.get_origin(kind), [a for a in typing.get_args(kind) if a is not type(None)]
    if kind is np.ndarray:
        return np.array(found)
    if origin is tuple:
        every = inside[:1] * len(found) if inside[-1] is Ellipsis else inside
        return tuple(unpacked(own, inner) for own, inner in zip(every, found, strict=True))
    if origin is list:
        return [unpacked(inside[0], inner) for inner in found]
    if inside:
        return unpacked(inside[0], found)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        known = typing.get_type_hints(kind)
        return kind(**{name: unpacked(known[name], inner) for name, inner in found.items()})
    return found
