"""The loss: hand-computed numbers, independence of padding, batching and devices, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from equipot.data.batch import Batch, Shape, find_slots, pad, pad_targets, smallest_shape
from equipot.observables import Observables
from equipot.potential import evaluate
from equipot.quantities import ENERGY, FORCES, LABELLED, STRESS
from equipot.training.loss import MSE, Constant, Huber, Loss, Ramp, Switch, counts, penalty_sums, residuals, total


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Losses are checked in float64."""


def batch_of(structures, extra=(0, 0, 0)):
    found = [find_slots(s, 3.5) for s in structures]
    shape = Shape(*(n + m for n, m in zip(smallest_shape(found)[:3], extra, strict=True)))
    targets = pad_targets(structures, shape, tiny.ENERGIES, range(len(structures)), np.float64)
    return Batch(pad(structures, 3.5, shape, np.float64, found), targets)


def sums_of(loss, predicted, batch):
    return penalty_sums(loss, LABELLED, residuals(predicted, batch, LABELLED), batch), counts(batch, LABELLED)


def test_numbers_by_hand():
    """Errors of 0.3 eV on 3 atoms, (0.3, 0, 0) eV/Å on each, 0.09 eV/Å^3 on one of nine components; frame weight 2."""
    s = tiny.structures(1, 0, (3, 3))[0].replace(weight=2.0)
    batch = batch_of([s], (2, 1, 1))
    error = np.zeros((5, 3))
    error[:3, 0] = 0.3
    stress = np.zeros((2, 3, 3))
    stress[0, 1, 1] = 0.09
    t = batch.targets
    energy, forces, tensor = (t.labels[row.name] for row in LABELLED)
    predicted = Observables(energy + np.array([0.3, 7.0]), forces=forces + error, stress=tensor + stress)
    loss = Loss({"energy": MSE(scale=0.1), "forces": MSE(scale=0.1), "stress": MSE(scale=0.01)})
    sums, numbers = sums_of(loss, predicted, batch)
    assert {k: float(v) for k, v in numbers.items()} == {"energy": 1, "forces": 3, "stress": 1}
    np.testing.assert_allclose(sums["energy"], 2 * (0.1 / 0.1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(sums["forces"], 2 * 3 * (0.3 / 0.1) ** 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(sums["stress"], 2 * (0.09 / 0.01) ** 2 / 9, rtol=1e-6)
    np.testing.assert_allclose(total(loss.weights(LABELLED, 0.0), sums, numbers), 2 * (1 + 3 + 9), rtol=1e-6)


def test_huber_is_mse_below_delta_and_straight_above():
    huber, x = Huber(delta=2.0), jnp.array([0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(huber.rho(x**2), [0, 1, 4, 2 * 2 * 5 - 4])
    slope = jax.vmap(jax.grad(lambda x: huber.rho(x**2)))(x)
    np.testing.assert_allclose(slope, [0, 2, 4, 4])


def test_missing_labels_count_for_nothing():
    full = tiny.structures(4)
    bare = [full[0], full[1].replace(energy=None), full[2].replace(forces=None, stress=None), full[3].replace(energy=None)]
    potential = tiny.potential(full)
    batch = batch_of(bare)
    sums, numbers = sums_of(Loss(), jax.jit(evaluate)(potential, batch.graph), batch)
    assert float(numbers["energy"]) == 2 and float(numbers["stress"]) == 1
    assert float(numbers["forces"]) == sum(len(s) for s in bare if s.forces is not None)
    assert all(np.isfinite(float(x)) for x in sums.values())


def gradient(structures, potential, extra):
    """Loss and gradient from the sums of several batches."""
    loss = Loss()
    batches = [batch_of(part, extra) for part in structures]
    names = [row.name for row in LABELLED]
    numbers = {name: sum(counts(b, LABELLED)[name] for b in batches) for name in names}

    def value(params):
        model = potential.replace(variables={**potential.variables, "params": params})
        parts = [penalty_sums(loss, LABELLED, residuals(evaluate(model, b.graph), b, LABELLED), b) for b in batches]
        return total(loss.weights(LABELLED, 0.0), {name: sum(p[name] for p in parts) for name in names}, numbers)

    return jax.jit(jax.value_and_grad(value))(potential.variables["params"])


@pytest.mark.parametrize("cuts, extra", [((6,), (7, 3, 2)), ((2, 4), (0, 0, 0)), ((1, 5), (3, 0, 1))])
def test_padding_and_batching_change_nothing(cuts, extra):
    structures = tiny.structures(6)
    potential = tiny.potential(structures).astype("float64")
    whole, slope = gradient([structures], potential, (0, 0, 0))
    parts = np.split(np.arange(6), np.cumsum(cuts)[:-1])
    other, other_slope = gradient([[structures[i] for i in part] for part in parts], potential, extra)
    np.testing.assert_allclose(other, whole, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), slope, other_slope)


@pytest.mark.parametrize(
    "schedule, fractions, factors",
    [
        (Constant(), (0.0, 1.0), (1, 1)),
        (Switch(at=0.75, factor=10), (0.0, 0.74, 0.75, 1.0), (1, 1, 10, 10)),
        (Ramp(start=0.2, stop=0.6, first=1, last=5), (0.0, 0.2, 0.4, 0.6, 1.0), (1, 1, 3, 5, 5)),
    ],
)
def test_schedules_of_weights(schedule, fractions, factors):
    loss = Loss({"energy": MSE(weight=3.0, schedule=schedule)})
    weights = [loss.weights((ENERGY,), jnp.asarray(f))["energy"] for f in fractions]
    np.testing.assert_allclose(weights, 3 * np.array(factors), rtol=1e-6)


def test_penalties_without_weight_or_label_are_left_out():
    assert Loss({"energy": MSE(weight=0.0)}).wants(LABELLED, ()) == (FORCES, STRESS)
    assert Loss().wants((ENERGY,), ()) == (ENERGY,)
    with pytest.raises(ValueError, match="no labels"):
        Loss().wants((), ())
    with pytest.raises(ValueError, match="every weight"):
        Loss(dict.fromkeys(("energy", "forces", "stress"), MSE(weight=0.0)))
    with pytest.raises(ValueError, match="loss.dipole: the model predicts no such .* energy, forces, stress"):
        Loss({"dipole": MSE()}).wants(LABELLED, ())
    with pytest.raises(ValueError, match="delta"):
        Huber(delta=0.0)
