"""Each ensemble samples what it is named after, within the error of the sampling (from block averages)."""

import dataclasses

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_md import simulate

from equipot import md
from equipot.md import log
from equipot.md.ensembles import builtin
from equipot.md.ensembles.csvr import rescaling
from equipot.md.state import Setup, State, degrees_of_freedom, kinetic_energy, masses, thermal_momenta
from equipot.units import GPa, fs, kB

ENSEMBLES = [cls(barostat_fs=400.0) if cls.has_pressure else cls() for cls in builtin().values()]
SIGMAS = 4.5
"""How many standard errors a mean may be off: one in 10^5, and a little for errors of the errors."""
name = lambda x: type(x).__name__


def mean_and_error(values, blocks=20):
    """Mean of correlated values and its standard error, from the scatter of block averages."""
    means = np.array([block.mean() for block in np.array_split(np.asarray(values), blocks)])
    return means.mean(), means.std(ddof=1) / np.sqrt(blocks)


def agrees(values, expected, blocks=20):
    mean, error = mean_and_error(values, blocks)
    assert abs(mean - expected) < SIGMAS * error, f"{mean} +- {error}, expected {expected}"
    return error


def trajectory(potential, solid, config, out):
    md.simulate(potential, solid, config, out, progress=None)
    table = log.read(out / "log.csv")
    frames = ase.io.read(out / "trajectory.xyz", ":")
    late = table["step"] >= config.steps // 10
    return {key: column[late] for key, column in table.items()}, frames[len(frames) // 10 :]


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=name)
def test_sampling(ensemble, potential, solid, configure, tmp_path):
    """Temperature, equipartition over light and heavy atoms, fluctuation of the kinetic energy, pressure, what is conserved."""
    config = configure(ensemble, steps=6_000)
    table, frames = trajectory(potential, solid, config, tmp_path / "run")
    dof = degrees_of_freedom(solid, ensemble.conserves_momentum)
    kT = kB * config.temperature_K
    spread = np.ptp(table["conserved_eV"])
    assert spread < 3e-3 * dof * kT, f"the conserved energy varies by {spread} eV"
    thermal = np.array([frame.get_momenta() ** 2 / masses(solid) for frame in frames])
    light, heavy = (thermal[:, solid.numbers == z].mean(axis=(1, 2)) for z in (10, 18))
    agrees(light - heavy, 0)
    if not ensemble.has_thermostat:
        assert np.ptp(table["total_eV"]) < 1e-3 * dof * kT
        return
    assert agrees(table["temperature_K"], config.temperature_K) < 0.03 * config.temperature_K
    agrees((table["kinetic_eV"] - dof * kT / 2) ** 2, dof / 2 * kT**2)
    if ensemble.has_pressure:
        assert agrees(table["pressure_GPa"], config.pressure_GPa) < 0.01
        assert np.ptp(table["volume_A3"]) > 20


class IdealGas:
    """No forces, for closed forms."""

    def update(self, state, neighbor):
        return state, neighbor


ATOMS, REPLICAS = 8, 256


