"""Calibration and diagnostics, on errors whose distribution is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import norm

import equipot
from equipot import uncertainty
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.posterior import LEVELS, Statistics
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure
from equipot.uncertainty.calibration import Linear, Power, Proportional, Sample, calibration, half_width, quantiles
from equipot.uncertainty.diagnostics import assess, auroc, reliability, retention, table_rows, table_text
from equipot.uncertainty.mixture import Mixture
from equipot.uncertainty.novelty import Euclidean, Mahalanobis, Nearest

TERM = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))


def drawn(count, scale=3.0, power=1.0, frames=None, seed=0):
    """Deviations over a decade, and normal errors of scale x deviation^power."""
    rng = np.random.default_rng(seed)
    raw = 10 ** rng.uniform(-1, 0, count)
    error = scale * raw**power * rng.normal(size=count)
    frame = np.arange(count) if frames is None else np.arange(count) % frames
    return Sample(error, raw, frame, np.zeros(count, int), np.ones(count), 1)


def test_a_factor_and_a_power_are_found_again():
    straight, bent = drawn(40_000), drawn(40_000, 2.0, 0.6)
    assert Proportional().fit(straight.raw, straight.error) == (pytest.approx(3.0, rel=0.02), 0.0)
    scale, floor = Linear().fit(straight.raw, straight.error)
    assert scale == pytest.approx(3.0, rel=0.02) and floor < 0.1
    power = Power().power(bent.raw, bent.error)
    assert power == pytest.approx(0.6, abs=0.02)
    assert Power().fit(bent.raw**power, bent.error) == (pytest.approx(2.0, rel=0.03), 0.0)


def test_a_floor_is_found_again_and_keeps_large_deviations_right():
    """A third of the atoms have next to no deviation, by symmetry, and errors all the same."""
    rng = np.random.default_rng(0)
    raw = np.where(np.arange(30_000) % 3 == 0, 1e-7, 10 ** rng.uniform(-1, 0, 30_000))
    error = np.sqrt((2 * raw) ** 2 + 0.05**2) * rng.normal(size=30_000)
    scale, floor = Linear().fit(raw, error)
    assert scale == pytest.approx(2.0, rel=0.03) and floor == pytest.approx(0.05, rel=0.03)
    # Without one, the least deviations make all others too large.
    assert Proportional().fit(raw, error)[0] > 1e4
    # In other units the same.
    meV = Linear().fit(1e3 * raw, 1e3 * error)
    assert meV == (pytest.approx(scale, rel=1e-4), pytest.approx(1e3 * floor, rel=1e-4))
    nothing = Linear().fit(raw, rng.normal(size=30_000))
    assert nothing[1] == pytest.approx(1.0, rel=0.02) and nothing[0] < 0.1


@pytest.mark.parametrize("error", [lambda rng, n: rng.normal(size=n), lambda rng, n: rng.standard_t(3, size=n)])
def test_intervals_hold_the_share_of_errors_that_they_promise(error):
    """Whatever the distribution: the mean coverage over many calibrations of 60 frames is that of the level, or just above."""
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        factors = quantiles(np.abs(error(rng, 60)), 60)
        assert np.isnan(factors[LEVELS.index(0.99)])
        held.append([np.mean(np.abs(error(rng, 200)) <= factor) for factor in factors[:-1]])
    for level, seen in zip(LEVELS[:-1], np.mean(held, axis=0), strict=True):
        assert level - 0.01 < seen < level + 1 / 60 + 0.01


def test_the_floor_of_an_energy_is_one_of_each_atom():
    """Errors of 3 meV per atom in systems of 10 and of 1,000 atoms, whose deviations say nothing."""
    rng = np.random.default_rng(0)
    atoms = np.repeat([10.0, 1000.0], 2000)
    sample = Sample(3e-3 * atoms * rng.normal(size=4000), np.full(4000, 1e-9), np.arange(4000), np.zeros(4000, int), atoms, 1)
    found = calibration(sample, False, Linear(), "data", "energy_std")
    assert found.floor == pytest.approx(3e-3, rel=0.05)
    assert found.quantiles[LEVELS.index(0.9)] == pytest.approx(norm.ppf(0.95), rel=0.05)


def test_elements_are_calibrated_by_themselves():
    one, two = drawn(3000, 2.0, frames=100), drawn(3000, 0.5, frames=100, seed=1)
    both = Sample(
        *(np.concatenate(pair) for pair in zip(one[:3], two[:3], strict=True)), np.repeat([1, 8], 3000), np.ones(6000), 1
    )
    found = calibration(both, True, Linear(), "data", "forces_std")
    assert found.scale[[1, 8]] == pytest.approx([2.0, 0.5], rel=0.05)
    assert np.isnan(found.scale[6]) and found.scale[0] == 0 and found.frames[8] == 100
    assert found.quantiles[8, LEVELS.index(0.9)] == pytest.approx(norm.ppf(0.95), rel=0.05)


def test_an_element_of_few_frames_is_not_calibrated():
    many, few = drawn(3000, 2.0, frames=100), drawn(40, 0.5, frames=4, seed=1)
    joined = [np.concatenate(pair) for pair in zip(many[:3], few[:3], strict=True)]
    both = Sample(*joined, np.repeat([1, 8], [3000, 40]), np.ones(3040), 1)
    found = calibration(both, True, Linear(), "data", "forces_std")
    assert np.isfinite(found.scale[1]) and np.isnan([found.scale[8], found.floor[8]]).all() and found.frames[8] == 4


def test_scores_are_those_of_their_formulas():
    right = drawn(20_000, 1.0)
    found = assess(right)
    assert found["normal_90"] == pytest.approx(0.9, abs=0.01) and found["miscalibration"] < 0.01
    # The mean score of a normal forecast that is right is sigma / sqrt(pi); the likelihood has its entropy.
    assert found["crps"] == pytest.approx(np.mean(right.raw) / np.sqrt(np.pi), rel=0.02)
    assert found["nll"] == pytest.approx(np.mean(np.log(right.raw)) + 0.5 * np.log(2 * np.pi * np.e), abs=0.02)
    assert found["spearman"] > 0.4 and found["retained"] < 0.8
    wrong = right._replace(raw=10 * right.raw)
    worse = assess(wrong)
    assert worse["crps"] > found["crps"] and worse["nll"] > found["nll"] and worse["miscalibration"] > 0.3
    assert worse["spearman"] == found["spearman"] and worse["sharpness"] == pytest.approx(10 * found["sharpness"])
    levels, seen = reliability(right.error / right.raw)
    np.testing.assert_allclose(seen, levels, atol=0.02)
    chance = right._replace(raw=np.random.default_rng(5).permutation(right.raw))
    assert abs(assess(chance)["spearman"]) < 0.03 and assess(chance)["retained"] == pytest.approx(1, abs=0.05)
    assert (np.diff(retention(right.error, np.abs(right.error))) >= 0).all()
    assert auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1 and auroc(np.array([1.0, 1]), np.array([1.0])) == 0.5


def test_components_of_a_vector_share_a_deviation_and_are_ranked_together():
    error = np.array([3.0, 4.0, 0.0, 0.0, 0.0, 1.0])
    sample = Sample(error, np.repeat([2.0, 1.0], 3), np.zeros(6, int), np.ones(6, int), np.ones(6), 3)
    np.testing.assert_allclose(sample.whole.error, np.sqrt([25 / 3, 1 / 3]))
    np.testing.assert_array_equal(sample.whole.raw, [2.0, 1.0])


def test_a_table_states_units():
    table = assess(drawn(500))
    text = table_text(table_rows({"one": {"forces_std": table}}, {"forces_std": ("meV/Å", 1e3)}))
    assert "meV/Å" in text and f"{1e3 * table['rmse']:.3g}" in text


@pytest.mark.parametrize("novelty", [Euclidean(), Mahalanobis(), Mixture(), Nearest()], ids=lambda x: type(x).__name__)
def test_what_is_far_from_what_is_known_is_new(novelty):
    rng = np.random.default_rng(0)
    shape = np.diag([1.0, 0.1, 0.01])
    x = rng.normal(size=(100, 3)) @ shape
    statistics = Statistics(
        {
            "elements": np.array([6]),
            "count": np.array([100]),
            "first": x.sum(axis=0)[None],
            "second": (x.T @ x)[None],
            "order": rng.random((1, 100)),
            "kept": x[None].astype(np.float32),
        }
    )
    arrays = {name: jax.numpy.asarray(value) for name, value in novelty.arrays(statistics).items()}
    numpy = jax.numpy
    of = lambda points, z: novelty.novelty(arrays, numpy.full(len(points), z), numpy.asarray(points, numpy.float32))
    seen = lambda points, z=6: np.asarray(of(points, z))
    inside = seen(rng.normal(size=(400, 3)) @ shape)
    assert np.mean(inside > 1) < 0.1 and np.median(inside) < 0.8
    assert (seen([[8.0, 0, 0], [0, 9.0, 0]]) > 1.5).all()
    assert np.isinf(seen([[0.0, 0, 0]], 8)).all()
    if not isinstance(novelty, Euclidean):
        # In a direction in which nothing was seen, a small step is far.
        assert seen([[0.0, 0.0, 0.5]]) > 3


@pytest.mark.parametrize("novelty", [Euclidean(), Mahalanobis(), Mixture(), Nearest()], ids=lambda x: type(x).__name__)
def test_environments_that_are_all_alike_are_not_new_by_rounding(novelty):
    rng = np.random.default_rng(0)
    crystal = rng.normal(size=8)
    of = lambda count, size: crystal * (1 + size * rng.normal(size=(count, 8)))
    x = of(64, 1e-7)
    sums = {"count": np.array([64]), "first": x.sum(axis=0)[None], "second": (x.T @ x)[None]}
    statistics = Statistics({"elements": np.array([6]), "kept": x[None], "order": rng.random((1, 64)), **sums})
    arrays = {name: jax.numpy.asarray(value) for name, value in novelty.arrays(statistics).items()}
    seen = lambda points: np.asarray(novelty.novelty(arrays, jax.numpy.full(len(points), 6), jax.numpy.asarray(points)))
    assert seen(of(200, 1e-6)).max() < 0.5
    assert seen(of(200, 1e-3)).min() > 3


def test_a_mixture_finds_what_lies_between_the_kinds_that_are_known():
    """Two clusters: halfway is new, and no distance from the mean of all says so."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)) * 0.1 + [3, 0], rng.normal(size=(60, 2)) * 0.1 - [3, 0]])
    sums = {"count": np.array([120]), "first": x.sum(axis=0)[None], "second": (x.T @ x)[None]}
    statistics = Statistics({"elements": np.array([6]), "kept": x[None], "order": rng.random((1, 120)), **sums})
    found = {}
    one, exact = Mixture(components=1, shrinkage=1e-9), Mahalanobis(shrinkage=1e-9)
    for novelty in (Mixture(), Mahalanobis(), one, exact):
        arrays = {name: jax.numpy.asarray(value) for name, value in novelty.arrays(statistics).items()}
        points = jax.numpy.array([[0.0, 0.0], [3.0, 0.0]])
        found[novelty] = np.asarray(novelty.novelty(arrays, jax.numpy.full(2, 6), points))
    assert found[Mixture()][0] > 3 > 1 > found[Mixture()][1]
    assert found[Mahalanobis()][0] < found[Mahalanobis()][1]
    np.testing.assert_allclose(found[one] * found[exact].max(), found[exact] * found[one].max(), rtol=1e-3, atol=1e-3)


