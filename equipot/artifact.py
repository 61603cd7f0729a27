"""One codec for every file of equipot: named arrays and a JSON record in one safetensors file, with a SHA-256 over both.

A file holds no pickle and no code, and any safetensors reader can open it. Its metadata hold two texts: ``equipot``, the JSON
of kind, format and record, and ``sha256``, the digest of that JSON and of all arrays. A file is written beside its final name,
flushed to disk and renamed, so that a kill at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from equipot.files import write_atomically

EARLIER = {"equipot checkpoint 1": ("training", 1), "equipot md 1": ("md", 1), "equipot md 2": ("md", 2)}
"""Kind and format of checkpoints whose metadata name both in one text, instead of in JSON."""


class DamagedError(ValueError):
    """A file that is cut short, was altered, or was not written by equipot; the message gives path and remedy."""


class Content(NamedTuple):
    """Content of a file."""

    format: int
    """Version of the file's layout."""
    record: Any
    """Values stored as JSON."""
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of file, such as potentials or checkpoints, with writer and reader."""

    name: str
    noun: str
    """Name of such a file in messages."""
    format: int
    """Version of the layout that is written; older versions are read too."""
    remedy: str
    """Advice for a damaged file, in messages."""

    def write(self, path: str | Path, record: Any, arrays: Mapping[str, Any]) -> None:
        """Write a record (any value that JSON represents exactly) and arrays to one file, atomically.

        Raises:
            OSError: the disk is full or the folder is missing; an older file at ``path`` is kept.
        """
        from safetensors.numpy import save

        # Not ascontiguousarray, which turns a number into an array of one.
        held = {name: np.array(value, order="C") for name, value in arrays.items()}
        text = json.dumps({"kind": self.name, "format": self.format, "record": record})
        write_atomically(path, save(held, {"equipot": text, "sha256": digest(text, held)}))

    def read(self, path: str | Path) -> Content:
        """Read a file of this kind, in its format or an earlier one.

        Raises:
            DamagedError: the file is cut short, was altered, or was not written by equipot.
            ValueError: the file is of another kind, or was written by a newer version.
            FileNotFoundError: no such file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                stored = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DamagedError(f"{path}: not a readable {self.noun}, or cut short ({error}); {self.remedy}") from None
        kind, version, record = self._described(path, stored, arrays)
        if kind != self.name:
            raise ValueError(f"{path}: holds a {kind}, not what is read here: a {self.noun}")
        if version > self.format:
            raise ValueError(f"{path}: format {version} is newer than this equipot reads ({self.format}); upgrade equipot")
        return Content(version, record, arrays)

    def _described(self, path: str | Path, stored: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> tuple[str, int, Any]:
        """Return kind, format and record, after checking the digest."""
        first = EARLIER.get(stored.get("format", ""))
        key = "equipot" if first is None else "record"
        if not {key, "sha256"} <= stored.keys():
            raise DamagedError(f"{path}: not an undamaged {self.noun} of equipot, but a safetensors file; {self.remedy}")
        text = stored[key]
        found = digest(text, arrays) if first is None else digest_of_training_1(text, arrays)
        # Earlier checkpoints of dynamics have a digest of their own, and are not gone on from anyway.
        if stored["sha256"] != found and (first is None or first[0] == "training"):
            raise DamagedError(f"{path}: the content does not match its SHA-256: the file is damaged; {self.remedy}")
        try:
            header = json.loads(text)
            if first is not None:
                return *first, header
            # Potentials of format 1 have no kind, and their record is not apart.
            return header.get("kind", "potential"), int(header["format"]), header.get("record", header)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not a file as equipot writes it ({type(error).__name__}: {error})") from error


def digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 of a text and of arrays with their names, dtypes and shapes."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        sha.update(f"{name}|{arrays[name].dtype.str}|{arrays[name].shape}|".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def digest_of_training_1(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 as checkpoints of training in format 1 do."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        sha.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a pytree as numpy arrays, by their paths."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def restored(template: Any, arrays: Mapping[str, np.ndarray], mismatch: str) -> Any:
    """Rebuild a pytree of the structure of ``template`` from the arrays of ``named_leaves``.

    Raises:
        ValueError: the paths, shapes or precisions differ; the message begins with ``mismatch`` and names the first.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for key in sorted(wanted.keys() ^ arrays.keys()):
        raise ValueError(f"{mismatch}: {key} is {'missing' if key in wanted else 'unknown'}")
    for key, leaf in wanted.items():
        found = arrays[key]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise ValueError(f"{mismatch}: {key} is {found.dtype}{found.shape}, not {leaf.dtype}{leaf.shape}")
    return jax.tree.unflatten(structure, [arrays[key] for key in wanted])
