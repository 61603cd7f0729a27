"""Optimisers, schedules and penalties of anybody's: defined here alone, named in a config, trained with as they are."""

import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from equipot import config, eqp
from equipot.config import ConfigError
from equipot.training import checkpoint
from equipot.training.config import TrainConfig, TrainingConfig
from equipot.training.descent import Descent
from equipot.training.loss import MSE, Huber, Penalty, Switch
from equipot.training.optimizer import AdamW, Optimizer
from equipot.training.schedule import Cosine, Flat, Schedule

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Stochastic gradient descent, which has no epsilon and no decay."""

    learning_rate: float = 0.01
    decay: float = 0.9

    def transformation(self, rate):
        return optax.sgd(rate, self.decay)


@dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """Defazio et al., arXiv:2405.15682: the average is the optimiser's own."""

    learning_rate: float = 0.02
    b1: float = 0.9

    def transformation(self, rate):
        return optax.contrib.schedule_free(optax.adam(rate, b1=0.0), rate, b1=self.b1)

    def average(self, average, params, state, decay, step):
        return optax.contrib.schedule_free_eval_params(state, params)


@dataclass(frozen=True)
class Backtracking(Optimizer):
    """Steepest descent whose step is found by the loss at other parameters."""

    learning_rate: float = 1.0

    def transformation(self, rate):
        search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=20, store_grad=True)
        return optax.chain(optax.scale(-rate), search)


@dataclass(frozen=True)
class QuasiNewton(Optimizer):
    """L-BFGS, whose line search takes the gradient of the loss at other parameters."""

    learning_rate: float = 1.0

    def transformation(self, rate):
        return optax.lbfgs(rate, memory_size=4)


@dataclass(frozen=True)
class OnPlateau(Optimizer):
    """Adam whose rate falls with the training loss."""

    learning_rate: float = 1e-2

    def transformation(self, rate):
        return optax.chain(optax.adam(rate), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))


@dataclass(frozen=True)
class Halved(Schedule):
    """Half of the rate after every validation without improvement."""

    follows_validation: ClassVar[bool] = True

    def __call__(self, step, steps):
        return jnp.ones(())

    def after_validation(self, factor, wait):
        return factor / 2, 0


@dataclass(frozen=True)
class PseudoHuber(Penalty):
    """((1 + x^2)^(p/2) - 1) 2/p: x^2 where p = 2."""

    power: float = 1.0

    def rho(self, square):
        return ((1 + square) ** (self.power / 2) - 1) * 2 / self.power


CHOICES = [Momentum, ScheduleFree, Backtracking, QuasiNewton, OnPlateau]


EVEN = {"kind": "Huber", "schedule": "Constant"}
"""A penalty on the energy whose weight does not change, so that losses of all epochs compare."""


