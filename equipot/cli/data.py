"""``equipot data DATA``: what is in reference data, and what is wrong with it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np

from equipot import config
from equipot.data.check import check
from equipot.data.read import DataConfig, read
from equipot.data.stats import is_free_atom
from equipot.structure import Structure


def run(args: argparse.Namespace) -> None:
    """Prints a summary, then raises on what training would refuse."""
    settings = config.build(DataConfig, {"train": args.data}, overrides=args.overrides)
    frames = [frame for source in args.data for frame in read(source, settings.keys, settings.units)]
    print(summary(frames))
    bound = [frame for frame in frames if not is_free_atom(frame)]
    report = check({"data": bound}, max_force=settings.max_force, min_distance=settings.min_distance)
    if str(report):
        print(report)
    report.raise_errors()
    print("nothing that training would refuse")


def summary(frames: Sequence[Structure]) -> str:
    """Sizes, elements, labels and their ranges, one line each."""
    from ase.data import chemical_symbols

    atoms = [len(frame) for frame in frames]
    counts = Counter(int(z) for frame in frames for z in frame.numbers)
    free = [frame for frame in frames if is_free_atom(frame)]
    periodic = [frame for frame in frames if frame.pbc.any()]
    lines = [
        ("frames", f"{len(frames)}, {min(atoms)} to {max(atoms)} atoms, {len(periodic)} periodic, {len(free)} free atoms"),
        ("elements", ", ".join(f"{chemical_symbols[z]} ({counts[z]})" for z in sorted(counts))),
    ]
    labels = {
        "energy": ("eV/atom", lambda s: s.energy / len(s)),
        "forces": ("eV/Å", lambda s: s.forces),
        "stress": ("eV/Å³", lambda s: s.stress),
    }
    for name, (unit, value) in labels.items():
        known = [frame for frame in frames if getattr(frame, name) is not None and not is_free_atom(frame)]
        if known:
            values = np.concatenate([np.ravel(value(frame)) for frame in known])
            lines.append((name, f"{len(known)} frames, {values.min():.6g} to {values.max():.6g} {unit}, RMS {rms(values):.4g}"))
        else:
            lines.append((name, "no frame has it"))
    return "\n".join(f"{label:9} {text}" for label, text in lines)


def rms(values: np.ndarray) -> float:
    """Root mean square about the mean: what a model has to explain."""
    return float(np.sqrt(np.mean((values - values.mean()) ** 2)))
