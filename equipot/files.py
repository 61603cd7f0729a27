"""Atomic replacement of files: after a kill or a full disk a path holds the old file or the new one, never a part."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends without an error, rename the temporary file to ``path``.

    Raises:
        OSError: the disk is full or the folder cannot be written; an older file at ``path`` is kept.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # Renaming is atomic for the name only: the content has to be on the disk before.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or str(error.filename) not in ("None", str(temporary)):
            raise
        # An open file fails without its name, or with the one that only it has.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write bytes to a file atomically (see ``replacing``)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def cache_root() -> Path:
    """Return the cache: ``$EQUIPOT_CACHE`` unless ``off``, else ``$XDG_CACHE_HOME/equipot`` or ~/.cache/equipot."""
    said = os.environ.get("EQUIPOT_CACHE")
    if said and said != "off":
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equipot"


def cache_folder(*names: str) -> Path | None:
    """Return a subfolder of the cache, made on first use; None if ``$EQUIPOT_CACHE`` is ``off`` or the folder is read-only."""
    if os.environ.get("EQUIPOT_CACHE") == "off":
        return None
    folder = cache_root().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def check_writable(path: str | Path) -> None:
    """Make the folder of a file that will be written later, so that long work does not end in an unwritable path.

    Raises:
        OSError: ``path`` is a folder, or its folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
