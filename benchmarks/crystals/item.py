"""The item ``crystals``: each part of each crystal is one line of the result file, written as soon as it is there."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accuracy, record
from benchmarks.crystals.structures import SUBJECTS

SOLIDS = tuple(dict.fromkeys(solid for solids in SUBJECTS.values() for solid in solids))
TRAINED = "mlearn"
"""Name that stands for the potentials of copper and silicon that are trained on the sets of mlearn."""
TASKS = {"Cu": "mlearn-Cu", "Si": "mlearn-Si"}
"""Tasks of the benchmark ``accuracy`` that train them."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model", nargs="+", default=["sevennet-0"], metavar="MODEL",
        help=f"potentials: NAME.eqp, names of `equipot models`, or {TRAINED} to train on copper and silicon (with --data)",
    )  # fmt: skip
    sub.add_argument(
        "--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), metavar="PART", help=", ".join(SUBJECTS)
    )
    sub.add_argument("--solids", nargs="+", choices=SOLIDS, default=list(SOLIDS), metavar="SOLID", help=", ".join(SOLIDS))
    sub.add_argument(
        "--repeats", type=int, nargs="+", default=[2, 3], metavar="N",
        help="vacancies in cubes of so many cubic cells along each side, barriers in the last",
    )  # fmt: skip
    sub.add_argument(
        "--add", type=Path, nargs="*", metavar="FILE",
        help="keep the lines of result files, by default of that which is written, and compute those that they lack",
    )  # fmt: skip
    sub.add_argument("--data", type=Path, metavar="PATH", help="folder with mlearn/")
    sub.add_argument("--minutes", type=float, default=5.0, help=f"length of each training of {TRAINED}")
    sub.add_argument("--runs", type=Path, default=Path("runs/crystals"), metavar="DIR", help="folder of the training runs")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compute the parts of each crystal by each potential; those of which ``--add`` finds a line are not repeated."""
    # The code may change while it runs.
    args.commit = record.commit()
    files = [] if args.add is None else args.add or [file for file in [args.out] if file.exists()]
    known = {key_of(line): line for file in files for line in kept(file)}
    yield from known.values()
    todo = [
        (model, solid, left)
        for model in args.model
        for solid in args.solids
        if (left := [part for part in parts_of(model, solid, args.only) if (label(model), part, solid) not in known])
    ]
    if todo:
        import equipot

        equipot.keep_freed_memory()
        from equipot.cli.runtime import prepare

        prepare("float64")
    for model, solid, left in todo:
        yield from lines(model, solid, left, args)


def parts_of(model: str, solid: str, only: list[str]) -> list[str]:
    """Return the parts, of those that are asked for, that a crystal has by a potential."""
    return [part for part in only if solid in SUBJECTS[part] and (model != TRAINED or solid in TASKS)]


def key_of(line: dict[str, Any]) -> tuple[str, str, str]:
    """Return what a line is of."""
    return line["model"], line["part"], line["solid"]


def label(model: str) -> str:
    """Return the name of a potential in the result file: that of its file without folder and ending."""
    return Path(model).stem if model.endswith(".eqp") else model


def kept(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a result file that is to be added to.

    Raises:
        ValueError: a file of another machine or other versions.
    """
    told, now = json.loads(file.read_text()), record.beginning()
    rest = lambda versions: {name: x for name, x in versions.items() if name != "commit"}
    if told["machine"] != now["machine"] or rest(told["versions"]) != rest(now["versions"]):
        raise ValueError(f"{file} was measured on another machine, with other settings or versions; begin another file")
    return told["results"]


def lines(model: str, solid: str, wanted: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compute parts of one crystal by one potential."""
    import equipot
    from benchmarks.crystals.measurements import parts
    from equipot.workflows.results import plain

    source, about = (model, {}) if model != TRAINED else trained(solid, args)
    potential = equipot.load(source, "float64")
    table = parts(args.repeats)
    for part in wanted:
        began = time.perf_counter()
        found = table[part](potential, solid)
        line = {
            "model": label(model), "part": part, "solid": solid, "rows": found.rows(), "details": found.details,
            "failures": found.failures, "seconds": time.perf_counter() - began, "commit": args.commit,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **about,
        }  # fmt: skip
        shown = ", ".join(f"{r['subject']} {r['quantity']} {r['value']:.5g} {r['unit']}" for r in line["rows"])
        said = (f"{label(model)} {part} {shown} ({line['seconds']:.0f} s)", *found.failures)
        print(*said, sep="\n  ", file=sys.stderr, flush=True)
        yield plain(line)


def trained(solid: str, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Train a potential on the set of mlearn of an element, or take the one that is there; also returns its test errors.

    Raises:
        ValueError: no folder of data.
    """
    if args.data is None:
        raise ValueError(f"--model {TRAINED} trains: say by --data where mlearn/ is")
    name = TASKS[solid]
    settings = argparse.Namespace(runs=args.runs, data=args.data, overrides=[f"training.max_minutes={args.minutes:g}"])
    out = accuracy.train(name, accuracy.TASKS[name], settings)
    errors = json.loads((out / "errors.json").read_text())["test"]
    facts = accuracy.facts_of(out)
    training = {"minutes": facts["minutes"], "energy_mae_per_atom_eV": errors["energy_mae_per_atom"],
                "forces_mae_eV_per_A": errors["forces_mae"], "model": facts["model"]}  # fmt: skip
    return str(out / "best.eqp"), {"training": training}
