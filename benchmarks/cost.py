"""Errors that a budget of minutes on one core buys: equipot, mace-torch and nequip on the same frames, with a figure.

equipot trains by what `equipot train` chooses, with `training.max_minutes`; the others by their documented recipes, see
``benchmarks.peers.recipes``. Errors stand over the minutes that were spent: by equipot those of the whole command, with
imports, compilation and the evaluation of the test frames, by the others those of training alone. Each run leaves its line as
soon as it ends; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy import facts_of
from benchmarks.peers.environments import WORKERS, python_of
from benchmarks.peers.recipes import Files, mace, nequip
from benchmarks.record import ROOT
from equipot.data.split import evenly
from equipot.figures import STYLE, empty_figure, save_figure
from equipot.files import write_atomically

HELD = 0.08
"""Share of the training frames to validate on, the same ones for every program."""


class Set(NamedTuple):
    """Training and test frames, relative to the data folder."""

    train: str
    test: str
    atomic_energies: str
    """Isolated atoms; empty for none."""
    elements: tuple[str, ...]


SETS = {
    "mlearn-Si": Set("mlearn/Si_train.extxyz", "mlearn/Si_test.extxyz", "", ("Si",)),
    "acac-300K": Set("acac/train_300K.extxyz", "acac/test_MD_300K.extxyz", "acac/isolated_atoms.extxyz", ("H", "C", "O")),
}
PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {"mace-torch": mace, "nequip": nequip}
COLOURS = {"equipot": "#20639b", "mace-torch": "#d1603d", "nequip": "#3caea3"}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/ and acac/")
    sub.add_argument("--home", type=Path, default=Path("runs/peers"), metavar="DIR", help="environments of `peers --install`")
    sub.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET", help=", ".join(SETS))
    names = ["equipot", *PROGRAMS]
    sub.add_argument("--programs", nargs="+", choices=names, default=names, metavar="PROGRAM", help=", ".join(names))
    sub.add_argument("--minutes", nargs="+", type=float, default=[2.0, 5.0, 20.0], metavar="M", help="budgets of equipot")
    sub.add_argument("--peer-minutes", nargs="+", type=float, default=[20.0], metavar="M", help="budgets of the others")
    sub.add_argument("--core", type=int, default=0, help="number of the core that all run on (Linux)")
    sub.add_argument("--runs", type=Path, default=Path("runs/cost"), metavar="DIR", help="folder of runs and lines")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train with each program on each set for each budget; plot errors against minutes of the processor."""
    results = []
    for key in args.sets:
        files = written(SETS[key], args.data.resolve(), args.runs.resolve() / "frames" / key)
        for program in args.programs:
            for minutes in args.minutes if program == "equipot" else args.peer_minutes:
                folder = args.runs.resolve() / f"{key}-{program}-{minutes:g}"
                results.append(line(key, program, minutes, files, folder, args))
                yield results[-1]
    draw(results, args.out.with_suffix(".png"))


def written(task: Set, data: Path, folder: Path) -> Files:
    """Split the training frames; every program reads the same files."""
    from ase.io import read, write

    folder.mkdir(parents=True, exist_ok=True)
    frames = read(data / task.train, ":")
    held = set(evenly(len(frames), round(HELD * len(frames))).tolist())
    write(folder / "valid.xyz", [atoms for k, atoms in enumerate(frames) if k in held], format="extxyz")
    write(folder / "train.xyz", [atoms for k, atoms in enumerate(frames) if k not in held], format="extxyz")
    write(folder / "test.xyz", read(data / task.test, ":"), format="extxyz")
    alone = data / task.atomic_energies if task.atomic_energies else None
    return Files(folder / "train.xyz", folder / "valid.xyz", folder / "test.xyz", alone, task.elements)


def line(key: str, program: str, minutes: float, files: Files, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The line of one run, or that of before."""
    path = folder / "line.json"
    if path.exists():
        return json.loads(path.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    core = ["taskset", "-c", str(args.core), "env", "OMP_NUM_THREADS=1"]
    print(f"{key}: {program}, {minutes:g} minutes ...", file=sys.stderr, flush=True)
    if program == "equipot":
        found = own(files, minutes, folder, core)
    else:
        python = Path(python_of(args.home, WORKERS[program][0]))
        found = PROGRAMS[program](files, minutes, folder, python, core)
    found = {"set": key, "program": program, "minutes": minutes, **found}
    write_atomically(path, json.dumps(found).encode())
    return found


def own(files: Files, minutes: float, folder: Path, core: Sequence[str]) -> dict[str, Any]:
    """`equipot train` with nothing but the files and the length."""
    settings = [f"data.train={files.train}", f"data.valid={files.valid}", f"data.test={files.test}"]
    settings += [f"training.max_minutes={minutes}", "training.devices=1"]
    settings += [f"data.atomic_energies={files.atomic_energies}"] if files.atomic_energies else []
    config, out = folder / "config.yaml", folder / "run"
    config.write_text("{}\n")
    command = [*core, sys.executable, "-m", "equipot", "train", str(config), "--out", str(out)]
    command += [part for setting in settings for part in ("--set", setting)]
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    spent = (time.monotonic() - began) / 60
    told = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    curve = [
        [e["elapsed"] / 60, e["valid_energy_mae_per_atom"], e["valid_forces_mae"]] for e in told if "valid_forces_mae" in e
    ]
    errors = json.loads((out / "errors.json").read_text())["test"]
    return {"epochs": facts_of(out)["epochs"], "errors": errors, "validation": curve, "spent": spent}


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot test errors of each run against minutes to a PNG file, and of the peers validation errors on the way."""
    from matplotlib import rc_context
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    sets = list(dict.fromkeys(r["set"] for r in results))
    kinds = (("energy_mae_per_atom", 1, "energy MAE (meV/atom)"), ("forces_mae", 2, "force MAE (meV/Å)"))
    with rc_context(STYLE):
        figure = empty_figure(9.0, 3.4 * len(sets))
        axes = figure.subplots(len(sets), 2, squeeze=False)
        for row, key in zip(axes, sets, strict=True):
            for axis, (error, column, label) in zip(row, kinds, strict=True):
                for program, colour in COLOURS.items():
                    draw_program(
                        [r for r in results if (r["set"], r["program"]) == (key, program)], error, column, colour, axis
                    )
                axis.set(xscale="log", yscale="log", xlabel="minutes of one core", ylabel=label, title=key)
                for side in (axis.xaxis, axis.yaxis):
                    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    side.set_major_formatter(FormatStrFormatter("%g"))
                    side.set_minor_locator(NullLocator())
                axis.legend()
        save_figure(figure, path)


def draw_program(found: Sequence[dict[str, Any]], error: str, column: int, colour: str, axis: Any) -> None:
    """One program's part of a plot."""
    if not found:
        return
    program = found[0]["program"]
    if program != "equipot":
        for r in found:
            on_the_way = [v[0] for v in r["validation"]], [1e3 * v[column] for v in r["validation"]]
            axis.plot(*on_the_way, color=colour, linewidth=0.8, label=f"{program}, validation")
    points = sorted((r["spent"], 1e3 * r["errors"][error]) for r in found)
    axis.plot(*zip(*points, strict=True), "o" if program != "equipot" else "o-", color=colour, label=f"{program}, test")
