"""The ASE calculator against ASE's own Lennard-Jones calculator, which is a different code for the same formula."""

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones as ReferenceLJ
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from subjects import SUBJECTS

import equipot
from equipot.data.batch import pad
from equipot.interfaces.ase import EquipotCalculator, calculate_together
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.structure import Structure
from equipot.term import Atomic, Term
from equipot.testing.systems import MOLECULE

CUTOFF = 5.0


class Charged(Term):
    """A term that sees nothing but the charge: 0.3 eV for every e and atom."""

    needs = ("charge",)

    def __call__(self, graph, vectors):
        return Atomic(0.3 * graph.charge[graph.node_graph] + 0.0 * vectors.sum(axis=(1, 2)))


def argon(dtype="float64", free=0.0, cutoff=CUTOFF):
    term = LennardJones(cutoff=cutoff, epsilon=0.05, sigma=2.2)
    structure = Structure.from_ase(Atoms("Ar2", positions=[[0, 0, 0], [2.5, 0, 0]]))
    variables = initial(term, jax.random.key(0), pad([structure], cutoff))
    return Potential(term, variables, Metadata(atomic_energies=((18, free),))).astype(dtype)


def reference():
    return ReferenceLJ(sigma=2.2, epsilon=0.05, rc=CUTOFF, ro=0.66 * CUTOFF, smooth=True)


def crystal(seed=0, rattle=0.15):
    """A skewed, rattled cell in which the cutoff reaches several images."""
    atoms = bulk("Ar", "fcc", a=3.6, cubic=True)
    atoms.rattle(rattle, seed=seed)
    atoms.set_cell(atoms.cell[:] + np.array([[0, 0.2, 0], [0.1, 0, 0.3], [0, 0, 0.2]]), scale_atoms=True)
    return atoms


def slab():
    atoms = crystal() * (2, 1, 1)
    atoms.pbc = (True, True, False)
    atoms.center(6.0, axis=2)
    return atoms


@pytest.mark.parametrize("atoms", [crystal(), slab(), Atoms("Ar3", [[0, 0, 0], [2.4, 0, 0], [0, 2.6, 0.3]])], ids=str)
def test_agrees_with_ase(atoms):
    mine, other = atoms.copy(), atoms.copy()
    mine.calc, other.calc = argon().calculator(), reference()
    assert mine.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-12)
    assert mine.get_potential_energy(force_consistent=True) == mine.get_potential_energy()
    np.testing.assert_allclose(mine.get_potential_energies(), other.get_potential_energies(), atol=1e-12)
    np.testing.assert_allclose(mine.get_forces(), other.get_forces(), atol=1e-11)
    if atoms.cell.rank == 3:
        np.testing.assert_allclose(mine.get_stress(), other.get_stress(), atol=1e-13)
        np.testing.assert_allclose(mine.get_stresses(), other.get_stresses(), atol=1e-13)
        assert np.abs(mine.get_stresses() - mine.get_stresses().mean(0)).max() > 1e-4  # the rattle shows


def test_list_is_reused_and_always_complete():
    """A trajectory with an affine deformation of the cell on top: every step agrees with a list built for it alone."""
    atoms = crystal(rattle=0.05) * (2, 2, 2)
    calculator = argon().calculator(skin=1.0)
    atoms.calc = calculator
    atoms.set_momenta(np.random.default_rng(1).normal(0, 1.5, (len(atoms), 3)))
    run = VelocityVerlet(atoms, 4 * fs)
    for step in range(30):
        run.run(1)
        atoms.set_cell(atoms.cell[:] * (1 + 0.004 * np.sin(step)), scale_atoms=True)
        fresh = atoms.copy()
        fresh.calc = argon().calculator(skin=0.0)
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-12)
    assert 1 < calculator.builds < 15


def test_nothing_is_compiled_again_while_atoms_move():
    from equipot.interfaces.ase import _observe

    atoms = crystal(rattle=0.02)
    atoms.calc = argon().calculator(skin=0.3)
    atoms.get_forces()
    compiled = _observe._cache_size()
    for seed in range(5):
        atoms.rattle(0.05, seed=seed)
        atoms.get_forces()
    assert _observe._cache_size() == compiled
    assert atoms.calc.builds > 1
    atoms.set_cell(atoms.cell[:] * 0.8, scale_atoms=True)  # much denser: the width must grow, and the answer is still right
    other = atoms.copy()
    other.calc = reference()
    np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), rtol=1e-10, atol=1e-10)


