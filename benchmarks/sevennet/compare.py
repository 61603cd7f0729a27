"""Rounds in which each program computes once, one after the other on the same core."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import record

HERE = Path(__file__).parent


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--python", required=True, metavar="PYTHON", help="the interpreter of an environment with sevenn")
    sub.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint_sevennet_0.pth (11Jul2024)")
    sub.add_argument("--atoms", type=int, nargs="+", default=[64, 216, 512], metavar="N")
    sub.add_argument("--rounds", type=int, default=5)


class Worker:
    """A program that computes when asked."""

    def __init__(self, command: list[str], core: int) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=record.ROOT)
        self.versions = self.ask(core=core)

    def ask(self, **order: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER"):
                return json.loads(line.removeprefix("ANSWER"))
        raise RuntimeError(f"{self.process.args}: ended with exit code {self.process.wait()}")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Energy, forces and stress of SevenNet-0, the neighbour list given; medians over the rounds."""
    core = max(os.sched_getaffinity(0))
    workers = {
        "sevenn": Worker([args.python, str(HERE / "sevennet.py"), args.checkpoint], core),
        "equipot": Worker([sys.executable, "-m", "benchmarks.peers.equipot_worker", "sevennet-0"], core),
    }
    for atoms in args.atoms:
        ready = {name: worker.ask(atoms=atoms) for name, worker in workers.items()}
        rounds = [{name: worker.ask(go=True) for name, worker in workers.items()} for _ in range(args.rounds)]
        cpu = {name: statistics.median(r[name]["cpu_ms"] for r in rounds) for name in workers}
        result = {
            "atoms": atoms,
            "pairs": ready["equipot"]["pairs"],
            "difference_eV_per_atom": abs(ready["equipot"]["energy"] - ready["sevenn"]["energy"]) / atoms,
            "cpu_ms": cpu,
            "least_cpu_ms": {name: min(r[name]["cpu_ms"] for r in rounds) for name in workers},
            "ratio": cpu["sevenn"] / cpu["equipot"],
            "versions": {name: worker.versions for name, worker in workers.items()},
        }
        assert ready["sevenn"]["pairs"] == result["pairs"], "the programs see different pairs"
        told = ", ".join(f"{name} {value:.0f} ms" for name, value in cpu.items())
        print(f"{atoms} atoms: {told}; ratio {result['ratio']:.2f}", flush=True)
        yield result
    for worker in workers.values():
        worker.process.stdin.close()
        worker.process.wait()
