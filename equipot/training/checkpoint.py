"""Checkpoints of training: all arrays of the state by path, and a JSON record of all else; see ``artifact``.

A checkpoint is a single file rather than a folder: either the whole checkpoint exists or none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot import artifact, earlier

TRAINING = artifact.Kind("training", "checkpoint of training", 2, "start the run again without --resume")


class Checkpoint(NamedTuple):
    """Content of a checkpoint."""

    path: Path
    arrays: dict[str, np.ndarray]
    """Arrays of the state, by path; the input of ``restore``."""
    record: Any
    """Cursor and identity of the run, as JSON values."""
    earlier: bool
    """Whether an earlier version of equipot wrote the checkpoint."""
    passed: tuple[str, ...]
    """Messages about newer checkpoints that are damaged and were skipped."""


def restore(template: Any, checkpoint: Checkpoint) -> Any:
    """Return the state of a checkpoint in the tree structure of ``template``.

    Raises:
        ValueError: the checkpoint belongs to another model.
    """
    return artifact.restored(template, checkpoint.arrays, f"{checkpoint.path.name} belongs to another model")


def paths(folder: Path) -> list[Path]:
    """List the paths of the checkpoints in a folder, the oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def write(folder: Path, step: int, state: Any, record: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest ``keep`` checkpoints.

    Raises:
        OSError: the checkpoint could not be written; earlier checkpoints are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:010d}.safetensors"
    try:
        TRAINING.write(path, record, artifact.named_leaves(state))
    except OSError as error:
        message = f"cannot write {path} ({error.strerror}); what was written before it stands: make room, then use --resume"
        raise OSError(error.errno, message) from error
    for old in paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    for left in folder.glob(".step-*.tmp"):
        left.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest undamaged checkpoint; return None if the folder has no checkpoint.

    Raises:
        ValueError: all checkpoints are damaged, or the newest was written by a newer version of equipot.
    """
    passed = []
    for path in reversed(paths(folder)):
        try:
            content = TRAINING.read(path)
        except artifact.DamagedError as error:
            passed.append(str(error))
            continue
        arrays, record = content.arrays, content.record
        if content.format == 1:
            term = record["run"]["config"]["model"]
            arrays = {earlier.state_path_of_1(name, term): value for name, value in arrays.items()}
        return Checkpoint(path, arrays, record, content.format < TRAINING.format, tuple(passed))
    if passed:
        raise ValueError(f"{folder}: no checkpoint is whole: {'; '.join(passed)}")
    return None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List the differences of two JSON values, as lines such as ``training.epochs: 100 -> 200``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in [*old, *(k for k in new if k not in old)]
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old} -> {new}"]
