"""Files that are replaced as a whole: after a kill or a full disk there is the old one or the new one, never a part."""

from __future__ import annotations

import errno
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
    except OSError as error:
        if error.errno is None or str(error.filename) not in ("None", str(temporary)):
            raise
        # An open file fails without its name, or with the one that only it has.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file as a whole (see ``replacing``)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def cache_root() -> Path:
    """The user's cache: ``$EQUIPOT_CACHE`` unless that is ``off``, else the folder equipot in the system's place for caches."""
    said = os.environ.get("EQUIPOT_CACHE")
    if said and said != "off":
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equipot"


def cache_folder(*names: str) -> Path | None:
    """A folder of the user's cache, made on first use; None where caching is off or the folder cannot be written."""
    if os.environ.get("EQUIPOT_CACHE") == "off":
        return None
    folder = cache_root().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def check_writable(path: str | Path) -> None:
    """Makes the folder of a file to come, before the work whose result it will hold.

    Raises:
        OSError: the file could not be written there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
