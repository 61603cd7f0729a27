"""``equipot train CONFIG``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from equipot.cli.recipes import find_config, run_folder
from equipot.cli.runtime import cores, prepare

if TYPE_CHECKING:
    from equipot.training import TrainConfig


def execute(args: argparse.Namespace) -> None:
    """Train by a config, or on a data file with settings that suit the data; print the file of the potential."""
    from equipot import config
    from equipot.training import TrainConfig

    if not holds_data(args.config):
        path = find_config(args.config)
        train_config(path, args.overrides, run_folder(args.out, path.stem, args.resume), args.resume)
        return
    settings = config.build(TrainConfig, {"data": {"train": str(args.config)}}, overrides=args.overrides)
    name = Path(str(args.config).partition("@")[0].rpartition(":")[2]).stem
    run_training(settings, run_folder(args.out, name, args.resume), args.resume)


def holds_data(source: Path) -> bool:
    """Return whether an argument names reference data, ``FILE``, ``FILE@SLICE`` or ``bundled:NAME``, instead of a config."""
    text = str(source)
    file = Path(text.partition("@")[0])
    if text.startswith("bundled:") or not file.is_file():
        return text.startswith("bundled:")
    return file.suffix not in (".yaml", ".yml") and (bool(file.suffix) or is_known_by_name(file))


def is_known_by_name(file: Path) -> bool:
    """Return whether ASE tells the format of a file without a suffix, such as OUTCAR, by its name or its content."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        return bool(filetype(str(file), guess=False))
    except UnknownFileTypeError:
        return False


def train_config(path: Path, overrides: list[str], out: Path, resume: bool) -> Path:
    """Run one training by a config into the folder ``out``; return the file of the best potential."""
    from equipot import config
    from equipot.training import TrainConfig

    return run_training(config.load(path, TrainConfig, overrides), out, resume)


def run_training(settings: TrainConfig, out: Path, resume: bool) -> Path:
    """Run one training into the folder ``out``; return the file of the best potential."""
    from equipot.finetune import fine_tune
    from equipot.training import FineTune, train, train_ensemble

    prepare(settings.dtype, settings.training.devices or cores())
    scratch = train if settings.ensemble is None else train_ensemble
    best = (fine_tune if isinstance(settings.model, FineTune) else scratch)(settings, out, resume=resume)
    print(f"potential: {best}")
    return best
