"""Densities of states and infrared spectra against closed forms."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.data import atomic_masses
from autoregressive import langevin

from equipot.units import fs, kB
from equipot.workflows.spectra import density_of_states, infrared_of_dipoles
from equipot.workflows.statistics.degrees_of_freedom import HeldMotions
from equipot.workflows.statistics.trajectory import Snapshot, Trajectory, from_frames
from equipot.workflows.transport.averages import averages


def trajectory(velocities, symbols, interval_fs):
    """Frames at one place with given velocities (Å/fs)."""
    atoms = Atoms(symbols)
    still, cell = np.zeros((len(atoms), 3)), np.zeros((3, 3))
    frames = lambda: (Snapshot(still, v, cell) for v in velocities)  # at one point: there is no rotation
    return Trajectory(atoms.numbers, atoms.get_masses(), (False, False, False), frames, interval_fs)


def test_a_harmonic_oscillator_has_one_line_of_the_width_asked_for():
    f, dt, resolution = 10.0, 2.0, 0.5
    t = np.arange(40_000) * dt
    v = np.zeros((len(t), 1, 3))
    v[:, 0, 0] = 0.01 * np.cos(2 * np.pi * f * 1e-3 * t)
    found = density_of_states(trajectory(v, "H", dt), resolution)
    total = found.density[0]
    # Half of m v^2 on average, in the one degree of freedom that is not held.
    assert found.temperature_K == pytest.approx(atomic_masses[1] * 0.01**2 / 2 / fs**2 / kB, rel=1e-3)
    assert found.correlations.integral(total) == pytest.approx(1, rel=1e-9)
    x = found.frequencies_THz
    assert x[np.argmax(total)] == pytest.approx(f, abs=x[1])
    fine = np.linspace(f - 1, f + 1, 4001)
    line = np.interp(fine, x, total)
    assert np.ptp(fine[line > total.max() / 2]) == pytest.approx(resolution, rel=0.2)
    # Parzen's window: W(f) = (3 T / 4) (sin(pi f T / 2) / (pi f T / 2))^4, of one degree of freedom.
    T = found.correlations.times_fs[-1] * 1e-3
    shape = 0.75 * T * np.sinc((x - f) * T / 2) ** 4
    near = np.abs(x - f) < 1.5
    np.testing.assert_allclose(total[near], shape[near], atol=0.02 * shape.max())


def test_free_langevin_particles_have_their_lorentzian_within_the_errors():
    tau, dt, resolution = 40.0, 4.0, 2.0
    v, _ = langevin(np.random.default_rng(0), 12_000, 30, dt / tau, tau)
    weights = atomic_masses[[1, 8]]
    velocities = v / np.sqrt(np.where(np.arange(30) < 20, *weights))[:, None] * 0.01
    found = density_of_states(trajectory(velocities, "H20O10", dt), resolution)
    assert not found.failures and found.expected == {"H": 60, "O": 30} and found.correlations.segments >= 16
    x, lags = found.frequencies_THz, np.arange(1, len(found.frequencies_THz))
    # C(t) = kT exp(-t / tau) of each degree of freedom, times Parzen's window with its full width of 4 / (pi T).
    u = lags * dt * 1e-3 * resolution * np.pi / 4
    window = np.clip(np.where(u < 0.5, 1 - 6 * u**2 + 6 * u**3, 2 * (1 - u) ** 3), 0, 1)
    decay = np.exp(-lags * dt / tau) * window
    waves = np.cos(2 * np.pi * x[:, None] * 1e-3 * dt * lags)
    expected = 2e-3 * dt * (1 + 2 * waves @ decay)
    for k, (name, n) in enumerate((("H", 60), ("O", 30))):
        assert found.degrees_of_freedom[name] == pytest.approx(n, rel=0.02)
        z = (found.density[k] - n * expected) / found.error[k]
        assert np.mean(np.abs(z) < 2) > 0.8 and np.abs(z).max() < 6
    # Without the window it is a Lorentzian with the half width 1 / (2 pi tau) = 3.98 THz.
    total = found.density.sum(axis=0)
    assert np.interp(3.98, x, total) / total[0] == pytest.approx(0.5, abs=0.08)


def test_a_molecule_that_neither_moves_nor_turns_lacks_six_degrees_of_freedom():
    rng, atoms = np.random.default_rng(5), molecule("H2O")
    m, r = atoms.get_masses(), atoms.positions
    # Motions of the whole in mass-weighted coordinates, by numbers that are not the program's.
    arm = r - atoms.get_center_of_mass()
    rigid = [np.tile(e, (3, 1)) for e in np.eye(3)] + [np.cross(e, arm) for e in np.eye(3)]
    q, _ = np.linalg.qr(np.stack([(np.sqrt(m)[:, None] * x).reshape(-1) for x in rigid], axis=1))
    drawn = rng.normal(size=(4000, 9))
    drawn -= drawn @ q @ q.T
    velocities = drawn.reshape(-1, 3, 3) / np.sqrt(m)[:, None]
    frames = lambda: (Snapshot(r, v, np.zeros((3, 3))) for v in velocities)
    given = Trajectory(atoms.numbers, m, (False,) * 3, frames, 1.0)
    found = density_of_states(given, 20.0)
    share = 3 - np.sum(q**2, axis=1).reshape(3, 3).sum(axis=1)
    assert found.expected == pytest.approx({"H": share[atoms.numbers == 1].sum(), "O": share[atoms.numbers == 8].sum()})
    assert sum(found.expected.values()) == pytest.approx(3)
    assert found.temperature_K == pytest.approx(1 / fs**2 / kB, rel=0.05)


def test_atoms_that_are_held_have_no_degrees_of_freedom():
    """As under FixAtoms in ASE: their velocities are zero in every frame, and the temperature is that of the others."""
    v, _ = langevin(np.random.default_rng(4), 4000, 12, 0.1, 40.0)
    m = atomic_masses[np.where(np.arange(12) < 8, 1, 8)]
    velocities = v / np.sqrt(m)[:, None] * 0.01
    velocities[:, [0, 1, 2, 11]] = 0.0
    velocities[:, 3, 2] = 0.0
    found = density_of_states(trajectory(velocities, "H8O4", 4.0), 2.0)
    assert found.expected == {"H": 3 * 8 - 10, "O": 9} and not found.failures
    assert found.temperature_K == pytest.approx(0.01**2 / fs**2 / kB, rel=0.02)
    assert sum(found.degrees_of_freedom.values()) == pytest.approx(23)
    # A molecule of two atoms that vibrates along its axis, without moving or turning: one of six.
    pair = np.zeros((200, 2, 3))
    pair[:, 0, 2] = np.cos(np.arange(200))
    pair[:, 1, 2] = -pair[:, 0, 2]
    frames = lambda: (Snapshot(np.array([[0, 0, 0], [0, 0, 1.1]]), v, np.zeros((3, 3))) for v in pair)
    held = HeldMotions(Trajectory(np.array([7, 7]), np.full(2, 14.0), (False,) * 3, frames, 1.0))
    for frame in frames():
        held.add(frame)
    assert held.free == pytest.approx(1)
    # The momentum of the others is not conserved, and that of the whole is not held, even if a run began without one.
    atoms = Atoms("H8O4", positions=np.random.default_rng(0).normal(size=(12, 3)))
    atoms.set_constraint(FixAtoms([0, 1, 2, 11]))
    made = []
    for row in velocities[:50]:
        atoms.set_velocities(row / fs)
        made.append(atoms.copy())
    of_frames = averages(from_frames(lambda: iter(made), 4.0))
    # ASE counts three degrees of freedom of each atom that is not held.
    expected = np.mean([a.get_temperature() for a in made]) * 24 / 23
    assert of_frames["temperature_K"].mean == pytest.approx(expected)


def test_elements_of_two_temperatures_frames_too_far_apart_and_short_runs_are_told():
    rng = np.random.default_rng(1)
    v, _ = langevin(rng, 6000, 30, 0.1, 40.0)
    weights = atomic_masses[[1, 8]] * np.array([1, 1.5])
    velocities = v / np.sqrt(np.where(np.arange(30) < 20, *weights))[:, None]
    told = density_of_states(trajectory(velocities, "H20O10", 4.0), 1.0).failures
    assert any("not at one temperature" in x for x in told)
    told = density_of_states(trajectory(rng.normal(size=(3000, 4, 3)), "H4", 4.0), 1.0).failures
    assert any("too far apart" in x for x in told)
    told = density_of_states(trajectory(velocities[:2600], "H20O10", 4.0), 0.5).failures
    assert any("too few for errors" in x for x in told)
    with pytest.raises(ValueError, match="too short: 100 frames"):
        density_of_states(trajectory(velocities[:100], "H20O10", 4.0), 1.0)
    with pytest.raises(ValueError, match="no velocities"):
        density_of_states(trajectory([None], "H", 4.0), 1.0)
    with pytest.raises(ValueError, match="coarser"):
        density_of_states(trajectory(velocities, "H20O10", 4.0), 100.0)


def test_a_harmonic_dipole_has_the_intensity_of_harmonic_analysis():
    # 1 (D/Å)^2/amu is 42.2561 km/mol in every program; 1 D is 0.2081943 e Å.
    f, dt, T, charge = 50.0, 0.5, 300.0, 0.2081943
    t = np.arange(60_000) * dt
    # In mass-weighted coordinates, the mean of the squared velocity is kT.
    q = np.sqrt(2 * kB * T) * fs / (2 * np.pi * f * 1e-3) * np.cos(2 * np.pi * f * 1e-3 * t)
    dipoles = np.zeros((len(t), 3))
    dipoles[:, 1] = charge * q + 5.0
    found = infrared_of_dipoles(dipoles, dt, 2.0, T)
    assert found.unit == "km/mol per cm^-1" and not found.failures
    step = found.wavenumbers_cm[1]
    assert found.absorption.sum() * step == pytest.approx(42.2561, rel=2e-3)
    assert found.wavenumbers_cm[np.argmax(found.absorption)] == pytest.approx(33.35641 * f, abs=step)
    # One such oscillator in 100 Å^3: 42.26e5 cm/mol of 1 / (6.022e23 x 100e-24 cm^3).
    crystal = infrared_of_dipoles(dipoles, dt, 2.0, T, volume=100.0)
    assert crystal.absorption.sum() * step == pytest.approx(42.2561e5 / (6.02214e23 * 100e-24), rel=2e-3)


def test_dipoles_that_jump_or_are_no_numbers_are_told():
    rng = np.random.default_rng(2)
    dipoles = np.cumsum(rng.normal(size=(20_000, 3)), axis=0) * 1e-3
    dipoles[10_000:] += 20.0
    assert any("jumps" in x for x in infrared_of_dipoles(dipoles, 1.0, 5.0, 300.0).failures)
    with pytest.raises(ValueError, match="Flows"):
        infrared_of_dipoles(np.full((100, 3), np.nan), 1.0, 5.0, 300.0)