def losses_of(folder):
    """Training loss of each epoch of a run."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_end(one, other):
    """The last checkpoints of two runs hold the same bits."""
    one, other = (checkpoint.newest(folder / "checkpoints").arrays for folder in (one, other))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)


def run(out, cls, resume=False, **changes):
    kind = {"kind": f"{cls.__module__}:{cls.__name__}"}
    return tiny.run(out, {"optimizer": kind, "schedule": "Flat", "epochs": 4, "loss": {"energy": EVEN}, **changes}, resume)


@pytest.mark.parametrize("cls", CHOICES)
def test_it_trains_and_resumes_bit_for_bit(cls, tmp_path):
    best = run(tmp_path / "whole", cls)
    losses = losses_of(tmp_path / "whole")
    assert losses[-1] < losses[0]
    run(tmp_path / "broken", cls, max_minutes=1e-9)
    run(tmp_path / "broken", cls, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "broken")
    assert eqp.load(best).elements == (1, 8)


@pytest.mark.parametrize("quantities", [("energy", "forces", "stress"), ("forces",)], ids=",".join)
def test_a_penalty_of_ones_own_trains_and_resumes_bit_for_bit(quantities, tmp_path):
    """With p = 2 it is the squared error, all along; with p = 1 it is smaller."""

    def fit(name, penalty, resume=False, **changes):
        loss = {"energy": EVEN, **dict.fromkeys(quantities, penalty)}
        tiny.run(tmp_path / name, {"loss": loss, "epochs": 3, **changes}, resume)
        return tmp_path / name

    kind = f"{__name__}:PseudoHuber"
    runs = fit("mse", "MSE"), fit("same", {"kind": kind, "power": 2}), fit("whole", kind)
    squared, same, less = map(losses_of, runs)
    np.testing.assert_allclose(same, squared, rtol=1e-4)
    assert 0 < less[-1] < less[0] < 0.99 * squared[0]
    fit("broken", kind, max_minutes=1e-9)
    fit("broken", kind, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "broken")
    written = config.load(tmp_path / "whole" / "config.yaml", TrainConfig).training.loss
    assert written == {name: PseudoHuber() if name in quantities else Huber() for name in ("energy", "forces", "stress")}


def minimum(optimizer, params, loss, steps, decay=0.0):
    """Parameters and average after some steps on a loss, each told of the loss as the training step tells it."""
    rule = Descent(optimizer, Flat(0.0), steps, decay=decay)

    def step(carry, k):
        params, state, average = carry
        value, gradient = jax.value_and_grad(loss)(params)
        params, state = rule.move(gradient, state, params, rule.rate(k), value=value, grad=gradient, value_fn=loss)
        return (params, state, rule.average(average, params, state, k)), None

    begin = (params, rule.init(params), params)
    return jax.lax.scan(step, begin, jnp.arange(steps))[0]


def quadratic(params):
    return jnp.sum(jnp.array([1.0, 10.0]) * (params["x"] - jnp.array([1.0, -2.0])) ** 2)


@pytest.mark.parametrize("cls", [Backtracking, QuasiNewton])
def test_a_line_search_finds_the_minimum_that_a_fixed_step_misses(cls):
    start = {"x": jnp.zeros(2)}
    np.testing.assert_allclose(minimum(cls(), start, quadratic, 60)[0]["x"], [1, -2], atol=1e-3)
    fixed = minimum(Momentum(learning_rate=1.0, decay=0.0), start, quadratic, 60)[0]["x"]
    assert not np.all(np.abs(fixed - np.array([1, -2])) < 1)


def test_what_is_saved_is_the_optimisers_own_average():
    start = {"x": jnp.zeros(2)}
    rule = ScheduleFree(0.1)
    params, state, average = minimum(rule, start, quadratic, 50)
    (inner,) = [s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "z")) if hasattr(s, "z")]
    np.testing.assert_allclose(average["x"], (params["x"] - (1 - rule.b1) * inner.z["x"]) / rule.b1, rtol=1e-6)
    assert np.abs(average["x"] - params["x"]).max() > 1e-6


def test_the_loss_that_a_line_search_sees_is_that_of_the_whole_batch(tmp_path):
    """After a step along the gradient, the loss at the new parameters is no higher than before, on two batches alike."""
    run(tmp_path / "run", Backtracking, epochs=1, batch_size=12, clip=None, ema=None)
    stored = checkpoint.newest(tmp_path / "run" / "checkpoints").arrays
    values = [value for name, value in stored.items() if name.endswith(".value")]
    assert len(values) == 1
    run(tmp_path / "run2", Backtracking, epochs=2, batch_size=12, clip=None, ema=None)
    np.testing.assert_allclose(values[0], losses_of(tmp_path / "run2")[1], rtol=1e-5)


def test_factors_of_rates_do_not_go_with_an_average_of_its_own():
    with pytest.raises(ValueError, match=r"model\.rates cannot be used with ScheduleFree"):
        Descent(ScheduleFree(), Flat(), 10, factors={"x": 0.5})
    Descent(Momentum(), Flat(), 10, factors={"x": 0.5})


def test_a_schedule_of_ones_own_acts_after_validations(tmp_path):
    schedule = {"kind": f"{__name__}:Halved"}
    tiny.run(tmp_path / "run", {"schedule": schedule, "optimizer": {"kind": "AdamW", "learning_rate": 1e-30}, "ema": None})
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rates = [float(line.split('"learning_rate": ')[1].split(",")[0]) for line in rows]
    assert rates[0] == pytest.approx(1e-30) and rates[-1] <= 0.25e-30


def test_a_config_says_what_it_got_and_refuses_what_is_no_choice():
    settings = config.build(TrainingConfig, {"optimizer": {"kind": f"{__name__}:Momentum", "decay": 0.5}})
    assert settings.optimizer == Momentum(decay=0.5)
    written = config.dump(settings)
    assert written["optimizer"] == {"kind": f"{__name__}:Momentum", "learning_rate": 0.01, "decay": 0.5}
    assert config.build(TrainingConfig, written) == settings
    assert config.build(TrainingConfig, {"optimizer": "AdamW", "schedule": "Cosine"}).optimizer == AdamW()
    assert config.build(TrainingConfig, {"schedule": {"final": 0.5}}).schedule == Cosine(final=0.5)
    with pytest.raises(ConfigError, match=r"optimizer.*AdmW.*did you mean `AdamW`"):
        config.build(TrainingConfig, {"optimizer": "AdmW"})
    with pytest.raises(ConfigError, match="is not a Optimizer"):
        config.build(TrainingConfig, {"optimizer": f"{__name__}:Halved"})


def test_a_config_of_penalties_is_read_written_and_refused():
    loss = {"energy": {"weight": 2.0}, "forces": {"kind": f"{__name__}:PseudoHuber", "scale": 0.3}, "stress": "MSE"}
    loss["energy"]["schedule"] = {"at": 0.5, "kind": "Switch"}
    loss |= {"dipole": {"kind": f"{__name__}:PseudoHuber"}, "charges": {"delta": 2.0}}
    settings = config.build(TrainingConfig, {"loss": loss})
    read = {"energy": Huber(2.0, schedule=Switch(0.5)), "forces": PseudoHuber(scale=0.3), "stress": MSE()}
    read |= {"dipole": PseudoHuber(), "charges": Huber(delta=2.0)}
    assert settings.loss == read
    written = config.dump(settings)
    kinds = {name: section["kind"] for name, section in written["loss"].items()}
    own = f"{__name__}:PseudoHuber"
    assert kinds == {"energy": "Huber", "forces": own, "stress": "MSE", "dipole": own, "charges": "Huber"}
    assert config.build(TrainingConfig, written) == settings
    with pytest.raises(ConfigError, match=r"loss.forces.kind: no such kind 'Hubber'; did you mean `Huber`"):
        config.build(TrainingConfig, {"loss": {"forces": "Hubber"}})
    with pytest.raises(ConfigError, match="is not a Penalty"):
        config.build(TrainingConfig, {"loss": {"forces": f"{__name__}:Momentum"}})
    with pytest.raises(ConfigError, match=r"loss.forces: scale -1.0 must be positive"):
        config.build(TrainingConfig, {"loss": {"forces": {"kind": f"{__name__}:PseudoHuber", "scale": -1.0}}})
