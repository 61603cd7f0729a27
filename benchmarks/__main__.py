"""``python -m benchmarks ITEM``, from the root of the repository."""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    accuracy,
    charge_states,
    constitutive,
    cost,
    delta,
    experiments,
    finetune,
    gpu,
    hessians,
    long_range,
    materials,
    own_process,
    record,
    relaxation,
    separation,
    sweeps,
    uncertainty,
    walls,
)
from benchmarks.coulomb import compare as coulomb
from benchmarks.crystals import item as crystals
from benchmarks.peers import compare as peers
from benchmarks.sevennet import compare as sevennet
from benchmarks.sweeps import FRAMES, OVER, WIDEST, WORKS
from benchmarks.table import README, fill, text
from equipot.cli.runtime import cores

ITEMS = {
    "scaling": sweeps.scaling, "speed": sweeps.speed, "md": sweeps.dynamics, "roofline": sweeps.roofline, "gpu": gpu.measure,
    "peers": peers.measure, "sevennet": sevennet.measure, "accuracy": accuracy.run, "finetune": finetune.run,
    "materials": materials.measure, "charge-states": charge_states.run, "walls": walls.measure, "long-range": long_range.run,
    "separation": separation.run, "delta": delta.run, "coulomb": coulomb.measure, "uncertainty": uncertainty.run,
    "experiments": experiments.run, "cost": cost.run, "hessians": hessians.run,
    "hessian-steps": sweeps.hessian_steps, "constitutive": constitutive.measure, "relaxation": relaxation.run,
    "crystals": crystals.run,
}  # fmt: skip


def main() -> None:
    args = parser().parse_args()
    wrong = not_counts(args)
    if wrong:
        sys.exit(f"benchmarks: {wrong}")
    # Asked to end, it ends by an exception: a measurement that it started goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.item == "case":
        own_process.run(args.name, args.arguments, args.cores)
    elif args.item == "table" and args.readme:
        fill(README, record.RESULTS)
    elif args.item == "table":
        print(text(args.files or sorted(record.RESULTS.glob("*.json"))))
    else:
        try:
            measure(args)
        except subprocess.CalledProcessError as error:
            sys.exit(f"benchmarks: a measurement failed (exit code {error.returncode}), as it says above; others are kept")


