"""A run that does not fit into memory says so before its first step, with what would fit."""

import re

import numpy as np
import pytest
import tiny

from equipot import memory
from equipot.training.from_scratch import EXAMPLE_PAIRS, EXAMPLES, example_frames

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")


def noted(monkeypatch):
    """Largest memory that a step of training and of validation compiled from now on needs, by the name of its batch size."""
    from equipot.training import memory as module

    sizes, original = {}, module.check_memory

    def check(key, *arguments):
        sizes[key] = max(sizes.get(key, 0), arguments[-1])
        return original(key, *arguments)

    monkeypatch.setattr(module, "check_memory", check)
    return sizes


def test_a_batch_that_does_not_fit_is_told_with_one_that_does(tmp_path, monkeypatch):
    needed = noted(monkeypatch)
    settings = {"epochs": 1, "batch_size": 12, "valid_batch_size": 1, "devices": 1}
    tiny.run(tmp_path / "all", settings)
    training, validation = needed["batch_size"], needed["valid_batch_size"]
    assert training > validation > 0
    room = max(int(0.6 * training), validation)
    monkeypatch.setattr(memory, "available", lambda device: room)
    complaint = r"training\.batch_size 12: a step of \d+ atoms .* are free; training\.batch_size: \d+ would fit"
    with pytest.raises(ValueError, match=complaint) as told:
        tiny.run(tmp_path / "small", settings)
    assert not (tmp_path / "small" / "metrics.jsonl").exists()
    fitting = int(re.search(r"batch_size: (\d+) would fit", str(told.value))[1])
    assert 1 <= fitting < 12
    tiny.run(tmp_path / "fits", {**settings, "batch_size": fitting})


def test_validation_is_looked_at_too(tmp_path, monkeypatch):
    settings = {"epochs": 1, "batch_size": 1, "valid_batch_size": 4, "devices": 1}
    monkeypatch.setattr(memory, "available", lambda device: 6_000)
    with pytest.raises(ValueError, match=r"not even a training\.batch_size of 1"):
        tiny.run(tmp_path / "run", settings)
    sizes = noted(monkeypatch)
    monkeypatch.setattr(memory, "available", lambda device: None)
    tiny.run(tmp_path / "unknown", settings)
    if sizes["valid_batch_size"] > sizes["batch_size"]:
        monkeypatch.setattr(memory, "available", lambda device: sizes["batch_size"])
        with pytest.raises(ValueError, match=r"training\.valid_batch_size 4"):
            tiny.run(tmp_path / "valid", settings)


def test_the_constants_of_a_network_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 0)
    complaint = r"cutoff \S+ Å: the constants of \w+ are computed from \d+ atoms with up to \d+ neighbours each, which needs"
    with pytest.raises(ValueError, match=complaint):
        tiny.run(tmp_path / "run", {"epochs": 1, "batch_size": 1, "devices": 1})
    assert not (tmp_path / "run").exists()


def test_few_frames_are_taken_for_constants_where_there_are_many_pairs():
    few, many, huge = np.full((30, 2), 50), np.full((30, 2), 600), np.full((3, 2), 10**5)
    assert len(example_frames(few)) == EXAMPLES
    assert example_frames(few)[-1] == 29
    assert 1 < len(example_frames(many)) < EXAMPLES
    assert len(example_frames(many)) * 600 * 600 <= EXAMPLE_PAIRS
    assert example_frames(huge) == [0]
