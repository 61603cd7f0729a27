"""Delta-learning beside learning the labels themselves: the same network, frames and steps.

ethanol-N   the first N training frames of ethanol in rMD17 (PBE), all of them fitted; difference to GFN2-xTB, which is run for
            each frame (``pip install "equipot[xtb]"``).
silicon     21 frames of silicon of mlearn (PBE), 3 of them for validation; difference to a published potential, frozen.

The data are not part of the repository: ``--data PATH`` is a folder with rmd17/ and mlearn/, as README.md describes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.accuracy import CONFIGS, facts_of, run_training
from benchmarks.record import ROOT

XTB = "data.subtract={calculator: tblite, method: GFN2-xTB, accuracy: 0.1}"
SILICON = (
    "data.train={data}/mlearn/Si_train.extxyz",
    "data.test={data}/mlearn/Si_test.extxyz",
    "data.limit=18",
    "data.valid=3",
)
ETHANOL = ("data.train={data}/rmd17/ethanol_train_01.extxyz", "data.test={data}/rmd17/ethanol_test_01.extxyz")
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ethanol-20": ("delta.yaml", (*ETHANOL, "data.limit=20")),
    "ethanol-100": ("delta.yaml", (*ETHANOL, "data.limit=100", "training.epochs=200")),
    "silicon": ("mlearn.yaml", (*SILICON, "training.epochs=60", "training.devices=1")),
}
"""Config and settings of each set, with ``{data}`` for the data folder."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with rmd17/ and mlearn/")
    sub.add_argument(
        "--model", default="sevennet-0", help="a potential beside silicon: NAME.eqp, or a name of `equipot models`"
    )
    sub.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET", help=", ".join(SETS))
    sub.add_argument("--runs", type=Path, default=Path("runs/delta"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train on the labels and on the difference, or continue where it stopped; yield the test errors of each."""
    for name in args.only:
        config, settings = SETS[name]
        for learned, more in (("labels", ()), ("difference", difference(name, args.model))):
            filled = [setting.replace("{data}", str(args.data.resolve())) for setting in (*settings, *more)]
            out = args.runs.resolve() / f"{name}-{learned}"
            run_training(CONFIGS / config, out, [*filled, *args.overrides])
            yield {
                "set": name, "learned": learned, "config": f"benchmarks/configs/{config}", "settings": (*settings, *more),
                "overrides": args.overrides, **facts_of(out), "errors": json.loads((out / "errors.json").read_text()),
            }  # fmt: skip


def difference(name: str, model: str) -> tuple[str, ...]:
    """Return the settings by which a network learns the difference."""
    if name != "silicon":
        return (XTB,)
    network = yaml.safe_load((ROOT / "configs" / "mace-crystals.yaml").read_text())["model"]
    return (f"model={json.dumps([{'kind': 'potential', 'from': model}, network])}",)