def not_counts(args: argparse.Namespace) -> str:
    """What is said to be how many, how long or how wide, and cannot be; empty where nothing is."""
    for name in ("atoms", "steps", "seconds", "cores", "rounds", "threads", "budget", "repeats", "minutes"):
        value = getattr(args, name, None)
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and not number > 0:
                return f"--{name} {number} must be greater than 0"
    wanted, there = getattr(args, "cores", None) or getattr(args, "threads", None) or 0, cores()
    return f"{wanted} cores are asked for, there are {there}" if wanted > there else ""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    items = top.add_subparsers(dest="item", metavar="ITEM", required=True)
    scaling = items.add_parser("scaling", help="time and memory per atom of energy + forces, over size, network and batch")
    scaling.add_argument("--over", nargs="+", choices=list(OVER), default=["atoms"], help="default: atoms")
    scaling.add_argument("--atoms", type=int, nargs="+", default=OVER["atoms"], metavar="N")
    speed = items.add_parser("speed", help="evaluation and training step of each model")
    speed.add_argument("--model", nargs="+", default=["MACE", "NequIP", WIDEST], choices=["MACE", "NequIP", WIDEST])
    whose = "of MACE and NequIP; W1 has its own"
    speed.add_argument("--system", nargs="+", default=list(FRAMES), choices=list(FRAMES), help=whose)
    dynamics = items.add_parser("md", help="a step of molecular dynamics beside a bare evaluation")
    dynamics.add_argument("--atoms", type=int, nargs="+", default=[1000], metavar="N")
    dynamics.add_argument("--steps", type=int, default=20, help="steps of a chunk")
    bounds = items.add_parser("roofline", help="energy + forces beside what the arithmetic and memory of these cores allow")
    bounds.add_argument("--only", nargs="+", choices=WORKS, default=WORKS, metavar="ITEM", help=", ".join(WORKS))
    second = items.add_parser("hessian-steps", help="a training step with products of Hessians beside one without")
    second.add_argument("--model", nargs="+", default=["MACE", "NequIP"], choices=["MACE", "NequIP"])
    second.add_argument("--system", default="ethanol", choices=list(FRAMES))
    for sub in (scaling, speed, dynamics, bounds, second):
        sub.add_argument("--seconds", type=float, default=20.0, help="how long each measurement is repeated")
        sub.add_argument("--cores", type=int, help="use only so many cores (Linux); for comparisons on a shared machine: 1")
        add_out(sub)
    accelerator = items.add_parser("gpu", help="MD and evaluations of silicon on one GPU, to the largest crystal that fits")
    gpu.add_arguments(accelerator)
    add_out(accelerator)
    errors = items.add_parser("accuracy", help="errors of whole training runs beside published ones")
    accuracy.add_arguments(errors)
    add_out(errors)
    solids = items.add_parser("materials", help="lattice constants and bulk moduli beside those of PBE")
    materials.add_arguments(solids)
    add_out(solids)
    properties = items.add_parser("crystals", help="elasticity, phonons, vacancies and polymorphs beside PBE and experiment")
    crystals.add_arguments(properties)
    add_out(properties)
    guarded = items.add_parser("walls", help="hot runs of a network, and SevenNet-0 at short range, with walls and without")
    walls.add_arguments(guarded)
    add_out(guarded)
    tuning = items.add_parser("finetune", help="fine-tuning on a tenth of a data set, and what is forgotten")
    finetune.add_arguments(tuning)
    add_out(tuning)
    states = items.add_parser(
        "charge-states", help="one model for several states of charge and spin, beside one that sees none"
    )
    charge_states.add_arguments(states)
    add_out(states)
    charges = items.add_parser("long-range", help="models with charges beside models without, beyond the cutoff")
    long_range.add_arguments(charges)
    add_out(charges)
    curves = items.add_parser("separation", help="energies and charges of two fragments against their distance, with a plot")
    separation.add_arguments(curves)
    add_out(curves)
    doubts = items.add_parser("uncertainty", help="deviations beside errors, new environments, and what they cost, also in MD")
    uncertainty.add_arguments(doubts)
    add_out(doubts)
    differences = items.add_parser("delta", help="the difference to a cheaper method learned, beside the labels themselves")
    delta.add_arguments(differences)
    add_out(differences)
    curvatures = items.add_parser("hessians", help="training on Hessians beside energies and forces alone: unseen molecules")
    hessians.add_arguments(curvatures)
    add_out(curvatures)
    continuum = items.add_parser("constitutive", help="hyperelastic laws of copper: networks beside classical ones")
    constitutive.add_arguments(continuum)
    add_out(continuum)
    minima = items.add_parser("relaxation", help="relaxations beside those of ASE, Sella, geomeTRIC and torch-sim")
    relaxation.add_arguments(minima)
    add_out(minima)
    tried = items.add_parser("experiments", help="variations of the training recipes, judged on folds of the training sets")
    experiments.add_arguments(tried)
    add_out(tried)
    bought = items.add_parser("cost", help="errors that minutes of one core buy: equipot, mace-torch and nequip, with a figure")
    cost.add_arguments(bought)
    add_out(bought)
    meshes = items.add_parser("coulomb", help="charges on a mesh beside LAMMPS and torch-pme, and their share in a step")
    coulomb.add_arguments(meshes)
    add_out(meshes)
    others = items.add_parser("peers", help="the work items by equipot and by other programs, in interleaved rounds")
    peers.add_arguments(others)
    add_out(others)
    converted = items.add_parser("sevennet", help="SevenNet-0 beside sevenn: energy, forces and stress on one core")
    sevennet.add_arguments(converted)
    add_out(converted)
    table = items.add_parser("table", help="print result files as tables")
    table.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all of benchmarks/results")
    table.add_argument("--readme", action="store_true", help="put the newest tables into benchmarks/README.md instead")
    case = items.add_parser("case", help="one measurement in this process, printed as JSON; used by the others")
    case.add_argument("name")
    case.add_argument("arguments", type=json.loads)
    case.add_argument("--cores", type=int)
    return top


def add_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/results/ITEM-DATE.json")


def measure(args: argparse.Namespace) -> None:
    """Runs an item and writes its result file after every case, so that nothing is lost."""
    out = args.out = args.out or record.RESULTS / f"{args.item}-{datetime.date.today().isoformat()}.json"
    command = ["python", "-m", "benchmarks", *without_paths(sys.argv[1:])]
    began, results = record.beginning(), []
    for result in ITEMS[args.item](args):
        results.append(result)
        record.write(out, args.item, command, results, began)
    print(text([out]))
    print(f"written: {out}")


def without_paths(argv: Sequence[str]) -> list[str]:
    """The arguments without the paths of this machine."""
    places = {
        "--data": "PATH",
        "--runs": "DIR",
        "--out": "FILE",
        "--python": "PYTHON",
        "--checkpoint": "FILE",
        "--home": "DIR",
        "--long-range": "DIR",
        "--accuracy": "DIR",
        "--file": "FILE",
    }
    # A model is a name, or a file of which the name says enough.
    named = lambda before, word: Path(word).name if before == "--model" or word.endswith((".eqp", ".json")) else word
    kept = lambda before, word: places.get(before, named(before, word))
    return [kept(before, word) for before, word in zip(["", *argv], argv, strict=False)]


if __name__ == "__main__":
    main()
