"""Methods that learn from errors: against another program, and data whose errors are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from uncertain import CRYSTAL, FRAMES, MORE, labelled, made

import equipot
from equipot import uncertainty
from equipot.data.batch import pad
from equipot.posterior import Statistics
from equipot.potential import atomic
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure
from equipot.uncertainty.calibration import compare, half_width
from equipot.uncertainty.diagnostics import assess, rank_correlation
from equipot.uncertainty.learning import Environments, Equations, Lesson, lesson
from equipot.uncertainty.pops import POPS, Hypercube, Pointwise
from equipot.uncertainty.shallow import ShallowEnsemble, negative_log_likelihood, weights


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Exactly means exactly."""


def test_equations_are_the_derivatives_of_the_features_and_the_errors():
    potential, frame = made("mace"), FRAMES[0]
    wrong = labelled(potential, [frame], 0.05)[0]
    wrong = wrong.replace(labels={**wrong.labels, ENERGY: wrong.labels[ENERGY] + 0.25})
    rows, error, scale, frames, of_energy = lesson(potential, [CRYSTAL, wrong]).equations
    graph = jax.tree.map(jnp.asarray, pad([frame], 3.5, dtype=np.float64))
    whole = lambda r: jnp.sum(atomic(potential, graph.replace(positions=r)).features, axis=0)
    slopes = -np.asarray(jax.jacfwd(whole)(graph.positions))[:, : len(frame)]
    np.testing.assert_allclose(rows[0], whole(graph.positions), rtol=1e-10)
    np.testing.assert_allclose(rows[1:], slopes.reshape(len(rows[0]), -1).T, atol=1e-10)
    forces = equipot.evaluate(potential, frame).forces
    np.testing.assert_allclose(error, [0.25, *(wrong.labels[FORCES] - forces).ravel()], atol=1e-9)
    np.testing.assert_allclose(scale, [ENERGY.scale * 3, *[FORCES.scale] * 27])
    assert of_energy.tolist() == [True, *[False] * 27]
    assert set(frames) == {0}, "a frame without labels teaches nothing"


def regression(n=400, seed=0):
    """A linear model of a curve that is none, fitted by least squares."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    rows = np.stack([x**k for k in range(4)], axis=1)
    truth = np.sin(4 * x) + 0.3 * np.abs(x)
    return rows, truth


@pytest.mark.parametrize("ansatz", [Pointwise(), Hypercube()], ids=lambda x: type(x).__name__)
def test_pops_is_that_of_the_authors(ansatz):
    POPSRegression = pytest.importorskip("popsregression").POPSRegression
    rows, truth = regression()
    name = {"Pointwise": "ensemble", "Hypercube": "hypercube"}[type(ansatz).__name__]
    theirs = POPSRegression(posterior=name, resample_density=1000.0, fit_intercept=False).fit(rows, truth)
    error = truth - rows @ theirs.coef_
    # Their S is X^T X + (lambda / alpha) 1.
    precision = rows.T @ rows + theirs.lambda_ / theirs.alpha_ * np.eye(4)
    values = np.linalg.eigvalsh(precision)
    held = precision - 1e-6 * values.mean() * np.eye(4)
    statistics = Statistics({"energy": held * ENERGY.scale**2, "forces": np.zeros((4, 4))})
    frame = np.arange(len(error))
    equations = Equations(rows, error, np.ones(len(error)), frame, np.ones(len(error), bool))
    given = Lesson(equations, Environments(*(np.zeros(0),) * 4))
    method = POPS(ansatz=ansatz)
    found = method.learned(statistics, given)
    root = method.root(found)
    np.testing.assert_allclose(
        root @ root.T, theirs.misspecification_sigma_, rtol=1e-4 if name == "ensemble" else 0.03, atol=1e-6
    )
    # What it is for: errors beyond the deviations of Bayesian regression, which knows of no misspecification.
    within = lambda covariance: np.mean(error**2 < 4 * np.einsum("ni,ij,nj->n", rows, covariance, rows))
    assert 3 * within(theirs.sigma_) < 0.4 < within(root @ root.T)


def test_a_pointwise_correction_puts_its_label_right():
    """At the least cost, by Lagrange's equations: min w^T S w for f . w = e."""
    rng = np.random.default_rng(0)
    precision = np.diag([1.0, 2.0, 5.0])
    held = precision - 1e-6 * np.trace(precision) / 3 * np.eye(3)
    statistics = Statistics({"energy": held * ENERGY.scale**2, "forces": np.zeros((3, 3))})
    row, error = rng.normal(size=3), 0.7
    equations = Equations(row[None], np.array([error]), np.ones(1), np.zeros(1, int), np.ones(1, bool))
    found = POPS(ansatz=Pointwise()).learned(statistics, Lesson(equations, None)).arrays["pops"]
    system = np.block([[precision, row[:, None]], [row[None], np.zeros((1, 1))]])
    best = np.linalg.solve(system, [0, 0, 0, error])[:3]
    np.testing.assert_allclose(found, np.outer(best, best), rtol=1e-9)
    assert row @ best == pytest.approx(error)


