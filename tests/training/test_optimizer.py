"""Learning rates, clipping, decay and the moving average."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from equipot.training.descent import Descent
from equipot.training.loop import add_validation
from equipot.training.optimizer import AdamW, AMSGrad, Muon, matrices, moving_average
from equipot.training.progress import Cursor
from equipot.training.schedule import Cosine, Exponential, Flat, Plateau


def descent(optimizer, clip=None, factors=None):
    return Descent(dataclasses.replace(optimizer, learning_rate=1.0), Flat(0.0), 100, clip, 0.0, factors)


def step_of(rule, gradient, params):
    """Change of the parameters in the first step at a learning rate of one, with the sign of the gradient, and the state."""
    new, state = rule.move(gradient, rule.init(params), params, 1.0)
    return jax.tree.map(jnp.subtract, params, new), state


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Cosine(warmup=0.1, final=0.02), {0: 0.1, 9: 1.0, 55: 0.51, 100: 0.02}),
        (Exponential(warmup=0.1, final=0.01), {4: 0.5, 10: 1.0, 55: 0.1, 100: 0.01}),
        (Flat(warmup=0.0), {0: 1.0, 99: 1.0}),
        (Plateau(warmup=0.2), {9: 0.5, 50: 1.0}),
    ],
)
def test_shapes_of_the_learning_rate(schedule, expected):
    for step, value in expected.items():
        np.testing.assert_allclose(schedule(step, 100), value, rtol=1e-5)


def test_plateau_lowers_the_rate_after_its_patience_and_not_below_its_end():
    schedule = Plateau(factor=0.5, patience=2, final=0.2)
    cursor, factors = Cursor(), []
    for loss in [1.0, 2, 2, 2, 2, 2, 2, 0.5, 2, 2, 2, 2]:
        cursor, improved = add_validation(schedule, cursor, loss)
        assert improved == (loss in (1.0, 0.5))
        factors.append(cursor.factor)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2]
    assert cursor.best == 0.5 and cursor.stale == 4


@pytest.mark.parametrize("optimizer", [rule(weight_decay=0.1) for rule in (AdamW, AMSGrad, Muon)])
def test_only_matrices_decay(optimizer):
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    direction, _ = step_of(descent(optimizer), {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}, params)
    np.testing.assert_allclose(direction["w"], 0.1, rtol=1e-6)
    np.testing.assert_array_equal(direction["b"], 0)


def test_muon_moves_every_direction_of_each_stacked_matrix_alike():
    key = jax.random.key(0)
    gradient = {"w": jax.random.normal(key, (3, 8, 4)) * jnp.array([[[0.1, 1.0, 3.0, 1.0]]]), "b": jnp.array([2.0, -3.0])}
    gradient["w"] = gradient["w"] * jnp.array([1.0, 1e-4, 0.0])[:, None, None]
    params = jax.tree.map(jnp.zeros_like, gradient)
    direction, _ = step_of(descent(Muon(weight_decay=0.0)), gradient, params)
    lengths = np.linalg.svd(direction["w"][:2], compute_uv=False)
    # An 8 x 4 matrix of equal singular values and root mean square one; five Newton-Schulz steps equalise them to about 30%.
    assert np.all(np.abs(lengths / np.sqrt(8) - 1) < 0.35), lengths
    np.testing.assert_array_equal(direction["w"][2], 0)
    assert float(jnp.vdot(direction["w"], gradient["w"])) > 0
    # Adam with Nesterov's momentum: (beta1 (1 - beta1) / (1 - beta1^2) + 1) of the sign in the first step.
    np.testing.assert_allclose(direction["b"], np.array([1, -1]) * (0.9 * 0.1 / (1 - 0.9**2) + 1), rtol=1e-4)


def test_first_step_has_unit_length_and_long_gradients_are_clipped():
    params = {"b": jnp.zeros(3)}
    gradient = {"b": jnp.array([3e3, -4e3, 0.0])}
    for clip in (None, 1.0):
        direction, moments = step_of(descent(AdamW(weight_decay=0.0), clip), gradient, params)
        np.testing.assert_allclose(direction["b"], [1, -1, 0], rtol=1e-4)
        mu = next(m.mu for m in moments if hasattr(m, "mu"))["b"]
        np.testing.assert_allclose(jnp.linalg.norm(mu), 0.1 * (1.0 if clip else 5e3), rtol=1e-5)


@pytest.mark.parametrize("optimizer", [AdamW(), AMSGrad(), Muon()])
def test_rates_multiply_the_steps_of_their_parameters(optimizer):
    key = jax.random.key(0)
    params = {"slow": jax.random.normal(key, (4, 3)), "fast": {"a": jnp.ones((4, 2)), "b": jnp.ones(2)}}
    directions = []
    for rates in (None, {"slow": 0.25, "fast": {"a": 1.0, "b": 2.0}}):
        directions.append(step_of(descent(optimizer, None, rates), jax.tree.map(jnp.sin, params), params)[0])
    for factor, name in ((0.25, ("slow",)), (1.0, ("fast", "a")), (2.0, ("fast", "b"))):
        one, other = (functools.reduce(lambda tree, key: tree[key], name, d) for d in directions)
        np.testing.assert_allclose(other, factor * one, rtol=1e-6)


def test_the_average_forgets_its_start():
    ema = jnp.array(100.0)
    for step in range(200):
        ema = moving_average(ema, jnp.array(1.0), 0.99, step)
    assert abs(float(ema) - 1) < 1e-3
    np.testing.assert_allclose(moving_average(jnp.array(0.0), jnp.array(1.0), 0.9, 10_000), 0.1, rtol=1e-5)


def test_stacked_matrices_are_orthogonalised_as_each_alone_by_optax():
    rng = np.random.default_rng(1)
    shapes = [(6, 6), (4, 7), (7, 4), (3, 6, 6), (2, 3, 5, 4), (5,), (6, 1), (4, 7)]
    draw = lambda: {str(k): jnp.asarray(rng.normal(size=shape), jnp.float32) for k, shape in enumerate(shapes)}
    params, gradient = draw(), draw()
    gradient["1"] = jnp.zeros_like(gradient["1"])
    rule = Muon(weight_decay=0.0)
    expected = optax.contrib.muon(
        1.0, beta=rule.momentum, eps=rule.epsilon, adam_b1=rule.beta1, adam_b2=rule.beta2,
        muon_weight_dimension_numbers=matrices, consistent_rms=1.0,
    )  # fmt: skip
    ours, theirs = rule.transformation(1.0), expected
    state, other = ours.init(params), theirs.init(params)
    for _ in range(3):
        step, state = ours.update(gradient, state, params)
        reference, other = theirs.update(gradient, other, params)
        for name in params:
            np.testing.assert_allclose(step[name], reference[name], atol=2e-5, err_msg=name)
        gradient = draw()
