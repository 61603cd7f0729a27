"""Errors of whole training runs on published data sets, beside published errors on exactly the same split.

The data are not part of the repository: ``--data PATH`` is a folder with the layout that README.md describes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.record import ROOT

CONFIGS = Path(__file__).parent / "configs"

ZUO = "Zuo et al., J. Phys. Chem. A 124, 731 (2020), as tabulated in ACEpotentials.jl, examples/zuobench"
MACE = "Batatia et al., NeurIPS 2022, arXiv:2206.07697"


class Quantity(NamedTuple):
    """One error, and what others have published for it, in ``unit``."""

    name: str
    key: str
    """In the error table of ``equipot evaluate`` (eV, Å)."""
    factor: float
    unit: str
    published: dict[str, float]


class Task(NamedTuple):
    """One training run."""

    config: str
    """In benchmarks/configs."""
    train: str
    """Relative to the data folder, as are the other files."""
    test: str
    quantities: tuple[Quantity, ...]
    source: str
    """Of the published numbers."""
    settings: tuple[str, ...] = ()
    """Added to the config, with ``{data}`` for the data folder."""
    of: str = ""
    """Another task, whose potential is evaluated on ``test``; empty for one of its own."""


def mae(energy: dict[str, float], forces: dict[str, float], per_atom: bool) -> tuple[Quantity, ...]:
    """Energy per atom with forces in eV/Å as solids are quoted, or energy of the molecule with forces in meV/Å."""
    if per_atom:
        return (
            Quantity("energy MAE", "energy_mae_per_atom", 1e3, "meV/atom", energy),
            Quantity("force MAE", "forces_mae", 1.0, "eV/Å", forces),
        )
    return (
        Quantity("energy MAE", "energy_mae", 1e3, "meV", energy),
        Quantity("force MAE", "forces_mae", 1e3, "meV/Å", forces),
    )


def solid(element: str, energy: dict[str, float], forces: dict[str, float]) -> Task:
    files = (f"mlearn/{element}_train.extxyz", f"mlearn/{element}_test.extxyz")
    return Task("mlearn", *files, mae(energy, forces, per_atom=True), ZUO, ("training.devices=1",))


def molecule(name: str, frames: int, energy: dict[str, float], forces: dict[str, float]) -> Task:
    files = (f"rmd17/{name}_train_01.extxyz", f"rmd17/{name}_test_01.extxyz")
    # 1000 labelled frames are 950 to fit and 50 to validate; 50 are all fitted, by a recipe that needs no validation.
    settings = ("data.limit=950", "data.valid=50") if frames == 1000 else (f"data.limit={frames}", "data.valid=0")
    return Task(f"rmd17-{frames}", *files, mae(energy, forces, per_atom=False), f"{MACE}, table 1", settings)


def acetylacetone(kelvin: int, energy: dict[str, float], forces: dict[str, float]) -> Task:
    """Trained at 300 K; at 600 K, the same potential where it has not been: on the frames that others train on at 600 K."""
    quantities = (
        Quantity("energy RMSE", "energy_rmse", 1e3, "meV", energy),
        Quantity("force RMSE", "forces_rmse", 1e3, "meV/Å", forces),
    )
    files = ("acac/train_300K.extxyz", "acac/test_MD_300K.extxyz" if kelvin == 300 else "acac/train_600K.extxyz")
    e0 = "data.atomic_energies={data}/acac/isolated_atoms.extxyz"
    source = f"{MACE}, table 3" + ("" if kelvin == 300 else ", on other frames at 600 K")
    return Task("acac", *files, quantities, source, (e0,), "" if kelvin == 300 else "acac-300K")


def dipeptides(config: str, *settings: str) -> Task:
    """Polar dipeptides; the test set is of one formula that training does not see."""
    quantities = (
        Quantity("energy RMSE", "energy_rmse_per_atom", 1e3, "meV/atom", {"CACE": 2.354, "CACE-LR": 1.878}),
        Quantity("force RMSE", "forces_rmse", 1e3, "meV/Å", {"CACE": 72.4, "CACE-LR": 61.1}),
        Quantity("charge RMSE", "charges_rmse", 1e3, "me", {}),
        Quantity("dipole RMSE", "dipole_rmse", 1e3, "me Å", {}),
        Quantity("Born charge RMSE", "born_effective_charges_rmse", 1e3, "me", {}),
    )
    files = ("dipeptides_spice/train.extxyz", "dipeptides_spice/test.extxyz")
    valid = "data.valid={data}/dipeptides_spice/val.extxyz"
    return Task(config, *files, quantities, "Kim et al., arXiv:2412.15455, notebook of the fits", (valid, *settings))


RESPONDING = ("training.loss.charges={kind: Huber, scale: 0.03}", "training.epochs=100")
"""Of charges that take longer, and that energies and forces pull away from their labels (chosen by the validation set)."""

TASKS: dict[str, Task] = {
    "mlearn-Cu": solid("Cu", {"GAP": 0.46, "MTP": 0.41}, {"GAP": 0.01, "MTP": 0.01}),
    "mlearn-Si": solid("Si", {"GAP": 2.91, "MTP": 2.21}, {"GAP": 0.07, "MTP": 0.06}),
    "mlearn-Li": solid("Li", {"GAP": 0.49, "MTP": 0.49}, {"GAP": 0.01, "MTP": 0.01}),
    "rmd17-ethanol-50": molecule(
        "ethanol", 50, {"ACE": 8.6, "NequIP": 8.7, "MACE": 6.7}, {"ACE": 43.0, "NequIP": 40.2, "MACE": 32.6}
    ),
    "rmd17-aspirin-50": molecule(
        "aspirin", 50, {"ACE": 26.2, "NequIP": 19.5, "MACE": 17.0}, {"ACE": 63.8, "NequIP": 52.0, "MACE": 43.9}
    ),
    "rmd17-toluene-50": molecule(
        "toluene", 50, {"ACE": 5.3, "NequIP": 3.3, "MACE": 3.1}, {"ACE": 27.1, "NequIP": 15.1, "MACE": 12.1}
    ),
    "rmd17-uracil-50": molecule(
        "uracil", 50, {"ACE": 6.5, "NequIP": 7.3, "MACE": 4.4}, {"ACE": 36.2, "NequIP": 40.1, "MACE": 25.9}
    ),
    "rmd17-ethanol-1000": molecule(
        "ethanol", 1000, {"ACE": 1.2, "NequIP": 0.4, "MACE": 0.4}, {"ACE": 7.3, "NequIP": 2.8, "MACE": 2.1}
    ),
    "rmd17-aspirin-1000": molecule(
        "aspirin", 1000, {"ACE": 6.1, "NequIP": 2.3, "MACE": 2.2}, {"ACE": 17.9, "NequIP": 8.2, "MACE": 6.6}
    ),
    "acac-300K": acetylacetone(300, {"BOTNet": 0.89, "NequIP": 0.81, "MACE": 0.9}, {"BOTNet": 6.3, "NequIP": 5.9, "MACE": 5.1}),
    "acac-600K": acetylacetone(
        600, {"BOTNet": 6.2, "NequIP": 6.04, "MACE": 4.6}, {"BOTNet": 29.8, "NequIP": 27.8, "MACE": 22.4}
    ),
    "dipeptides-local": dipeptides("dipeptides-local"),
    "dipeptides-predicted": dipeptides("dipeptides"),
    "dipeptides-flows": dipeptides("dipeptides", "model.charges={kind: Flows}", *RESPONDING),
    "dipeptides-equilibrated": dipeptides("dipeptides", "model.charges={kind: Equilibrated}", *RESPONDING),
    "dipeptides-polarizable": dipeptides("dipeptides", "model.charges={kind: Polarizable}", *RESPONDING),
}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/, rmd17/, acac/")
    sub.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    sub.add_argument("--runs", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Trains each task, or continues it where it stopped, and compares its test errors."""
    for name in args.only:
        task = TASKS[name]
        trained = task.of or name
        yield compare(name, task, train(trained, TASKS[trained], args), args)


