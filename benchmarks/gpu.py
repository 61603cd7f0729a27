"""MD and bare evaluations of silicon with the networks of W1 and W2 on an accelerator, to the largest crystal that fits."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.crystal import NETWORKS
from benchmarks.own_process import in_own_process

GROWTH = 1.26
"""Edge of each larger crystal in the search for the largest: about twice the atoms."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    sub.add_argument("--atoms", type=int, nargs="+", default=[1000, 4096, 17576, 64000], metavar="N")
    sub.add_argument("--steps", type=int, default=50, help="MD steps between two neighbour lists")
    sub.add_argument("--seconds", type=float, default=3.0, help="how long each measurement is repeated")
    sub.add_argument("--budget", type=float, default=420.0, help="seconds after which nothing is begun and what runs ends")
    sub.add_argument("--largest", action=argparse.BooleanOptionalAction, default=True, help="look for the largest crystal")
    sub.add_argument("--cores", type=int, help="use only so many cores (Linux)")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One result for each network and size; then the largest size of each, as far as time allows.

    Sizes go first, networks second, so that an end by time costs the largest of both.
    """
    end = time.monotonic() + args.budget
    fitted: dict[str, int] = {}
    for atoms in sorted(args.atoms):
        for network in args.network:
            result = attempt(network, atoms, args, end)
            if "failed" not in result:
                fitted[network] = atoms
            yield result
    for network in args.network if args.largest else ():
        if network in fitted and fitted[network] == max(args.atoms):
            yield from grow(network, fitted[network], args, end)


def grow(network: str, atoms: int, args: argparse.Namespace, end: float) -> Iterator[dict[str, Any]]:
    """Ever larger crystals, a bare evaluation each, until one does not fit or time is over."""
    while True:
        edge = round((atoms / 8) ** (1 / 3))
        atoms = 8 * max(edge + 1, round(edge * GROWTH)) ** 3
        result = attempt(network, atoms, args, end, steps=0)
        yield result
        if "failed" in result:
            return


def attempt(network: str, atoms: int, args: argparse.Namespace, end: float, steps: int | None = None) -> dict[str, Any]:
    """A measurement, or why there is none."""
    arguments = {
        "network": network, "atoms": atoms, "steps": args.steps if steps is None else steps, "seconds": args.seconds,
    }  # fmt: skip
    about = {"network": network, "atoms": atoms}
    left = end - time.monotonic()
    if left <= 0:
        return about | {"failed": "not begun: the time was over"}
    try:
        # All but a little of the device's memory, as far as it has its own.
        return in_own_process("crystal", arguments, args.cores, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}, left)
    except subprocess.TimeoutExpired:
        return about | {"failed": "ended: the time was over"}
    except subprocess.CalledProcessError as error:
        print(f"{network}, {atoms} atoms: failed", file=sys.stderr, flush=True)
        return about | {"failed": f"exit code {error.returncode}, most likely out of memory"}
