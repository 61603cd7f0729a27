"""Deviations of the last layer: against exact linear regression, exact Jacobians, and the laws that energies obey."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from flax.traverse_util import flatten_dict, unflatten_dict
from uncertain import CRYSTAL, FRAMES, MORE, TERMS, labelled, made, rattled, unit

import equipot
from equipot import uncertainty
from equipot.data.batch import Shape, pad
from equipot.feature_slopes import PROBES, random_signs
from equipot.metadata import Metadata
from equipot.physics.zbl import ZBL
from equipot.posterior import Statistics
from equipot.potential import atomic
from equipot.quantities import ENERGY
from equipot.structure import Structure
from equipot.uncertainty.calibration import half_width
from equipot.uncertainty.last_layer import LastLayer
from equipot.uncertainty.members import members
from equipot.uncertainty.statistics import gather, joined


@functools.cache
def fitted(name="mace", samples=8):
    return unit(uncertainty.fit(made(name), [*FRAMES, *MORE, CRYSTAL], method=LastLayer(samples=samples, regulariser=1e-4)))


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Exactly means exactly."""


@pytest.mark.parametrize("name", TERMS)
def test_energies_are_linear_functions_of_the_features(name):
    """But for a constant of each species: so many environments are told by fewer weights."""
    potential = made(name)
    # Not so far that a wall is felt.
    frames = [rattled(molecule("CH3CH2OH"), seed, 0.04 if name == "guarded" else 0.3) for seed in range(12)]
    out = equipot.evaluate(potential, frames, want=("energies", "features"))
    bare = out.energies if name != "charged" else out.energies - charged_part(potential, frames)
    if name in ("sum", "frozen"):
        bare = bare - equipot.evaluate(potential.member("terms_1"), frames, want="energies").energies
    numbers = np.concatenate([frame.numbers for frame in frames])
    known = np.concatenate([out.others["features"], numbers[:, None] == np.array([[1, 6, 8]])], axis=1)
    assert np.linalg.matrix_rank(known, 1e-10) < len(known) / 3
    weights = np.linalg.lstsq(known, bare, rcond=1e-13)[0]
    assert np.std(bare) > 1e-3
    np.testing.assert_allclose(known @ weights, bare, atol=1e-9)


def charged_part(potential, frames):
    graph = pad(frames, 3.5, dtype=np.float64, extent=potential.extent(frames))
    found = atomic(potential, jax.tree.map(jnp.asarray, graph)).others["electrostatic_energy"]
    return np.asarray(found)[np.asarray(graph.node_mask)]


def test_slopes_are_derivatives_along_signs_that_depend_on_no_batch():
    potential, frame = made("mace"), FRAMES[0]
    graph = jax.tree.map(jnp.asarray, pad([frame], 3.5, dtype=np.float64))
    whole = lambda r: jnp.sum(atomic(potential, graph.replace(positions=r)).features, axis=0)
    jacobian = jax.jacfwd(whole)(graph.positions)
    (found,) = equipot.evaluate_each(potential, frame, want=("feature_slopes",))
    for k in range(PROBES):
        signs = random_signs(graph, jnp.uint32(k))
        assert set(np.unique(signs)) == {-1.0, 1.0}
        np.testing.assert_allclose(found.others["feature_slopes"][k], jnp.sum(jacobian * signs[None], axis=(1, 2)), atol=1e-12)
    padded = jax.tree.map(jnp.asarray, pad([FRAMES[1], frame], 3.5, Shape(20, 12, 4), np.float64))
    theirs = random_signs(padded, jnp.uint32(1))[3 : 3 + len(frame)]
    np.testing.assert_array_equal(theirs, random_signs(graph, jnp.uint32(1)))
    # Over many draws, products of signs average to one on the diagonal and to nothing off it.
    draws = np.stack([random_signs(graph, jnp.uint32(k)).ravel() for k in range(2000)])
    np.testing.assert_allclose(draws.T @ draws / 2000, np.eye(27), atol=0.1)


