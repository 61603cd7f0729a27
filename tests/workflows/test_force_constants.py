"""Force constants: exact derivatives, finite displacements, and phonopy with ASE's calculators."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.morse import MorsePotential
from closed_forms import morse

from equipot.evaluation import hessian_of
from equipot.structure import Structure
from equipot.workflows.force_constants import Displacements, Exact, check, exact_rows

phonopy = pytest.importorskip("phonopy")
from equipot.workflows.phonons.cell import phonopy_atoms, shortest_vector  # noqa: E402
from equipot.workflows.phonons.harmonic import pair_distances  # noqa: E402

FORM = {"cutoff": 4.6, "onset": 0.7, "depth": 0.3, "width": 1.5, "distance": 2.7}


@pytest.fixture
def crystal():
    """Copper and gold in the structure of caesium chloride, of which neither force constant vanishes."""
    return Structure.from_ase(bulk("CuAu", "cesiumchloride", a=3.0))


def phonon_of(crystal):
    return phonopy.Phonopy(phonopy_atoms(crystal), supercell_matrix=3 * np.eye(3, dtype=int), primitive_matrix=np.eye(3))


def supercell_of(phonon):
    cell = phonon.supercell
    return Structure(cell.numbers, cell.positions, cell.cell, True)


def test_exact_rows_are_rows_of_the_hessian(double_precision, crystal):
    potential, supercell = morse((29, 79), **FORM), supercell_of(phonon_of(crystal))
    hessian = hessian_of(potential, supercell)
    rows = exact_rows(potential, supercell, [3, 0], batch_size=2)
    np.testing.assert_allclose(rows, hessian[[3, 0]].transpose(0, 2, 1, 3), atol=1e-12)


def test_displacements_and_phonopy_with_ase_agree_with_exact_derivatives(double_precision, crystal):
    potential, phonon = morse((29, 79), **FORM), phonon_of(crystal)
    supercell = supercell_of(phonon)
    exact = Exact().rows(potential, supercell, phonon)
    moved = Displacements(0.002).rows(potential, supercell, phonon)
    own = np.array(phonon.forces)
    calculator = MorsePotential(epsilon=0.3, r0=2.7, rho0=1.5 * 2.7, rcut1=0.7 * 4.6 / 2.7, rcut2=4.6 / 2.7)
    theirs = []
    for cell in phonon.supercells_with_displacements:
        atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True, calculator=calculator)
        theirs.append(atoms.get_forces())
    np.testing.assert_allclose(own, theirs, atol=1e-10)
    assert np.abs(exact).max() > 1
    np.testing.assert_allclose(moved, exact, atol=3e-5)


def test_a_hessian_by_displacements_is_the_exact_one(double_precision):
    potential, cluster = morse((29,), **FORM), Atoms("Cu3", positions=[[0, 0, 0], [2.6, 0, 0.1], [0.9, 2.3, -0.2]])
    structure = Structure.from_ase(cluster)
    exact = Exact().hessian(potential, structure)
    np.testing.assert_allclose(exact, hessian_of(potential, structure), atol=1e-12)
    np.testing.assert_allclose(Displacements(0.001).hessian(potential, structure), exact, atol=1e-5)


def test_checks_measure_the_sum_rule_and_what_is_left_at_the_boundary(double_precision, crystal):
    phonon = phonon_of(crystal)
    distances = pair_distances(phonon)
    supercell = supercell_of(phonon).to_ase()
    for row, atom in enumerate(phonon.primitive.p2s_map):
        np.testing.assert_allclose(distances[row], supercell.get_distances(atom, range(54), mic=True), atol=1e-9)
    rows = np.array(Exact().rows(morse((29, 79), **FORM), supercell_of(phonon), phonon))
    radius = shortest_vector(phonon.supercell.cell) / 2
    found = check(rows, distances, radius)
    assert found.sum_rule < 1e-12 and found.boundary > 1e-3 and found.boundary_distance == pytest.approx(0.9 * 4.5)
    rows[0, 5, 1, 2] += 0.125
    assert check(rows, distances, radius).sum_rule == pytest.approx(0.125)
    short = Exact().rows(morse((29, 79), **FORM | {"cutoff": 3.6}), supercell_of(phonon), phonon)
    assert check(short, distances, radius).boundary == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: Exact(0), "batch_size 0 must be at least 1"), (lambda: Displacements(1.0), "distance 1 Å of a displacement")],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
