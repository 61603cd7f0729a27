"""Dipoles as pairs of charges, responses to fields as derivatives of energies, and limits that no field exceeds."""

from __future__ import annotations

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import equipot
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.geometry import geometry_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.charges import Equilibrated, Flows, Predicted
from equipot.physics.coulomb import COULOMB, Coulomb, Gaussians, Points
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.ewald import WaveSum
from equipot.physics.mesh import ParticleMesh
from equipot.physics.polarizable import Polarizable
from equipot.physics.response import Elastic, Systems, held, minimum, solved
from equipot.potential import evaluate
from equipot.quantities import ATOMIC_DIPOLES, BORN_CHARGES, DIPOLE, POLARIZABILITY, QUADRUPOLE
from equipot.structure import Structure
from equipot.term import Space

NETWORK = MACE(cutoff=4.0, channels=3, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,)), elements=(1, 8))
WATER = ase.Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0.1]])
CELL = np.array([[4.0, 0, 0], [-1.5, 4.2, 0], [0.7, 1.1, 5.0]])
CRYSTAL = ase.Atoms("OH2O", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0.1], [1.5, 2.3, 2.6]], cell=CELL, pbc=True)
SLAB = CRYSTAL.copy()
SLAB.pbc = (True, True, False)
SOURCES = [Predicted(), Flows(), Equilibrated(), Polarizable()]
LABELS = ["predicted", "flows", "equilibrated", "polarizable"]


def made(source, *systems, **options):
    """A potential with random parameters."""
    term = Electrostatics(base=NETWORK, charges=source, **options)
    structures = [Structure.from_ase(atoms) for atoms in systems]
    graph = pad(structures, 4.0, dtype=np.float64, extent=extent_of(structures, term.longest_wave))
    metadata = Metadata(atomic_energies=((1, 0.0), (8, 0.0)))
    return fresh(term, graph, jax.random.key(1), metadata).astype("float64")


def quartic(w):
    """The solution x of 4 x^3 + x = w."""
    return jnp.sinh(jnp.arcsinh(3**1.5 * w) / 3) / 3**0.5


# x^4 + x^2 / 2 by its gradient w.
QUARTIC = Elastic(
    place=quartic,
    energy=lambda w: quartic(w) ** 4 + quartic(w) ** 2 / 2,
    softness=lambda w, v: v / jnp.sqrt(12 * quartic(w) ** 2 + 1),
    hardness=lambda w, v: v * jnp.sqrt(12 * quartic(w) ** 2 + 1),
    moved=lambda w, v: 4 * (quartic(w) + v) ** 3 + quartic(w) + v,
)


def in_field(atoms, field, **info):
    atoms = atoms.copy()
    atoms.info |= {"electric_field": field, **info}
    return atoms


CASES = [(WATER, WaveSum()), (CRYSTAL, WaveSum()), (CRYSTAL, ParticleMesh(14, 2.0)), (SLAB, WaveSum())]


@pytest.mark.parametrize(("atoms", "method"), CASES, ids=["open", "crystal", "crystal-mesh", "slab"])
def test_dipoles_are_pairs_of_charges_that_are_close(atoms, method, double_precision):
    """The potential and the field of dipoles, against charges at two ends."""
    kernel, random, apart = Gaussians(0.8, 1e-14), np.random.default_rng(0), 1e-3
    n = len(atoms)
    charges, dipoles = random.normal(size=n), random.normal(size=(n, 3))
    ends = [sign * 0.5 * apart * dipoles for sign in (1, -1)]
    # Far from themselves, so that only the interactions are compared: potentials at the atoms of charges elsewhere.
    everything = ase.Atoms("O" * 3 * n, np.concatenate([atoms.positions, *(atoms.positions + e for e in ends)]))
    everything.set_cell(atoms.cell)
    everything.pbc = atoms.pbc

    def felt_in(atoms):
        term = Electrostatics(cutoff=4.0, kernel=kernel, waves=method, elements=(1, 8))
        structure = Structure.from_ase(atoms)
        made = pad([structure], 4.0, dtype=np.float64, extent=extent_of([structure], term.longest_wave))
        graph = jax.tree.map(jnp.asarray, made)
        geometry = geometry_of(term, graph)
        cell = jnp.where(jnp.any(geometry.cell != 0, axis=-1)[..., None], geometry.cell, jnp.eye(3)[None])
        return jax.jit(Coulomb(kernel, method, graph, geometry.vectors, Space(geometry.positions, cell, graph.pbc)).felt)

    felt = felt_in(atoms)(jnp.asarray(charges), jnp.asarray(dipoles))
    split = np.concatenate([charges, np.ones(n) / apart, -np.ones(n) / apart])
    brute = felt_in(everything)(jnp.asarray(split), jnp.zeros((3 * n, 3)))
    # There the ends of the own dipole are felt, too: the field of a Gaussian dipole inside itself.
    own = COULOMB * kernel.own / (3 * kernel.smearing**2) * dipoles
    np.testing.assert_allclose(felt.potential, brute.potential[:n], atol=2e-6 * np.abs(felt.potential).max())
    np.testing.assert_allclose(felt.field - own, brute.field[:n], atol=2e-6 * np.abs(felt.field).max())


