"""Parameters by their shapes: the same steps and the same files as with a tree, and optimisers that need the tree have it."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from equipot.training import checkpoint
from equipot.training.descent import Descent
from equipot.training.optimizer import AdamW, AMSGrad, Muon
from equipot.training.schedule import Flat
from equipot.training.stacks import Stacked, Stacks

SHAPES = {"a": (3, 4), "b": {"c": (2, 3, 4), "d": (4, 3), "e": ()}, "f": (5,), "g": (2, 1), "h": (3, 4, 1), "i": (2, 2, 3, 4)}


def draw(seed):
    rng = np.random.default_rng(seed)
    leaf = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return jax.tree.map(leaf, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def assert_equal(found, expected, tolerance=0.0):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), found, expected)


def test_a_tree_comes_back_on_the_host_and_on_the_device():
    tree = draw(0)
    stacks = Stacks(tree)
    stacked = stacks.stack(tree)
    assert {name.split()[0]: x.shape for name, x in stacked.arrays.items()} == {
        "3x4": (7, 3, 4), "4x3": (1, 4, 3), "numbers": (6,), "1": (14, 1)
    }  # fmt: skip
    assert_equal(stacks.unstack(stacked), tree)
    host = jax.device_get(tree)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(stacks.stack(host)))
    assert_equal(stacks.unstack_state(stacks.stack(host)), host)


def test_a_gradient_by_stacks_is_that_of_the_tree():
    tree, other = draw(0), draw(1)
    stacks = Stacks(tree)
    loss = lambda x: sum(jnp.sum(a * b**2) for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(x), strict=True))
    found = jax.grad(lambda x: loss(stacks.unstack(x)))(stacks.stack(tree))
    assert_equal(stacks.unstack(found), jax.grad(loss)(tree))


@pytest.mark.parametrize("optimizer", [AdamW(0.01), AMSGrad(0.01), Muon(0.01)], ids=lambda rule: type(rule).__name__)
def test_steps_by_stacks_are_those_of_the_tree(optimizer):
    """With decay, clipping, factors on the rate and the average; and the states are those of the tree."""
    params = draw(0)
    stacks = Stacks(params)
    factors = jax.tree.map(lambda x: 0.5 + 0.1 * x.ndim, params)
    make = lambda factors: Descent(replace(optimizer, weight_decay=0.1), Flat(0.0), 100, 3.0, 0.9, factors)
    rules = make(factors), make(stacks.factors(factors))
    trees = [params, stacks.stack(params)]
    states, averages = [rule.init(x) for rule, x in zip(rules, trees, strict=True)], list(trees)
    for k in range(3):
        gradient = draw(k + 1)
        for j, (rule, given) in enumerate(zip(rules, (gradient, stacks.stack(gradient)), strict=True)):
            trees[j], states[j] = rule.move(given, states[j], trees[j], 0.01)
            averages[j] = rule.average(averages[j], trees[j], states[j], k)
    for one, by_stacks in (trees, states, averages):
        assert_equal(stacks.unstack_state(jax.device_get(by_stacks)), jax.device_get(one), 1e-6)
        assert_equal(stacks.stack_state(by_stacks, jax.device_get(one)), by_stacks, 1e-6)


@dataclass(frozen=True)
class Named(AdamW):
    """Needs the names of the parameters, and says nothing of stacks."""

    def transformation(self, rate):
        rule = super().transformation(rate)

        def update(gradient, state, params):
            assert "Dense_0" in gradient and "Dense_0" in params
            return rule.update(gradient, state, params)

        return rule._replace(update=update)


def test_an_optimiser_of_ones_own_gets_the_tree(tmp_path):
    assert Muon.stackable and AMSGrad.stackable and not Named.stackable
    tiny.run(tmp_path / "own", {"epochs": 1, "optimizer": {"kind": f"{__name__}:Named"}})
    tiny.run(tmp_path / "same", {"epochs": 1, "optimizer": {"kind": "AdamW"}})
    own, same = (checkpoint.newest(tmp_path / name / "checkpoints").arrays for name in ("own", "same"))
    assert own.keys() == same.keys() and not any(Stacked.__name__ in name or "arrays" in name for name in same)
    for name, array in own.items():
        np.testing.assert_allclose(array, same[name], rtol=1e-4, atol=1e-6, err_msg=name)
