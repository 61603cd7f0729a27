"""One file a potential: ``NAME.eqp``, safetensors with a JSON header: numbers and names, no code and no pickle.

A term that is not one of equipot's own is named ``package.module:Class``, and reading the file imports that module from what is
installed: load such a file only where you would import the module.

The header (safetensors ``__metadata__``) holds under ``equipot`` the format version, the term's configuration and the
potential's metadata as JSON, and under ``sha256`` the digest of that text and the tensors. Any safetensors reader can open it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipot import config
from equipot.files import write_atomically
from equipot.potential import Head, Metadata, Potential, Term

FORMAT = 1
FOREIGN = (".pth", ".pt", ".model", ".nqx", ".ckpt", ".zip")
"""How checkpoints of other programs are called."""


def save(potential: Potential, path: str | Path) -> None:
    """Write a potential to one ``.eqp`` file.

    Raises:
        ValueError: the metadata name other heads than the term has.
        OSError: the disk is full or the folder is missing; an older file of that name is left as it was.
    """
    from safetensors.numpy import save as to_bytes

    described = tuple(head.name for head in potential.metadata.heads)
    if described != potential.heads:
        raise ValueError(
            f"the term has the heads {', '.join(potential.heads) or 'none'}, the metadata describe "
            f"{', '.join(described) or 'none'}; give metadata.heads one Head for each, in this order"
        )
    # Not ascontiguousarray, which turns a number into an array of one.
    tensors = {name: np.array(value, order="C") for name, value in flatten(potential.variables).items()}
    header = {
        "format": FORMAT,
        "term": config.dump(potential.term),
        "metadata": dataclasses.asdict(potential.metadata),
    }
    text = json.dumps(header, sort_keys=True)
    write_atomically(path, to_bytes(tensors, metadata={"equipot": text, "sha256": _digest(text, tensors)}))


def load(path: str | Path, dtype: Any = None) -> Potential:
    """Read a potential; in ``dtype`` ("float32" or "float64", which switches JAX to 64 bits), else in the
    precision that it is meant for.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ``.eqp`` file, cut short, altered, written by a newer version, or not of a potential.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the .eqp file of a potential, such as RUN/best.eqp")
    try:
        with safe_open(path, "numpy") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        if path.suffix in FOREIGN:
            command = f"equipot convert {path} -o {path.with_suffix('.eqp').name}"
            raise ValueError(f"{path}: not an .eqp file; convert a checkpoint of another program first: {command}") from None
        raise ValueError(f"{path}: not a readable .eqp file, or cut short ({error}); copy or write it again") from None
    if not {"equipot", "sha256"} <= stored.keys():
        raise ValueError(f"{path}: a safetensors file, but not an undamaged potential written by equipot")
    if stored["sha256"] != _digest(stored["equipot"], tensors):
        raise ValueError(f"{path}: the content does not match its SHA-256: the file is damaged; copy or write it again")
    try:
        potential = _potential(json.loads(stored["equipot"]), tensors, str(path))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a potential as equipot writes it ({type(error).__name__}: {error})") from error
    double = any(value.dtype == np.float64 for value in tensors.values())
    return potential.astype(dtype or potential.metadata.dtype or ("float64" if double else "float32"))


def _potential(header: dict[str, Any], tensors: dict[str, np.ndarray], path: str) -> Potential:
    if header["format"] > FORMAT:
        raise ValueError(f"{path}: format {header['format']} is newer than this equipot reads ({FORMAT}); upgrade equipot")
    # Not arrays of JAX, which would be rounded to single precision where 64 bits are not switched on yet.
    return Potential(config.build(Term, header["term"], path), unflatten(tensors), _metadata(header["metadata"]))


def _metadata(fields: dict[str, Any]) -> Metadata:
    energies = lambda pairs: tuple((int(z), float(e)) for z, e in pairs)
    heads = [Head(**{**head, "atomic_energies": energies(head["atomic_energies"])}) for head in fields["heads"]]
    pairs = {
        "atomic_energies": energies(fields["atomic_energies"]),
        "extra": tuple((str(key), str(value)) for key, value in fields["extra"]),
        "heads": tuple(heads),
    }
    return Metadata(**{**fields, **pairs})


def _digest(header: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by path, such as ``params/interaction0/up/w0e``."""
    out: dict[str, Any] = {}
    for name, part in tree.items():
        out |= flatten(part, f"{prefix}{name}/") if isinstance(part, Mapping) else {f"{prefix}{name}": part}
    return out


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree
