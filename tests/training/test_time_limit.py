"""Runs of a given time: the schedule ends with the time, neither before nor after, whatever the speed of the steps."""

import json
import time

import numpy as np
import pytest
import tiny
import yaml

from equipot.training import checkpoint
from equipot.training.progress import ESTIMATE_AFTER, Watch

pytestmark = pytest.mark.usefixtures("no_plots")


class Clock:
    """A clock that moves on by a given time whenever somebody looks at it."""

    def __init__(self, tick):
        self.now, self.tick = 1000.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


SPEEDS = {"even": lambda k: 1.0, "slower": lambda k: 1.0 + (k > 300), "faster": lambda k: 2.0 - (k > 300)}


@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS)
def test_schedule_ends_with_the_time(monkeypatch, speed):
    clock = Clock(0.0)
    monkeypatch.setattr(time, "monotonic", clock)
    watch = Watch(60.0, 10.0, clock.now)
    steps, position, advance, places = 2**20, 0.0, 50.0, []
    while position < steps:
        places.append(position)
        clock.now += speed(len(places))
        watch.steps.append(speed(len(places)))
        position += advance
        advance = watch.advance(steps - position, 10) or advance
        assert watch.stop() is None
    assert clock.now - 1000 == pytest.approx(600, abs=2.1)
    assert all(b > a for a, b in zip(places, places[1:], strict=False))


def test_time_is_not_known_before_steps_are_timed(monkeypatch):
    clock = Clock(0.0)
    monkeypatch.setattr(time, "monotonic", clock)
    watch = Watch(60.0, 1.0, clock.now)
    watch.steps += [0.1] * (ESTIMATE_AFTER - 1)
    assert watch.advance(100.0, 10) is None
    clock.now += 61
    assert watch.stop() == "time limit"
    watch.steps.append(0.1)
    assert watch.stop() is None and watch.advance(100.0, 10) == 100.0


def test_steps_beside_a_compilation_count_where_there_are_too_few_others(monkeypatch):
    """Programs for other shapes may compile longer than the whole time limit: the schedule still ends with it."""
    clock = Clock(0.0)
    monkeypatch.setattr(time, "monotonic", clock)
    watch = Watch(60.0, 1.0, clock.now)
    watch.hindered += [0.2] * ESTIMATE_AFTER
    clock.now += 14
    assert watch.advance(460.0, 10) is None
    clock.now += 2
    assert watch.advance(440.0, 10) == pytest.approx(2.0)
    watch.steps += [0.1] * ESTIMATE_AFTER
    assert watch.advance(440.0, 10) == pytest.approx(1.0)
    del watch.steps[:]
    clock.now += 50
    assert watch.stop() is None and watch.advance(7.0, 10) == 7.0


def test_an_epoch_of_one_step_is_timed(tmp_path, monkeypatch):
    """Few frames: the learning rate comes to its end with the time, too."""
    monkeypatch.setattr(time, "monotonic", Clock(0.01))
    train = tiny.structures(4, 1)
    tiny.run(
        tmp_path / "run", {"epochs": 10_000, "max_minutes": 0.5, "schedule": {"kind": "Cosine", "final": 0.02}}, train=train
    )
    assert "- end: finished" in (tmp_path / "run" / "report.md").read_text()
    found = rows(tmp_path / "run")
    assert found[0]["step"] == 1 and found[-1]["elapsed"] == pytest.approx(30, rel=0.1)
    assert found[-1]["learning_rate"] < 0.05 * max(row["learning_rate"] for row in found)


def test_resumed_run_has_what_is_left_of_its_time(monkeypatch):
    clock = Clock(0.0)
    monkeypatch.setattr(time, "monotonic", clock)
    watch = Watch(60.0, 1.0, clock.now)
    watch.resume(45.0, 0.0)
    watch.steps += [0.1] * ESTIMATE_AFTER
    assert watch.advance(300.0, 10) == pytest.approx(2.0) and watch.step_seconds == 0.1
    # Steps were timed before, so that the first one knows its pace; and a run that comes too late does not jump to its end.
    watch = Watch(60.0, 1.0, clock.now)
    watch.resume(59.0, 0.1)
    assert watch.stop() is None and watch.advance(300.0, 10) == pytest.approx(30.0)
    clock.now += 2
    assert watch.stop() == "time limit"


def test_run_of_a_given_time_takes_as_many_epochs_as_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", Clock(0.01))
    final = 0.02
    settings = {"epochs": 10_000, "max_minutes": 0.5, "schedule": {"kind": "Cosine", "final": final}}
    tiny.run(tmp_path / "run", settings)
    found = rows(tmp_path / "run")
    assert len(found) > 5
    rates = np.array([row["learning_rate"] for row in found])
    # It rises slowly until steps are timed, and then falls to the end.
    assert np.all(np.diff(rates[rates.argmax() :]) < 0) and rates[-1] == pytest.approx(final * rates.max(), rel=0.1)
    # The clock moves on while the run looks at it, so that the end is met to a few steps.
    assert found[-1]["elapsed"] == pytest.approx(30, rel=0.1)
    text = (tmp_path / "run" / "report.md").read_text()
    assert "- end: finished" in text
    held = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert held.record["cursor"]["position"] >= 10_000 * 3
    assert "valid_loss" in found[-1]


def test_epochs_that_fit_are_not_stretched(tmp_path, monkeypatch):
    tiny.run(tmp_path / "free", {"epochs": 4, "max_minutes": None})
    monkeypatch.setattr(time, "monotonic", Clock(0.001))
    tiny.run(tmp_path / "limited", {"epochs": 4, "max_minutes": 60})
    bare = lambda row: {key: value for key, value in row.items() if key != "elapsed"}
    assert list(map(bare, rows(tmp_path / "limited"))) == list(map(bare, rows(tmp_path / "free")))


def test_a_limit_may_be_added_and_taken_away_where_the_number_of_epochs_is_left_open(tmp_path):
    def found(**changes):
        tiny.run(tmp_path / "run", {"epochs": None, "batch_size": None, **changes}, resume="max_minutes" in changes)
        return yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["epochs"]

    first = found()
    assert found(max_minutes=5.0) == found(max_minutes=None) == first > 10
