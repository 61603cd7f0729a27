"""Estimates of uncertainty beside errors: ranks, likelihoods, coverage, new environments, and cost.

Each task trains a potential of its own (``uncertainty_tasks`` says on what), calibrates each method on frames that were not
trained on, and tests it on others, beside the norm of the features. ``--members N`` trains an ensemble of N, too. Values of
novelty are compared by the AUROC of the atoms of each test set against those of the first; for mlearn those of surfaces and
vacancies against crystals and melts, with statistics of the latter alone. ``md`` runs 1,000 silicon atoms with a gate and
without. ``foundation`` takes published potentials of unknown training data to silicon: with prototypes, with 20 frames of the
user's, and fine-tuned on these.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.data import chemical_symbols

import equipot
from benchmarks.accuracy import CONFIGS, run_training
from benchmarks.uncertainty_tasks import TASKS, Frames, Sets, Task, frames_of, groups, split, written
from equipot import md, published, uncertainty
from equipot.posterior import LEVELS, Calibration, UncertaintyMethod
from equipot.potential import Potential
from equipot.quantities import FORCES
from equipot.structure import Structure
from equipot.uncertainty.calibration import Sample, calibrated, compare
from equipot.uncertainty.diagnostics import assess, auroc
from equipot.uncertainty.learning import lesson
from equipot.uncertainty.prototypes import prototypes
from equipot.uncertainty.statistics import gather, joined

METHODS: dict[str, UncertaintyMethod] = {
    "last layer": uncertainty.LastLayer(),
    "last layer, 32 samples": uncertainty.LastLayer(samples=32),
    "POPS": uncertainty.POPS(),
    "shallow ensemble": uncertainty.ShallowEnsemble(),
    "mean and variance": uncertainty.MeanVariance(),
    "feature norm": uncertainty.FeatureNorm(),
}
NOVELTIES = {
    "Mahalanobis": uncertainty.Mahalanobis(), "Nearest": uncertainty.Nearest(), "Mixture": uncertainty.Mixture(),
    "Euclidean": uncertainty.Euclidean(),
}  # fmt: skip
SAMPLERS = {"SWAG": "equipot.training.swag:SWAG", "Langevin": "equipot.training.langevin:Langevin"}
REPEATS = 5
"""Number of interleaved timings."""
FOUNDATION = ("sevennet-0", "nequix-mp-1")
OWN, CALIBRATE, TEST = 20, 30, 60
"""Numbers of frames of silicon for a published potential: the user's own, those that calibrate, and those that test."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    names = [*TASKS, "foundation"]
    sub.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/, acac/, ethanol_botnet/, ..."
    )
    sub.add_argument("--only", nargs="+", choices=names, default=names, metavar="TASK", help=", ".join(names))
    sub.add_argument("--runs", type=Path, default=Path("runs/uncertainty"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--members", type=int, default=0, metavar="N", help="members of an ensemble to train beside")
    sub.add_argument(
        "--samplers", nargs="+", default=[], choices=list(SAMPLERS), help="committees of samples of all parameters"
    )
    sub.add_argument("--models", nargs="+", default=FOUNDATION, metavar="NAME", help="published potentials of `foundation`")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of each task."""
    for name in args.only:
        if name == "foundation":
            yield from foundation(args)
            continue
        task = TASKS[name]
        sets = task.make(args.data)
        potential, seconds = trained(name, task.config, task.settings, sets.train, args)
        found = {"task": name, "training_s": seconds, **results(potential, sets)}
        if args.members:
            found |= committee(name, task, sets, args)
        for kind in args.samplers:
            found["methods"][kind] = sampled(kind, potential, sets)
        if name.startswith("mlearn") and all(groups(sets.train)):
            found["new"] = new_environments(potential, sets)
        yield found
        if name == "mlearn-Si":
            yield {"task": "md", **dynamics(potential, sets)}


def trained(
    name: str, config: str, settings: Sequence[str], frames: Frames, args: argparse.Namespace
) -> tuple[Potential, float]:
    """Train a potential on frames, or load it; also return the duration of the run (s)."""
    folder, data = args.runs.resolve() / name, args.data.resolve()
    if not (folder / "report.md").exists():
        path = written(frames, args.runs.resolve() / "frames" / f"{name}.xyz")
        own = [setting.replace("{data}", str(data)) for setting in settings]
        began = time.perf_counter()
        run_training(CONFIGS / f"{config}.yaml", folder, [f"data.train={path}", "data.test=", *own, *args.overrides])
        (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - began))
    return equipot.load(folder / "best.eqp"), json.loads((folder / "seconds.json").read_text())


def assessed(model: Potential, sets: Sets) -> dict[str, Any]:
    """Assess the deviations of a potential on each test set, those of atoms by element as well."""
    rows = [row for row in model.deviations if row.deviation_of]
    known = model.posterior.calibrations if model.posterior else {}
    found: dict[str, Any] = {}
    for test, frames in sets.tests.items():
        samples = compare(model, frames, rows)
        found[test] = {row: assess(sample, known[row]) for row, sample in samples.items()}
        for row, sample in samples.items():
            if sample.number.any():
                found[test][row]["by_element"] = held_by_element(sample, known[row])
    return found


def held_by_element(sample: Sample, known: Calibration) -> dict[str, float]:
    """Return the share of errors within intervals of 90%, by element."""
    factors = np.asarray(known.quantiles)[..., LEVELS.index(0.9)]
    within = np.abs(sample.error) <= factors[sample.number] * sample.raw
    return {chemical_symbols[z]: float(np.mean(within[sample.number == z])) for z in np.unique(sample.number).tolist()}


def committee(name: str, task: Task, sets: Sets, args: argparse.Namespace) -> dict[str, Any]:
    """Train an ensemble, and assess the spread of its members; with times of training and of an evaluation."""
    ensemble = f"ensemble={{members: {args.members}, bootstrap: true}}"
    potential, seconds = trained(f"{name}-ensemble", task.config, (*task.settings, ensemble), sets.train, args)
    model = calibrated(potential, sets.calibrate, uncertainty.Linear())
    found: dict[str, Any] = {"ensemble_training_s": seconds, "ensemble_cost": ensemble_costs(model, sets.calibrate)}
    return found | {"ensemble": assessed(model, sets)}


def sampled(kind: str, potential: Potential, sets: Sets) -> dict[str, Any]:
    """Draw all parameters of a potential, and assess the spread of the samples."""
    import importlib

    from equipot.console import Console

    module, name = SAMPLERS[kind].split(":")
    sampler = getattr(importlib.import_module(module), name)()
    model = uncertainty.committee(sampler.members(potential, sets.train, Console(None)))
    return assessed(uncertainty.fit(model, sets.train, sets.calibrate), sets)


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
        out["methods"][name] = assessed(calibrated(model, sets.calibrate, uncertainty.Linear()), sets)
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
    """Return for each novelty and test set the share of atoms beyond 1, and the AUROC against the first set: of all atoms, and
    of the atoms of largest novelty in each frame."""
    out: dict[str, Any] = {}
    for name, novelty in NOVELTIES.items():
        method = uncertainty.LastLayer(novelty=novelty)
        model = uncertainty.with_statistics(potential, statistics, method, "training frames")
        each = {test: equipot.evaluate_each(model, frames, want=("novelty",)) for test, frames in tests.items()}
        values = {test: np.concatenate([x.others["novelty"] for x in found]) for test, found in each.items()}
        largest = {test: np.array([x.others["novelty"].max() for x in found]) for test, found in each.items()}
        first, *others = values
        out[name] = {
            "auroc": {test: auroc(values[first], values[test]) for test in others},
            "auroc_of_largest": {test: auroc(largest[first], largest[test]) for test in others},
            "beyond": {test: float(np.mean(x > 1)) for test, x in values.items()},
        }
    return out


def new_environments(potential: Potential, sets: Sets) -> dict[str, float]:
    """Return the AUROC of atoms of surfaces and vacancies with a bond missing against those of crystals and melts, for
    deviations and novelties of a potential that knows statistics of crystals and melts alone."""
    known, _ = groups(sets.train)
    tests = [frame for frames in (sets.calibrate, *sets.tests.values()) for frame in frames]
    seen, unseen = groups(tests)
    statistics = gather(potential, known)
    lost = np.concatenate([undercoordinated(frame) for frame in unseen])
    out: dict[str, float] = {"atoms": float(lost.sum())}
    for name, novelty in NOVELTIES.items():
        model = uncertainty.with_statistics(potential, statistics, uncertainty.LastLayer(novelty=novelty), "crystals and melts")
        model = calibrated(model, groups(sets.calibrate)[0], uncertainty.Linear())
        want = ("novelty", "forces_std") if name == "Mahalanobis" else ("novelty",)
        first, second = (equipot.evaluate(model, frames, want=want).others for frames in (seen, unseen))
        out[name] = auroc(first["novelty"], second["novelty"][lost])
        if "forces_std" in want:
            out["forces_std"] = auroc(first["forces_std"], second["forces_std"][lost])
    return out


def undercoordinated(frame: Structure) -> np.ndarray:
    """Return which atoms have fewer neighbours within 1.25 times the nearest distance of the crystal than most atoms have."""
    from ase.neighborlist import neighbor_list

    atoms = frame.to_ase()
    nearest = np.median([d.min() for d in distances(atoms)])
    counts = np.bincount(neighbor_list("i", atoms, 1.25 * nearest), minlength=len(atoms))
    return counts < np.median(counts)


def distances(atoms: Any) -> list[np.ndarray]:
    """Return the distances of each atom to its neighbours within 6 Å."""
    from ase.neighborlist import neighbor_list

    i, d = neighbor_list("id", atoms, 6.0)
    return [d[i == k] for k in range(len(atoms)) if (i == k).any()]


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


def ensemble_costs(model: Potential, frames: Frames) -> dict[str, float]:
    """Return the least time of an evaluation of a committee over that of its first member, interleaved."""
    member = model.member("terms_0").replace(posterior=None)
    cases = {"one": (member, ("forces",)), "forces": (model, ("forces",)), "forces_std": (model, ("forces", "forces_std"))}
    best = dict.fromkeys(cases, np.inf)
    for _ in range(REPEATS + 1):
        for name, (potential, want) in cases.items():
            began = time.perf_counter()
            equipot.evaluate(potential, frames, want=want)
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: float(best[name] / best["one"]) for name in ("forces", "forces_std")}


def foundation(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of published potentials on silicon."""
    every = [frame for part in ("train", "test") for frame in frames_of(args.data / "mlearn" / f"Si_{part}.extxyz")]
    own, calibrate, test, _ = split(every, OWN, CALIBRATE, TEST)
    for name in args.models:
        base = published.load(name)
        sets = Sets(own, forces_alone(calibrate), {"test": forces_alone(test)})
        yield {"task": f"{name}, prototypes", **learned(base, prototypes(base.elements), sets, False)}
        both = joined(gather(base, prototypes((14,))), gather(base, own))
        yield {"task": f"{name}, prototypes of silicon and {OWN} frames", "methods": of_statistics(base, both, sets)}
        yield {"task": f"{name}, {OWN} frames", **learned(base, forces_alone(own), sets, True)}
        settings = (f"model.from={name}", "data.limit=", "data.valid=3", "training.epochs=20")
        tuned, seconds = trained(f"{name}-tuned", "finetune", settings, own, args)
        whole = Sets(own, calibrate, {"test": test})
        yield {"task": f"{name}, tuned on {OWN} frames", "training_s": seconds, **learned(tuned, own, whole, True)}


def forces_alone(frames: Sequence[Structure]) -> Frames:
    """Drop other labels: a published potential counts energies from elsewhere."""
    return [frame.replace(labels={FORCES: frame.labels[FORCES]}) for frame in frames]


def learned(potential: Potential, frames: Sequence[Structure], sets: Sets, labelled: bool) -> dict[str, Any]:
    """Assess methods with statistics of some frames; those that learn from errors where there are labels."""
    began = time.perf_counter()
    statistics = gather(potential, frames)
    seconds = time.perf_counter() - began
    errors = lesson(potential, frames) if labelled else None
    return {"statistics_s": seconds, "frames": len(frames), "methods": of_statistics(potential, statistics, sets, errors)}


def of_statistics(potential: Potential, statistics: Any, sets: Sets, errors: Any = None) -> dict[str, Any]:
    """Assess methods on the test sets, by their names."""
    out = {}
    for name, method in METHODS.items():
        if method.learned_array and errors is None:
            continue
        known = method.learned(statistics, errors) if method.learned_array else statistics
        model = uncertainty.with_statistics(potential, known, method, "given frames")
        out[name] = assessed(calibrated(model, sets.calibrate, uncertainty.Linear()), sets)
    return out
