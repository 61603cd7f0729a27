"""Choice between the potential with the lowest validation loss and that of the last step."""

import itertools
import json

import numpy as np
import pytest
import tiny
from tuning import labelled, tune, write

import equipot
from equipot import eqp
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.training import closing, loop
from equipot.training.errors import predict
from equipot.training.loss import MSE, Huber, Loss
from equipot.training.selection import frame_losses, is_better

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")


def test_shares_of_frames_add_up_to_the_validation_loss(tmp_path):
    out = tmp_path / "run"
    best = tiny.run(out, {"epochs": 1, "loss": {"stress": {"kind": "MSE", "weight": 3}}})
    (row,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    frames = tiny.dataset().valid
    found = frame_losses(Loss({"stress": MSE(weight=3)}), (ENERGY, FORCES, STRESS), frames, predict(eqp.load(best), frames))
    assert len(found) == 4 and (found > 0).all()
    np.testing.assert_allclose(found.sum(), row["valid_loss"], rtol=1e-4)


def test_weights_of_frames_and_labels_that_some_lack_count_as_in_the_loss():
    frames = tiny.structures(3, 2, (4, 4))
    off = [s.replace(energy=s.energy + 0.4) for s in frames]
    heavy = [frames[0].replace(weight=2.0), frames[1], frames[2].replace(energy=None)]
    found = frame_losses(Loss({"energy": Huber(scale=0.01)}), (ENERGY,), heavy, off)
    # 0.1 eV/atom is x = 10, and rho = 2 x - 1 = 19; the mean is over the two frames with a label.
    np.testing.assert_allclose(found, [2 * 19 / 2, 19 / 2, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "earlier, last, better",
    [
        ([1.0, 0.1, 0.1], [1.8, 0.08, 0.11], False),  # One frame decides.
        ([1.0, 0.5, 0.2], [3.0, 2.0, 0.9], True),  # All agree.
        ([1.0, 0.5, 0.2], [0.9, 0.4, 0.1], False),
        ([1.0] * 40, [1.2, 1.1] * 20, True),  # Many agree on a little.
        ([1.0] * 5, [1.2, 1.1] * 2 + [1.15], False),
        ([1.0], [9.0], False),
        ([1.0], [11.0], True),
        ([1.0, 0.0], [11.0, 0.0], True),  # A frame without labels.
        ([0.0], [0.0], False),
    ],
)
def test_what_most_frames_agree_on_is_no_chance(earlier, last, better):
    assert is_better(np.array(earlier), np.array(last)) == better


def test_the_test_errs_as_often_as_it_says():
    rng = np.random.default_rng(0)
    losses = lambda: np.exp(0.5 / 2**0.5 * rng.normal(size=(2, 6)))
    wrong = [is_better(*losses()) for _ in range(3000)]
    assert 0.002 < np.mean(wrong) < 0.015


def rising(run, params, validation):
    """A validation whose loss rises from epoch to epoch."""
    _, errors = VALIDATE(run, params, validation)
    return float(next(COUNT)), errors


VALIDATE, COUNT = loop.validate, itertools.count(1)


@pytest.mark.parametrize("better", [False, True])
def test_the_last_potential_is_kept_unless_the_frames_say_otherwise(tmp_path, monkeypatch, capsys, better):
    one, two, changes = tmp_path / "one", tmp_path / "two", {"epochs": 3, "refit": False}
    last = eqp.load(tiny.run(two, {**changes, "validate_every": 3}))
    monkeypatch.setattr(loop, "validate", rising)
    monkeypatch.setattr(closing, "is_better", lambda *_: better)
    best = tiny.run(one, changes, progress=True)
    assert ("the potential of the last step is kept: 4 validation frame(s)" in capsys.readouterr().out) == (not better)
    frames = tiny.dataset().valid
    energies = lambda potential: [x.energy for x in equipot.evaluate_each(potential, frames)]
    assert np.array_equal(energies(eqp.load(best)), energies(last)) == (not better)
    content = best.read_bytes()
    tiny.run(one, changes, resume=True)
    assert best.read_bytes() == content


def test_a_tuned_run_keeps_its_last_potential(tmp_path, monkeypatch):
    """As with three validation frames, of which one alone speaks for the first epoch."""
    base = tiny.run(tmp_path / "base", {"epochs": 2})
    frames = labelled(base, tiny.structures(12, 4, (4, 4)))
    data = {"train": write(tmp_path / "new.xyz", frames[:8]), "valid": write(tmp_path / "valid.xyz", frames[8:])}
    monkeypatch.setattr(loop, "validate", rising)
    monkeypatch.setattr(closing, "is_better", lambda *_: False)
    best = eqp.load(tune(tmp_path / "run", base, data, training={"epochs": 3}))
    monkeypatch.undo()
    other = eqp.load(tune(tmp_path / "other", base, data, training={"epochs": 3, "validate_every": 3}))
    energies = [[x.energy for x in equipot.evaluate_each(potential, frames)] for potential in (best, other)]
    np.testing.assert_array_equal(*energies)


def test_a_rate_that_does_not_fall_keeps_the_best(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "validate", rising)
    tiny.run(tmp_path / "run", {"epochs": 3, "schedule": "Flat"}, progress=True)
    assert "the last step is kept" not in capsys.readouterr().out
