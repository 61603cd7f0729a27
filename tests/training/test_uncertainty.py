"""Training that ends with an estimate of the uncertainty of its result."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import tiny

import equipot
from equipot import config
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.training import TrainConfig, train
from equipot.uncertainty.calibration import compare

NETWORK = MACE(cutoff=3.5, channels=3, l_max=1, hidden_l=0, correlation=1, layers=1, radial=Radial(mlp=(4,)))


def settings(path, frames, **changes):
    ase.io.write(path, [frame.to_ase() for frame in frames])
    return {
        "data": {"train": str(path), "valid": 10, "atomic_energies": {"H": tiny.ENERGIES[1], "O": tiny.ENERGIES[8]}},
        "model": config.dump(NETWORK),
        "training": {"epochs": 2, "batch_size": 5, "uncertainty": {"method": {"kind": "LastLayer", "samples": 4}}},
    } | changes


def test_the_best_potential_has_calibrated_deviations(tmp_path):
    frames = tiny.structures(30, 0, (4, 4))
    made = settings(tmp_path / "frames.xyz", frames)
    best = train(config.build(TrainConfig, made), tmp_path / "run", progress=None)
    potential = equipot.load(best)
    assert potential.posterior.method.samples == 4 and potential.posterior.rests_on == "20 training frames"
    rows = [row for row in potential.deviations if row.deviation_of]
    # Of ten validation frames, three have a stress: too few.
    assert {row.name for row in rows} == {"energy_std", "forces_std"}
    assert potential.posterior.calibrations["energy_std"].frames == (10,)
    # Over all frames, a third of which calibrated them.
    for sample in compare(potential, frames, rows).values():
        assert 0.3 < np.sqrt(np.mean((sample.error / sample.raw) ** 2)) < 3
    again = train(config.build(TrainConfig, made), tmp_path / "run", resume=True, progress=None)
    assert equipot.load(again).posterior.statistics == potential.posterior.statistics


def test_what_cannot_be_calibrated_is_refused_before_training(tmp_path):
    few = settings(tmp_path / "frames.xyz", tiny.structures(12, 0, (4, 4)))
    few["data"]["valid"] = 3
    with pytest.raises(ValueError, match="calibrated on the validation frames, and there are 3"):
        train(config.build(TrainConfig, few), tmp_path / "few", progress=None)
    heads = settings(tmp_path / "frames.xyz", tiny.structures(12, 0, (4, 4)))
    heads["data"] = {"heads": {"a": heads["data"], "b": heads["data"]}}
    with pytest.raises(ValueError, match="for one level of theory"):
        config.build(TrainConfig, heads)
