"""What ``scaling`` and ``speed`` consist of: names and arguments of functions in ``cases``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.own_process import in_own_process

FRAMES = {"ethanol": 4, "silicon": 2}
"""Frames of each bundled set in a batch of ``speed``: 36 and 64 atoms."""
WIDEST, CRYSTALS = "W1", ("si216", "water192")
"""The network of W1, of which ``speed`` has evaluations only, and its systems."""
OVER: dict[str, tuple[Any, ...]] = {
    "atoms": (64, 512, 1728, 4096),
    "neighbors": (4.0, 5.0, 6.0, 7.0),
    "l_max": (1, 2, 3, 4),
    "channels": (16, 32, 64, 128),
    "correlation": (1, 2, 3),
    "batch": (1, 2, 4, 8),
}
"""What ``scaling`` goes over; neighbours by the cutoff in Å."""
WORKS = ("W1-si216", "W1-water192")
"""Work items of ``roofline``."""
FIXED, EACH = 512, 64
"""Atoms of the crystal whose network varies, and of each crystal in a batch."""


def scaling(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One quantity at a time, the others as the network of ``scaling`` has them."""
    for over in args.over:
        for value in args.atoms if over == "atoms" else OVER[over]:
            arguments = {"seconds": args.seconds} | arguments_of(over, value)
            yield in_own_process("scaling", arguments, args.cores) | {"over": over, "value": value}


def arguments_of(over: str, value: Any) -> dict[str, Any]:
    if over == "atoms":
        return {"atoms": value}
    if over == "batch":
        return {"atoms": EACH, "batch": value}
    return {"atoms": FIXED, "changes": {"cutoff" if over == "neighbors" else over: value}}


def speed(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each measurement twice: with an empty cache of compiled functions, and only to compile, with what that left in it."""
    works = [(what, model, system) for what in ("inference", "training") for model in args.model for system in args.system]
    works = [work for work in works if WIDEST not in work]
    if WIDEST in args.model:
        works += [("inference", WIDEST, system) for system in CRYSTALS]
    for what, model, system in works:
        arguments: dict[str, Any] = {"model": model, "system": system, "frames": FRAMES.get(system, 1)}
        with tempfile.TemporaryDirectory() as folder:
            if what == "inference":
                arguments |= {"file": f"{folder}/potential.eqp"}
                in_own_process("saved", arguments, args.cores)
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            cold = in_own_process(what, arguments | {"seconds": args.seconds}, args.cores, cache)
            warm = in_own_process(what, arguments | {"seconds": 0.0}, args.cores, cache)
        yield cold | {"cached_compile_s": warm["compile_s"], "cached_peak_rss_MB": warm["peak_rss_MB"]}


def hessian_steps(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A training step with products of Hessians beside one without, for each model."""
    for model in args.model:
        arguments = {"model": model, "system": args.system, "frames": FRAMES[args.system], "seconds": args.seconds}
        yield in_own_process("hessian_training", arguments, args.cores)


def dynamics(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for atoms in args.atoms:
        yield in_own_process("dynamics", {"atoms": atoms, "steps": args.steps, "seconds": args.seconds}, args.cores)


def roofline(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for work in args.only:
        yield in_own_process("roofline", {"work": work, "seconds": args.seconds}, args.cores)
