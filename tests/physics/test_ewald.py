"""Electrostatics of crystals and slabs against Madelung constants, other splittings, direct sums and another program."""

from __future__ import annotations

import ase
import jax
import numpy as np
import pytest
from ase.build import bulk

import equipot
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.physics.charges import PerSpecies
from equipot.physics.coulomb import COULOMB, Gaussians, Points
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.ewald import WaveSum
from equipot.physics.mesh import ParticleMesh
from equipot.structure import Structure

SUM = WaveSum()
MADELUNG = {"rocksalt": 1.7475645946331822, "cesiumchloride": 1.7626747730709883, "zincblende": 1.6380550533887892}
"""Energy of an ion pair in units of Ke / (nearest distance); R. E. Crandall, Exp. Math. 8, 367 (1999)."""
NAMES = {"rocksalt": "NaCl", "cesiumchloride": "CsCl", "zincblende": "ZnS"}
NEAREST = {"rocksalt": 0.5, "cesiumchloride": np.sqrt(3) / 2, "zincblende": np.sqrt(3) / 4}


def evaluated(atoms, charges, kernel, cutoff, want=None, waves=SUM):
    """Evaluate atoms with constant charges by element (e)."""
    elements = tuple(int(z) for z in np.unique(atoms.numbers))
    values = tuple(charges[z] for z in elements)
    term = Electrostatics(
        cutoff=cutoff, charges=PerSpecies(values), kernel=kernel, waves=waves, elements=elements, uniform_background=True
    )
    structure = Structure.from_ase(atoms)
    graph = pad([structure], cutoff, extent=extent_of([structure], term.longest_wave))
    metadata = Metadata(atomic_energies=tuple((z, 0.0) for z in elements))
    potential = fresh(term, graph, jax.random.key(0), metadata).astype("float64")
    return equipot.evaluate(potential, [atoms], want=want)


@pytest.fixture
def crystal():
    """Six ions in a triclinic cell, with a total charge of zero."""
    cell = np.array([[6.0, 0, 0], [-3.0, 5.2, 0], [0.7, 1.1, 7.5]])
    places = [[0, 0, 0], [0.5, 0.1, 0], [0, 0.5, 0.1], [0.5, 0.5, 0.4], [0.1, 0, 0.5], [0.4, 0.1, 0.6]]
    atoms = ase.Atoms("Na2ClMgO2", scaled_positions=places, cell=cell, pbc=True)
    return atoms, {11: 1.0, 17: -1.0, 12: 1.4, 8: -1.2}


@pytest.mark.parametrize("waves", [WaveSum(), ParticleMesh(16, 2.0)], ids=["sum", "mesh"])
@pytest.mark.parametrize("kind", MADELUNG)
def test_madelung_constants(kind, waves, double_precision):
    atoms = bulk(NAMES[kind], kind, a=5.0)
    charges = {int(z): q for z, q in zip(atoms.numbers, (1.0, -1.0), strict=True)}
    found = evaluated(atoms, charges, Points(0.8, 1e-14), 6.5, waves=waves).energy[0]
    assert -found * NEAREST[kind] * 5.0 / COULOMB == pytest.approx(MADELUNG[kind], abs=1e-12)


@pytest.mark.parametrize("charge", [0.0, 0.7], ids=["neutral", "charged"])
def test_the_splitting_does_not_matter(crystal, charge, double_precision):
    atoms, charges = crystal
    atoms.info["charge"] = charge
    one, two = (evaluated(atoms, charges, Points(s, 1e-15), 8.5 * s) for s in (0.6, 1.1))
    assert one.energy[0] == pytest.approx(two.energy[0], abs=1e-9)
    assert one.stress[0] == pytest.approx(two.stress[0], abs=1e-10)


def test_gaussian_charges_that_are_narrow_are_point_charges(crystal, double_precision):
    """In a neutral crystal whose ions do not overlap."""
    atoms, charges = crystal
    apart = min(atoms.get_distance(i, j, mic=True) for i in range(6) for j in range(i))
    narrow = evaluated(atoms, charges, Gaussians(float(apart) / 12, 1e-14), 4.0)
    points = evaluated(atoms, charges, Points(0.6, 1e-15), 5.2)
    assert apart > 1.8 and narrow.energy[0] == pytest.approx(points.energy[0], abs=1e-8)


