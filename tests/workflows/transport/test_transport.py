"""Diffusion, radial distributions and Green-Kubo integrals against closed forms and other programs."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from autoregressive import autoregressive, langevin
from matscipy.neighbours import neighbour_list

from equipot.units import W_per_mK, fs, kB
from equipot.workflows.statistics.trajectory import Snapshot, Trajectory, from_frames
from equipot.workflows.transport import (
    Radial,
    averages,
    conductivity,
    displacements,
    finite_size_correction,
    radial_distribution,
    self_diffusion,
    viscosity,
)
from equipot.workflows.transport.diffusion import fit_walk, walk_covariance


def moving(positions, interval_fs=10.0, length=None, symbols=None, velocities=None):
    """A trajectory of given positions (Å), wrapped into a cube of a given length."""
    atoms = Atoms(symbols or f"H{positions.shape[1]}")
    cell = np.zeros((3, 3)) if length is None else length * np.eye(3)
    wrap = (lambda x: x) if length is None else (lambda x: x % length)
    v = [None] * len(positions) if velocities is None else velocities
    frames = lambda: (Snapshot(wrap(x), u, cell) for x, u in zip(positions, v, strict=True))
    return Trajectory(atoms.numbers, atoms.get_masses(), (length is not None,) * 3, frames, interval_fs)


def brute_force(x, lag):
    return np.mean(np.sum((x[lag:] - x[:-lag]) ** 2, axis=-1))


def test_displacements_are_those_of_all_origins_and_do_not_see_the_cell():
    x = np.cumsum(np.random.default_rng(0).normal(0, 0.3, size=(300, 6, 3)), axis=0)
    free, wrapped = displacements(moving(x)), displacements(moving(x, length=5.0))
    np.testing.assert_allclose(wrapped.squared, free.squared, rtol=1e-10)
    centred = x - x.mean(axis=1, keepdims=True)
    for level, spacing in enumerate(free.spacings[:5]):
        assert free.points[level] == len(centred[::spacing])
        for k in (1, 3, 10):
            if k < free.points[level]:
                assert free.squared[level, 0, k - 1] == pytest.approx(brute_force(centred[::spacing], k))
    times, squared = free.curve(0)
    assert (np.diff(times) > 0).all() and squared[0] == free.squared[0, 0, 0]
    with pytest.raises(ValueError, match="write frames more often"):
        displacements(moving(10 * x, length=5.0))


def test_the_covariance_of_overlapping_displacements_is_that_of_walks():
    rng, points, lags = np.random.default_rng(1), 30, 4
    walks = np.cumsum(rng.normal(size=(40_000, points)), axis=1) + np.sqrt(0.35) * rng.normal(size=(40_000, points))
    squared = np.stack([np.mean((walks[:, k:] - walks[:, :-k]) ** 2, axis=1) for k in range(1, lags + 1)])
    expected = walk_covariance(0.7, 1.0, points, lags)
    np.testing.assert_allclose(np.cov(squared), expected, rtol=0.06)
    slope, error, _ = fit_walk(squared.mean(axis=1), points, 40_000)
    assert slope == pytest.approx(1, abs=4 * error) and error < 0.01


def test_errors_of_diffusion_coefficients_cover_the_truth():
    rng, z, quality = np.random.default_rng(2), [], []
    for _ in range(40):
        x = np.cumsum(rng.normal(0, 0.2, size=(400, 8, 3)), axis=0)
        # The centre of mass is put at rest, which takes one in eight walks.
        (found,) = self_diffusion(displacements(moving(x)))
        truth = 0.04 / (2 * 10.0) * 0.1 * 7 / 8
        z.append((found.coefficient - truth) / found.error)
        quality.append(found.quality)
    z = np.array(z)
    assert 0.5 < np.mean(np.abs(z) < 1) < 0.9 and np.mean(np.abs(z) < 2) > 0.85 and abs(z.mean()) < 0.5
    assert np.median(quality) == pytest.approx(0.5, abs=0.25)


def test_langevin_particles_diffuse_with_kT_over_the_friction_beyond_the_ballistic_times():
    tau = 100.0
    v, x = langevin(np.random.default_rng(3), 4000, 60, 0.2, tau)
    # Velocities have unit variance, here of 0.01 Å/fs.
    found = displacements(moving(0.01 * x, 20.0, length=400.0, velocities=0.01 * v))
    (diffusion,) = self_diffusion(found)
    truth = 1e-4 * tau * 0.1 * 59 / 60
    assert not diffusion.reason and diffusion.coefficient == pytest.approx(truth, abs=4 * diffusion.error)
    assert diffusion.error < 0.05 * truth and diffusion.spacing_fs > tau
    assert found.length == pytest.approx(400)
    # The centre of mass moves as freely as the atoms.
    assert found.temperature_K == pytest.approx(1.008 * 1e-4 / fs**2 / kB, rel=0.03)
    # The same walk at ballistic times only is no diffusion.
    short = self_diffusion(displacements(moving(0.01 * x[:40], 20.0)))[0]
    assert "not diffusive" in short.reason and np.isnan(short.coefficient)


def test_atoms_of_a_crystal_do_not_diffuse():
    rng = np.random.default_rng(4)
    x = autoregressive(rng, [0.8], 3000, 24).reshape(3000, 8, 3) * 0.05
    (found,) = self_diffusion(displacements(moving(x)))
    assert "does not diffuse" in found.reason or "not diffusive" in found.reason


def test_the_correction_for_the_finite_cell_is_that_of_yeh_and_hummer():
    # 2.837297 x 1.380649e-23 J/K x 298 K / (6 pi x 0.89e-3 Pa s x 20e-10 m) = 3.479e-10 m^2/s.
    assert finite_size_correction(298.0, 0.89, 20.0) == pytest.approx(3.479e-6, rel=1e-3)


def test_an_ideal_gas_has_no_structure_beyond_half_the_cell_too():
    rng, n, length = np.random.default_rng(5), 60, 9.0
    frames = lambda: (Atoms("Ar40He20", positions=rng.random((n, 3)) * length, cell=[length] * 3, pbc=True) for _ in range(60))
    found = radial_distribution(from_frames(frames, 1.0), Radial(longest=8.0, bins=16, every=1))
    assert found.pairs == ("He-He", "He-Ar", "Ar-Ar") and found.frames == 60
    expected = np.array([1 - 1 / 20, 1, 1 - 1 / 40])
    z = (found.values - expected[:, None]) / found.error
    assert np.mean(np.abs(z[:, 3:]) < 2) > 0.85 and np.abs(z[:, 3:]).max() < 5
    assert found.coordination[1, -1] == pytest.approx(40 / length**3 * 4 / 3 * np.pi * 8**3, rel=0.03)


def test_the_shells_of_a_perfect_crystal_are_counted_from_a_single_atom():
    atoms = bulk("Cu", "fcc", a=3.6)
    found = radial_distribution(from_frames(lambda: iter([atoms]), 1.0), Radial(longest=6.0, bins=600, every=1))
    near = 3.6 / np.sqrt(2)
    for shell, count in ((1, 12), (2, 18), (3, 42), (4, 54), (5, 78)):
        place = np.searchsorted(found.edges, near * np.sqrt(shell) + 0.02)
        assert found.coordination[0, place] == pytest.approx(count)
    assert found.values[0][found.centers < 2.5].max() == 0


def test_radial_distributions_are_those_of_the_pairs_of_matscipy():
    atoms = bulk("NaCl", "rocksalt", a=5.6) * (2, 2, 1)
    atoms.rattle(0.2, seed=1)
    settings = Radial(longest=7.0, bins=30, every=1)
    found = radial_distribution(from_frames(lambda: iter([atoms, atoms]), 1.0), settings)
    i, j, d = neighbour_list("ijd", atoms, 7.0)
    for k, (a, b) in enumerate(((11, 11), (11, 17), (17, 17))):
        counted, _ = np.histogram(d[(atoms.numbers[i] == a) & (atoms.numbers[j] == b)], found.edges)
        shells = 4 / 3 * np.pi * np.diff(found.edges**3)
        np.testing.assert_allclose(found.values[k], counted / 4 / shells / (4 / atoms.get_volume()), rtol=1e-12)
    molecule = from_frames(lambda: iter([Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])]), 1.0)
    with pytest.raises(ValueError, match="no density"):
        radial_distribution(molecule, settings)


def test_averages_of_frames_are_those_of_ase():
    rng, atoms = np.random.default_rng(6), bulk("Cu", cubic=True)
    made = []
    for _ in range(100):
        a = atoms.copy()
        a.set_momenta(rng.normal(size=(4, 3)))
        made.append(a)
    found = averages(from_frames(lambda: iter(made), 1.0))
    assert set(found) == {"temperature_K", "density_g_cm3"}
    of_ase = np.mean([a.get_temperature() for a in made])
    assert found["temperature_K"].mean == pytest.approx(of_ase)
    # ASE counts 3 N degrees of freedom, also where the centre of mass is at rest.
    for a in made:
        a.set_momenta(a.get_momenta() - a.get_masses()[:, None] * a.get_momenta().sum(axis=0) / a.get_masses().sum())
    at_rest = averages(from_frames(lambda: iter(made), 1.0))
    assert at_rest["temperature_K"].mean == pytest.approx(np.mean([a.get_temperature() for a in made]) * 12 / 9)
    assert found["density_g_cm3"].mean == pytest.approx(8.935, abs=0.1)


def test_green_kubo_and_cepstral_analysis_find_the_integral_of_an_exponential():
    tau, dt, amplitude = 50.0, 5.0, 2.0
    x = amplitude * autoregressive(np.random.default_rng(7), [np.exp(-dt / tau)], 20_000, 3)
    variance = amplitude**2 / (1 - np.exp(-2 * dt / tau))
    volume, temperature = 1000.0, 300.0
    found = conductivity(x, dt, volume, temperature)
    # The trapezoidal sum of exp(-t / tau) is (dt / 2) coth(dt / 2 tau); the spectrum of the samples is the same.
    truth = 1 / (W_per_mK * volume * kB * temperature**2) * variance * dt / 2 / np.tanh(dt / (2 * tau))
    assert found.value == pytest.approx(truth, abs=3 * found.error) and found.error < 0.1 * truth
    assert found.direct == pytest.approx(truth, abs=4 * found.direct_error) and not found.failures
    np.testing.assert_allclose(found.correlation[:20], np.exp(-dt / tau * np.arange(20)), atol=0.05)
    # W/(m K) = 1 J / (s m K).
    assert 1 / W_per_mK == pytest.approx(1.602176634e-19 / 1e-15 / 1e-10, rel=1e-7)
    # Two elements whose mass flux is a part of the heat flux: the components are compared before it is removed.
    other = autoregressive(np.random.default_rng(9), [0.8], len(x), 3)
    mixed = conductivity(x + 0.5 * other, dt, volume, temperature, others=[other])
    assert mixed.freed and len(mixed.components) == 3 and not mixed.failures
    uneven = conductivity((x + 0.5 * other) * [1.0, 1.0, 2.0], dt, volume, temperature, others=[other * [1.0, 1.0, 2.0]])
    assert any("its components differ" in what for what in uneven.failures)
    slow = conductivity(autoregressive(np.random.default_rng(8), [0.999], 2000, 3), dt, volume, temperature)
    assert slow.failures


def test_the_viscosity_does_not_depend_on_the_axes():
    rng = np.random.default_rng(9)
    p = autoregressive(rng, [0.6], 4000, 9).reshape(4000, 3, 3)
    p = (p + p.transpose(0, 2, 1)) / 2
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    found, turned = (viscosity(x, 2.0, 500.0, 300.0) for x in (p, turn @ p @ turn.T))
    # Sums over five components are those over the traceless tensor, a scalar; so is the spectrum, frequency by frequency.
    np.testing.assert_allclose(turned.cepstral.periodogram, found.cepstral.periodogram, rtol=1e-8)
    # The off-diagonal means of two have half the variance: S(0) = dt / (2 x 0.4^2).
    truth = 1.602176634e-1 * 500 / (kB * 300) / 2 * 2.0 / (2 * 0.4**2)
    assert found.value == pytest.approx(truth, abs=4 * found.error)
