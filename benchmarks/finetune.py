"""Fine-tuning on a tenth of a data set, beside training from random parameters on the same frames; and what it forgets.

The data are not part of the repository: ``--data PATH`` is a folder with mlearn/, as README.md describes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.accuracy import CONFIGS, facts_of, run_training

FRAMES = {"train": "{data}/mlearn/Si_train.extxyz", "limit": 18, "valid": 3, "test": "{data}/mlearn/Si_test.extxyz"}
ELSEWHERE = {"Cu": "{data}/mlearn/Cu_test.extxyz", "Li": "{data}/mlearn/Li_test.extxyz"}
REPLAY = {"files": "{data}/mlearn/Cu_train.extxyz@::4", "labels": "base"}
"""Crystals of another element, with labels of the base: of copper the result is reminded, of lithium it is not."""
REMINDED = (f"data.replay={json.dumps(REPLAY)}", "training.batch_size=2")
"""As many steps, each with as many frames again."""
ONE = tuple(f"data.{key}={value}" for key, value in FRAMES.items())
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "from random parameters": ("mlearn.yaml", (*ONE, "training.epochs=400")),
    "fine-tuned": ("finetune.yaml", (*ONE, f"data.forget={json.dumps(ELSEWHERE)}")),
    "fine-tuned with replay": ("finetune.yaml", (*ONE, f"data.forget={json.dumps(ELSEWHERE)}", *REMINDED)),
    "fine-tuned head with replay": (
        "finetune.yaml",
        (
            "data.train=[]", "data.limit=null", "data.valid=0.1", "data.test=null", "model.head=base",
            f"data.heads={json.dumps({'mlearn': FRAMES})}", f"data.forget={json.dumps(ELSEWHERE)}", *REMINDED,
        ),
    ),
}  # fmt: skip
"""Config and settings of each run, with ``{data}`` for the data folder."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/")
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")
    sub.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    sub.add_argument("--runs", type=Path, default=Path("runs/finetune"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each run, or what was left of it, with its errors on all sets, and those of the base."""
    for name in args.only:
        config, settings = RUNS[name]
        filled = [setting.replace("{data}", str(args.data.resolve())) for setting in settings]
        tuned = config == "finetune.yaml"
        filled += [f"model.from={args.model}"] if tuned else []
        out = args.runs.resolve() / name.replace(" ", "-")
        run_training(CONFIGS / config, out, [*filled, *args.overrides])
        yield {
            "run": name, "config": f"benchmarks/configs/{config}", "settings": settings, "overrides": args.overrides,
            **facts_of(out), "base": args.model if tuned else None,
            "errors_of_base": json.loads((out / "base-errors.json").read_text()) if tuned else None,
            "errors": json.loads((out / "errors.json").read_text()),
        }  # fmt: skip
