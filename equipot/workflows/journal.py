"""Results of single pieces of work, kept as soon as each is there: lines of JSON that survive a kill at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """File of finished pieces by their number.

    A line that a kill has cut is dropped when the file is opened again, so that its piece is done once more.

    Args:
        path: File; made where there is none.
        resume: Whether lines that are there are kept; otherwise the file begins empty.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.done: dict[int, Any] = {}
        """Results by the number of the piece."""
        kept = b""
        if resume and path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    number, result = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                kept += line
                self.done[int(number)] = result
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(len(kept))

    def add(self, number: int, result: Any) -> None:
        """Append the result of a piece, plain values that JSON holds, and wait until it is on the disk."""
        line = json.dumps([number, result], allow_nan=True).encode() + b"\n"
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.done[number] = result