@pytest.mark.parametrize("source", SOURCES, ids=LABELS)
def test_the_dipole_moment_is_minus_the_derivative_by_the_field(source, double_precision):
    potential, h = made(source, WATER), 1e-4
    out = equipot.evaluate(potential, in_field(WATER, [0.1, -0.2, 0.3]), want=("energy", "dipole", "polarizability"))
    slope, bent = np.zeros(3), np.zeros((3, 3))
    for k, axis in enumerate(np.eye(3)):
        ends = [in_field(WATER, np.array([0.1, -0.2, 0.3]) + sign * h * axis) for sign in (1, -1)]
        both = equipot.evaluate(potential, ends, want=("energy", "dipole"))
        slope[k] = -np.diff(both.energy[::-1])[0] / (2 * h)
        bent[:, k] = -np.diff(both[DIPOLE], axis=0)[0] / (2 * h)
    assert np.abs(out[DIPOLE]).max() > 1e-3
    np.testing.assert_allclose(out[DIPOLE][0], slope, atol=1e-8)
    np.testing.assert_allclose(out[POLARIZABILITY][0], bent, atol=1e-7)
    assert (np.abs(bent).max() > 1e-2) == source.minimises


@pytest.mark.parametrize("source", [Flows(), pytest.param(Polarizable(), marks=pytest.mark.slow)], ids=["flows", "polarizable"])
def test_forces_and_stress_in_a_field_are_derivatives(source, double_precision):
    """In a crystal, whose charges flow along pairs; Born effective charges are those of the forces, and sum to zero."""
    field, h = np.array([0.05, 0.1, -0.15]), 2e-4
    potential = made(source, CRYSTAL)
    out = equipot.evaluate(potential, in_field(CRYSTAL, field), want=("forces", "stress", "born_effective_charges"))
    steps, weights = np.array([2, 1, -1, -2]), np.array([-1, 8, -8, 1]) / (12 * h)
    moved, strained = ([in_field(CRYSTAL, field) for _ in steps] for _ in range(2))
    e = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 1.0]])
    for atoms, bent, k in zip(moved, strained, steps, strict=True):
        atoms.positions[1, 2] += k * h
        bent.set_cell(CELL @ (np.eye(3) + k * h * e), scale_atoms=True)
    energies = equipot.evaluate(potential, [*moved, *strained], want=("energy",)).energy.reshape(2, 4)
    assert out.forces[1, 2] == pytest.approx(-energies[0] @ weights, abs=1e-8)
    assert np.sum(out.stress[0] * e) * CRYSTAL.get_volume() == pytest.approx(energies[1] @ weights, abs=1e-8)
    ends = [in_field(CRYSTAL, field + sign * 1e-4 * np.eye(3)[0]) for sign in (1, -1)]
    forces = equipot.evaluate(potential, ends, want=("forces",)).forces.reshape(2, 4, 3)
    born = out[BORN_CHARGES]
    assert np.abs(born).max() > 1e-2
    np.testing.assert_allclose(born[:, 0], (forces[0] - forces[1]) / 2e-4, atol=1e-6)
    np.testing.assert_allclose(born.sum(axis=0), 0, atol=1e-10)


def test_without_limits_the_response_is_proportional_to_the_field(double_precision):
    """Without limits the response is linear in the field."""
    source = Polarizable(flow_limit=None, dipole_limit=None)
    potential = made(source, WATER)
    fields = [in_field(WATER, [f, 0, 0]) for f in (0.0, 4.0, 8.0)]
    out = equipot.evaluate(potential, fields, want=("charges", "atomic_dipoles"))
    for values in (out.charges.reshape(3, 3), out[ATOMIC_DIPOLES].reshape(3, 3, 3)):
        zero, one, twice = values
        assert np.abs(one - zero).max() > 1e-3
        np.testing.assert_allclose(twice - zero, 2 * (one - zero), atol=1e-10)


