"""Uncertainty of results: springs, whose lengths, stiffness and averages are known in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from flax import linen as nn

import equipot
from equipot import uncertainty
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.posterior import LEVELS, Calibration, Posterior, Statistics, variables_digest
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Atomic, Term
from equipot.uncertainty.derived import effective_frames, energy_changes
from equipot.uncertainty.last_layer import LastLayer
from equipot.uncertainty.members import members
from equipot.units import kB

STIFFNESS, PULL = 2.0, 1.5
"""eV/Å^2 and eV/Å: a bond is STIFFNESS / 2 r^2 - PULL r, of length PULL / STIFFNESS."""
TEMPERATURE = 300.0
FAR = 40.0
"""Distance of the springs of a system, Å."""


class Spring(Term):
    """A pair of atoms with an energy that is linear in half of the squared distance, and in the distance."""

    @nn.compact
    def __call__(self, graph, vectors):
        weights = self.variable("constants", "weights", lambda: jnp.zeros(2)).value
        squares = jnp.where(graph.slot_mask, jnp.sum(vectors**2, axis=-1), 0)
        r = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        features = 0.5 * jnp.stack([0.5 * squares.sum(axis=1), -r.sum(axis=1)], axis=1)
        return Atomic(features @ weights, features=features)


def spring(pull, samples, scale=1.0):
    """A potential whose posterior has the given samples of both weights."""
    variables = {"constants": {"weights": jnp.asarray([STIFFNESS, pull])}}
    metadata = Metadata(((1, -3.0),))
    known = Calibration(np.asarray(scale), np.ones(()), np.zeros(()), np.full(len(LEVELS), np.nan), (9,), "given")
    of_atoms = Calibration(
        np.full(119, scale), np.ones(()), np.zeros(119), np.full((119, len(LEVELS)), np.nan), (9,) * 119, "given"
    )
    arrays = {"samples": np.asarray(samples, float), "root": np.eye(2)}
    calibrations = {"energy_std": known, "forces_std": of_atoms}
    digest = variables_digest(variables)
    posterior = Posterior(LastLayer(samples=len(samples)), Statistics({}), arrays, calibrations, digest, "nothing")
    return Potential(Spring(cutoff=8.0), variables, metadata, posterior).astype("float64")


def pairs(lengths):
    """A system of springs of the given lengths (Å), far from each other."""
    positions = np.zeros((2 * len(lengths), 3))
    positions[::2, 1] = positions[1::2, 1] = FAR * np.arange(len(lengths))
    positions[1::2, 0] = lengths
    return Structure(np.ones(2 * len(lengths), int), positions)


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Closed forms are exact."""


SAMPLES = np.array([[0.3, -0.1], [-0.2, 0.2], [0.1, 0.4]])


def test_a_relaxed_length_and_a_stiffness_have_the_deviations_of_their_formulas():
    def relaxed(potential):
        length = 1.0
        for _ in range(3):
            structure = pairs([length])
            slope = -equipot.evaluate(potential, structure, want="forces").forces[1, 0]
            curvature = equipot.hessian_of(potential, structure)[1, 0, 1, 0]
            length -= slope / curvature
        return np.array([length, curvature])

    out = uncertainty.propagate(spring(PULL, SAMPLES, scale=0.5), relaxed)
    stiffness, pull = STIFFNESS + 0.5 * SAMPLES[:, 0], PULL + 0.5 * SAMPLES[:, 1]
    each = np.stack([pull / stiffness, stiffness], axis=1)
    value = np.array([PULL / STIFFNESS, STIFFNESS])
    np.testing.assert_allclose(out.value, value, rtol=1e-10)
    np.testing.assert_allclose(out.members, each, rtol=1e-10)
    # About the potential, not about the mean of the members.
    np.testing.assert_allclose(out.std, np.sqrt(np.mean((each - value) ** 2, axis=0)), rtol=1e-10)
    assert abs(out.std[1] - each[:, 1].std()) > 0.004


def test_a_member_that_fails_is_named():
    potential = spring(PULL, SAMPLES)
    stiffness = lambda p: equipot.hessian_of(p, pairs([1.0]))[1, 0, 1, 0]

    def refuses(potential):
        if stiffness(potential) < 1.9:
            raise RuntimeError("no convergence")
        return 1.0

    cases = {
        "member 1 of 3: RuntimeError: no convergence; the result has to be defined": refuses,
        "member 1 of 3: the result is not finite: nan": lambda p: np.nan if stiffness(p) < 1.9 else 1.0,
        r"member 0 of 3: the result has shape \(2,\), and that of the potential \(1,\)": lambda p: np.ones(
            1 + (stiffness(p) > 2.2)
        ),
        "the potential itself: the result is not finite": lambda p: np.inf,
    }
    for message, compute in cases.items():
        with pytest.raises(ValueError, match=message):
            uncertainty.propagate(potential, compute)
    with pytest.raises(ValueError, match="no samples"):
        uncertainty.propagate(potential.replace(posterior=None), lambda p: 1.0)


def sampled(frames, springs=1):
    """Lengths of three-dimensional springs of no length at rest, exactly those of their ensemble: quantiles of one."""
    from scipy.stats import chi

    grid = chi(3).ppf((np.arange(frames) + 0.5) / frames) * np.sqrt(kB * TEMPERATURE / STIFFNESS)
    shuffled = [np.random.default_rng(k).permutation(grid) for k in range(springs)]
    return np.stack(shuffled, axis=1)


