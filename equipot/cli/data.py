"""``equipot data DATA``: what is in reference data, and what is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equipot import config
from equipot.data.checks.frames import check
from equipot.data.checks.isolated import isolated
from equipot.data.read import Reading, gather
from equipot.data.stats import is_free_atom, isolated_energies
from equipot.structure import Structure

LABELS: dict[str, tuple[str, Callable[[Structure], Any]]] = {
    "energy": ("eV/atom", lambda s: s.energy / len(s)),
    "forces": ("eV/Å", lambda s: s.forces),
    "stress": ("eV/Å³", lambda s: s.stress),
}


def execute(args: argparse.Namespace) -> None:
    """Prints what the frames hold and every problem.

    Raises:
        ValueError: training would refuse them.
    """
    settings = config.build(Reading, {}, overrides=args.overrides)
    frames, dropped = gather(args.data, settings)
    bound = [frame for frame in frames if not is_free_atom(frame)]
    report = check({"train": bound}, max_force=settings.max_force, min_distance=settings.min_distance)
    report = report.with_problems([*dropped, *isolated(bound, isolated_energies(frames))]).judged(settings.checks)
    print(report)
    print(ranges(bound, len(frames) - len(bound)))
    if report.errors:
        raise ValueError(f"training would refuse these data, because of the {len(report.errors)} error(s) above")


def ranges(structures: Sequence[Structure], free: int) -> str:
    """Range and spread of each label, one line each."""
    lines = []
    for name, (unit, value) in LABELS.items():
        parts = [np.ravel(value(s)) for s in structures if getattr(s, name) is not None]
        if parts:
            values = np.concatenate(parts)
            lines.append(f"{name}: {values.min():.6g} to {values.max():.6g} {unit}, standard deviation {values.std():.4g}")
    lines.append(f"free atoms, for E0: {free or 'none'}")
    return "\n".join(lines)
