"""Fitting a potential to reference data, and measuring how well it does.

>>> from equipot import config
>>> from equipot.training import TrainConfig, train
>>> best = train(config.load("configs/quickstart.yaml", TrainConfig), "runs/quickstart")
"""

from equipot.training.config import FineTune, TrainConfig
from equipot.training.evaluate import evaluate_set
from equipot.training.run import train

__all__ = ["FineTune", "TrainConfig", "evaluate_set", "train"]
