"""Heat fluxes against the exact derivative of energy times position, and against formulas for pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic_dispersion
from ase import Atoms
from pair_crystals import cluster, crystal, make_argon

import equipot
from equipot.data.batch import pad
from equipot.md.prepare import repeated
from equipot.metadata import Metadata
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.physics.dispersion import D3, correction
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum, add
from equipot.potential import Potential, atomic, initial
from equipot.structure import Structure
from equipot.units import fs
from equipot.workflows.statistics.trajectory import from_frames
from equipot.workflows.transport import UnfoldedFlux
from equipot.workflows.transport.fluxes import fluxes_along
from equipot.workflows.transport.heat_flux import mass_fluxes, unfold

pytestmark = pytest.mark.usefixtures("double_precision")
MASS = 39.95
SMALL = {"channels": 2, "l_max": 1, "layers": 2, "radial": Radial(mlp=(4,)), "elements": (18,)}


def made(term):
    with jax.enable_x64(True):
        variables = initial(term, jax.random.key(0), pad([Structure.from_ase(cluster(4))], term.cutoff, dtype=np.float64))
        return Potential(term, variables, Metadata(atomic_energies=((18, -3.0),))).astype("float64")


@pytest.fixture(scope="module")
def potentials():
    return {"pairs": make_argon(cutoff=4.0), "mace": made(MACE(2.6, correlation=2, **SMALL))}


def velocities(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, (count, 3))


@pytest.mark.parametrize("name", ["pairs", "mace"])
def test_the_flux_of_a_cluster_is_the_derivative_of_energy_times_position(potentials, name):
    potential, v = potentials[name], velocities(12)
    structure = Structure.from_ase(cluster(12, spread=0.1)).replace(masses=np.full(12, MASS))
    graph = pad([structure], potential.cutoff, dtype=np.float64)
    energies = lambda r: atomic(potential, graph.replace(positions=r)).energy

    @jax.jit
    def derivative(r, v):
        acceleration = -jax.grad(lambda r: energies(r).sum())(r) / MASS * fs**2
        moment = lambda r, v: jnp.sum((energies(r) + MASS / 2 / fs**2 * jnp.sum(v**2, axis=1))[:, None] * r, axis=0)
        return jax.jvp(moment, (r, v), (v, acceleration))[1]

    found = UnfoldedFlux(potential)(structure, v)
    exact = np.asarray(derivative(jnp.asarray(graph.positions), jnp.asarray(v)))
    np.testing.assert_allclose(found.total, exact, atol=1e-11 * np.abs(exact).max())
    # Virials of atoms are another thing where messages are passed.
    np.testing.assert_allclose(found.total, found.potential + found.convective)


@pytest.mark.parametrize("name", ["pairs", "mace"])
def test_the_flux_of_a_crystal_does_not_depend_on_images_and_grows_with_its_size(potentials, name):
    potential, v = potentials[name], velocities(4, 1)
    structure, flux = Structure.from_ase(crystal()), UnfoldedFlux(potential)
    found = flux(structure, v)
    scale = np.abs(found.total).max()
    images = np.array([[1, 0, 0], [0, 2, -1], [0, 0, 0], [3, 1, 1]])
    moved = flux(structure.replace(positions=structure.positions + images @ structure.cell), v)
    np.testing.assert_allclose(moved.total, found.total, atol=1e-11 * scale)
    double = UnfoldedFlux(potential)(repeated(structure, (2, 1, 1)), np.tile(v, (2, 1)))
    np.testing.assert_allclose(double.total, 2 * found.total, atol=1e-11 * scale)
    # A uniform velocity u adds -W . u, with W the virial that the stress gives.
    out = equipot.evaluate_each(potential, [structure])[0]
    u = np.array([0.01, -0.02, 0.005])
    np.testing.assert_allclose(found.virial, out.stress * structure.volume, atol=1e-10 * np.abs(found.virial).max())
    faster = flux(structure, v + u)
    np.testing.assert_allclose(faster.potential - found.potential, -found.virial @ u, atol=1e-11 * scale)
    assert found.energy == pytest.approx(float(out.energy) + 12)


def test_the_flux_of_pairs_is_the_textbook_formula(potentials):
    potential, v = potentials["pairs"], velocities(4, 2)
    structure = Structure.from_ase(crystal()).replace(masses=np.full(4, MASS))
    term = potential.term
    # As the constants are rounded when they are made.
    shape = dict(epsilon=float(np.float32(0.05)), sigma=float(np.float32(2.2)), rc=4.0, ro=0.66 * 4.0, smooth=True)
    assert (term.cutoff, term.onset, term.epsilon, term.sigma) == (4.0, 0.66, 0.05, 2.2)
    from ase.calculators.lj import LennardJones as Reference
    from matscipy.neighbours import neighbour_list

    def pair(r):
        dimer = Atoms("Ar2", positions=[[0, 0, 0], [r, 0, 0]], calculator=Reference(**shape))
        return dimer.get_potential_energy(), dimer.get_forces()[0, 0]

    atoms = structure.to_ase()
    i, j, d, D = neighbour_list("ijdD", atoms, 4.0)
    energy, along = np.array([pair(r) for r in d]).T
    # The force on i is along D, that from i to j, times its component on the first atom of the dimer.
    force = along[:, None] * D / d[:, None]
    # J = sum_i e_i v_i + 1/2 sum_{i<j} (r_i - r_j) (f_ij . (v_i + v_j)).
    flux = -0.25 * np.sum(D * np.sum(force * (v[i] + v[j]), axis=1)[:, None], axis=0)
    own = np.bincount(i, energy / 2, 4) + MASS / 2 * np.sum(v**2, axis=1) / fs**2
    found = UnfoldedFlux(potential)(structure, v)
    np.testing.assert_allclose(found.potential, flux, atol=1e-12)
    np.testing.assert_allclose(found.convective, own @ v, atol=1e-12)


def chain(count, step):
    x = np.arange(count) * step
    return Structure(np.full(count, 18), np.stack([x, 0.1 * np.cos(2 * x), 0.1 * np.sin(3 * x)], axis=1))


CHAINS = {
    "pairs": (lambda: make_argon(4.0), 2.5),
    "mace": (lambda: made(MACE(2.6, correlation=1, **SMALL)), 2.0),
    "sum": (lambda: add([make_argon(4.0), made(MACE(2.6, correlation=1, **SMALL))]), 2.0),
    "nequip": (lambda: made(NequIP(2.6, readout=4, **SMALL)), 2.0),
    "dispersion": (lambda: correction(D3(cutoff=4.0, functional="pbe", coordination_cutoff=3.0), [18]).astype("float64"), 1.9),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("nequip", "dispersion")]


@pytest.mark.parametrize("name", ["mace", "sum", *SLOW])
def test_no_atom_beyond_the_receptive_radius_changes_an_energy_and_those_just_inside_do(name, monkeypatch):
    monkeypatch.setattr("equipot.physics.dispersion.reference", synthetic_dispersion.reference)
    make, step = CHAINS[name]
    potential, structure = make(), chain(8, step)
    graph = pad([structure], potential.cutoff, dtype=np.float64)
    own = lambda r: atomic(potential, graph.replace(positions=r)).energy[0]
    seen = np.abs(jax.grad(own)(jnp.asarray(graph.positions))).max(axis=1) > 0
    distance = np.linalg.norm(structure.positions - structure.positions[0], axis=1)
    radius = potential.term.receptive_radius
    assert not seen[distance > radius].any() and distance[seen].max() > 0.7 * radius


def test_long_range_unknown_range_and_charges_are_refused(potentials):
    with pytest.raises(ValueError, match="long-range"):
        UnfoldedFlux(Potential(Electrostatics(base=MACE(2.6, **SMALL)), {}))

    class Silent(LennardJones):
        receptive_radius = None

    for term in (Silent(4.0), Sum((LennardJones(4.0), Silent(4.0)))):
        with pytest.raises(ValueError, match="receptive_radius"):
            UnfoldedFlux(Potential(term, {}))
    ion = Structure.from_ase(cluster(3)).replace(charge=1.0)
    with pytest.raises(ValueError, match="charged"):
        UnfoldedFlux(potentials["pairs"])(ion, np.zeros((3, 3)))


def test_unfolding_keeps_all_images_within_the_radius():
    structure = Structure.from_ase(crystal())
    unfolded, origin = unfold(structure, 5.0)
    assert len(set(map(tuple, np.round(unfolded.positions, 6)))) == len(unfolded) and not unfolded.pbc.any()
    full = repeated(structure, (7, 7, 7)).positions - 3 * structure.cell.sum(axis=0)
    near = np.linalg.norm(full[:, None] - structure.positions, axis=2).min(axis=1) < 5.0
    assert near.sum() == len(unfolded) and (origin[:4] == np.arange(4)).all()


def test_mass_fluxes_are_momenta_of_all_elements_but_one():
    v = velocities(3)
    np.testing.assert_allclose(mass_fluxes(np.array([1, 8, 1]), np.array([1.0, 16, 1]), v), [v[0] + v[2]])
    assert mass_fluxes(np.array([1, 1, 1]), np.ones(3), v).shape == (0, 3)


def test_fluxes_that_were_interrupted_go_on(tmp_path, potentials):
    rng, start = np.random.default_rng(5), crystal()

    def frames():
        nonlocal rng
        rng = np.random.default_rng(5)
        for _ in range(6):
            atoms = start.copy()
            atoms.positions += rng.normal(0, 0.02, (4, 3))
            atoms.set_momenta(rng.normal(size=(4, 3)))
            yield atoms

    trajectory, path = from_frames(frames, 2.0), tmp_path / "flux.csv"
    whole = fluxes_along(potentials["pairs"], trajectory, 2, path)
    text = path.read_bytes()
    assert text.count(b"\n") == 4 and whole.interval_fs == 4.0
    path.write_bytes(text[: len(text) - 30])
    again = fluxes_along(potentials["pairs"], trajectory, 2, path)
    assert path.read_bytes() == text
    np.testing.assert_array_equal(again.heat, whole.heat)
    # The pressure is that of the stress and of the momenta, and the temperature that of ASE's with 3 N - 3.
    atoms = next(iter(frames()))
    p = atoms.get_momenta() - atoms.get_momenta().mean(axis=0)
    stress = equipot.evaluate_each(potentials["pairs"], [Structure.from_ase(atoms)])[0].stress
    kinetic = p.T @ p / atoms.get_masses()[0] / atoms.get_volume()
    np.testing.assert_allclose(whole.pressure[0], kinetic - stress, atol=1e-10)
    with pytest.raises(ValueError, match="no conductivity"):
        fluxes_along(potentials["pairs"], from_frames(lambda: iter([cluster(3)]), 1.0), 1, path)
