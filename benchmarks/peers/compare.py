"""All programs on each work item: shared weights, times in interleaved rounds, memory, and how far answers are apart."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environments import command, install, python_of
from benchmarks.peers.items import ITEMS, SHARED, Item, chosen
from benchmarks.peers.rounds import MALLOC, Worker, interleave, start
from benchmarks.peers.systems import load, path_of

MOST_COMPARED = 1000
"""Atoms of the largest system that mace-torch evaluates in double precision."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--home", type=Path, required=True, metavar="DIR", help="folder of the programs' environments")
    sub.add_argument("--install", action="store_true", help="make the environments first (4 GB)")
    sub.add_argument("--only", nargs="+", default=list(ITEMS), metavar="ITEM", help=f"or W1, W2, W3, W4: {', '.join(ITEMS)}")
    sub.add_argument("--programs", nargs="+", metavar="NAME", help="only these")
    sub.add_argument("--rounds", type=int, default=7)
    sub.add_argument("--seconds", type=float, default=0.5, help="how long each program computes in a round, at least once")
    sub.add_argument("--threads", type=int, default=1, help="cores that every program is confined to")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One result for each item, with the figures of each program.

    Raises:
        FileNotFoundError: a program is not installed.
    """
    names = chosen(args.only)
    programs = {name: [p for p in ITEMS[name].programs if not args.programs or p in args.programs] for name in names}
    if args.install:
        install(args.home)
    for program in {p for found in programs.values() for p in found}:
        command(args.home, program)
    for name in names:
        result = compare(name, programs[name], args)
        tell(result)
        yield result


def compare(name: str, programs: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Every program on one item, each a fresh process that nothing else was computed in."""
    item, home = ITEMS[name], args.home.absolute()
    system = path_of(home / "systems", item.system)
    files, prepared = shared_weights(name, item, system, home, programs)
    jobs = {p: {"item": name, "program": p, "system": str(system), **(files if p in SHARED else {})} for p in programs}
    cores = sorted(os.sched_getaffinity(0))[-args.threads :]
    if "symmetrix" in programs:
        os.environ |= symmetrix_settings(home)
    workers, told, failed = start({p: command(home, p) for p in programs}, jobs, cores, home / "logs" / name)
    try:
        figures, late = interleave(workers, args.rounds, args.seconds)
        reference = Path(files.get("reference", "none"))
        apart = differences(workers, figures, json.loads(reference.read_text())) if reference.exists() else {}
    finally:
        for worker in workers.values():
            worker.close()
    pairs = {told[p]["pairs"] for p in figures}
    assert len(pairs) <= 1, f"the programs see different pairs: {pairs}"
    kind = "cpu_ms_min" if args.threads == 1 else "wall_ms_min"
    for p, found in figures.items():
        found |= told[p] | apart.get(p, {}) | {"weights": "of mace-torch" if p in SHARED and files else "random"}
        for mine in ("equipot", "equipot compressed"):
            if mine in figures:
                found[f"ratio_to_{mine.replace(' ', '_')}"] = found[kind] / figures[mine][kind]
    atoms = sum(map(len, load(str(system))))
    return {
        "work": name, "network": item.network, "system": item.system, "training": item.training, "atoms": atoms,
        "pairs": pairs.pop() if pairs else None, "cores_used": args.threads, "rounds": args.rounds, "malloc": MALLOC,
        "ratio_of": kind, **prepared, "programs": figures, "failed": failed | late,
    }  # fmt: skip


def shared_weights(
    name: str, item: Item, system: Path, home: Path, programs: list[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Files of the model of mace-torch and of what is made of it, and what is known of them; nothing for NequIP."""
    if item.network["kind"] != "MACE":
        return {}, {}
    folder = home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    model, reference, facts = folder / f"{item.model}.model", folder / f"{name}.json", {}
    files = {"model": str(model)}
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    run = lambda *words: subprocess.run(words, check=True, env=environment, stdout=sys.stderr)
    small = not item.system.startswith("si") or int(item.system[2:]) <= MOST_COMPARED
    if not model.exists() or (small and not reference.exists()):
        source = system if small else path_of(home / "systems", "si216")
        run(python_of(home, "vtorch"), "-m", "benchmarks.peers.mace_models", name, str(source), str(model), str(reference))
    if small and not item.training:
        files["reference"] = str(reference)
        forces = np.array(json.loads(reference.read_text())["forces"])
        facts = {"force_rms": float(np.sqrt(np.mean(forces**2))), "force_max": float(np.abs(forces).max())}
    if "symmetrix" in programs:
        extracted = folder / f"{item.model}.json"
        elements = sorted({int(z) for atoms in load(str(system)) for z in atoms.numbers})
        tool = lambda where, what: str(Path(python_of(home, where)).with_name(what))
        if not extracted.exists():
            run(tool("vtorch", "symmetrix_extract_mace"), "-m", str(model), "-Z", *map(str, elements), "-o", str(extracted))
        environment |= symmetrix_settings(home)
        prepare = tool("vsym", "symmetrix_prepare_jit_host_artifact")
        run(prepare, "-m", str(extracted), "--precision", "float32", "--path-only")
        files["extracted"] = str(extracted)
    return files, facts


def symmetrix_settings(home: Path) -> dict[str, str]:
    """Where symmetrix keeps its compiled code, made for this processor."""
    cache = home / "models" / "jit"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"SYMMETRIX_JIT_CACHE": str(cache), "SYMMETRIX_JIT_HOST_TARGET": "native"}


def differences(
    workers: Mapping[str, Worker], figures: Mapping[str, Any], reference: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Of programs that share weights, from mace-torch in double precision: eV/atom and eV/Å."""
    out, exact = {}, np.array(reference["forces"])
    for name in (name for name in SHARED if name in figures):
        answer = workers[name].ask(want="answer")
        energy = np.abs(np.array(answer["energy"]) - np.array(reference["energy"])).sum() / len(exact)
        apart = np.array(answer["forces"]) - exact
        out[name] = {
            "energy_difference_eV_per_atom": float(energy),
            "force_difference_max": float(np.abs(apart).max()),
            "force_difference_rms": float(np.sqrt(np.mean(apart**2))),
        }
    return out


def tell(result: Mapping[str, Any]) -> None:
    told = [f"{name} {found[result['ratio_of']]:.0f} ms" for name, found in result["programs"].items()]
    told += [f"{name} failed ({why})" for name, why in result["failed"].items()]
    print(f"{result['work']}: {', '.join(told)}", file=sys.stderr, flush=True)