def test_a_mixture_of_few_environments_of_many_numbers_is_not_surprised_by_their_like():
    """In-sample, a mixture fits its own points too well: the farthest per cent of these is nearer than a tenth of others."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(3, 30))
    draw = lambda count: centres[rng.integers(3, size=count)] + rng.normal(size=(count, 30))
    x = draw(300)
    sums = {"count": np.array([300]), "first": x.sum(axis=0)[None], "second": (x.T @ x)[None]}
    statistics = Statistics({"elements": np.array([6]), "kept": x[None], "order": rng.random((1, 300)), **sums})
    arrays = {name: jax.numpy.asarray(value) for name, value in Mixture().arrays(statistics).items()}
    assert 1e-3 < np.mean(Mixture().novelty(arrays, jax.numpy.full(3000, 6), jax.numpy.asarray(draw(3000))) > 1) < 0.025


def test_calibrated_deviations_are_those_of_the_errors_of_a_potential():
    """Labels with noise of known size: deviations of forces are as large, and nine in ten errors are within their intervals."""
    rng = np.random.default_rng(0)
    positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.0]])
    frames = [Structure([8, 1, 1], positions + 0.05 * rng.normal(size=(3, 3))) for _ in range(160)]
    potential = fresh(TERM, pad(frames[:3], 4.0), jax.random.key(0), Metadata(((1, 0.0), (8, 0.0))))
    labelled = []
    for frame, out in zip(frames, equipot.evaluate_each(potential, frames, want=("energy", "forces")), strict=True):
        noise = {ENERGY: 0.2 * rng.normal(), FORCES: np.array([[0.5], [0.1], [0.1]]) * rng.normal(size=(3, 3))}
        labels = {ENERGY: float(out.energy) + noise[ENERGY], FORCES: out.forces + noise[FORCES]}
        labelled.append(frame.replace(labels=labels))
    model = uncertainty.fit(potential, frames[:30], calibrate=labelled[30:130])
    # The floor of an energy grows with the atoms, and does not see padding.
    apart = frames[131].replace(positions=np.concatenate([positions, positions + 30.0]), numbers=np.array([8, 1, 1, 8, 1, 1]))
    floor = float(model.posterior.calibrations["energy_std"].floor)
    for frame in (frames[131], apart):
        (single,) = equipot.evaluate_each(model, frame, want=("energy_std",))
        assert float(single.others["energy_std"]) >= floor * len(frame.numbers) * (1 - 1e-6)
    (one,) = equipot.evaluate_each(model, frames[131], want=("energy_std", "forces_std"))
    assert one.others["energy_std"] == pytest.approx(0.2, rel=0.3)
    assert one.others["forces_std"] == pytest.approx([0.5, 0.1, 0.1], rel=0.4)
    held = []
    for frame, out in zip(
        labelled[130:], equipot.evaluate_each(model, frames[130:], want=("forces", "forces_std")), strict=True
    ):
        half = half_width(model, "forces_std", 0.9, frame.numbers) * out.others["forces_std"]
        held.append(np.abs(out.forces - frame.labels[FORCES]) <= half[:, None])
    assert 0.82 < np.mean(held) < 0.97
    with pytest.raises(ValueError, match="give their atomic numbers"):
        half_width(model, "forces_std", 0.9)
    for labels in ({ENERGY: np.nan}, {FORCES: np.full((3, 3), np.nan)}):
        wrong = [*labelled[30:60], labelled[60].replace(labels=labels, source="bad.xyz, frame 7")]
        for method, known in ((uncertainty.LastLayer(), frames[:30]), (uncertainty.POPS(), wrong)):
            with pytest.raises(ValueError, match="bad.xyz, frame 7: label or prediction of .* is not a number"):
                uncertainty.fit(potential, known, calibrate=wrong, method=method)
