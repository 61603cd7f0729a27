"""Checkpoint of a run: one file from which the run continues exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equipot import artifact
from equipot.md.state import State
from equipot.neighbors import ListSpec

MD = artifact.Kind("md", "checkpoint of molecular dynamics", 3, "start the run anew in another folder")


def write_checkpoint(path: Path, state: State, record: dict[str, Any]) -> None:
    """Write state and record (any JSON value) to one file, atomically.

    Raises:
        OSError: the file cannot be written; an older checkpoint is kept.
    """
    MD.write(path, record, artifact.named_leaves(state))


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of the state by path, for ``restore``, and the record.

    Raises:
        ValueError: a damaged file, an earlier format, or not a checkpoint of molecular dynamics.
    """
    content = MD.read(path)
    if content.format < MD.format:
        raise ValueError(
            f"{path}: written by an earlier version of equipot; start another run from the last frame of the trajectory with "
            "velocities: file, or finish this one with that version"
        )
    return content.arrays, content.record


def restore(path: Path, arrays: dict[str, np.ndarray], template: State) -> State:
    """Rebuild the state of a checkpoint; ``template`` gives the structure, shapes and dtypes.

    Raises:
        ValueError: the checkpoint is of another system or ensemble.
    """
    message = f"{path}: the checkpoint is of another system; use the same structure and ensemble"
    return jax.tree.map(jnp.asarray, artifact.restored(template, arrays, message))


def spec_to_record(spec: ListSpec) -> dict[str, Any]:
    """Convert the sizes of the neighbour list to JSON; other sizes would change the order of summation, and last digits."""
    return dataclasses.asdict(spec)


def spec_from_record(record: dict[str, Any]) -> ListSpec:
    """Convert JSON values to the sizes of the neighbour list."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return ListSpec(**values)


def fingerprint(*trees: Any) -> str:
    """Compute the SHA-256 of all arrays in some pytrees."""
    return artifact.digest("", artifact.named_leaves(trees))