SOFTER = np.array([[0.2, 0.0], [-0.15, 0.0], [0.02, 0.0]])


def test_averages_of_a_stiffer_spring_are_those_of_equipartition():
    """<r^2> = 3 kT / k, of a member with k + e; to first order 3 kT / k (1 - e / k)."""
    lengths = sampled(4000)
    frames = [pairs(row) for row in lengths]
    average = lambda method: uncertainty.reweighted(spring(0.0, SOFTER), frames, lengths[:, 0] ** 2, TEMPERATURE, method=method)
    direct, cumulant = average(uncertainty.Direct()), average(uncertainty.Cumulant())
    exact = lambda k: 3 * kB * TEMPERATURE / k
    e = SOFTER[:, 0]
    assert direct.mean == pytest.approx(exact(STIFFNESS), rel=1e-3)
    np.testing.assert_allclose(direct.members, exact(STIFFNESS + e), rtol=1e-3)
    first_order = exact(STIFFNESS) * (1 - e / STIFFNESS)
    np.testing.assert_allclose(cumulant.members, first_order, rtol=1e-3)
    # What the expansion lacks is there to be seen.
    assert np.abs(first_order / exact(STIFFNESS + e) - 1).max() > 5e-3
    for out in (direct, cumulant):
        assert out.std == pytest.approx(np.sqrt(np.mean((out.members - out.mean) ** 2)), rel=1e-12)
        # <w>^2 / <w^2>, for weights exp(-e r^2 / 2 kT).
        share = (STIFFNESS * (STIFFNESS + 2 * e) / (STIFFNESS + e) ** 2) ** 1.5
        np.testing.assert_allclose(out.effective / len(frames), share, rtol=2e-3)


def test_an_observable_may_be_an_array_and_a_large_system_needs_the_expansion():
    """Of many springs the frames that count are fewer, as the power of their number; the expansion does not mind."""
    lengths = sampled(400, springs=60)
    frames, harder = [pairs(row) for row in lengths], spring(0.0, [[2.0, 0.0], [0.5, 0.0]])
    with pytest.raises(ValueError, match=r"member 0 of 2: of 400 frames only .* count, .*method=Cumulant\(\)"):
        uncertainty.reweighted(harder, frames, lengths**2, TEMPERATURE)
    out = uncertainty.reweighted(harder, frames, lengths**2, TEMPERATURE, method=uncertainty.Cumulant())
    assert out.mean.shape == out.std.shape == (60,) and out.members.shape == (2, 60)
    assert out.effective[0] < 20
    expected = 3 * kB * TEMPERATURE / STIFFNESS * (1 - 0.5 / STIFFNESS)
    assert out.members[1].mean() == pytest.approx(expected, rel=0.1)
    few = uncertainty.reweighted(harder, frames, lengths**2, TEMPERATURE, method=uncertainty.Direct(share=1e-3))
    np.testing.assert_array_equal(few.effective, out.effective)


def test_what_is_no_average_is_refused():
    potential, frames = spring(0.0, SOFTER), [pairs([0.1]), pairs([0.2])]
    cases = {
        "temperature 0 K must": lambda: uncertainty.reweighted(potential, frames, [1.0, 2.0], 0),
        "finite value for each of 2 frames": lambda: uncertainty.reweighted(potential, frames, [1.0], 300.0),
        "finite value for each of": lambda: uncertainty.reweighted(potential, frames, [1.0, np.nan], 300.0),
        "no structures": lambda: uncertainty.reweighted(potential, [], np.zeros(0), 300.0),
        "share 0 must": lambda: uncertainty.Direct(share=0),
        "stress_std is not calibrated": lambda: uncertainty.reweighted(potential, frames, [1, 2], 300.0, by="stress_std"),
        "no samples": lambda: uncertainty.reweighted(potential.replace(posterior=None), frames, [1, 2], 300.0),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_effective_frames_are_all_of_equal_weight_and_one_that_dominates():
    np.testing.assert_allclose(effective_frames(np.array([[5.0] * 4, [0.0, 900, 900, 900], [0, 0, 1e4, 1e4]])), [4, 1, 2])


def test_changes_of_energies_are_those_of_the_members():
    """Of a network, in single precision: as exact as differences of energies in double precision."""
    term = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
    frames = []
    for k in range(12):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * np.random.default_rng(k).normal(size=(3, 3))
        frames.append(Structure.from_ase(atoms))
    free = Metadata(((1, -13.0), (8, -2000.0)))
    bare = fresh(term, pad(frames[:3], 4.0), jax.random.key(0), free).astype("float64")
    potential = uncertainty.fit(bare, frames, method=LastLayer(samples=4))
    scale = Calibration(np.asarray(0.7), np.ones(()), np.zeros(()), np.full(len(LEVELS), np.nan), (9,), "given")
    potential = potential.replace(posterior=potential.posterior.replace(calibrations={"energy_std": scale}))
    apart = equipot.evaluate_ensemble(members(potential, "energy_std"), frames, want="energy").energy
    apart = apart - equipot.evaluate(potential, frames, want="energy").energy[None]
    found = energy_changes(potential, frames)
    np.testing.assert_allclose(found, apart, atol=1e-10)
    assert np.abs(found).max() > 1e-3
    np.testing.assert_allclose(energy_changes(potential.astype("float32"), frames), apart, rtol=1e-4, atol=1e-6)
