"""Estimates of uncertainty of the potentials that ``accuracy`` trained: ranks, coverage, new environments, and cost.

acac       acetylacetone, calibrated on 150 frames at 300 K, tested on the other 500 there and on 500 at 600 K
mlearn-X   a metal or silicon: half of the 25 to 31 test frames calibrate, the other half test
dipeptides calibrated on the validation set, tested on a formula that is not in the training set

Each method stands beside the norm of the features, calibrated on the same frames. Values of novelty are compared by the AUROC
of atoms of the last test set against those of the first. ``md`` runs 1,000 silicon atoms with a gate and without. ``--data
PATH`` is that of ``accuracy``.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.build import bulk

import equipot
from equipot import md, uncertainty
from equipot.data.read import read
from equipot.data.stats import is_isolated_atom
from equipot.posterior import UncertaintyMethod
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.uncertainty.calibration import calibrated, compare
from equipot.uncertainty.diagnostics import assess, auroc
from equipot.uncertainty.learning import lesson
from equipot.uncertainty.statistics import gather

Frames = list[Structure]
METHODS: dict[str, UncertaintyMethod] = {
    "last layer": uncertainty.LastLayer(),
    "last layer, 32 samples": uncertainty.LastLayer(samples=32),
    "POPS": uncertainty.POPS(),
    "shallow ensemble": uncertainty.ShallowEnsemble(),
    "mean and variance": uncertainty.MeanVariance(),
    "feature norm": uncertainty.FeatureNorm(),
}
NOVELTIES = {
    "Mahalanobis": uncertainty.Mahalanobis(),
    "Nearest": uncertainty.Nearest(),
    "Mixture": uncertainty.Mixture(),
    "Euclidean": uncertainty.Euclidean(),
}
REPEATS = 5
"""Number of interleaved timings."""


class Sets(NamedTuple):
    """Frames of a task."""

    train: Frames
    calibrate: Frames
    tests: dict[str, Frames]
    """By name; those of the last are compared with those of the first where there are several."""


def frames_of(path: Path) -> Frames:
    """Read frames without isolated atoms."""
    return [frame for frame in read(str(path)) if not is_isolated_atom(frame)]


def split(frames: Sequence[Structure], count: int) -> tuple[Frames, Frames]:
    """Draw a number of frames, and return them and the others."""
    order = np.random.default_rng(0).permutation(len(frames))
    return [frames[k] for k in order[:count]], [frames[k] for k in order[count:]]


def acac(data: Path) -> Sets:
    folder = data / "acac"
    calibrate, rest = split(frames_of(folder / "test_MD_300K.extxyz"), 150)
    return Sets(
        frames_of(folder / "train_300K.extxyz"), calibrate, {"300 K": rest, "600 K": frames_of(folder / "train_600K.extxyz")}
    )


def solid(symbol: str) -> Callable[[Path], Sets]:
    def make(data: Path) -> Sets:
        test = frames_of(data / "mlearn" / f"{symbol}_test.extxyz")
        calibrate, rest = split(test, len(test) // 2)
        return Sets(frames_of(data / "mlearn" / f"{symbol}_train.extxyz"), calibrate, {"test": rest})

    return make


def dipeptides(data: Path) -> Sets:
    part = lambda name: frames_of(data / "dipeptides_spice" / f"{name}.extxyz")
    return Sets(part("train"), part("val"), {"new formula": part("test")})


TASKS: dict[str, tuple[str, Callable[[Path], Sets]]] = {
    "acac": ("acac-300K", acac),
    **{f"mlearn-{symbol}": (f"mlearn-{symbol}", solid(symbol)) for symbol in ("Cu", "Si", "Li")},
    "dipeptides": ("dipeptides-local", dipeptides),
}
"""Task of ``accuracy`` and the sets, by name."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/, acac/, dipeptides_spice/")
    sub.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    sub.add_argument("--accuracy", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="runs of `accuracy`")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of each task that has been trained."""
    for name in args.only:
        task, make = TASKS[name]
        path = args.accuracy / task / "best.eqp"
        if not path.exists():
            print(f"{name}: no {path}: train it by `accuracy --only {task}`")
            continue
        sets = make(args.data)
        potential = equipot.load(path)
        yield {"task": name, **results(potential, sets)}
        if name == "mlearn-Si":
            yield {"task": "md", **dynamics(potential, sets)}


def results(potential: Potential, sets: Sets) -> dict[str, Any]:
    """Assess each method on each test set, compare novelties, and time it all."""
    began = time.perf_counter()
    statistics = gather(potential, sets.train)
    seconds = time.perf_counter() - began
    out: dict[str, Any] = {"train": len(sets.train), "calibrate": len(sets.calibrate), "statistics_s": seconds, "methods": {}}
    began = time.perf_counter()
    errors = lesson(potential, sets.train)
    out |= {"errors_s": time.perf_counter() - began, "learned_s": {}}
    for name, method in METHODS.items():
        began = time.perf_counter()
        known = method.learned(statistics, errors) if method.learned_array else statistics
        model = uncertainty.with_statistics(potential, known, method, "training frames")
        out["learned_s"][name] = time.perf_counter() - began
        model = calibrated(model, sets.calibrate, uncertainty.Linear())
        rows = [row for row in model.deviations if row.deviation_of]
        known = model.posterior.calibrations if model.posterior else {}
        found = {}
        for test, frames in sets.tests.items():
            samples = compare(model, frames, rows)
            found[test] = {row: assess(sample, known[row]) for row, sample in samples.items()}
        out["methods"][name] = found
    out["novelty"] = novelties(potential, statistics, sets.tests)
    out["cost"] = costs(potential, statistics, sets.calibrate)
    return out


def dynamics(potential: Potential, sets: Sets) -> dict[str, Any]:
    """Return the time of an MD step of 1,000 silicon atoms with a gate over that without, least of interleaved runs."""
    model = uncertainty.fit(potential, sets.train, calibrate=sets.calibrate)
    crystal = Structure.from_ase(bulk("Si", cubic=True) * (5, 5, 5), source="silicon")
    gates = {"none": None, **{f"every {n}": md.Gate(None, None, n) for n in (10, 20, 100)}}
    config = md.MDConfig("-", "-", md.NVE(), 400, 1.0, 300.0, log_every=10, trajectory=None, chunk_steps=200)
    best = dict.fromkeys(gates, 0.0)
    for _ in range(2):
        for name, gate in gates.items():
            with tempfile.TemporaryDirectory() as folder:
                done = md.simulate(model, crystal, dataclasses.replace(config, gate=gate), Path(folder) / "run", progress=None)
            best[name] = max(best[name], done.ns_per_day)
    return {"atoms": len(crystal), "ns_per_day": best, "cost": {name: best["none"] / x for name, x in best.items() if x}}


def novelties(potential: Potential, statistics: Any, tests: Mapping[str, Frames]) -> dict[str, Any]:
    """Return the AUROC of atoms of the last test set against those of the first, where there are several, for each novelty,
    and the share of atoms of each set that are beyond 1."""
    out = {}
    for name, novelty in NOVELTIES.items():
        method = uncertainty.LastLayer(novelty=novelty)
        model = uncertainty.with_statistics(potential, statistics, method, "training frames")
        values = {test: equipot.evaluate(model, frames, want="novelty").others["novelty"] for test, frames in tests.items()}
        first, *_, last = (*values.values(),) * 2 if len(values) == 1 else values.values()
        score = {} if len(values) == 1 else {"auroc": auroc(first, last)}
        out[name] = {**score, "beyond": {test: float(np.mean(x > 1)) for test, x in values.items()}}
    return out


def costs(potential: Potential, statistics: Any, frames: Frames) -> dict[str, float]:
    """Return the least time of an evaluation with deviations over that without, one batch at a time, interleaved."""
    model = uncertainty.with_statistics(potential, statistics, uncertainty.LastLayer(), "training frames")
    model = calibrated(model, frames, uncertainty.Linear())
    wants = {
        "forces": ("energy", "forces"),
        "energy_std": ("energy", "forces", "energy_std"),
        "novelty": ("energy", "forces", "novelty"),
        "forces_std": ("energy", "forces", "forces_std"),
    }
    best = dict.fromkeys(wants, np.inf)
    for _ in range(REPEATS + 1):
        for name, want in wants.items():
            began = time.perf_counter()
            equipot.evaluate(model, frames, want=want)
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: float(seconds / best["forces"]) for name, seconds in best.items() if name != "forces"}