def test_energies_have_the_deviation_of_bayesian_linear_regression_and_of_a_gaussian_process():
    """With energies alone. A Gaussian process whose kernel is the product of features is the same model, by other equations."""
    potential, rho = made("mace"), 1e-3
    rows = np.stack([x.others["features"].sum(axis=0) for x in equipot.evaluate_each(potential, FRAMES, want=("features",))])
    noise = np.sqrt([len(frame) for frame in FRAMES]) * ENERGY.scale
    sums = gather(potential, FRAMES).arrays
    np.testing.assert_allclose(sums["energy"], (rows / noise[:, None] ** 2).T @ rows * ENERGY.scale**2, rtol=1e-10)
    energies_only = Statistics({**sums, "forces": np.zeros_like(sums["forces"])})
    method = LastLayer(regulariser=rho)
    model = unit(uncertainty.with_statistics(potential, energies_only, method, "test"))
    (out,) = equipot.evaluate_each(model, CRYSTAL, want=("energy_std", "features"))
    new = out.others["features"].sum(axis=0)
    prior = 1 / (rho * np.trace(sums["energy"] / ENERGY.scale**2) / len(new))
    kernel = lambda a, b: prior * a @ b.T
    across = kernel(new[None], rows)
    variance = kernel(new[None], new[None]) - across @ np.linalg.solve(kernel(rows, rows) + np.diag(noise**2), across.T)
    assert out.others["energy_std"] == pytest.approx(np.sqrt(variance[0, 0]), rel=1e-6)


def test_deviations_of_forces_and_stress_are_those_of_the_whole_jacobian():
    """J S^-1 J^T, to the noise of so many samples; stress by finite strain."""
    potential = fitted("mace", 4000)
    covariance = np.asarray(potential.posterior.arrays["root"]) @ np.asarray(potential.posterior.arrays["root"]).T
    graph = jax.tree.map(jnp.asarray, pad([CRYSTAL], 3.5, dtype=np.float64))
    whole = lambda r: jnp.sum(atomic(potential, graph.replace(positions=r)).features, axis=0)
    jacobian = np.asarray(jax.jacfwd(whole)(graph.positions))
    variance = np.einsum("pnc,pq,qnc->n", jacobian, covariance, jacobian) / 3
    (out,) = equipot.evaluate_each(potential, CRYSTAL, want=("forces_std", "stress_std"))
    np.testing.assert_allclose(out.others["forces_std"], np.sqrt(variance), rtol=0.05)

    def strained(i, j, sign, h=1e-4):
        bent = np.eye(3)
        bent[i, j] += sign * h / 2
        bent[j, i] += sign * h / 2
        return dataclasses.replace(CRYSTAL, positions=CRYSTAL.positions @ bent, cell=CRYSTAL.cell @ bent)

    frames = [strained(i, j, sign) for i in range(3) for j in range(3) for sign in (1, -1)]
    rows = [x.others["features"].sum(axis=0) for x in equipot.evaluate_each(potential, frames, want=("features",))]
    slopes = (np.array(rows[::2]) - rows[1::2]) / 2e-4 / CRYSTAL.volume
    wanted = np.sqrt(np.einsum("kp,pq,kq->", slopes, covariance, slopes) / 9)
    assert out.others["stress_std"] == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("name", ["mace", "nequip", "sum", "guarded", "charged"])
def test_deviations_do_not_change_with_rotation_permutation_padding_and_batch(name):
    potential, want = fitted(name), ("energy_std", "forces_std", "novelty")
    frame = FRAMES[0]
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    order = np.random.default_rng(2).permutation(len(frame))
    turned = dataclasses.replace(frame, positions=(frame.positions @ q.T)[order], numbers=frame.numbers[order])
    alone, other = (equipot.evaluate_each(potential, x, want=want)[0].others for x in (frame, turned))
    together = equipot.evaluate_each(potential, [CRYSTAL, frame, FRAMES[2]], want=want)[1].others
    assert min(np.min(alone[key]) for key in want) > 0
    for key in want:
        first = alone[key] if np.ndim(alone[key]) == 0 else alone[key][order]
        np.testing.assert_allclose(other[key], first, rtol=1e-8, err_msg=key)
        np.testing.assert_allclose(together[key], alone[key], rtol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["mace", "sum", "frozen", "guarded", "charged"])
def test_members_spread_as_the_deviations_say(name):
    model = unit(fitted(name), energy_std=2.0, forces_std=0.5)
    (out,) = equipot.evaluate_each(model, FRAMES[0], want=("energy", "forces", "forces_std"))
    found = equipot.evaluate_ensemble(members(model), FRAMES[0], want=("energy", "forces"))
    by_energy = equipot.evaluate_ensemble(members(model, "energy_std"), FRAMES[0], want="energy").energy
    ensemble = equipot.evaluate(model, FRAMES[0], want="ensemble").others["ensemble"]
    np.testing.assert_allclose(ensemble, (by_energy - out.energy).T, atol=1e-9)
    spread = np.sqrt(np.mean((found.forces - out.forces[None]) ** 2, axis=(0, 2)))
    np.testing.assert_allclose(spread, out.others["forces_std"], rtol=1e-8)
    assert np.abs(found.energy - out.energy).max() > 1e-6