def test_a_minimum_is_found_and_differentiated(double_precision):
    """Against a closed form: the least of x . A x / 2 - b . x + sum x^4 in two variables, by its own equations."""
    matrix = jnp.array([[2.0, 0.3], [0.3, 1.2]])
    energy = lambda b: lambda x: x @ matrix @ x / 2 - b @ x + jnp.sum(x**4)
    found = lambda b: quartic(minimum(QUARTIC, -b, lambda x: matrix @ x - x, Systems.one(b)))
    b = jnp.array([1.0, -0.7])
    x = found(b)
    np.testing.assert_allclose(matrix @ x + 4 * x**3, b, atol=1e-11)
    inverse = np.linalg.inv(matrix + jnp.diag(12 * x**2))
    np.testing.assert_allclose(jax.jacobian(found)(b), inverse, atol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(found)(b), inverse, atol=1e-10)
    # The slope of the least energy needs no derivative of the minimum, its second derivative does.
    least = lambda b: held(energy(b), found(b))
    np.testing.assert_allclose(jax.grad(least)(b), -x, atol=1e-10)
    np.testing.assert_allclose(jax.hessian(least)(b), -inverse, atol=1e-10)


def test_what_is_not_found_is_not_a_number(double_precision):
    """Of an equation that holds something undefined, and of one that has too few steps."""
    matrix = jnp.diag(jnp.arange(1.0, 6.0))
    all_of_it = Systems.one(jnp.ones(5))
    assert np.isfinite(solved(lambda x: matrix @ x, jnp.ones(5), all_of_it)).all()
    assert np.isnan(solved(lambda x: matrix @ x, jnp.ones(5), all_of_it, steps=2)).all()
    assert np.isnan(solved(lambda x: matrix @ x, jnp.ones(5).at[2].set(jnp.nan), all_of_it)).all()
    pull = jnp.array([1.0, jnp.nan])
    assert np.isnan(minimum(QUARTIC, pull, lambda x: x, Systems.one(pull))).all()


def test_systems_of_a_batch_are_solved_each_by_itself(double_precision):
    """One without a solution, and one that needs more steps, leave the others as they are alone."""
    scale, systems = jnp.array([1.0, 2.0, 3.0, 1.0, 1e2, 1e4, 5.0]), Systems(3, jnp.array([0, 0, 0, 1, 1, 1, 2]))
    wanted = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, jnp.nan])
    found = solved(lambda x: scale * x, wanted, systems, steps=3)
    np.testing.assert_allclose(found[:3], 1 / scale[:3], rtol=1e-12)
    assert np.isnan(found[6])
    short = solved(lambda x: scale * x, wanted, systems, steps=2)
    assert np.isnan(short).all()
    least = minimum(QUARTIC, -wanted, lambda x: scale * x, systems)
    alone = minimum(QUARTIC, -wanted[:3], lambda x: scale[:3] * x, Systems.one(wanted[:3]))
    np.testing.assert_array_equal(least[:3], alone)
    assert np.isfinite(least[3:6]).all() and np.isnan(least[6])


@pytest.mark.parametrize("source", SOURCES[2:4], ids=LABELS[2:4])
def test_a_system_without_a_solution_leaves_its_batch_alone(source, double_precision):
    """The energies of others in a batch in which the charges of one cannot be found."""
    potential = made(source, WATER)
    structures = [Structure.from_ase(WATER), Structure.from_ase(WATER)]
    graph = jax.tree.map(jnp.asarray, pad(structures, 4.0, dtype=np.float64, extent=potential.extent(structures)))
    broken = graph.replace(field=jnp.array([[0.0, 0, 0], [jnp.nan, 0, 0]]))
    want = ("energy", "forces", "charges")
    whole, found = (jax.jit(evaluate, static_argnames="want")(potential, g, want) for g in (graph, broken))
    assert np.isnan(found.interaction[1]) and np.isnan(found.charges[3:]).all()
    np.testing.assert_allclose(found.interaction[0], whole.interaction[0], atol=1e-12)
    np.testing.assert_allclose(found.forces[:3], whole.forces[:3], atol=1e-11)


