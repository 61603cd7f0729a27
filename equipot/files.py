"""Files that are replaced as a whole: after a kill or a full disk there is the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; when the block ends well, that file is put in the place of ``path``.

    Raises:
        OSError: the disk is full or the folder cannot be written; what stood at ``path`` still does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # Renaming is atomic for the name only: the content has to be on the disk before.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file as a whole (see ``replacing``)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
