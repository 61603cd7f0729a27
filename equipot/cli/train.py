"""``equipot train CONFIG``."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.recipes import find_config, run_folder
from equipot.cli.runtime import cores, prepare


def execute(args: argparse.Namespace) -> None:
    """Train by a config and print the file of the potential."""
    path = find_config(args.config)
    train_config(path, args.overrides, run_folder(args.out, path.stem, args.resume), args.resume)


def train_config(path: Path, overrides: list[str], out: Path, resume: bool) -> Path:
    """Run one training into the folder ``out``; return the file of the best potential."""
    from equipot import config
    from equipot.finetune import fine_tune
    from equipot.training import FineTune, TrainConfig, train, train_ensemble

    settings = config.load(path, TrainConfig, overrides)
    prepare(settings.dtype, settings.training.devices or cores())
    scratch = train if settings.ensemble is None else train_ensemble
    best = (fine_tune if isinstance(settings.model, FineTune) else scratch)(settings, out, resume=resume)
    print(f"potential: {best}")
    return best