def gas(ensemble, steps, shape):
    """P V / kT and the conserved energy of replicas of an ideal gas that start in equilibrium."""
    jax.config.update("jax_enable_x64", True)
    kT, pressure, mass = kB * 300, 0.02 * GPa, np.full((ATOMS, 1), 40.0)
    dof = 3 * ATOMS - (3 if ensemble.conserves_momentum else 0)
    setup = Setup(4 * fs, kT, pressure, dof, mass, np.full(ATOMS, 18), (True, True, True), 0.0, 0.0, (0.0,) * 3)

    def replica(key):
        keys = jax.random.split(key, 4)
        side = (jax.random.gamma(keys[0], shape) * kT / pressure) ** (1 / 3)
        momentum = jax.random.normal(keys[1], (ATOMS, 3)) * jnp.sqrt(kT * mass)
        momentum -= momentum.mean(axis=0, keepdims=True) if ensemble.conserves_momentum else 0
        position = jax.random.uniform(keys[2], (ATOMS, 3)) * side
        images = jnp.zeros((ATOMS, 3), jnp.int32)
        zero, nothing = jnp.zeros(()), jnp.zeros((3, 3))
        state = State(position, momentum, 0 * momentum, zero, nothing, jnp.eye(3) * side, images, keys[3], zero, ())
        state = ensemble.start(setup, state)

        def step(state, _):
            state, _ = ensemble.step(setup, IdealGas(), state, None)
            ratio = jnp.abs(jnp.linalg.det(state.cell)) * pressure / kT
            return state, (ratio, kinetic_energy(state.momentum, mass) + ensemble.reservoir(setup, state))

        return jax.lax.scan(step, state, length=steps)[1]

    ratio, conserved = jax.jit(jax.vmap(replica))(jax.random.split(jax.random.PRNGKey(0), REPLICAS))
    return np.asarray(ratio)[:, steps // 2 :], np.asarray(conserved) / kT


@pytest.mark.parametrize(
    ("ensemble", "steps", "shape"),
    [
        (md.NPTFlexible(5.0, 300.0, 5.0), 1000, ATOMS + 1),
        # With the centre of mass at rest and jax-md's alpha = 1 + 1/N, V is distributed as V^(N - 1 - 1/N) exp(-PV/kT).
        (md.NPTIsotropic(100.0, 300.0), 1000, ATOMS - 1 / ATOMS),
    ],
    ids=name,
)
def test_volume_of_an_ideal_gas(ensemble, steps, shape):
    """PV/kT has a Gamma distribution: the measure of the volume is right, not only the force on it."""
    ratio, conserved = gas(ensemble, steps, shape)
    agrees(ratio.mean(axis=1), shape, blocks=REPLICAS)
    agrees(((ratio - shape) ** 2).mean(axis=1), shape, blocks=REPLICAS)
    assert np.abs(ratio.mean() - shape) < 0.5  # sharp enough to tell N from N + 1
    assert np.ptp(conserved, axis=1).max() < 0.05


class Springs:
    """Every two atoms, real ones and no images, on a spring, for what needs forces and virials."""

    def energy(self, position, perturbation=1.0, **_):
        first, second = np.triu_indices(len(position), 1)
        length = jnp.linalg.norm(perturbation * (position[first] - position[second]), axis=1)
        return jnp.sum(0.02 * (length - 3.0) ** 2)

    def update(self, state, neighbor):
        energy, force = jax.value_and_grad(self.energy)(state.position)
        trace = jax.grad(lambda scale: self.energy(state.position, scale))(1.0)
        virial = jnp.diag(jnp.array([trace, 0.0, 0.0]))
        return state.replace(force=-force, interaction=energy, virial=virial), neighbor


@pytest.mark.parametrize("ensemble", [md.NVE(), md.NVTNoseHoover(), md.NVTLangevin(), md.NPTIsotropic()], ids=name)
def test_steps_are_those_of_jax_md(ensemble):
    """Positions and momenta after 20 steps are the same. Times are binary fractions: jax-md rounds them to single precision."""
    jax.config.update("jax_enable_x64", True)
    rng, dt, tau = np.random.default_rng(0), 0.125, 8.0
    times = {"thermostat_fs": tau / fs, "barostat_fs": 2 * tau / fs}
    ensemble = dataclasses.replace(ensemble, **{k: v for k, v in times.items() if hasattr(ensemble, k)})
    kT, pressure, mass = 0.03125, 0.01, np.array([[20.0], [40.0], [12.0], [30.0]])
    position, momentum, side = jnp.asarray(rng.normal(0, 2, (4, 3))), jnp.asarray(rng.normal(0, 1, (4, 3))), 10.0
    springs, free = Springs(), lambda position, change, **_: position + change
    setup = Setup(dt, kT, pressure, 12, mass, np.full(4, 18), (True, True, True), 0.0, 0.0, (0.0,) * 3)
    zero, key = jnp.zeros(()), jax.random.PRNGKey(1)
    cell, images = side * jnp.eye(3), jnp.zeros((4, 3), jnp.int32)
    state = State(position, momentum, jnp.zeros((4, 3)), zero, jnp.zeros((3, 3)), cell, images, key, zero, ())
    state = ensemble.start(setup, springs.update(state, None)[0])
    chain = {"chain_length": 3, "chain_steps": 2, "sy_steps": 3}
    begin = {"mass": mass, "momenta": jnp.asarray(momentum)}
    if isinstance(ensemble, md.NVE):
        init, apply = simulate.nve(springs.energy, free, dt)
        other = init(key, position, kT, **begin)
    elif isinstance(ensemble, md.NVTNoseHoover):
        init, apply = simulate.nvt_nose_hoover(springs.energy, free, dt, kT, tau=tau, **chain)
        other = init(key, position, **begin)
    elif isinstance(ensemble, md.NVTLangevin):
        init, apply = simulate.nvt_langevin(springs.energy, free, dt, kT, ensemble.friction_per_ps / (1000 * fs))
        other = init(key, position, **begin).set(rng=key)
    else:
        chains = ({**chain, "tau": 2 * tau}, {**chain, "tau": tau})
        init, apply = simulate.npt_nose_hoover(springs.energy, free, dt, pressure, kT, *chains)
        other = init(key, position, side * jnp.eye(3), **begin)
    step = jax.jit(lambda state, other: (ensemble.step(setup, springs, state, None)[0], apply(other)))
    for _ in range(20):
        state, other = step(state, other)
    moved = np.abs(state.position - position).max()
    assert moved > 0.1
    np.testing.assert_allclose(state.position, other.position, atol=1e-9)
    np.testing.assert_allclose(state.momentum, other.momentum, atol=1e-9)
    if isinstance(ensemble, md.NPTIsotropic):
        assert abs(np.log(state.cell[0, 0] / side)) > 1e-3
        np.testing.assert_allclose(state.cell, simulate.npt_box(other), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES[-2:], ids=name)
def test_compressibility_from_fluctuations_and_from_pressures(ensemble, potential, solid, configure, tmp_path):
    """var(V) / kT = -dV/dP, the slope taken from runs at two other pressures."""
    volumes = {}
    for pressure in (0.0, 0.05, 0.10):
        config = configure(ensemble, steps=60_000, pressure_GPa=pressure, chunk_steps=1000, skin=1.0)
        table, _ = trajectory(potential, solid, config, tmp_path / str(pressure))
        volumes[pressure] = table["volume_A3"]
    low, high = (mean_and_error(volumes[p]) for p in (0.0, 0.10))
    slope, slope_error = (low[0] - high[0]) / (0.10 * GPa), np.hypot(low[1], high[1]) / (0.10 * GPa)
    middle = volumes[0.05]
    variance, error = mean_and_error((middle - middle.mean()) ** 2 / (kB * 40.0))
    assert abs(variance - slope) < SIGMAS * np.hypot(error, slope_error)
    assert error < 0.15 * variance and slope_error < 0.15 * slope


def test_single_precision_does_not_drift(potential, solid, configure, tmp_path):
    """In float32 the total energy of NVE wanders by rounding, but has no slope."""
    config = configure(md.NVE(), steps=8_000, dtype="float32")
    table, _ = trajectory(potential, solid, config, tmp_path / "run")
    interaction = table["total_eV"] - table["total_eV"].mean()
    halves = np.array_split(interaction, 2)
    change = halves[1].mean() - halves[0].mean()
    assert abs(change) / len(solid) < 2e-7  # eV per atom in 16 ps; kT is 3e-3
    assert interaction.std() / len(solid) < 1e-6


def test_rescaling_keeps_the_canonical_distribution():
    """Repeated velocity rescaling alone turns any kinetic energy into a Gamma distribution of dof/2, also for one degree."""
    jax.config.update("jax_enable_x64", True)
    for dof in (1, 9):
        setup = Setup(1.0, 0.5, 0.0, dof, np.ones((1, 1)), np.ones(1, int), (False,) * 3, 0.0, 0.0, (0.0,) * 3)
        scale = jax.jit(jax.vmap(lambda key, kinetic: rescaling(key, kinetic, setup, 0.4) ** 2 * kinetic))  # noqa: B023
        kinetic = jnp.full(10_000, 3.0)
        for key in jax.random.split(jax.random.PRNGKey(dof), 25):
            kinetic = scale(jax.random.split(key, len(kinetic)), kinetic)
        kinetic = np.asarray(kinetic) / 0.5
        agrees(kinetic, dof / 2, blocks=200)
        agrees((kinetic - dof / 2) ** 2, dof / 2, blocks=200)


@pytest.mark.parametrize("shape", ["bulk", "bent", "linear", "pair", "atom"])
def test_initial_momenta(shape, solid):
    """Exactly the temperature, no total momentum and, for molecules, no angular momentum; degrees of freedom to match."""
    positions = {
        "bulk": solid.positions,
        "bent": np.array([[0, 0, 0], [1.0, 0, 0], [0, 1.2, 0.1]]),
        "linear": np.array([[0, 0, 0], [1.0, 0.5, 0], [2.4, 1.2, 0]]),
        "pair": np.array([[0, 0, 0], [0.3, 0.3, 1.0]]),
        "atom": np.zeros((1, 3)),
    }[shape]
    dof = {"bulk": 3 * 32 - 3, "bent": 3, "linear": 4, "pair": 1, "atom": 3}[shape]
    n = len(positions)
    pbc = np.full(3, shape == "bulk")
    structure = dataclasses.replace(solid, numbers=solid.numbers[:n], positions=positions + 5.0, pbc=pbc)
    assert degrees_of_freedom(structure, True) == dof
    assert degrees_of_freedom(structure, False) == 3 * n
    momentum = thermal_momenta(structure, 300.0, seed=1)
    assert not np.array_equal(momentum, thermal_momenta(structure, 300.0, seed=2))
    if shape == "atom":
        return
    assert (momentum**2 / masses(structure)).sum() == pytest.approx(dof * kB * 300, rel=1e-12)
    np.testing.assert_allclose(momentum.sum(axis=0), 0, atol=1e-12)
    if shape != "bulk":
        np.testing.assert_allclose(np.cross(structure.positions, momentum).sum(axis=0), 0, atol=1e-11)
