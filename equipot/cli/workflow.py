"""``equipot relax | phonons | ... MODEL STRUCTURE``: a command for each package of ``equipot.workflows`` that has one."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from equipot.cli.recipes import find_config, run_folder
from equipot.cli.runtime import prepare
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.task import Outcome


def work_of(args: argparse.Namespace, structures: Sequence[Structure], potential: Potential) -> dict[str, Any]:
    """Describe potential and structures, with digests by which a resumed run knows them again."""
    digest = hashlib.sha256()
    for s in structures:
        given = [np.zeros(0) if x is None else x for x in (s.fixed, s.masses)]
        for array in (s.numbers, s.positions, s.cell, s.pbc, *given, s.field, np.array([s.charge, s.spin, s.head or 0])):
            digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "command": args.workflow, "model": args.model, "structure": args.structure, "dtype": args.dtype,
        "structures_sha256": digest.hexdigest(), "variables_sha256": digest_of(potential),
    }  # fmt: skip


def digest_of(potential: Potential) -> str:
    """Return the SHA-256 of a potential's variables, hyper-parameters and energies of isolated atoms."""
    weights = hashlib.sha256(repr((potential.term, potential.metadata.atomic_energies)).encode())
    for leaf in jax.tree.leaves(potential.variables):
        weights.update(np.asarray(leaf).tobytes())
    return weights.hexdigest()


def execute(args: argparse.Namespace) -> int:
    """Run a workflow; return 1 if it tells of a failure, else 0."""
    from equipot import published
    from equipot.console import Console
    from equipot.data.read import read_structures
    from equipot.workflows.task import Task

    command = importlib.import_module(f"equipot.workflows.{args.workflow}.command")
    settings = settings_of(args, command.CONFIG)
    out = run_folder(args.out, f"{args.workflow}-{Path(args.structure).stem}", args.resume)
    prepare(args.dtype)
    potential = published.load(args.model, dtype=args.dtype)
    structures = read_structures(args.structure)
    potential.check(structures)
    begin(out, settings, work_of(args, structures, potential), args.resume)
    outcome = command.run(Task(args.model, potential, structures, out, args.resume, Console(sys.stdout)), settings)
    return tell(outcome, out)


def settings_of(args: argparse.Namespace, kind: type) -> Any:
    """Build the settings of a command from its config, if one is given, and the options --set."""
    from equipot import config

    if args.config is None:
        return config.build(kind, {}, overrides=args.overrides)
    return config.load(find_config(args.config), kind, args.overrides)


def begin(out: Path, settings: Any, work: dict[str, Any], resume: bool) -> None:
    """Make the folder of the results with config.yaml and work.json.

    Raises:
        ValueError: a folder to be resumed that was begun with other settings or for other work.
    """
    from equipot import config
    from equipot.files import write_atomically

    text = config.to_yaml(settings).encode()
    if resume and (out / "config.yaml").exists() and (out / "config.yaml").read_bytes() != text:
        raise ValueError(f"{out} was begun with other settings ({out / 'config.yaml'}); give those, or choose another --out")
    described = json.dumps(work, indent=2).encode() + b"\n"
    if resume and (out / "work.json").exists() and (out / "work.json").read_bytes() != described:
        raise ValueError(f"{out} was begun with another potential or other structures; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "work.json", described)
    write_atomically(out / "config.yaml", text)


def tell(outcome: Outcome, out: Path) -> int:
    """Print the summary of a workflow and what failed; return the exit code."""
    print(f"\n{outcome.summary}\n\neverything is in {out}")
    for failure in outcome.failures:
        print(f"equipot: {failure}", file=sys.stderr)
    return int(bool(outcome.failures))
