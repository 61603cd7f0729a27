"""What a base says of the data before the first step of its fine-tuning, kept in the folder of the run.

A run that resumes reads it again instead of asking the base: numbers of an accelerator need not come out alike twice, and the
run has to go on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equipot.data.stats import AtomicEnergies
from equipot.structure import Structure
from equipot.training.checkpoint import TRAINING
from equipot.training.evaluate import Table

NAME = "base.safetensors"


class Measured(NamedTuple):
    """What the base says of the data before the first step."""

    energies: Mapping[str, AtomicEnergies]
    """By head, whose name is empty where there is only one level of theory."""
    notes: tuple[str, ...]
    before: dict[str, Table]
    """Its errors on each set."""
    labels: dict[str, np.ndarray]
    """Energies, forces and stresses of the replayed frames, where it labels them."""


def pack(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    """Labels of structures as arrays; NaN for a stress that is not there."""
    none = np.full((3, 3), np.nan)
    return {
        "energy": np.array([s.energy for s in structures]),
        "forces": np.concatenate([s.forces for s in structures]),
        "stress": np.array([none if s.stress is None else s.stress for s in structures]),
    }


def unpack(structures: Sequence[Structure], labels: Mapping[str, np.ndarray]) -> list[Structure]:
    """The structures with labels from ``pack``."""
    ends = np.cumsum([len(s) for s in structures])
    out = []
    for k, s in enumerate(structures):
        stress = None if np.isnan(labels["stress"][k]).any() else labels["stress"][k]
        forces = labels["forces"][ends[k] - len(s) : ends[k]]
        out.append(s.replace(energy=float(labels["energy"][k]), forces=forces, stress=stress))
    return out


def remembered(out: Path, key: str, resume: bool, measure: Callable[[], Measured]) -> Measured:
    """What was measured for the run in this folder; measured now where it is a new one, or belongs to another ``key``.

    Raises:
        OSError: it cannot be written.
    """
    path = out / NAME
    if resume and path.exists():
        _, record, labels = TRAINING.read(path)
        if record["key"] == key:
            found = {
                head: AtomicEnergies({int(z): energy for z, energy in energies.items()}, origin, tuple(warnings))
                for head, (energies, origin, warnings) in record["energies"].items()
            }
            return Measured(found, tuple(record["notes"]), record["before"], labels)
    measured = measure()
    energies = {
        head: ({str(z): float(e) for z, e in found.energies.items()}, found.origin, found.warnings)
        for head, found in measured.energies.items()
    }
    record = {"key": key, "energies": energies, "notes": measured.notes, "before": measured.before}
    out.mkdir(parents=True, exist_ok=True)
    TRAINING.write(path, record, measured.labels)
    return measured
