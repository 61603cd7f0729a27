"""Ensembles: members that differ, a committee that is calibrated on frames that none of them saw, and going on after a stop."""

from __future__ import annotations

import dataclasses
import json
import shutil

import ase.io
import numpy as np
import pytest
import tiny
from test_uncertainty import NETWORK, settings

import equipot
from equipot import cli, config
from equipot.finetune import fine_tune
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.training import TrainConfig, train, train_ensemble
from equipot.training.ensemble import is_complete, member_config

OTHER = NequIP(cutoff=3.5, channels=3, l_max=1, layers=1, radial=Radial(mlp=(4,)))


def made(path, **ensemble):
    found = settings(path, tiny.structures(30, 0, (4, 4)), ensemble=ensemble)
    del found["training"]["uncertainty"]
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    given = config.build(TrainConfig, made(folder / "frames.xyz", members=3, bootstrap=True, models=[config.dump(OTHER)]))
    return folder, given, train_ensemble(given, folder / "run", progress=None)


def test_members_differ_and_the_committee_is_calibrated(run):
    folder, given, best = run
    potential = equipot.load(best)
    assert [type(term).__name__ for term in potential.term.terms] == ["MACE", "NequIP", "MACE"]
    assert potential.posterior.calibrations["forces_std"].frames[1] == 10
    frames = ase.io.read(folder / "frames.xyz", ":")
    apart = [equipot.evaluate(equipot.load(folder / "run" / f"member-{k}" / "best.eqp"), frames[0]).energy for k in range(3)]
    assert len({float(np.round(energy[0], 6)) for energy in apart}) == 3
    out = equipot.evaluate(potential, frames[0], want=("energy", "energy_std"))
    assert out.energy[0] == pytest.approx(np.mean(apart), abs=1e-5) and out.others["energy_std"][0] > 0
    tables = json.loads((folder / "run" / "errors.json").read_text())
    assert tables["validation"]["forces_mae"] > 0 and (folder / "run" / "report.md").exists()


def test_all_members_have_one_validation_set_and_their_own_frames(run):
    _, given, _ = run
    from equipot.data.read import load_sets

    sets = [load_sets(member_config(given, k).data, member_config(given, k).seed) for k in range(3)]
    positions = lambda frames: [frame.positions.tolist() for frame in frames]
    assert all(positions(s.valid) == positions(sets[0].valid) for s in sets)
    assert all(len(s.train) == 20 for s in sets) and positions(sets[0].train) != positions(sets[2].train)
    held = positions(sets[0].valid)
    assert not any(frame in held for s in sets for frame in positions(s.train))
    distinct = [len({str(p) for p in positions(s.train)}) for s in sets]
    # Of n frames drawn n times, 1 - 1/e are there.
    assert 9 <= np.mean(distinct) <= 16


def test_an_ensemble_goes_on_where_it_stopped(run, tmp_path):
    folder, given, best = run
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "member-2")
    for name in ("best.eqp", "report.md"):
        (tmp_path / "run" / name).unlink()
    again = train_ensemble(given, tmp_path / "run", resume=True, progress=None)
    frames = ase.io.read(folder / "frames.xyz", ":5")
    want = ("energy", "forces_std")
    one, two = (equipot.evaluate(equipot.load(path), frames, want=want) for path in (best, again))
    np.testing.assert_array_equal(one.energy, two.energy)
    np.testing.assert_array_equal(one.others["forces_std"], two.others["forces_std"])
    with pytest.raises(ValueError, match="holds an ensemble already"):
        train_ensemble(given, tmp_path / "run", progress=None)


def test_members_that_a_time_limit_left_untrained_go_on(run, tmp_path):
    folder, given, _ = run
    limited = lambda minutes: dataclasses.replace(given, training=dataclasses.replace(given.training, max_minutes=minutes))
    with pytest.raises(ValueError, match="member 1 was stopped by training.max_minutes"):
        train_ensemble(limited(1e-9), tmp_path / "run", progress=None)
    assert not is_complete(tmp_path / "run" / "member-0")
    train_ensemble(limited(None), tmp_path / "run", resume=True, progress=None)
    assert all(is_complete(tmp_path / "run" / f"member-{k}") for k in range(3))


def test_the_command_joins_potentials(run, capsys):
    folder, _, _ = run
    members = [str(folder / "run" / f"member-{k}" / "best.eqp") for k in range(3)]
    frames = str(folder / "frames.xyz")
    command = ["uncertainty", members[0], "--committee", *members[1:], "--data", frames, "--calibrate", frames]
    assert cli.main([*command, "--test", frames, "-o", str(folder / "joined.eqp"), "--out", str(folder / "told")]) == 0
    assert "Spread" in capsys.readouterr().out
    assert equipot.load(folder / "joined.eqp").term.copies == 3


def test_what_cannot_be_an_ensemble_is_refused(run, tmp_path):
    folder, given, best = run
    with pytest.raises(ValueError, match="train_ensemble"):
        train(given, tmp_path, progress=None)
    alone = dataclasses.replace(given, ensemble=None)
    with pytest.raises(ValueError, match="holds an ensemble"):
        train(alone, folder / "run", resume=True, progress=None)
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "config.yaml").write_text(config.to_yaml(alone))
    with pytest.raises(ValueError, match="holds a run of a single potential"):
        train_ensemble(given, tmp_path / "single", resume=True, progress=None)
    longer = dataclasses.replace(given, training=dataclasses.replace(given.training, epochs=3))
    with pytest.raises(ValueError, match="this changed: training.epochs: 2 -> 3"):
        train_ensemble(longer, folder / "run", resume=True, progress=None)
    tuned = settings(tmp_path / "tuned.xyz", tiny.structures(30, 0, (4, 4)), model={"from": str(best)})
    with pytest.raises(ValueError, match="is a committee, and training the mean"):
        fine_tune(config.build(TrainConfig, tuned), tmp_path / "tuned", progress=None)
    committee = {"kind": "Committee", "terms": [config.dump(NETWORK)] * 2}
    cases = {
        "members 1 must be at least 2": {"ensemble": {"members": 1}},
        "raise members": {"ensemble": {"members": 2, "models": [config.dump(OTHER)] * 2}},
        "are trained apart": {"model": committee},
        "POPS is for a single network": {"training": {"uncertainty": {"method": "POPS"}}},
        "samples are drawn afterwards": {"training": {"uncertainty": {"sampler": "SWAG"}}},
        "Spread is for an ensemble": {"training": {"uncertainty": {"method": "Spread"}}, "ensemble": None},
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message):
            config.build(TrainConfig, made(tmp_path / "frames.xyz", members=2) | changes)
