"""Fitting of a potential to reference data, and its mean errors.

>>> from equipot import config
>>> from equipot.training import TrainConfig, train
>>> best = train(config.load("configs/quickstart.yaml", TrainConfig), "runs/quickstart")
"""

from __future__ import annotations

import importlib
from typing import Any

# Imported at first use: the classes of a config need no training loop.
_HOMES = {"FineTune": "config", "TrainConfig": "config", "evaluate_set": "errors", "train": "run", "train_ensemble": "ensemble"}

__all__ = ["FineTune", "TrainConfig", "evaluate_set", "train", "train_ensemble"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"equipot.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'equipot.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
