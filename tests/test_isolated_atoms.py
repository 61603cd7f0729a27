"""E0: added once, on the host, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

import equipot
from equipot.data.batch import Shape, pad
from equipot.isolated_atoms import isolated_atom_energy
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential
from equipot.potential import evaluate as evaluate_on_device
from equipot.structure import Structure

E0 = {1: -13.601, 8: -20437.1234567}


def test_each_atom_has_that_of_its_element():
    found = isolated_atom_energy(np.array([8, 1, 1]), E0)
    assert found.dtype == np.float64 and found.tolist() == [E0[8], E0[1], E0[1]]
    assert isolated_atom_energy(np.zeros(0, int), E0).shape == (0,)


def test_an_element_without_is_named():
    with pytest.raises(ValueError, match="there: no isolated-atom energy E0 for the element with Z = 6"):
        isolated_atom_energy(np.array([1, 6]), E0, "there")


@pytest.fixture
def potential():
    variables = {"constants": {"epsilon": np.float32(0.01), "sigma": np.float32(0.8)}}
    return Potential(LennardJones(cutoff=4.0), variables, Metadata(tuple(E0.items())))


def test_the_device_says_the_interaction_alone(potential):
    found = evaluate_on_device(potential, pad([Structure.from_ase(molecule("H2O"))], 4.0), ("energy", "energies"))
    bare = evaluate_on_device(potential.replace(metadata=Metadata()), pad([Structure.from_ase(molecule("H2O"))], 4.0))
    assert found.energy is None and found.energies is None
    assert found.interaction == bare.interaction and found.interactions.sum() == pytest.approx(float(bare.interaction[0]))


def test_totals_are_in_double_precision_whoever_is_asked(potential):
    """A total of -20,465 eV in single precision would be right to 2 meV only."""
    atoms = molecule("H2O")
    graph = pad([Structure.from_ase(atoms)] * 2, 4.0, Shape(8, 4, 3))
    of_list = equipot.evaluate(potential, [atoms], ("energy", "energies"))
    of_graph = equipot.evaluate(potential, graph, ("energy", "energies"))
    atoms.calc = potential.calculator()
    expected = float(of_list.interaction[0]) + E0[8] + 2 * E0[1]
    assert of_list.energy[0] == pytest.approx(expected, abs=1e-9) and of_list.energies.sum() == pytest.approx(
        expected, abs=1e-5
    )
    assert of_graph.energy == pytest.approx([expected, expected, 0.0], abs=1e-5)
    assert of_graph.energies[:6].sum() == pytest.approx(2 * expected, abs=1e-5) and not of_graph.energies[6:].any()
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-5)
    unknown = pad([Structure.from_ase(molecule("CO"))], 4.0)
    assert np.isnan(equipot.evaluate(potential, unknown).energy[0])
