"""``equipot relax | phonons | ... MODEL STRUCTURE``: a command for each package of ``equipot.workflows`` that has one."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from equipot.cli.recipes import find_config, run_folder
from equipot.cli.runtime import prepare


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
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.yaml", config.to_yaml(settings).encode())
    outcome = command.run(Task(args.model, potential, structures, out, args.resume, Console(sys.stdout)), settings)
    print(f"\n{outcome.summary}\n\neverything is in {out}")
    for failure in outcome.failures:
        print(f"equipot: {failure}", file=sys.stderr)
    return int(bool(outcome.failures))
