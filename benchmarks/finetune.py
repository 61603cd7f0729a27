"""Fine-tuning on a tenth of a data set, beside training from random parameters on the same frames; and what it forgets.

The data are not part of the repository: ``--data PATH`` is a folder with mlearn/, as README.md describes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.accuracy import CONFIGS, facts_of, run_training

ELEMENTS = ("Si", "Cu", "Li")
MOST = 60
"""Number of replayed frames."""


def runs_of(element: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Config and settings of each run for an element, with ``{data}`` for the data folder.

    A tenth of the training frames of the element: 18 to fit, 3 to choose the epoch. What is forgotten is seen on the test sets
    of the other elements; frames to replay are those of their training sets, with labels of the base, not of the files.
    """
    others = [other for other in ELEMENTS if other != element]
    frames = {"train": f"{{data}}/mlearn/{element}_train.extxyz", "limit": 18, "valid": 3}
    frames |= {"test": f"{{data}}/mlearn/{element}_test.extxyz"}
    one = tuple(f"data.{key}={value}" for key, value in frames.items())
    forget = f"data.forget={json.dumps({other: f'{{data}}/mlearn/{other}_test.extxyz' for other in others})}"
    files = [f"{{data}}/mlearn/{other}_train.extxyz" for other in others]
    replay = f"data.replay={json.dumps({'files': files, 'labels': 'base', 'most': MOST, 'valid': 0.05})}"
    # As many steps in an epoch of new frames, each with as many replayed frames again.
    reminded = (forget, replay, "training.batch_size=2")
    head = ("data.train=[]", "data.limit=null", "data.valid=0.1", "data.test=null", "model.head=base", "model.scale=keep")
    return {
        "from random parameters": ("mlearn.yaml", (*one, "training.max_minutes=5")),
        "fine-tuned": ("finetune.yaml", (*one, forget)),
        "fine-tuned with replay": ("finetune.yaml", (*one, *reminded)),
        "fine-tuned head with replay": (
            "finetune.yaml",
            (*head, f"data.heads={json.dumps({'mlearn': frames})}", *reminded),
        ),
    }


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with mlearn/")
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")
    names = list(runs_of(ELEMENTS[0]))
    sub.add_argument("--only", nargs="+", choices=names, default=names[:-1], metavar="RUN", help=", ".join(names))
    sub.add_argument("--elements", nargs="+", choices=ELEMENTS, default=ELEMENTS, metavar="E", help=", ".join(ELEMENTS))
    sub.add_argument("--runs", type=Path, default=Path("runs/finetune"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each run, or what was left of it, with its errors on all sets, and those of the base."""
    for element, name in itertools.product(args.elements, args.only):
        config, settings = runs_of(element)[name]
        filled = [setting.replace("{data}", str(args.data.resolve())) for setting in settings]
        tuned = config == "finetune.yaml"
        filled += [f"model.from={args.model}"] if tuned else []
        out = args.runs.resolve() / f"{element}-{name.replace(' ', '-')}"
        run_training(CONFIGS / config, out, [*filled, *args.overrides])
        yield {
            "element": element, "run": name, "config": f"benchmarks/configs/{config}", "settings": settings,
            "overrides": args.overrides,
            **facts_of(out), "base": Path(args.model).name if tuned else None,
            "errors_of_base": json.loads((out / "base-errors.json").read_text()) if tuned else None,
            "errors": json.loads((out / "errors.json").read_text()),
        }  # fmt: skip
