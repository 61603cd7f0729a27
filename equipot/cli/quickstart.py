"""``equipot quickstart``: train, evaluate and simulate on bundled data, with the recipes of configs/."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.evaluate import evaluate_file
from equipot.cli.md import simulate_config
from equipot.cli.recipes import recipes, run_folder
from equipot.cli.train import train_config

TEST = "bundled:ethanol/test"
STEPS = 10_000


def execute(args: argparse.Namespace) -> None:
    """Train, evaluate and simulate, each in a folder of its own; with --resume, finished stages are not repeated."""
    out = args.out or Path("runs") / "quickstart"
    found = recipes()
    print("1/3 training on bundled ethanol (configs/quickstart.yaml)", flush=True)
    best = train_config(found["quickstart"], args.overrides, run_folder(out / "train", "", args.resume), args.resume)
    print("\n2/3 evaluating on frames it has not seen", flush=True)
    evaluate_file(best, TEST, [], json=out / "test" / "errors.json", out=out / "test", dtype=None)
    print("\n3/3 molecular dynamics at 300 K (configs/md-nvt-langevin.yaml)", flush=True)
    settings = [f"model={best}", f"structure={TEST}", f"steps={STEPS}"]
    simulate_config(found["md-nvt-langevin"], settings, run_folder(out / "md", "", args.resume), args.resume)
    print(f"\nEverything is in {out}. Next: your own data, as README.md shows.")
