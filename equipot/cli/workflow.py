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


def work_of(args: argparse.Namespace, structures: Sequence[Structure], potential: Potential) -> dict[str, Any]:
    """Describe potential and structures, with digests by which a resumed run knows them again."""
    digest = hashlib.sha256()
    for s in structures:
        fixed = np.zeros(0) if s.fixed is None else s.fixed
        for array in (s.numbers, s.positions, s.cell, s.pbc, fixed, np.array([s.charge, s.spin, s.head or 0])):
            digest.update(np.ascontiguousarray(array).tobytes())
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(potential.variables):
        weights.update(np.asarray(leaf).tobytes())
    return {
        "command": args.workflow, "model": args.model, "structure": args.structure, "dtype": args.dtype,
        "structures_sha256": digest.hexdigest(), "variables_sha256": weights.hexdigest(),
    }  # fmt: skip


def execute(args: argparse.Namespace) -> int:
    """Run a workflow; return 1 if it tells of a failure, else 0."""
    from equipot import config, published
    from equipot.console import Console
    from equipot.data.read import read_structures
    from equipot.files import write_atomically
    from equipot.workflows.task import Task

    command = importlib.import_module(f"equipot.workflows.{args.workflow}.command")
    if args.config is None:
        settings = config.build(command.CONFIG, {}, overrides=args.overrides)
    else:
        settings = config.load(find_config(args.config), command.CONFIG, args.overrides)
    out = run_folder(args.out, f"{args.workflow}-{Path(args.structure).stem}", args.resume)
    prepare(args.dtype)
    potential = published.load(args.model, dtype=args.dtype)
    structures = read_structures(args.structure)
    potential.check(structures)
    text = config.to_yaml(settings).encode()
    if args.resume and (out / "config.yaml").exists() and (out / "config.yaml").read_bytes() != text:
        raise ValueError(f"{out} was begun with other settings ({out / 'config.yaml'}); give those, or choose another --out")
    work = json.dumps(work_of(args, structures, potential), indent=2).encode() + b"\n"
    if args.resume and (out / "work.json").exists() and (out / "work.json").read_bytes() != work:
        raise ValueError(f"{out} was begun with another potential or other structures; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "work.json", work)
    write_atomically(out / "config.yaml", text)
    outcome = command.run(Task(args.model, potential, structures, out, args.resume, Console(sys.stdout)), settings)
    print(f"\n{outcome.summary}\n\neverything is in {out}")
    for failure in outcome.failures:
        print(f"equipot: {failure}", file=sys.stderr)
    return int(bool(outcome.failures))
