"""Checkpoints of training: all arrays of the state by their paths, and everything else as a record; see ``artifact``.

One plain file suits what a resume needs better than a folder of many: it is whole or absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot import artifact, earlier

TRAINING = artifact.Kind("training", "checkpoint of training", 2, "start the run again without --resume")


class Checkpoint(NamedTuple):
    """What a resume begins with."""

    path: Path
    arrays: dict[str, np.ndarray]
    """Those of the state, for ``restore``."""
    record: Any
    earlier: bool
    """Whether an earlier version wrote it."""
    passed: tuple[str, ...]
    """Messages about newer checkpoints that are damaged."""


def restore(template: Any, checkpoint: Checkpoint) -> Any:
    """The state of a checkpoint in the structure of ``template``.

    Raises:
        ValueError: it belongs to another model.
    """
    return artifact.restored(template, checkpoint.arrays, f"{checkpoint.path.name} belongs to another model")


def paths(folder: Path) -> list[Path]:
    """Paths of the checkpoints in a folder, the oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def write(folder: Path, step: int, state: Any, record: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest ``keep``.

    Raises:
        OSError: it could not be written; the earlier ones stand.
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
    """The newest whole checkpoint; None where there is none.

    Raises:
        ValueError: there are checkpoints, but none is whole, or the newest was written by a newer version.
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
    """Where two JSON values differ, as lines such as ``training.epochs: 100 -> 200``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in [*old, *(k for k in new if k not in old)]
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old} -> {new}"]
