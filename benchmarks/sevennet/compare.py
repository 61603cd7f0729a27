"""Rounds in which both programs compute once, one after the other on the same core."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.rounds import Failed, interleave, start


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--python", required=True, metavar="PYTHON", help="the interpreter of an environment with sevenn")
    sub.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint_sevennet_0.pth (11Jul2024)")
    sub.add_argument("--atoms", type=int, nargs="+", default=[64, 216, 512], metavar="N")
    sub.add_argument("--rounds", type=int, default=5)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Energy, forces and stress of SevenNet-0, the neighbour list given; medians over the rounds.

    Raises:
        Failed: one of them could not.
    """
    commands = {
        "sevenn": [args.python, "-m", "benchmarks.sevennet.sevenn_worker"],
        "equipot": [sys.executable, "-m", "benchmarks.sevennet.equipot_worker"],
    }
    cores = [max(os.sched_getaffinity(0))]
    for atoms in args.atoms:
        job = {"atoms": atoms, "checkpoint": str(Path(args.checkpoint).absolute())}
        with tempfile.TemporaryDirectory() as logs:
            workers, told, failed = start(commands, dict.fromkeys(commands, job), cores, Path(logs))
            if failed:
                raise Failed("; ".join(f"{name}: {why}" for name, why in failed.items()))
            energies = {name: worker.ask(want="answer")["energy"] for name, worker in workers.items()}
            figures, failed = interleave(workers, args.rounds, 0.0)
        for worker in workers.values():
            worker.close()
        assert told["sevenn"]["pairs"] == told["equipot"]["pairs"], "the programs see different pairs"
        cpu = {name: found["cpu_ms"] for name, found in figures.items()}
        yield {
            "atoms": atoms,
            "cores_used": len(cores),
            "pairs": told["equipot"]["pairs"],
            "difference_eV_per_atom": abs(energies["equipot"] - energies["sevenn"]) / atoms,
            "cpu_ms": cpu,
            "least_cpu_ms": {name: found["cpu_ms_min"] for name, found in figures.items()},
            "peak_rss_MB": {name: found["peak_rss_MB"] for name, found in figures.items()},
            "ratio": cpu["sevenn"] / cpu["equipot"],
            "versions": {name: found["versions"] for name, found in told.items()},
        }