def test_no_field_makes_the_energy_run_away(double_precision):
    """Beyond their limits flows and dipoles stay as they are, and the energy falls in proportion to the field."""
    source = Polarizable(flow_limit=0.5, dipole_limit=0.3)
    potential = made(source, WATER)
    fields = np.array([1.0, 2.0, 4.0, 8.0]) * 1.0
    out = equipot.evaluate(potential, [in_field(WATER, [f, 0, 0]) for f in fields], want=("energy", "dipole", "atomic_dipoles"))
    dipoles = np.linalg.norm(out[ATOMIC_DIPOLES], axis=1)
    assert 0.05 < dipoles[-3:].max() < 0.3
    growth = np.diff(out[DIPOLE][:, 0]) / np.diff(fields)
    assert (growth > 0).all() and (np.diff(growth) < 0).all()
    bound = 0.5 * sum(np.ptp(WATER.positions[:, 0]) for _ in range(3)) + 3 * 0.3
    assert out[DIPOLE][-1, 0] < bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_charges_are_found_in_fields_far_beyond_their_limits(dtype):
    """Limits a thousand times below what the field would move, and no more than a few steps from zero."""
    with jax.enable_x64(dtype == "float64"):
        potential = made(Polarizable(flow_limit=1e-3, dipole_limit=1e-3), WATER, CRYSTAL).astype(dtype)
        frames = [in_field(atoms, [0.0, f, 0.3 * f]) for atoms in (WATER, CRYSTAL) for f in (0.01, 0.1, 1.0, 9.0)]
        out = equipot.evaluate_each(potential, frames, want=("energy", "forces", "atomic_dipoles"))
    for found in out:
        assert np.isfinite(found.forces).all() and np.linalg.norm(found[ATOMIC_DIPOLES], axis=1).max() <= 1e-3


@pytest.mark.parametrize("source", SOURCES[2:4], ids=LABELS[2:4])
def test_separate_molecules_exchange_charge_only_where_it_crosses_space(source, double_precision):
    pair = WATER + ase.Atoms("O2", positions=[[60.0, 0, 0], [61.2, 0, 0.3]])
    charges = equipot.evaluate(made(source, pair), pair, want=("charges",)).charges
    assert np.abs(charges).max() > 1e-3
    assert (abs(charges[:3].sum()) < 1e-12) == source.flow


def test_a_quadrupole_is_the_traceless_second_moment(double_precision):
    potential = made(Polarizable(), WATER)
    out = equipot.evaluate(potential, WATER, want=("charges", "atomic_dipoles", "quadrupole"))
    r, q, d = WATER.positions - WATER.positions.mean(axis=0), out.charges, out[ATOMIC_DIPOLES]
    second = np.einsum("i,ia,ib->ab", q, r, r) + np.einsum("ia,ib->ab", d, r) + np.einsum("ia,ib->ab", r, d)
    np.testing.assert_allclose(out[QUADRUPOLE][0], second - np.trace(second) / 3 * np.eye(3), atol=1e-12)
    label = Structure(WATER.numbers, WATER.positions, labels={"quadrupole": second}).labels[QUADRUPOLE]
    np.testing.assert_allclose(label, out[QUADRUPOLE][0], atol=1e-12)


def test_the_energy_of_an_ion_in_a_field_depends_on_the_place(double_precision):
    potential = made(Polarizable(), WATER)
    ion = in_field(WATER, [0.2, 0, 0], charge=1.0)
    moved = ion.copy()
    moved.positions[:, 0] += 3.0
    out = equipot.evaluate(potential, [ion, moved], want=("energy", "forces"))
    assert out.energy[1] - out.energy[0] == pytest.approx(-0.2 * 3.0, abs=1e-10)
    assert out.forces[:3, 0].sum() == pytest.approx(0.2, abs=1e-10)


def test_fields_that_cannot_be_are_refused(double_precision):
    local = fresh(NETWORK, pad([Structure.from_ase(WATER)], 4.0), jax.random.key(0), Metadata(((1, 0.0), (8, 0.0))))
    with pytest.raises(ValueError, match=r"electric field of \(0, 0, 0.1\) V/Å, which the potential does not see"):
        equipot.evaluate(local, in_field(WATER, [0, 0, 0.1]))
    with pytest.raises(ValueError, match="along a lattice vector that repeats.*Flows or Polarizable"):
        equipot.evaluate(made(Equilibrated(), CRYSTAL), in_field(CRYSTAL, [0, 0, 0.1]))
    with pytest.raises(ValueError, match="51.4 V/Å"):
        Structure.from_ase(in_field(WATER, [0, 0, 51.4]))
    with pytest.raises(ValueError, match="not a field of three numbers"):
        Structure.from_ase(in_field(WATER, [0.1, 0.2]))
    with pytest.raises(ValueError, match="dipoles need the kernel Gaussians|equilibrated charges need the kernel Gaussians"):
        made(Polarizable(), WATER, kernel=Points())
    normal = in_field(SLAB, np.cross(CELL[0], CELL[1]) * 0.01)
    assert np.isfinite(equipot.evaluate(made(Equilibrated(), SLAB), normal).energy).all()
