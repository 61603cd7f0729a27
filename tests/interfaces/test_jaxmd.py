"""The jax-md idiom: against jax-md's own distances where they can be trusted, and the one-pass evaluation everywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from jax_md import quantity, simulate, space
from subjects import SUBJECTS

from equipot import evaluate
from equipot.data.batch import pad
from equipot.interfaces import jaxmd
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.structure import Structure
from equipot.testing.systems import MOLECULE
from equipot.units import fs, kB

CUTOFF = 6.0
MASS = 39.948


@pytest.fixture
def potential():
    term = LennardJones(cutoff=CUTOFF, epsilon=0.02, sigma=3.0)
    pair = Structure.from_ase(Atoms("Ar2", positions=[[0, 0, 0], [3.3, 0, 0]]))
    variables = initial(term, jax.random.key(0), pad([pair], CUTOFF))
    return Potential(term, variables, Metadata(atomic_energies=((18, -7.0),))).astype("float64")


def crystal(repeat=(2, 2, 2), skew=1.0, rattle=0.1):
    atoms = bulk("Ar", "fcc", a=4.75, cubic=True) * repeat
    atoms.rattle(rattle, seed=1)
    shear = np.eye(3) + skew * np.array([[0, 0.03, 0], [0.1, 0, -0.05], [0.2, 0.04, 0]])
    atoms.set_cell(atoms.cell[:] @ shear, scale_atoms=True)
    return atoms


@pytest.mark.parametrize(("repeat", "fractional"), [((1, 1, 1), True), ((2, 2, 1), False)], ids=["multi-image", "larger"])
def test_energy_forces_and_stress(potential, fractional, repeat):
    """Any cell (not upper triangular), also one smaller than the cutoff, which jax-md's own lists get wrong."""
    atoms = crystal(repeat)
    box = jaxmd.box_of(atoms.cell[:])
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, fractional_coordinates=fractional)
    position = jnp.asarray(jaxmd.fractional(atoms.positions, atoms.cell[:]) if fractional else atoms.positions)
    neighbors = neighbor_fn.allocate(position, box=box)
    known = evaluate(potential, atoms)
    assert not neighbors.did_buffer_overflow

    @jax.jit
    def measure(position, box, neighbors):
        energy, slope = jax.value_and_grad(energy_fn)(position, neighbor=neighbors, box=box)
        return energy, slope, quantity.stress(energy_fn, position, box, neighbor=neighbors)

    energy, slope, stress = measure(position, box, neighbors)
    assert energy == pytest.approx(known.energy[0] + 7.0 * len(atoms), abs=1e-11)
    np.testing.assert_allclose(-slope, known.forces, atol=1e-11)
    np.testing.assert_allclose(-stress, known.stress[0], atol=1e-13)


def test_agrees_with_jax_md_energy(potential):
    """In a large orthorhombic box jax-md's displacement and plain double sum give the same energy."""
    atoms = crystal((3, 3, 3), skew=0)
    box = np.diag(atoms.cell[:])
    displacement, _ = space.periodic(box)
    r = space.distance(space.map_product(displacement)(jnp.asarray(atoms.positions), jnp.asarray(atoms.positions)))
    vectors = jnp.stack([jnp.where(r > 0, r, 99.0), 0 * r, 0 * r], axis=-1)

    every = {"slot_mask": r > 0, "neighbors": jnp.zeros(r.shape, int), "shifts": jnp.zeros((*r.shape, 3), int), "reverse": None}
    all_pairs = pad([Structure.from_ase(atoms)], potential.cutoff).replace(**every)
    expected = potential.term.apply(potential.variables, all_pairs, vectors).energy.sum()
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, fractional_coordinates=False)
    neighbors = neighbor_fn.allocate(atoms.positions)
    assert jax.jit(energy_fn)(atoms.positions, neighbor=neighbors) == pytest.approx(float(expected), abs=1e-10)


def quiet(atoms):
    """A start for jax-md: box, real positions, kT, time step."""
    return jaxmd.box_of(atoms.cell[:]), jnp.asarray(atoms.positions), kB * 20.0, 2 * fs


def scan(carry, apply, measure, steps=200):
    """The usual loop, with an update of the list inside; what is conserved at every step."""

    def step(carry, _):
        state, neighbors = carry
        neighbors = neighbors.update(state.position, box=getattr(state, "box", None))
        state = apply(state, neighbor=neighbors)
        return (state, neighbors), measure(state, neighbors)

    (state, neighbors), conserved = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(carry)
    assert not neighbors.did_buffer_overflow
    assert np.ptp(neighbors.reference_position - carry[1].reference_position) > 0.1  # built again on the way
    return np.asarray(conserved)


def test_nose_hoover_script_in_fractional_coordinates(potential):
    atoms = crystal(skew=0.2, rattle=0.02)
    box, _, kT, dt = quiet(atoms)
    _, shift = space.periodic_general(box, fractional_coordinates=True)
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, dr_threshold=0.1)
    position = jnp.asarray(jaxmd.fractional(atoms.positions, atoms.cell[:]))
    neighbors = neighbor_fn.allocate(position, extra_capacity=4)
    init_fn, apply_fn = simulate.nvt_nose_hoover(energy_fn, shift, dt, kT)
    state = init_fn(jax.random.PRNGKey(0), position, mass=MASS, neighbor=neighbors, kT=kT)
    measure = lambda state, n: simulate.nvt_nose_hoover_invariant(energy_fn, state, kT, neighbor=n)
    conserved = scan((state, neighbors), lambda s, neighbor: apply_fn(s, neighbor=neighbor, kT=kT), measure)
    assert np.ptp(conserved) < 2e-3 * 1.5 * len(atoms) * kT


