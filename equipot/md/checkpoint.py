"""One file that holds everything a run needs in order to go on exactly as if it had not stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equipot.files import write_atomically
from equipot.md.state import State
from equipot.neighbors import ListSpec

FORMAT = "equipot md 2"
OLDER = ("equipot md 1",)
"""1 had no energy and virial in the state."""


def save(path: Path, state: State, record: dict[str, Any]) -> None:
    """Writes state and record (anything JSON holds) so that a kill leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; the old one stands.
    """
    from safetensors.numpy import save as to_bytes

    leaves = {f"{k:04d}": np.array(leaf) for k, leaf in enumerate(jax.tree.leaves(state))}
    text = json.dumps(record)
    write_atomically(path, to_bytes(leaves, metadata={"format": FORMAT, "record": text, "sha256": _digest(leaves, text)}))


def load(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays of the state, for ``restore``, and the record.

    Raises:
        ValueError: damaged, of an earlier version, or not a checkpoint of molecular dynamics.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in sorted(file.keys())}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole checkpoint ({error}); start the run anew in another folder") from None
    record = header.get("record", "")
    if header.get("format") in OLDER:
        raise ValueError(
            f"{path}: written by an earlier version of equipot, which kept less; start another run from the last frame of the "
            "trajectory with velocities: file, or finish this one with that version"
        )
    if header.get("format") != FORMAT or header.get("sha256") != _digest(found, record):
        raise ValueError(f"{path}: a damaged checkpoint, or none of molecular dynamics; start the run anew in another folder")
    return list(found.values()), json.loads(record)


def restore(path: Path, arrays: list[np.ndarray], template: State) -> State:
    """The state of a checkpoint; ``template`` is a state of the same run, which gives the structure.

    Raises:
        ValueError: it is of another run.
    """
    leaves, structure = jax.tree.flatten(template)
    if [(a.shape, a.dtype) for a in arrays] != [(np.shape(x), x.dtype) for x in leaves]:
        raise ValueError(f"{path}: the checkpoint is of another system; use the same structure and ensemble")
    return jax.tree.unflatten(structure, [jnp.asarray(a) for a in arrays])


def spec_to_record(spec: ListSpec) -> dict[str, Any]:
    """The sizes of the neighbour list: another size is another order of summation, and so other last digits."""
    return dataclasses.asdict(spec)


def spec_from_record(record: dict[str, Any]) -> ListSpec:
    return ListSpec(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})


def fingerprint(*trees: Any) -> str:
    """SHA-256 of all arrays in the trees."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _digest(arrays: dict[str, np.ndarray], text: str) -> str:
    return fingerprint([arrays[name] for name in sorted(arrays)], np.frombuffer(text.encode(), np.uint8))
