"""Relaxations by equipot beside those of ASE, Sella and geomeTRIC: gradient calls, time, and whether minima are the same.

``molecules``: molecules of H, C, N and O of the G2 set, displaced at random. ``crystals``: elements and salts, strained and
rattled, cells relaxed too. ``lj38``: clusters of 38 Lennard-Jones atoms from random starts as OptBench makes them. ``many``:
clusters in one batched program, one by one, and by torch-sim. Every method runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.own_process import in_own_process
from benchmarks.record import ROOT

PARTS = ("molecules", "crystals", "lj38", "many")
OURS = ("L-BFGS", "L-BFGS without model", "FIRE", "Newton")
OF_ASE = ("ASE BFGS", "ASE LBFGS", "ASE FIRE", "ASE BFGSLineSearch")
OTHERS = {"Sella": "sella", "geomeTRIC": "geometric"}
"""Other programs by the package that they need."""
SIZES = {"molecules": 30, "crystals": 20, "lj38": 100, "many": 200}
"""Structures of each part."""
OPTBENCH = {"Newton": (79, 46, 144), "L-BFGS (OPTIM)": (176, 90, 421), "FIRE (ASE)": (656, 208, 1000)}
"""Force calls of 1,000 starts at optbench.org: mean, least, most. Its starts are of the same kind, not the same."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    sub.add_argument("--methods", nargs="+", metavar="NAME", help="only these methods")
    sub.add_argument("--model", default="sevennet-0", help="potential of molecules and crystals (default: sevennet-0)")
    sub.add_argument("--structures", type=int, metavar="N", help="only so many structures of each part")
    sub.add_argument("--python", metavar="PYTHON", help="interpreter of an environment with torch-sim-atomistic")
    sub.add_argument("--cores", type=int, help="use only so many cores (Linux)")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each part and method as soon as it is there."""
    with tempfile.TemporaryDirectory() as folder:
        # Methods of one program share what is compiled.
        cache = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for part in args.only:
            count = min(args.structures or SIZES[part], SIZES[part])
            for method in methods(part):
                if args.methods and method not in args.methods:
                    continue
                row = {"part": part, "method": method, "structures": count}
                if method == "torch-sim":
                    yield row | by_torch_sim(args.python, count)
                    continue
                needed = OTHERS.get(method)
                if needed and find_spec(needed) is None:
                    yield row | {"skipped": f"{needed} is not installed"}
                    continue
                model = {"model": args.model} if part in ("molecules", "crystals") else {}
                arguments = {"part": part, "method": method, "count": count, **model}
                yield row | in_own_process("relaxation", arguments, args.cores, cache)


def methods(part: str) -> tuple[str, ...]:
    """Return the methods of a part."""
    return {
        "molecules": (*OURS, *OF_ASE, *OTHERS),
        "crystals": ("L-BFGS", "L-BFGS without model", "FIRE", "Newton", *OF_ASE, "Sella"),
        "lj38": ("L-BFGS", "FIRE", "Newton"),
        "many": ("L-BFGS", "L-BFGS one by one", "FIRE", "torch-sim"),
    }[part]


def by_torch_sim(python: str | None, count: int) -> dict[str, Any]:
    """Relax the clusters of ``many`` in another interpreter, on one core."""
    if python is None:
        return {"skipped": "no --python with torch-sim-atomistic"}
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.relaxation_systems import ARGON, many

        job = Path(folder) / "job.json"
        clusters = [a.positions.tolist() for a in many(count)]
        job.write_text(json.dumps({"clusters": clusters, **ARGON}))
        script = Path(__file__).with_name("relaxation_torch_sim.py")
        done = subprocess.run([python, str(script), str(job)], cwd=ROOT, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    if done.returncode:
        return {"skipped": f"torch-sim failed with exit code {done.returncode}, as it says above"}
    return json.loads(done.stdout.splitlines()[-1])
