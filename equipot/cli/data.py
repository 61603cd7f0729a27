"""``equipot data DATA``: summary and problems of reference data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from equipot import config
from equipot.data.checks.frames import check
from equipot.data.checks.isolated import isolated_atoms
from equipot.data.read import Reading, gather
from equipot.data.stats import is_isolated_atom, isolated_energies
from equipot.metadata import dispersion_of
from equipot.quantities import ordered
from equipot.structure import Structure


def execute(args: argparse.Namespace) -> None:
    """Print a summary of the frames and every problem.

    Raises:
        ValueError: training would refuse the data.
    """
    settings = config.build(Reading, {}, overrides=args.overrides)
    frames, dropped = gather(args.data, settings)
    bound = [frame for frame in frames if not is_isolated_atom(frame)]
    report = check({"train": bound}, max_force=settings.max_force, min_distance=settings.min_distance)
    report = report.with_problems([*dropped, *isolated_atoms(bound, isolated_energies(frames))]).judged(settings.checks)
    print(report)
    print(ranges(bound, len(frames) - len(bound)))
    if level := settings.level_of_theory:
        print(f"level of theory: {level}, {f'with {name}' if (name := dispersion_of(level)) else 'without dispersion'}")
    if report.errors:
        raise ValueError(f"training would refuse these data, because of the {len(report.errors)} error(s) above")


def ranges(structures: Sequence[Structure], isolated: int) -> str:
    """Write range and spread of each label, one line each; ``isolated`` is the number of isolated atoms."""
    lines = []
    for row in ordered(row for s in structures for row in s.labels):
        labelled = [s for s in structures if row in s.labels]
        values = np.concatenate([np.ravel(row.compared(s.labels[row])) / (len(s) if row.extensive else 1) for s in labelled])
        unit = row.unit + "/atom" * row.extensive
        lines.append(f"{row.name}: {values.min():.6g} to {values.max():.6g} {unit}, standard deviation {values.std():.4g}")
    lines.append(f"isolated atoms, for E0: {isolated or 'none'}")
    return "\n".join(lines)
