"""Deviations in a jax-md loop: those of ``equipot.evaluate``, and no numbers where pairs are missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from jax_md import simulate, space

import equipot
from equipot import uncertainty
from equipot.data.batch import pad
from equipot.interfaces import jaxmd
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.posterior import LEVELS, Calibration
from equipot.structure import Structure
from equipot.uncertainty.last_layer import LastLayer
from equipot.units import fs, kB

TERM = MACE(4.0, elements=(14,), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
NAMES = ("energy_std", "forces_std", "stress_std", "novelty")


def silicon(seed, size=0.1):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(size, seed=seed)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + [[0, 0.03, 0], [0.1, 0, -0.05], [0.2, 0.04, 0]]), scale_atoms=True)
    return atoms


@pytest.fixture
def potential():
    frames = [Structure.from_ase(silicon(seed)) for seed in range(8)]
    bare = fresh(TERM, pad(frames[:2], 4.0), jax.random.key(0), Metadata(((14, 0.0),)), avg_num_neighbors=5.0)
    found = uncertainty.fit(bare.astype("float64"), frames, method=LastLayer(samples=4))
    known = {}
    for name, shape in (("energy_std", ()), ("forces_std", (119,)), ("stress_std", ())):
        known[name] = Calibration(
            np.full(shape, 0.3), np.ones(()), np.zeros(shape), np.full((*shape, len(LEVELS)), np.nan), (9,), "given"
        )
    return found.replace(posterior=found.posterior.replace(calibrations=known).astype("float64"))


@pytest.mark.parametrize("fractional", [True, False])
def test_deviations_are_those_of_evaluate(potential, fractional):
    atoms = silicon(20, 0.2)
    box = jaxmd.box_of(atoms.cell[:])
    neighbor_fn, _ = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, fractional_coordinates=fractional)
    deviations_fn = jax.jit(jaxmd.neighbor_list_deviations(potential, atoms.numbers, NAMES))
    position = jnp.asarray(jaxmd.fractional(atoms.positions, atoms.cell[:]) if fractional else atoms.positions)
    found = deviations_fn(position, neighbor=neighbor_fn.allocate(position), box=box, kT=0.1)
    (known,) = equipot.evaluate_each(potential, atoms, want=NAMES)
    assert set(found) == set(NAMES)
    for name in NAMES:
        assert found[name].shape == np.shape(known.others[name])
        np.testing.assert_allclose(found[name], known.others[name], rtol=1e-9, err_msg=name)


def test_a_molecule_has_no_stress_and_a_list_that_overflowed_tells_nothing(potential):
    atoms = Atoms("Si3", positions=[[0, 0, 0], [2.3, 0, 0], [0, 2.4, 0.1]])
    neighbor_fn, _ = jaxmd.neighbor_list_energy(potential, atoms.numbers)
    deviations_fn = jaxmd.neighbor_list_deviations(potential, atoms.numbers, NAMES)
    neighbors = neighbor_fn.allocate(atoms.positions)
    found = deviations_fn(jnp.asarray(atoms.positions), neighbor=neighbors)
    (known,) = equipot.evaluate_each(potential, atoms, want=("energy_std", "forces_std"))
    np.testing.assert_allclose(found["forces_std"], known.others["forces_std"], rtol=1e-9)
    assert np.isnan(found["stress_std"]) and found["energy_std"] == pytest.approx(known.others["energy_std"])
    full = dataclasses.replace(neighbors, slots=dataclasses.replace(neighbors.slots, overflow=jnp.asarray(True)))
    assert all(np.isnan(value).all() for value in deviations_fn(jnp.asarray(atoms.positions), neighbor=full).values())


def test_a_loop_sees_the_largest_deviation_now_and_then(potential):
    atoms = silicon(3, 0.05)
    box = jaxmd.box_of(atoms.cell[:])
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, fractional_coordinates=False)
    deviations_fn = jaxmd.neighbor_list_deviations(potential, atoms.numbers, "forces_std")
    _, shift = space.free()
    position = jnp.asarray(atoms.positions)
    init_fn, apply_fn = simulate.nve(energy_fn, shift, 1.0 * fs)
    neighbors = neighbor_fn.allocate(position)
    state = init_fn(jax.random.PRNGKey(0), position, kB * 300.0, mass=28.0855, neighbor=neighbors)

    def step(carry, k):
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        state = apply_fn(state, neighbor=neighbors)
        seen = lambda: deviations_fn(state.position, neighbor=neighbors)["forces_std"].max()
        return (state, neighbors), (jax.lax.cond(k % 4 == 0, seen, lambda: jnp.nan), state.position)

    (_, neighbors), (worst, path) = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(9)))((state, neighbors))
    assert not neighbors.did_buffer_overflow
    assert np.isfinite(worst).tolist() == [k % 4 == 0 for k in range(9)]
    for k in (0, 4, 8):
        atoms.positions = path[k]
        (known,) = equipot.evaluate_each(potential, atoms, want="forces_std")
        assert worst[k] == pytest.approx(known.others["forces_std"].max(), rel=1e-9)


def test_what_there_is_no_estimate_of_is_refused(potential):
    cases = {
        "no such quantity 'forces'": lambda: jaxmd.neighbor_list_deviations(potential, [14], ("forces",)),
        "no estimate of its uncertainty": lambda: jaxmd.neighbor_list_deviations(potential.replace(posterior=None), [14]),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
    lists = dataclasses.replace(potential.metadata, atomic_energies=((14, 0.0), (8, 0.0)))
    neighbors = jaxmd.neighbor_list_energy(potential.replace(metadata=lists), [8])[0].allocate(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="the jax-md system: the potential does not know O"):
        jaxmd.neighbor_list_deviations(potential, [8])(np.zeros((1, 3)), neighbor=neighbors)