def train(name: str, task: Task, args: argparse.Namespace) -> Path:
    """One run of ``equipot train``; returns its folder."""
    out, data = args.runs.resolve() / name, args.data.resolve()
    settings = [f"data.train={data / task.train}", f"data.test={data / task.test}"]
    settings += [setting.replace("{data}", str(data)) for setting in task.settings] + args.overrides
    run_training(CONFIGS / f"{task.config}.yaml", out, settings)
    return out


def run_training(config: Path, out: Path, settings: list[str]) -> None:
    """A run of ``equipot train`` into the folder ``out``, or what is left of it."""
    command = [sys.executable, "-m", "equipot", "train", str(config), "--out", str(out)]
    command += [part for setting in settings for part in ("--set", setting)]
    if (out / "config.yaml").exists():
        command.append("--resume")
    print(" ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def evaluated(potential: Path, test: Path, out: Path) -> dict[str, float]:
    """Errors of a potential on a test set, written to ``out``."""
    command = [sys.executable, "-m", "equipot", "evaluate", str(potential), str(test), "--json", str(out)]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    return json.loads(out.read_text())


def compare(name: str, task: Task, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The errors of a finished run on its test set beside the published ones, of what the model predicts."""
    if task.of:
        errors = evaluated(out / "best.eqp", args.data.resolve() / task.test, out / f"errors-{name}.json")
    else:
        errors = json.loads((out / "errors.json").read_text())["test"]
    quantities = [q._asdict() | {"value": errors[q.key] * q.factor} for q in task.quantities if q.key in errors]
    return {
        "task": name,
        "config": f"benchmarks/configs/{task.config}.yaml",
        "settings": task.settings,
        "overrides": args.overrides,
        **facts_of(out),
        "quantities": quantities,
        "source": task.source,
        "errors": errors,
    }


def facts_of(out: Path) -> dict[str, Any]:
    """Settings, length and duration of a finished run."""
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    facts = dict(line[2:].split(": ", 1) for line in (out / "report.md").read_text().splitlines() if line.startswith("- "))
    resolved = yaml.safe_load((out / "config.yaml").read_text())
    return {
        "model": resolved["model"],
        "training": resolved["training"],
        "seed": resolved["seed"],
        "devices": facts["devices"],
        "epochs": last["epoch"],
        "steps": last["step"],
        "minutes": last["elapsed"] / 60,
    }
