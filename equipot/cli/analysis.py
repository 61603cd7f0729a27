"""``equipot spectra | transport TRAJECTORY``: a command for each package of ``equipot.workflows`` that streams a trajectory."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from pathlib import Path

from equipot.cli.recipes import run_folder
from equipot.cli.runtime import prepare
from equipot.cli.workflow import begin, digest_of, settings_of, tell


def beginning(path: Path) -> str | None:
    """Return the SHA-256 of the first 64 kB of a trajectory, or of that in a folder of a run; None where there is no file."""
    files = [path / "trajectory.h5", path / "trajectory.xyz"] if path.is_dir() else [Path(str(path).partition("@")[0])]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        return None
    with found.open("rb") as file:
        return hashlib.sha256(file.read(2**16)).hexdigest()


def execute(args: argparse.Namespace) -> int:
    """Run an analysis; return 1 if it tells of a failure, else 0."""
    from equipot import published
    from equipot.console import Console
    from equipot.workflows.task import Analysis

    command = importlib.import_module(f"equipot.workflows.{args.workflow}.command")
    settings = settings_of(args, command.CONFIG)
    path = Path(args.trajectory)
    out = run_folder(args.out, f"{args.workflow}-{path.name if path.is_dir() else path.stem}", args.resume)
    potential = None
    if args.model is not None:
        prepare(args.dtype)
        potential = published.load(args.model, dtype=args.dtype)
    work = {
        "command": args.workflow, "trajectory": args.trajectory, "model": args.model, "beginning_sha256": beginning(path),
        "variables_sha256": None if potential is None else digest_of(potential),
    }  # fmt: skip
    begin(out, settings, work, args.resume)
    given = Analysis(args.trajectory, args.model, potential, out, args.resume, Console(sys.stdout))
    return tell(command.run(given, settings), out)