def test_a_mesh_converges_with_the_order_of_its_splines_also_its_stress(crystal, double_precision):
    atoms, charges = crystal
    exact = evaluated(atoms, charges, Gaussians(0.7), 4.0)
    for order, energy, force, stress in ((4, 1e-2, 2e-2, 1e-3), (8, 1e-5, 1e-4, 1e-6), (12, 1e-7, 1e-6, 1e-8)):
        found = evaluated(atoms, charges, Gaussians(0.7), 4.0, waves=ParticleMesh(order))
        assert abs(found.energy[0] - exact.energy[0]) < energy
        assert np.abs(found.forces - exact.forces).max() < force
        assert np.abs(found.stress[0] - exact.stress[0]).max() < stress


def test_a_slab_has_the_energy_of_a_direct_sum_over_its_images(double_precision):
    """In which rings of images, neutral and without a dipole or a quadrupole in the plane, are summed until nothing changes."""
    atoms = ase.Atoms("Na2Cl2", cell=[4.0, 4.0, 0], pbc=(True, True, False))
    atoms.positions = [[0, 0, 0], [2, 2, 0.3], [2, 0, 0.1], [0, 2, 0.6]]
    charges = np.array([1.0, 1.0, -1.0, -1.0])
    found = evaluated(atoms, {11: 1.0, 17: -1.0}, Points(0.7, 1e-15), 6.0).energy[0]
    direct = []
    for rings in (40, 80, 160):
        n = np.arange(-rings, rings + 1)
        shifts = 4.0 * np.stack(np.meshgrid(n, n, [0], indexing="ij"), -1).reshape(-1, 3)
        energy = 0.0
        for i in range(4):
            r = np.linalg.norm(atoms.positions[None] + shifts[:, None] - atoms.positions[i], axis=-1)
            energy += 0.5 * COULOMB * charges[i] * np.sum(charges[None] / np.where(r > 0, r, np.inf))
        direct.append(energy)
    # What is left falls as 1 / rings.
    assert found == pytest.approx(2 * direct[2] - direct[1], abs=2e-5)
    assert abs(found - direct[2]) < 0.6 * abs(found - direct[1])


@pytest.mark.parametrize("kernel", [Points(0.7, 1e-15), Gaussians(0.6, 1e-15)], ids=["points", "gaussians"])
def test_the_energy_of_a_charged_slab_does_not_depend_on_the_vacuum(kernel, double_precision):
    """An atom without a charge above the slab, which makes its cell longer, changes nothing."""
    atoms = ase.Atoms("NaCl", positions=[[0, 0, 0], [2, 2, 0.7]], cell=[4.0, 4.0, 0], pbc=(True, True, False))
    atoms.info["charge"] = 0.5
    higher = atoms + ase.Atoms("He", positions=[[1, 1, 9.0]])
    higher.info["charge"] = 0.5
    charges = {11: 1.0, 17: -0.5, 2: 0.0}
    found = [evaluated(frame, charges, kernel, 6.0).energy[0] for frame in (atoms, higher)]
    assert found[0] == pytest.approx(found[1], abs=1e-9) and abs(found[0]) > 0.1


def test_open_systems_are_summed_directly(double_precision):
    atoms = ase.Atoms("NaClNa", positions=[[0, 0, 0], [0, 0, 2.5], [30.0, 0, 1.0]])
    atoms.info["charge"] = 1.0
    found = evaluated(atoms, {11: 0.7, 17: -0.4}, Points(), 4.0).energy[0]
    r = atoms.get_all_distances()
    assert found == pytest.approx(COULOMB * (-0.28 / r[0, 1] + 0.49 / r[0, 2] - 0.28 / r[1, 2]), abs=1e-12)


def test_what_has_no_energy_is_refused(crystal):
    atoms, charges = crystal
    term = Electrostatics(cutoff=4.0, charges=PerSpecies((1.0,)), elements=(11,))
    charged = Structure(np.array([11]), np.zeros((1, 3)), np.eye(3) * 5, True, charge=1.0, source="an ion")
    with pytest.raises(ValueError, match="an ion repeats and has a total charge of 1 e.*uniform_background: true"):
        term.check(charged)
    with pytest.raises(ValueError, match="an ion repeats along one lattice vector only"):
        term.check(charged.replace(pbc=np.array([True, False, False]), charge=0.0))
