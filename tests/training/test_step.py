"""The training step as JAX sees it: its state is donated, it compiles once for each shape, batches wait on the device."""

import logging
import threading

import jax
import pytest
import tiny

from equipot.data.loader import Loader
from equipot.training.step import CompiledStep

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def steps(monkeypatch):
    """What every training step was called with."""
    calls, original = [], CompiledStep.__call__

    def noted(self, state, batch, *factors):
        out = original(self, state, batch, *factors)
        if factors:
            calls.append((state, batch))
        return out

    monkeypatch.setattr(CompiledStep, "__call__", noted)
    return calls


def test_the_state_is_donated(steps, tmp_path):
    tiny.run(tmp_path / "run", {"epochs": 1})
    assert len(steps) == 3
    for state, _ in steps:
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.moments, state.ema)))


def test_batches_are_built_ahead_and_wait_on_the_device(steps, tmp_path, monkeypatch):
    threads, original = [], Loader.build
    noted = lambda self, *arguments: (threads.append(threading.current_thread()), original(self, *arguments))[1]
    monkeypatch.setattr(Loader, "build", noted)
    tiny.run(tmp_path / "run", {"epochs": 1})
    # Besides one batch for each of the two steps, whose need of memory is asked first.
    assert threads.count(threading.main_thread()) == 2 and len(threads) >= 5
    for _, batch in steps:
        assert all(isinstance(leaf, jax.Array) and leaf.committed for leaf in jax.tree.leaves(batch))


def test_a_shape_is_compiled_once_and_the_user_is_told(tmp_path, caplog, capsys):
    frames = [*tiny.structures(8, 0, (2, 2)), *tiny.structures(8, 1, (5, 5))]
    jax.clear_caches()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        tiny.run(tmp_path / "run", {"epochs": 3, "batch_size": 1}, train=frames, progress=True)
    compiled = [r for r in caplog.records if "Finished XLA compilation of jit(train_step)" in r.getMessage()]
    count, said = len(compiled), capsys.readouterr().out
    assert count >= 2
    assert f"compilations of the training step: {count}, " in said and " of pairs)" in said
    assert f"compilations of the training step: {count}\n" in (tmp_path / "run" / "report.md").read_text()


def test_unequal_frames_train_in_one_shape_and_validation_is_compiled_meanwhile(tmp_path, caplog):
    frames = tiny.structures(40, 0, (2, 8))
    jax.clear_caches()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        tiny.run(tmp_path / "run", {"epochs": 4, "batch_size": 4}, train=frames)
    compiled = lambda name: [r for r in caplog.records if f"Finished XLA compilation of jit({name})" in r.getMessage()]
    assert len(compiled("train_step")) == 1
    assert [record.threadName != threading.main_thread().name for record in compiled("valid_step")] == [True]
