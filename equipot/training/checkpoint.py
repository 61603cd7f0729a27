"""Checkpoints: one safetensors file each, written so that a kill at any moment leaves a whole one behind.

A file holds every array of the training state by its path, and everything else as JSON in the header, with a SHA-256 over
both. It is written beside its final name, flushed to disk and then renamed, which POSIX does at once or not at all. One plain
file suits what a resume needs better than a folder of many: it is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from equipot.files import write_atomically

FORMAT = "equipot checkpoint 1"


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file as a whole; what stood there stays until the new one is safe on the disk.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message says what still stands.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror}); what was written before it stands: make room, then use --resume"
        raise OSError(error.errno, message) from error


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """SHA-256 of the arrays, in the order of their names, and of the text."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        sha.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def encode(state: Any, record: Mapping[str, Any]) -> bytes:
    """A checkpoint as bytes; ``record`` is anything that JSON holds exactly."""
    # tobytes of a 0-d array is fine, but safetensors wants contiguous arrays of the host.
    arrays = {name: np.array(leaf) for name, leaf in named_leaves(state).items()}
    text = json.dumps(record)
    return save(arrays, {"format": FORMAT, "record": text, "sha256": digest(arrays, text)})


def decode(data: bytes, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and record of a checkpoint.

    Raises:
        ValueError: it is not whole.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        arrays = load(data)
        text, sha = header["record"], header["sha256"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{name} is not a whole checkpoint ({error})") from None
    if digest(arrays, text) != sha:
        raise ValueError(f"{name} is damaged: its contents do not match its SHA-256")
    return arrays, json.loads(text)


def restore(template: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """The arrays in the structure of ``template``.

    Raises:
        ValueError: they belong to another model.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for key in sorted(wanted.keys() ^ arrays.keys()):
        raise ValueError(f"{name} belongs to another model: {key} is {'missing' if key in wanted else 'unknown'}")
    for key, leaf in wanted.items():
        found = arrays[key]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise ValueError(
                f"{name} belongs to another model: {key} is {found.dtype}{found.shape}, not {leaf.dtype}{leaf.shape}"
            )
    return jax.tree.unflatten(structure, [arrays[jax.tree_util.keystr(path)] for path, _ in leaves])


def paths(folder: Path) -> list[Path]:
    """Checkpoints of a folder, the oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def write(folder: Path, step: int, state: Any, record: Mapping[str, Any], keep: int) -> Path:
    """Adds a checkpoint and removes all but the newest ``keep``.

    Raises:
        OSError: it could not be written; the earlier ones stand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:010d}.safetensors"
    replace_file(path, encode(state, record))
    for old in paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    for left in folder.glob(".step-*.tmp"):
        left.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, Any], list[str]] | None:
    """The newest whole checkpoint, with messages about damaged ones that were passed over; None where there is none.

    Raises:
        ValueError: there are checkpoints, but none is whole.
    """
    passed = []
    for path in reversed(paths(folder)):
        try:
            return path, *decode(path.read_bytes(), path.name), passed
        except ValueError as error:
            passed.append(str(error))
    if passed:
        raise ValueError(f"{folder}: no checkpoint is whole: {'; '.join(passed)}. Start the run again without --resume")
    return None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as lines such as ``training.epochs: 100 -> 200``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in [*old, *(k for k in new if k not in old)]
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old} -> {new}"]
