"""``equipot md CONFIG``."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.recipes import find_config, run_folder
from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> None:
    """Run molecular dynamics by a config."""
    path = find_config(args.config)
    simulate_config(path, args.overrides, run_folder(args.out, path.stem, args.resume), args.resume)


def simulate_config(path: Path, overrides: list[str], out: Path, resume: bool) -> None:
    """Run one simulation into the folder ``out``."""
    from equipot import config, md
    from equipot.md.config import MDConfig

    settings = config.load(path, MDConfig, overrides)
    prepare(settings.dtype)
    md.run(settings, out, resume=resume)
    print(f"simulation: {out}")
