"""One file that holds all that a run of dynamics needs to go on exactly as if it had not stopped; see ``artifact``."""

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
    """Write state and record (anything JSON holds) so that a kill leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; the old one stands.
    """
    MD.write(path, record, artifact.named_leaves(state))


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of the state by their paths, for ``restore``, and the record.

    Raises:
        ValueError: damaged, of an earlier version, or not a checkpoint of molecular dynamics.
    """
    content = MD.read(path)
    if content.format < MD.format:
        raise ValueError(
            f"{path}: written by an earlier version of equipot; start another run from the last frame of the trajectory with "
            "velocities: file, or finish this one with that version"
        )
    return content.arrays, content.record


def restore(path: Path, arrays: dict[str, np.ndarray], template: State) -> State:
    """The state of a checkpoint; ``template`` is a state of the same run, which gives the structure.

    Raises:
        ValueError: it is of another run.
    """
    message = f"{path}: the checkpoint is of another system; use the same structure and ensemble"
    return jax.tree.map(jnp.asarray, artifact.restored(template, arrays, message))


def spec_to_record(spec: ListSpec) -> dict[str, Any]:
    """The sizes of the neighbour list: another size is another order of summation, and so other last digits."""
    return dataclasses.asdict(spec)


def spec_from_record(record: dict[str, Any]) -> ListSpec:
    return ListSpec(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})


def fingerprint(*trees: Any) -> str:
    """SHA-256 of all arrays in the trees."""
    return artifact.digest("", artifact.named_leaves(trees))
