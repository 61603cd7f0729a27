"""The training step as JAX sees it: its state is donated, it compiles once for each shape, batches wait on the device."""

import logging
import threading
from concurrent.futures import Future

import jax
import pytest
import tiny

from equipot.data.loader import Loader
from equipot.training.step import CompiledStep, shape_of

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def compilations(caplog):
    """Function of the name of a function: records of its compilations, in all threads."""
    jax.clear_caches()
    before = jax.config.jax_log_compiles
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING):
            yield lambda name: [r for r in caplog.records if f"Finished XLA compilation of jit({name})" in r.getMessage()]
    finally:
        jax.config.update("jax_log_compiles", before)


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


def test_a_step_whose_compilation_ahead_was_cancelled_compiles_where_it_is_taken(steps, tmp_path):
    """So that a finished run can still validate after its pool of threads was shut down."""
    tiny.run(tmp_path / "run", {"epochs": 1})
    _, batch = steps[0]
    ahead = Future()
    ahead.cancel()
    step = CompiledStep(lambda state, variables, batch: state + variables, 2)
    step.ahead[shape_of(batch)] = ahead
    assert step(1, batch) == 3


def test_batches_are_built_ahead_and_wait_on_the_device(steps, tmp_path, monkeypatch):
    threads, original = [], Loader.build
    noted = lambda self, *given, **named: (threads.append(threading.current_thread()), original(self, *given, **named))[1]
    monkeypatch.setattr(Loader, "build", noted)
    tiny.run(tmp_path / "run", {"epochs": 1})
    # Besides one batch for each of the two steps, whose need of memory is asked first.
    assert threads.count(threading.main_thread()) == 2 and len(threads) >= 5
    for _, batch in steps:
        assert all(isinstance(leaf, jax.Array) and leaf.committed for leaf in jax.tree.leaves(batch))


def test_a_shape_is_compiled_once_and_the_user_is_told(tmp_path, compilations, capsys):
    frames = [*tiny.structures(8, 0, (2, 2)), *tiny.structures(8, 1, (5, 5))]
    tiny.run(tmp_path / "run", {"epochs": 3, "batch_size": 1}, train=frames, progress=True)
    count, said = len(compilations("train_step")), capsys.readouterr().out
    assert count >= 2
    assert f"compilations of the training step: {count}, " in said and " of pairs)" in said
    assert f"compilations of the training step: {count}\n" in (tmp_path / "run" / "report.md").read_text()


def test_unequal_frames_train_in_one_shape_and_validation_is_compiled_meanwhile(tmp_path, compilations):
    tiny.run(tmp_path / "run", {"epochs": 4, "devices": 1}, train=tiny.structures(40, 0, (2, 8)))
    assert len(compilations("train_step")) == 1
    assert threading.main_thread().name not in {record.threadName for record in compilations("valid_step")}