def test_npt_script_in_real_coordinates(potential):
    """The box changes, the list follows, and the invariant of jax-md's barostat is constant."""
    atoms = crystal(skew=0.0, rattle=0.02)
    box, position, kT, dt = quiet(atoms)
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(
        potential, atoms.numbers, box, fractional_coordinates=False, dr_threshold=0.1
    )
    neighbors = neighbor_fn.allocate(position, box=box, extra_capacity=4)
    init_fn, apply_fn = simulate.npt_nose_hoover(energy_fn, jaxmd.shift, dt, 0.0, kT)
    state = init_fn(jax.random.PRNGKey(0), position, box, mass=MASS, neighbor=neighbors)
    measure = lambda state, n: simulate.npt_nose_hoover_invariant(energy_fn, state, 0.0, kT, neighbor=n)
    conserved = scan((state, neighbors), apply_fn, measure)
    assert np.ptp(conserved) < 2e-3 * 1.5 * len(atoms) * kT


def test_isolated(potential):
    atoms = Atoms("Ar4", positions=np.random.default_rng(0).uniform(0, 5, (4, 3)) + 4 * np.eye(4, 3))
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers)
    neighbors = neighbor_fn.allocate(atoms.positions)
    forces = -jax.jit(jax.grad(energy_fn))(jnp.asarray(atoms.positions), neighbor=neighbors)
    np.testing.assert_allclose(forces, evaluate(potential, atoms).forces, rtol=1e-10, atol=1e-12)


def test_stale_list_is_renewed_and_overflow_is_loud(potential):
    atoms = crystal(skew=0)
    box = jaxmd.box_of(atoms.cell[:])
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(
        potential, atoms.numbers, box, fractional_coordinates=False, capacity_multiplier=1.6
    )
    energy_fn = jax.jit(energy_fn)
    neighbors = neighbor_fn.allocate(atoms.positions)
    other = atoms.copy()
    other.rattle(0.4, seed=3)
    known = float(evaluate(potential, other).energy[0]) + 7.0 * len(atoms)
    assert energy_fn(other.positions, neighbor=neighbors) == pytest.approx(known, abs=1e-9)
    dense = jax.jit(lambda n, r, b: n.update(r, box=b))(neighbors, atoms.positions * 0.7, box * 0.7)
    assert dense.did_buffer_overflow
    value, slope = jax.value_and_grad(energy_fn)(jnp.asarray(atoms.positions * 0.7), neighbor=neighbors, box=box * 0.7)
    assert np.isnan(value) and np.isnan(slope).all()
    small = jnp.asarray(atoms.positions * 0.7), box * 0.7
    assert np.isnan(quantity.pressure(energy_fn, *small, neighbor=dense))
    assert np.isnan(quantity.stress(energy_fn, *small, neighbor=dense)).all()
    by_box = jax.grad(lambda b: energy_fn(small[0], neighbor=dense, box=b))(small[1])
    assert np.isnan(by_box[jnp.triu_indices(3)]).all()
    again = neighbor_fn.allocate(atoms.positions * 0.7, box=box * 0.7)
    assert not again.did_buffer_overflow
    assert (neighbors.idx <= len(atoms)).all() and (neighbors.idx == len(atoms)).any()


def test_extra_capacity_is_room_for_pairs_within_the_cutoff_too(potential):
    """A crystal just outside of a whole shell: what comes in fits only with extra capacity."""
    atoms = bulk("Ar", "fcc", a=6.05, cubic=True) * (3, 3, 3)
    box, position = jaxmd.box_of(atoms.cell[:]), jnp.asarray(atoms.positions)
    neighbor_fn, _ = jaxmd.neighbor_list_energy(potential, atoms.numbers, box, fractional_coordinates=False)
    update = jax.jit(lambda n: n.update(0.98 * position, box=0.98 * box))
    assert update(neighbor_fn.allocate(position)).did_buffer_overflow
    assert not update(neighbor_fn.allocate(position, extra_capacity=6)).did_buffer_overflow


def test_charge_and_spin_reach_the_model():
    subject = SUBJECTS["mace-electrons"]
    neutral = subject.potential
    energies = []
    for charge, spin in ((0.0, 0.0), (1.0, 1.0), (-1.0, 1.0)):
        ion = MOLECULE.replace(charge=charge, spin=spin)
        neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(neutral, ion.numbers, charge=charge, spin=spin)
        energy = jax.jit(energy_fn)(jnp.asarray(ion.positions), neighbor=neighbor_fn.allocate(ion.positions))
        energies.append(float(energy))
        free = -1.5 * ion.numbers.sum()
        assert energy == pytest.approx(evaluate(neutral, ion).energy[0] - free, abs=1e-10)
    assert len({round(energy, 6) for energy in energies}) == 3
    with pytest.raises(ValueError, match=r"the jax-md system: 25 electrons \(charge \+1\) cannot leave 0 unpaired"):
        jaxmd.neighbor_list_energy(neutral, MOLECULE.numbers, charge=1.0)
    known = neutral.replace(metadata=dataclasses.replace(neutral.metadata, charges=(0.0,)))
    with pytest.raises(ValueError, match="the jax-md system: has charge 1, but the potential was trained on 0"):
        jaxmd.neighbor_list_energy(known, MOLECULE.numbers, charge=1.0, spin=1.0)


def test_errors(potential):
    with pytest.raises(ValueError, match="does not know Cu"):
        jaxmd.neighbor_list_energy(potential, [29], 10.0)
    neighbor_fn, _ = jaxmd.neighbor_list_energy(potential, [18, 18], 10.0)
    with pytest.raises(ValueError, match="3 positions, but 2 atomic numbers"):
        neighbor_fn.allocate(np.zeros((3, 3)))