def test_the_likelihood_has_the_derivative_that_it_says():
    rng = np.random.default_rng(0)
    of_energy = np.arange(30) < 4
    equations = Equations(rng.normal(size=(30, 5)), rng.normal(size=30), np.full(30, 0.3), np.arange(30), of_energy)
    members = rng.normal(size=(3, 5))
    _, slope = negative_log_likelihood(members, equations)
    for k, j in ((0, 1), (2, 4)):
        step = np.zeros_like(members)
        step[k, j] = 1e-6
        moved = [negative_log_likelihood(members + sign * step, equations)[0] for sign in (1, -1)]
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(slope[k, j], rel=1e-6)


def test_energies_count_however_many_forces_there_are():
    """Of two features one makes the errors of energies and the other those of forces: the spread has the size of either."""
    rng = np.random.default_rng(0)
    energies, forces = 20, 20_000
    of_energy = np.arange(energies + forces) < energies
    rows = np.stack([of_energy, ~of_energy], axis=1) * rng.normal(size=(len(of_energy), 1))
    error = rows @ np.array([3.0, 0.1]) * rng.choice([-1, 1], len(of_energy))
    equations = Equations(rows, error, np.ones(len(error)), np.arange(len(error)), of_energy)
    assert weights(equations)[of_energy].sum() == pytest.approx(0.1) and weights(equations).sum() == pytest.approx(1)
    for some in (of_energy, ~of_energy):
        np.testing.assert_allclose(weights(equations.of(some)), 1 / some.sum())
    statistics = Statistics({"energy": np.eye(2), "forces": np.zeros((2, 2))})
    members = ShallowEnsemble().learned(statistics, Lesson(equations, None)).arrays["members"]
    np.testing.assert_allclose(np.sqrt(np.mean(members**2, axis=0)), [3.0, 0.1], rtol=0.05)


def heteroscedastic(potential, frames, scale):
    """Frames whose forces are wrong by errors that grow with one of the features, by a hidden change of the last layer."""
    rng, out = np.random.default_rng(5), []
    for frame in labelled(potential, frames):
        (found,) = equipot.evaluate_each(potential, frame, want=("feature_forces",))
        slopes = found.others["feature_forces"]
        hidden = scale * rng.normal(size=(1, 2))
        out.append(frame.replace(labels={FORCES: frame.labels[FORCES] + slopes[..., :2] @ hidden[0]}))
    return out


def test_a_shallow_ensemble_learns_where_forces_are_wrong():
    """Errors in the direction of two of the features alone, which its posterior does not know and its errors tell."""
    potential = made("nequip")
    train, test = heteroscedastic(potential, MORE, 2.0), heteroscedastic(potential, FRAMES, 2.0)
    given = lesson(potential, train).equations
    found = {}
    for name, method in (("posterior", uncertainty.LastLayer()), ("shallow", ShallowEnsemble())):
        model = uncertainty.fit(potential, train, calibrate=train, method=method)
        out = equipot.evaluate(model, test, want=("forces", "forces_std"))
        error = np.concatenate([frame.labels[FORCES] for frame in test]) - out.forces
        sigma = np.maximum(out.others["forces_std"], 1e-12)
        found[name] = np.mean(0.5 * np.mean(error**2, axis=1) / sigma**2 + np.log(sigma))
    assert found["shallow"] < found["posterior"] - 0.1
    members = uncertainty.fit(potential, train, method=ShallowEnsemble()).posterior.statistics.arrays["members"]
    start = uncertainty.fit(potential, train).posterior.arrays["samples"]
    widths = [negative_log_likelihood(np.asarray(start) * w, given)[0] for w in np.geomspace(1e-3, 1e3, 200)]
    assert negative_log_likelihood(members, given)[0] < min(widths)