def test_changed_elements_and_sizes():
    calculator = argon().calculator()
    for atoms in (crystal(), crystal(seed=2), crystal() * (2, 1, 1), Atoms("Ar")):
        atoms.calc, other = calculator, atoms.copy()
        other.calc = reference()
        assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-12)


def test_isolated_system_has_no_stress():
    atoms = Atoms("Ar2", [[0, 0, 0], [2.4, 0, 0]])
    atoms.calc = argon().calculator()
    atoms.get_forces()
    for ask in (atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match="no periodic cell"):
            ask()


def test_unknown_element_is_named():
    atoms = molecule("H2O")
    atoms.calc = EquipotCalculator(argon())
    with pytest.raises(ValueError, match="does not know H, O"):
        atoms.get_potential_energy()


def test_isolated_atom_energies_are_added_in_double_precision():
    """A float32 model with huge isolated-atom energies resolves the interaction all the same."""
    atoms = crystal()
    exact, single = atoms.copy(), atoms.copy()
    exact.calc = argon().calculator()
    single.calc = argon(free=-27123.456789).calculator(dtype="float32")
    interaction = single.get_potential_energy() + 4 * 27123.456789
    assert interaction == pytest.approx(exact.get_potential_energy(), rel=1e-5)
    assert single.calc.results["forces"].dtype == np.float64
    assert single.get_potential_energies().sum() == pytest.approx(single.get_potential_energy(), rel=1e-14)


def test_bad_options():
    with pytest.raises(ValueError, match="skin"):
        argon().calculator(skin=-1.0)


def test_atoms_in_one_place_are_an_error_not_a_number():
    atoms = crystal()
    atoms.positions[1] = atoms.positions[0]
    atoms.calc = EquipotCalculator(argon())
    with pytest.raises(ValueError, match="not finite: atoms 0 and 1 are closer than 0.1 Å"):
        atoms.get_forces()
    with pytest.raises(ValueError, match="not finite: atoms 0 and 1"):
        equipot.evaluate(argon(), [crystal(), atoms])


def test_single_precision_does_not_depend_on_the_distance_from_the_origin():
    here, far = crystal(), crystal()
    far.positions += 1e4
    potential = argon("float32")
    near = equipot.evaluate(potential, here, want="forces").forces
    np.testing.assert_allclose(equipot.evaluate(potential, far, want="forces").forces, near, atol=2e-4)
    here.calc, far.calc = EquipotCalculator(potential), EquipotCalculator(potential)
    np.testing.assert_allclose(far.get_forces(), here.get_forces(), atol=2e-4)


def test_charge_and_spin_reach_the_model_and_the_file():
    potential = Potential(Charged(cutoff=CUTOFF), {}, Metadata(((18, 0.0),)))
    atoms = Atoms("Ar2", [[0, 0, 0], [2.5, 0, 0]])
    atoms.calc = potential.calculator()
    assert atoms.get_potential_energy() == 0.0
    atoms.info["charge"] = 2
    assert atoms.get_potential_energy() == pytest.approx(1.2)
    ion = Structure.from_ase(atoms).replace(spin=1.0)
    again = ion.to_ase()
    assert again.info["charge"] == 2.0 and again.info["spin"] == 1.0
    assert Structure.from_ase(again).charge == 2.0
    again.calc = potential.calculator()
    assert again.get_potential_energy() == pytest.approx(equipot.evaluate(potential, ion).energy[0])
    # A spin alone would not tell a reader the number of electrons, nor so what it means.
    assert ion.replace(charge=0.0).to_ase().info == {"charge": 0.0, "spin": 1.0}
    assert ion.replace(charge=0.0, spin=0.0).to_ase().info == {}


