"""Variations of the training recipes, each judged on folds of the training sets: no test set is read here.

A set is split into five folds by the place of a frame in its file (``k::5``); an experiment trains on four of them and is
judged on the fifth, for each of the folds ``--folds``, with the number of the fold as the seed. Of a molecule 50 frames are
trained on, others in each fold, and judges are ``JUDGED`` of the other frames of its training file. Each run leaves its line in
a file as soon as it ends; runs that are there are not repeated, and runs that were interrupted go on.

The data are not part of the repository: ``--data PATH`` is a folder with the layout that README.md describes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy import CONFIGS, facts_of
from benchmarks.record import ROOT

FOLDS = 5
JUDGED = 200


class Set(NamedTuple):
    """A training set."""

    config: str
    """In benchmarks/configs."""
    file: str
    """Relative to the data folder."""
    frames: int | None = None
    """Number of frames to train on; None for all but the judges."""
    settings: tuple[str, ...] = ()
    """Added to the config, with ``{data}`` for the data folder."""


SETS: dict[str, Set] = {
    **{name: Set("experiments-solids", f"mlearn/{name}_train.extxyz") for name in ("Cu", "Si", "Li")},
    **{
        name: Set("experiments-molecules", f"rmd17/{name}_train_01.extxyz", 50)
        for name in ("ethanol", "aspirin", "toluene", "uracil")
    },
    **{
        f"{name}-tenth{kind}": Set(config, f"mlearn/{name}_train.extxyz", settings=("data.limit=18", "data.valid=3"))
        for name in ("Cu", "Si", "Li")
        for kind, config in (("", "mlearn"), ("-tuned", "finetune"))
    },
    **{name + "-data": Set("mlearn", f"mlearn/{name}_train.extxyz") for name in ("Cu", "Si", "Li")},
    "water": Set("experiments-data", "water_pbe0ts_deepmd/train.extxyz"),
    "solvent": Set("experiments-data", "solvent_gfn2xtb/train.extxyz"),
    "ethanol-1000": Set("experiments-data", "ethanol_botnet/train.extxyz"),
    "dipeptides": Set("experiments-data", "dipeptides_spice/train.extxyz"),
    "acac": Set("acac", "acac/train_300K.extxyz", settings=("data.atomic_energies={data}/acac/isolated_atoms.extxyz",)),
}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/, rmd17/, acac/ and others")
    sub.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET", help=", ".join(SETS))
    sub.add_argument("--folds", nargs="+", type=int, default=[0], metavar="K", help="folds that judge, and seeds (default: 0)")
    what = "experiments: JSON, {name: {sets: [SET, ...], settings: [KEY=VALUE, ...]}} (default: those made)"
    sub.add_argument("--file", type=Path, default=CONFIGS / "experiments.json", metavar="FILE", help=what)
    sub.add_argument("--only", nargs="+", default=None, metavar="NAME", help="of the experiments in the file")
    sub.add_argument("--runs", type=Path, default=Path("runs/experiments"), metavar="DIR", help="folder of runs and lines")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train each experiment on each set and fold; yield errors of judges and of training frames."""
    experiments = json.loads(args.file.read_text())
    for fold in args.folds:
        for name in args.only or list(experiments):
            for key in (key for key in experiments[name]["sets"] if key in args.sets):
                yield experiment(name, experiments[name]["settings"], key, fold, args)


def experiment(name: str, settings: list[str], key: str, fold: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run, or its line where it was made before."""
    out = args.runs.resolve() / name / f"{key}-{fold}"
    line = out / "line.json"
    if line.exists():
        return json.loads(line.read_text())
    task, data = SETS[key], args.data.resolve()
    train, judges = split(data / task.file, task.frames, fold, args.runs.resolve() / "folds" / f"{key}-{fold}")
    base = [f"data.train={train}", f"data.test={judges}", f"seed={fold}", "training.devices=1"]
    base += [] if task.frames is None else ["data.limit=null"]
    filled = [*base, *(text.replace("{data}", str(data)) for text in (*task.settings, *settings))]
    command = [sys.executable, "-m", "equipot", "train", str(CONFIGS / f"{task.config}.yaml"), "--out", str(out)]
    command += [part for setting in filled for part in ("--set", setting)]
    command += ["--resume"] if (out / "config.yaml").exists() else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = facts_of(out)
    found = {
        "experiment": name, "settings": settings, "set": key, "fold": fold,
        "errors": json.loads((out / "errors.json").read_text()),
        "last": json.loads((out / "metrics.jsonl").read_text().splitlines()[-1]),
        "epochs": facts["epochs"], "steps": facts["steps"], "minutes": facts["minutes"],
        "cpu_minutes": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60,
    }  # fmt: skip
    temporary = line.with_suffix(".new")
    temporary.write_text(json.dumps(found))
    os.replace(temporary, line)
    return found


def split(file: Path, frames: int | None, fold: int, out: Path) -> tuple[Path, Path]:
    """Write the frames to train on and the judges of a fold as two files."""
    from ase.io import read, write

    out.mkdir(parents=True, exist_ok=True)
    paths = out / "train.extxyz", out / "judges.extxyz"
    every = read(file, ":")
    if frames is None:
        parts = [a for k, a in enumerate(every) if k % FOLDS != fold], every[fold::FOLDS]
    else:
        first = fold * frames
        rest = every[:first] + every[first + frames :]
        parts = every[first : first + frames], rest[:: max(1, len(rest) // JUDGED)][:JUDGED]
    for path, part in zip(paths, parts, strict=True):
        write(path, part)
    return paths