def test_a_mean_variance_head_learns_which_atoms_are_wrong():
    """Forces on oxygen's neighbours are wrong by ten times as much: the environment tells, the element does not."""
    potential = made("mace")
    rng = np.random.default_rng(0)

    def spoilt(frames):
        out = []
        for frame in labelled(potential, frames):
            distance = np.linalg.norm(frame.positions[:, None] - frame.positions[frame.numbers == 8], axis=2)
            near = (distance.min(axis=1) < 1.6) if distance.size else np.zeros(len(frame), bool)
            size = np.where(near, 0.5, 0.05)[:, None]
            out.append(frame.replace(labels={FORCES: frame.labels[FORCES] + size * rng.normal(size=(len(frame), 3))}))
        return out

    train, test = spoilt(MORE + MORE), spoilt(FRAMES)
    model = uncertainty.fit(potential, train, calibrate=train, method=uncertainty.MeanVariance())
    out = equipot.evaluate(model, test, want=("forces", "forces_std"))
    error = np.linalg.norm(np.concatenate([frame.labels[FORCES] for frame in test]) - out.forces, axis=1)
    hydrogen = np.concatenate([frame.numbers for frame in test]) == 1
    assert rank_correlation(error[hydrogen], out.others["forces_std"][hydrogen]) > 0.3
    assert rank_correlation(error, out.others["forces_std"]) > 0.5
    with pytest.raises(ValueError, match="does not estimate energy_std"):
        equipot.evaluate(model, FRAMES[0], want="energy_std")


def test_methods_that_learn_need_labels(tmp_path):
    potential = made("mace")
    train = labelled(potential, MORE, 0.1)
    model = uncertainty.fit(potential, train, calibrate=train, method=POPS())
    equipot.save(model, tmp_path / "pops.eqp")
    out = [
        equipot.evaluate(x, FRAMES, want="forces_std").others["forces_std"]
        for x in (model, equipot.load(tmp_path / "pops.eqp"))
    ]
    np.testing.assert_allclose(*out, rtol=1e-6)
    cases = {
        "no structures with labels": lambda: uncertainty.fit(potential, MORE, method=POPS()),
        "cannot add some": lambda: uncertainty.absorb(model, FRAMES),
        "learns from labelled structures": lambda: uncertainty.with_statistics(
            potential, uncertainty.fit(potential, MORE).posterior.statistics, ShallowEnsemble(), "test"
        ),
        "leverage 1.0": lambda: POPS(leverage=1.0),
        "iterations 0": lambda: ShallowEnsemble(iterations=0),
        "decay 0": lambda: uncertainty.MeanVariance(decay=0),
        "components 0": lambda: uncertainty.Mixture(components=0),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_diagnose_takes_frames_as_evaluate_does_and_needs_a_calibration():
    potential = made("nequip")
    train, test = labelled(potential, MORE, 0.1), labelled(potential, FRAMES, 0.1)
    bare = uncertainty.fit(potential, train)
    model = uncertainty.calibrated(bare, [frame.to_ase() for frame in train])
    found = uncertainty.diagnose(model, [frame.to_ase() for frame in test])
    rows = [row for row in model.deviations if row.name in found]
    sample = compare(model, test, rows)["forces_std"]
    assert found["forces_std"] == pytest.approx(assess(sample, model.posterior.calibrations["forces_std"]), nan_ok=True)
    out = equipot.evaluate(model, test, want=("forces", "forces_std"))
    errors = np.concatenate([frame.labels[FORCES] for frame in test]) - out.forces
    half = half_width(model, "forces_std", 0.9, np.concatenate([frame.numbers for frame in test]))
    within = np.abs(errors) <= half[:, None] * out.others["forces_std"][:, None]
    assert found["forces_std"]["coverage_90"] == pytest.approx(within.mean(), abs=0.02)
    moved = [frame.to_ase() for frame in test]
    moved[0].positions += 0.1
    with pytest.raises(ValueError, match="its positions changed after the results"):
        uncertainty.diagnose(model, moved)
    with pytest.raises(ValueError, match="no labels of energy, forces or stress .of ase.Atoms, the results"):
        uncertainty.calibrated(bare, [frame.without_labels().to_ase() for frame in train])
    # Isolated atoms and frames that are there twice change nothing.
    alone = Structure(np.array([6]), np.zeros((1, 3)), labels={ENERGY: 0.0, FORCES: np.zeros((1, 3))})
    again = uncertainty.calibrated(bare, [*train, alone, *train[:9]])
    for name, known in model.posterior.calibrations.items():
        np.testing.assert_allclose(again.posterior.calibrations[name].scale, known.scale)
        assert again.posterior.calibrations[name].frames == known.frames
    with pytest.warns(UserWarning, match="calibrate: 7 of 14 frames are among those that the estimate rests on"):
        uncertainty.fit(potential, train, calibrate=[*train[:7], *test])
    for refused in (potential, bare):
        with pytest.raises(ValueError, match="no calibrated deviations"):
            uncertainty.diagnose(refused, test)
    with pytest.raises(ValueError, match="no estimate of its uncertainty to calibrate"):
        uncertainty.calibrated(potential, train)