def test_statistics_of_two_sets_are_joined_to_those_of_both():
    potential = made("nequip")
    both, parts = gather(potential, FRAMES), joined(gather(potential, FRAMES[:3]), gather(potential, FRAMES[3:]))
    for name, value in both.arrays.items():
        if name not in ("order", "kept"):
            np.testing.assert_allclose(parts.arrays[name], value, rtol=1e-12, err_msg=name)
    assert both == gather(potential, FRAMES, batch_size=2) or np.allclose(
        both.arrays["forces"], gather(potential, FRAMES, 2).arrays["forces"]
    )
    more = uncertainty.absorb(uncertainty.fit(potential, FRAMES[:3]), FRAMES[3:])
    np.testing.assert_allclose(more.posterior.statistics.arrays["energy"], both.arrays["energy"], rtol=1e-12)
    with pytest.raises(ValueError, match="different models"):
        joined(both, gather(made("mace"), FRAMES))


def test_a_potential_keeps_its_uncertainty_in_its_file_and_loses_it_with_other_variables(tmp_path):
    potential, want = fitted(), ("energy_std", "forces_std", "novelty")
    equipot.save(potential, tmp_path / "model.eqp")
    again = equipot.load(tmp_path / "model.eqp")
    assert again.posterior.statistics == potential.posterior.statistics
    one, two = (equipot.evaluate(model, FRAMES[:2], want=want) for model in (potential, again))
    for name in want:
        np.testing.assert_array_equal(one.others[name], two.others[name])
    changed = unflatten_dict({path: 1.01 * leaf for path, leaf in flatten_dict(potential.variables).items()})
    with pytest.raises(ValueError, match="no estimate of its uncertainty"):
        equipot.evaluate(potential.replace(variables=changed), FRAMES[0], want="energy_std")
    stale = dataclasses.replace(potential, variables=changed)
    with pytest.raises(ValueError, match="belongs to other variables"):
        equipot.save(stale, tmp_path / "stale.eqp")
    single = equipot.load(tmp_path / "model.eqp", dtype="float32")
    found = equipot.evaluate(single, FRAMES[:2], want=want)
    for name in want:
        np.testing.assert_allclose(found.others[name], one.others[name], rtol=2e-2)


def test_what_cannot_be_estimated_is_refused():
    potential, bare = fitted(), made("mace")
    cases = {
        "no estimate of its uncertainty": lambda: equipot.evaluate(bare, FRAMES[0], want="forces_std"),
        "is not calibrated": lambda: equipot.evaluate(uncertainty.fit(bare, FRAMES), FRAMES[0], want="forces_std"),
        "no structures": lambda: uncertainty.fit(bare, []),
        "are too few": lambda: uncertainty.fit(bare, FRAMES, calibrate=labelled(bare, FRAMES[:2])),
        "no labels": lambda: uncertainty.fit(bare, FRAMES, calibrate=FRAMES),
        "does not know": lambda: uncertainty.fit(bare, [Structure([29, 29], [[0, 0, 0.0], [0, 0, 2.2]])]),
        "level 0.77 is not among": lambda: half_width(potential, "energy_std", 0.77),
        "too few for an interval of 99%": lambda: half_width(potential, "energy_std", 0.99),
        "has no features": lambda: uncertainty.fit(no_network(), FRAMES),
        "samples 1 must": lambda: LastLayer(samples=1),
        "regulariser 0": lambda: LastLayer(regulariser=0.0),
        "no samples of its last layer": lambda: members(bare),
        "energy_std, novelty: potentials that are evaluated at once": lambda: equipot.evaluate_ensemble(
            [potential, potential], FRAMES[0], want=("energy", "energy_std", "novelty")
        ),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def no_network():
    return equipot.Potential(ZBL(cutoff=3.0), {}, Metadata(((1, 0.0), (6, 0.0), (8, 0.0))))


def test_the_ase_calculator_has_the_deviations():
    potential = fitted()
    atoms = FRAMES[0].to_ase()
    atoms.calc = potential.calculator()
    names = ("forces_std", "energy_std", "novelty", "ensemble")
    (out,) = equipot.evaluate_each(potential, FRAMES[0], want=names)
    assert "forces_std" not in atoms.calc.results
    for name in names:
        np.testing.assert_allclose(atoms.calc.get_property(name, atoms), out.others[name], rtol=1e-6)
