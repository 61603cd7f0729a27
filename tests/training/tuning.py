"""What tests of fine-tuning share."""

import ase.io

from equipot import config, eqp
from equipot.finetune import fine_tune
from equipot.training import TrainConfig
from equipot.training.errors import predict

SHIFTS = {1: 3.25, 8: -41.5}
"""E0 of another level of theory less those of the base, eV."""


def write(path, frames):
    ase.io.write(path, [s.to_ase() for s in frames])
    return str(path)


def tune(out, base, data, model=None, training=None, resume=False, progress=None, **rest):
    """A fine-tuning of the base, by the keys of a config."""
    settings = {
        "optimizer": {"kind": "Muon", "learning_rate": 5e-3},
        "epochs": 2,
        "batch_size": 4,
        "ema": 0.9,
        "checkpoint": {"seconds": 0},
        **(training or {}),
    }
    whole = {"data": data, "model": {"from": str(base), **(model or {})}, "training": settings, **rest}
    return fine_tune(config.build(TrainConfig, whole), out, resume, progress)


def shifted(frames, shifts=SHIFTS):
    return [s.replace(energy=s.energy + sum(shifts[z] for z in s.numbers)) for s in frames]


def labelled(potential, frames):
    """The frames with labels of a potential."""
    return predict(eqp.load(potential), frames)
