"""Charges: conservation, flows, equilibration against the bordered linear system, and the labels that predictions need."""

from __future__ import annotations

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from flax.traverse_util import flatten_dict

import equipot
from equipot import units
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.geometry import geometry_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.nn.readout import BiasedMLP
from equipot.physics.charges import Equilibrated, Flows, Predicted
from equipot.physics.coulomb import Coulomb, Gaussians
from equipot.physics.electrostatics import Electrostatics
from equipot.potential import atomic
from equipot.quantities import DIPOLE
from equipot.structure import Structure
from equipot.term import Space

NETWORK = MACE(cutoff=4.0, channels=3, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,)), elements=(1, 8))
WATER = ase.Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0.1]])


def made(source, *systems):
    """A potential with random parameters, and the graph of systems."""
    term = Electrostatics(base=NETWORK, charges=source)
    structures = [Structure.from_ase(atoms) for atoms in systems]
    graph = pad(structures, 4.0, dtype=np.float64, extent=extent_of(structures, term.longest_wave))
    metadata = Metadata(atomic_energies=((1, 0.0), (8, 0.0)))
    return fresh(term, graph, jax.random.key(1), metadata).astype("float64"), jax.tree.map(jnp.asarray, graph)


def charged(atoms, charge):
    atoms = atoms.copy()
    atoms.info["charge"] = charge
    return atoms


@pytest.mark.parametrize("source", [Predicted(), Flows(), Equilibrated()], ids=lambda s: type(s).__name__)
def test_charges_sum_to_the_total_charge_of_each_system(source, double_precision):
    potential, graph = made(source, charged(WATER, 1.0), WATER, charged(WATER, -2.0))
    charges = np.asarray(atomic(potential, graph).charges)
    assert np.abs(charges).max() > 1e-3
    np.testing.assert_allclose(charges.reshape(3, 3).sum(axis=1), [1.0, 0.0, -2.0], atol=1e-12)


def far_pair():
    """Two different molecules, 60 Å apart."""
    other = ase.Atoms("O2", positions=[[60.0, 0, 0], [61.2, 0, 0.3]])
    return WATER + other


def test_flows_leave_separate_molecules_neutral(double_precision):
    potential, graph = made(Flows(), far_pair())
    charges = np.asarray(atomic(potential, graph).charges)
    assert np.abs(charges).max() > 1e-3
    np.testing.assert_allclose([charges[:3].sum(), charges[3:].sum()], 0, atol=1e-14)


def test_equilibrated_charges_solve_the_bordered_system(double_precision):
    potential, graph = made(Equilibrated(steps=400), charged(far_pair(), 1.0))
    charges = np.asarray(atomic(potential, graph).charges)
    params = potential.params
    geometry = geometry_of(potential.term, graph)
    space = Space(geometry.positions, jnp.eye(3)[None], graph.pbc)
    coulomb = Coulomb(Gaussians(), potential.term.waves, graph, geometry.vectors, space)
    matrix = np.asarray(jax.vmap(coulomb)(jnp.eye(5)))
    softplus = np.logaddexp(0, np.asarray(params["hardness"]))[[1, 0, 0, 1, 1]]
    ke = units.hartree * units.bohr
    matrix = matrix + np.diag(ke / np.sqrt(np.pi) + ke * softplus)
    chi = BiasedMLP((32, 1)).apply({"params": params["electronegativity"]}, atomic(potential, graph).latent)[:, 0]
    bordered = np.block([[matrix, np.ones((5, 1))], [np.ones((1, 5)), np.zeros((1, 1))]])
    expected = np.linalg.solve(bordered, np.append(-chi, 1.0))[:5]
    np.testing.assert_allclose(charges, expected, atol=1e-9)


def test_the_dipole_of_flows_is_that_of_the_charges_and_is_there_in_a_crystal(double_precision):
    potential, _ = made(Flows(), WATER)
    alone = equipot.evaluate(potential, WATER, want=("charges", "dipole"))
    centred = WATER.positions - WATER.positions.mean(axis=0)
    np.testing.assert_allclose(alone[DIPOLE][0], alone.charges @ centred, atol=1e-12)
    box = WATER.copy()
    box.set_cell(np.eye(3) * 12)
    box.pbc = True
    box.positions += 11.5
    box.wrap()
    np.testing.assert_allclose(equipot.evaluate(potential, box, want=("dipole",))[DIPOLE], alone[DIPOLE], atol=1e-12)
    lost, _ = made(Predicted(), WATER)
    with pytest.raises(ValueError, match="no dipole; take charges that flow"):
        equipot.evaluate(lost, box, want=("charges", "dipole"))
    box.calc = lost.calculator()
    assert np.isfinite(box.get_charges()).all()
    with pytest.raises(PropertyNotImplementedError, match="dipole"):
        box.get_dipole_moment()


def test_a_network_with_charges_gets_the_statistics_of_the_data():
    """Else its energies would begin with a scale of 1 eV and one neighbour on average."""
    structures = [Structure.from_ase(WATER)]
    term = Electrostatics(base=NETWORK, charges=Flows())
    graph = pad(structures, 4.0, extent=extent_of(structures, term.longest_wave))
    metadata = Metadata(atomic_energies=((1, 0.0), (8, 0.0)))
    statistics = {"scale": [0.3, 0.4], "shift": [0.1, -0.2], "avg_num_neighbors": 7.0}
    alone = fresh(NETWORK, graph, jax.random.key(0), metadata, **statistics)
    both = fresh(term, graph, jax.random.key(0), metadata, **statistics)
    of = lambda tree: {path: x for path, x in flatten_dict(tree).items() if path[-1] in statistics}
    given, own = of(both.variables["constants"]["base"]), of(alone.variables["constants"])
    assert given.keys() == own.keys() and {path[-1] for path in own} == statistics.keys()
    for path, value in own.items():
        np.testing.assert_array_equal(given[path], value)
        assert np.unique(value).size == np.size(statistics[path[-1]])
