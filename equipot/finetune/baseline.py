"""Predictions of the base of a fine-tuning before the first step, stored in the folder of the run.

A resumed run reads the stored predictions instead of repeating them, because results of an accelerator may differ in the last
digits, and the run has to continue exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from equipot.data.stats import AtomicEnergies
from equipot.training.checkpoint import TRAINING
from equipot.training.errors import Table

NAME = "base.safetensors"


class Baseline(NamedTuple):
    """E0, errors and labels from the base, before the first step."""

    energies: Mapping[str, AtomicEnergies]
    """E0 of the result by head; the name of a single head is empty."""
    notes: tuple[str, ...]
    """Lines for the user."""
    before: dict[str, Table]
    """Errors of the base on each set."""
    labels: dict[str, np.ndarray]
    """Labels of the replayed frames predicted by the base, if the config asks for them; see ``data.packed``."""
    scale: float = 1.0
    """Factor on the interaction energy of the base."""
    replayed: Int[np.ndarray, " replayed"] | None = None
    """Indices of the frames to replay, where these are chosen; None for all."""


def recalled(out: Path, key: str, resume: bool, measure: Callable[[], Baseline]) -> Baseline:
    """Read the baseline of a resumed run from the folder ``out``; for a new run or another ``key``, compute and store a
    baseline.

    Raises:
        OSError: the baseline cannot be written.
    """
    path = out / NAME
    if resume and path.exists():
        _, record, labels = TRAINING.read(path)
        if record["key"] == key:
            found = {
                head: AtomicEnergies({int(z): energy for z, energy in energies.items()}, origin, tuple(warnings))
                for head, (energies, origin, warnings) in record["energies"].items()
            }
            scale, replayed = record.get("scale", 1.0), record.get("replayed")
            chosen = None if replayed is None else np.asarray(replayed)
            return Baseline(found, tuple(record["notes"]), record["before"], labels, scale, chosen)
    baseline = measure()
    energies = {
        head: ({str(z): float(e) for z, e in found.energies.items()}, found.origin, found.warnings)
        for head, found in baseline.energies.items()
    }
    record = {"key": key, "energies": energies, "notes": baseline.notes, "before": baseline.before, "scale": baseline.scale}
    record["replayed"] = None if baseline.replayed is None else baseline.replayed.tolist()
    out.mkdir(parents=True, exist_ok=True)
    TRAINING.write(path, record, baseline.labels)
    return baseline
