"""``python -m benchmarks ITEM``, from the root of the repository."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, finetune, materials, record
from benchmarks.peers import compare
from benchmarks.table import text

FRAMES = {"ethanol": 4, "silicon": 2}
"""Frames of each bundled set in a batch of ``speed``: 36 and 64 atoms."""


def main() -> None:
    args = parser().parse_args()
    # Asked to end, it ends by an exception: a measurement that it started goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.item == "case":
        run_case(args)
    elif args.item == "table":
        print(text(args.files or sorted(record.RESULTS.glob("*.json"))))
    else:
        try:
            measure(args)
        except subprocess.CalledProcessError as error:
            sys.exit(f"benchmarks: a measurement failed (exit code {error.returncode}), as it says above; others are kept")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    items = top.add_subparsers(dest="item", metavar="ITEM", required=True)
    scaling = items.add_parser("scaling", help="time and memory per atom of energy + forces, over the size of a crystal")
    scaling.add_argument("--atoms", type=int, nargs="+", default=[64, 512, 1728, 4096], metavar="N")
    speed = items.add_parser("speed", help="evaluation and training step of each model")
    speed.add_argument("--model", nargs="+", default=["MACE", "NequIP"])
    speed.add_argument("--system", nargs="+", default=list(FRAMES), choices=list(FRAMES))
    dynamics = items.add_parser("md", help="a step of molecular dynamics beside a bare evaluation")
    dynamics.add_argument("--atoms", type=int, nargs="+", default=[1000], metavar="N")
    dynamics.add_argument("--steps", type=int, default=20, help="steps of a chunk")
    for sub in (scaling, speed, dynamics):
        sub.add_argument("--seconds", type=float, default=20.0, help="how long each measurement is repeated")
        sub.add_argument("--cores", type=int, help="use only so many cores (Linux); for comparisons on a shared machine: 1")
        add_out(sub)
    errors = items.add_parser("accuracy", help="errors of whole training runs beside published ones")
    accuracy.add_arguments(errors)
    add_out(errors)
    solids = items.add_parser("materials", help="lattice constants and bulk moduli beside those of PBE")
    materials.add_arguments(solids)
    add_out(solids)
    tuning = items.add_parser("finetune", help="fine-tuning on a tenth of a data set, and what is forgotten")
    finetune.add_arguments(tuning)
    add_out(tuning)
    others = items.add_parser("peers", help="SevenNet-0 beside sevenn: energy, forces and stress on one core")
    compare.add_arguments(others)
    add_out(others)
    table = items.add_parser("table", help="print result files as tables")
    table.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all of benchmarks/results")
    case = items.add_parser("case", help="one measurement in this process, printed as JSON; used by the others")
    case.add_argument("name")
    case.add_argument("arguments", type=json.loads)
    case.add_argument("--cores", type=int)
    return top


def add_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/results/ITEM-DATE.json")


def measure(args: argparse.Namespace) -> None:
    """Runs an item and writes its result file after every case, so that nothing is lost."""
    out = args.out or record.RESULTS / f"{args.item}-{datetime.date.today().isoformat()}.json"
    command = ["python", "-m", "benchmarks", *without_paths(sys.argv[1:])]
    began, results = record.beginning(), []
    for result in outcomes(args):
        results.append(result)
        record.write(out, args.item, command, results, began)
    print(text([out]))
    print(f"written: {out}")


def outcomes(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """The results of an item, one after the other."""
    here = {"accuracy": accuracy.run, "finetune": finetune.run, "materials": materials.measure, "peers": compare.measure}
    if args.item in here:
        return here[args.item](args)
    return (in_own_process(*case, args.cores) for case in cases(args))


def without_paths(argv: Sequence[str]) -> list[str]:
    """The arguments without the paths of this machine."""
    places = {"--data": "PATH", "--runs": "DIR", "--out": "FILE", "--python": "PYTHON", "--checkpoint": "FILE"}
    return [places.get(before, word) for before, word in zip(["", *argv], argv, strict=False)]


def cases(args: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """What an item consists of: names and arguments of functions in ``cases``."""
    if args.item == "scaling":
        return [("scaling", {"atoms": n, "seconds": args.seconds}) for n in args.atoms]
    if args.item == "md":
        return [("dynamics", {"atoms": n, "steps": args.steps, "seconds": args.seconds}) for n in args.atoms]
    return [
        (what, {"model": model, "system": system, "frames": FRAMES[system], "seconds": args.seconds})
        for what in ("inference", "training")
        for model in args.model
        for system in args.system
    ]


def in_own_process(name: str, arguments: dict[str, Any], cores: int | None) -> dict[str, Any]:
    """One measurement in a process of its own, so that its peak memory is its own."""
    print(f"{name} {arguments} ...", file=sys.stderr, flush=True)
    command: Sequence[str] = [sys.executable, "-m", "benchmarks", "case", name, json.dumps(arguments)]
    command = [*command, *(["--cores", str(cores)] if cores else [])]
    # Nothing of JAX is loaded here: a child's peak memory begins with that of its parent.
    done = subprocess.run(command, cwd=record.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {"case": name, "arguments": arguments} | json.loads(done.stdout.splitlines()[-1])


def run_case(args: argparse.Namespace) -> None:
    if args.cores:
        # Before JAX counts them.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores :])
    from benchmarks.cases import CASES
    from equipot.cli.runtime import cores

    result = CASES[args.name](**args.arguments)
    print(json.dumps({"cores_used": cores()} | result))


if __name__ == "__main__":
    main()
