"""Fine-tune a potential: train chosen parameters, add elements and heads, refit E0, and replay data against forgetting.

>>> from equipot import config
>>> from equipot.finetune import fine_tune
>>> from equipot.training import TrainConfig
>>> best = fine_tune(config.load("configs/finetune.yaml", TrainConfig), "runs/finetune")
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from equipot.finetune.preparation import from_base
from equipot.training import TrainConfig, train, train_ensemble

__all__ = ["fine_tune"]


def fine_tune(config: TrainConfig, out: str | Path, resume: bool = False, progress: TextIO | bool | None = True) -> Path:
    """Train from the potential that ``model.from`` names; arguments, result and errors as ``equipot.training.train``, for an
    ensemble as ``train_ensemble``."""
    return (train if config.ensemble is None else train_ensemble)(config, out, resume, progress, from_base)
