"""Files of an earlier version are read with the same numbers: those in ``data_files``, which that version wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest

import equipot
from equipot import config
from equipot.training import TrainConfig, checkpoint, train

FOLDER = Path(__file__).parent / "data_files" / "format1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
POTENTIALS = [(name, head) for name, heads in EXPECTED["potentials"].items() for head in heads]


def assert_predicts(file, expected, accuracy):
    """Energies (eV) and forces (eV/Å) in double precision."""
    potential = equipot.load(file, "float64")
    for atoms, known in zip(ase.io.read(FOLDER / "train.xyz", f":{len(expected)}"), expected, strict=True):
        found = equipot.evaluate(potential, atoms, ("energy", "forces"))
        assert found.energy[0] == pytest.approx(known["energy"], abs=accuracy)
        np.testing.assert_allclose(found.forces, known["forces"], rtol=0, atol=accuracy)


@pytest.mark.parametrize("name, head", POTENTIALS, ids="@".join)
def test_a_potential_says_what_it_said(name, head, double_precision):
    file = FOLDER / f"{name}.eqp"
    assert_predicts(f"{file}@{head}" if head else file, EXPECTED["potentials"][name][head], 1e-10)


def test_a_file_that_is_written_again_is_of_the_present_format(tmp_path):
    potential = equipot.load(FOLDER / "mace-heads.eqp")
    equipot.save(potential, tmp_path / "again.eqp")
    again = equipot.load(tmp_path / "again.eqp")
    assert again.term == potential.term and again.metadata == potential.metadata and again.heads == ("low", "high")
    assert b'\\"format\\": 3' in (tmp_path / "again.eqp").read_bytes()


def with_defaults_of_then(settings):
    """Settings of a run with the defaults that an earlier version had, which its folder holds in config.yaml."""
    energy, muon = {"kind": "Huber", "schedule": "Constant"}, {"kind": "Muon", "learning_rate": 0.01}
    then = {"loss": {"energy": energy}, "optimizer": muon, "ema": 0.999, "refit": False}
    return {**settings, "training": then | settings["training"]}


@pytest.mark.parametrize("name, head", [("run", ""), ("run-heads", "low")])
def test_a_run_goes_on(name, head, tmp_path, double_precision, monkeypatch):
    """To the potential that the earlier version would have made of it."""
    known = EXPECTED["runs"][name]
    shutil.copytree(FOLDER / name, tmp_path / "run")
    monkeypatch.chdir(FOLDER)
    best = train(
        config.build(TrainConfig, with_defaults_of_then(known["settings"])), tmp_path / "run", resume=True, progress=None
    )
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found.record["cursor"]["epoch"] == 3 and not found.earlier
    assert_predicts(f"{best}@{head}" if head else best, known["predictions"], 1e-8)


def test_a_run_of_other_settings_does_not_go_on(tmp_path, double_precision, monkeypatch):
    settings = with_defaults_of_then(EXPECTED["runs"]["run"]["settings"])
    changed = {**settings, "model": {**settings["model"], "channels": 3}}
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    monkeypatch.chdir(FOLDER)
    with pytest.raises(ValueError, match=r"cannot be resumed, because this changed: model.channels: 2 -> 3. Start anew"):
        train(config.build(TrainConfig, changed), tmp_path / "run", resume=True, progress=None)