def test_charge_and_spin_as_parameters_of_the_calculator():
    potential = Potential(Charged(cutoff=CUTOFF), {}, Metadata(((18, 0.0),)))
    atoms = Atoms("Ar2", [[0, 0, 0], [2.5, 0, 0]])
    atoms.calc = potential.calculator(charge=1, spin=1)
    assert atoms.calc.parameters["charge"] == 1 and atoms.get_potential_energy() == pytest.approx(0.6)
    atoms.calc.set(charge=-1)
    assert atoms.get_potential_energy() == pytest.approx(-0.6)
    atoms.info["charge"] = -1
    assert atoms.get_potential_energy() == pytest.approx(-0.6)
    for info, message in (
        ({"total_charge": 2}, "Ar2: the calculator has charge -1, but atoms.info says 2; leave one of them out"),
        ({"multiplicity": 1}, "Ar2: the calculator has spin 1, but atoms.info says 0 unpaired electrons; leave one"),
    ):
        atoms.info = info
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()
    atoms.info = {"mult": 2}
    calculate_together([atoms])
    assert atoms.calc.results["energy"] == pytest.approx(-0.6)


@pytest.mark.parametrize("key", ["Charge", "total_charge", "spin", "mult"])
def test_every_key_of_charge_and_spin_recalculates(key):
    potential = Potential(Charged(cutoff=CUTOFF), {}, Metadata(((18, 0.0),)))
    atoms = Atoms("Ar2", [[0, 0, 0], [2.5, 0, 0]])
    atoms.calc = potential.calculator()
    atoms.get_potential_energy()
    assert not atoms.calc.calculation_required(atoms, ["energy"])
    atoms.info[key] = 3
    assert atoms.calc.calculation_required(atoms, ["energy"])


def test_a_structure_does_not_change_with_the_atoms_it_was_made_of():
    atoms = crystal()
    atoms.set_momenta(np.ones((len(atoms), 3)))
    kept = Structure.from_ase(atoms)
    before = (kept.numbers.copy(), kept.positions.copy(), kept.cell.copy(), kept.momenta.copy())
    atoms.positions += 1.0
    atoms.numbers[:] = 10
    atoms.arrays["momenta"] *= 2
    atoms.cell[:] *= 2
    for a, b in zip(before, (kept.numbers, kept.positions, kept.cell, kept.momenta), strict=True):
        np.testing.assert_array_equal(a, b)


def test_single_precision_follows_moved_and_strained_atoms_wherever_they_are():
    """Atoms many cells from where they began, a step of dynamics and a strain within one list: as in double precision."""
    atoms = crystal() * (2, 2, 2)
    atoms.positions += np.random.default_rng(0).integers(-30, 30, (len(atoms), 3)) @ atoms.cell[:]
    calculators = [EquipotCalculator(argon(dtype), skin=1.0) for dtype in ("float32", "float64")]
    for step in range(3):
        if step == 1:
            atoms.rattle(0.05, seed=3)
        if step == 2:
            atoms.set_cell(1.003 * atoms.cell[:], scale_atoms=True)
        single, double = (
            (calc.get_property("energy", atoms), calc.get_forces(atoms), calc.get_stress(atoms)) for calc in calculators
        )
        size = np.abs(double[1]).max()
        assert np.abs(single[1] - double[1]).max() < 2e-6 * size and abs(single[0] / double[0] - 1) < 1e-6
        # Virials of many pairs, of either sign.
        assert np.abs(single[2] - double[2]).max() < 1e-5 * np.abs(double[2]).max()
    assert calculators[0].builds == 1


def test_what_a_term_provides_is_a_property(double_precision):
    subject = SUBJECTS["polar"]
    atoms = MOLECULE.to_ase()
    atoms.calc = subject.potential.calculator()
    expected = equipot.evaluate(subject.potential, MOLECULE, ("dipole", "charges"))
    np.testing.assert_allclose(atoms.get_dipole_moment(), expected.others["dipole"][0], atol=1e-12)
    np.testing.assert_allclose(atoms.get_charges(), expected.charges, atol=1e-12)
    assert np.abs(atoms.get_dipole_moment()).max() > 1e-3
    with pytest.raises(PropertyNotImplementedError):
        SUBJECTS["mace"].potential.calculator().get_property("dipole", atoms)
