"""What a potential was trained on, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
from ase import Atoms

import equipot
from equipot import eqp
from equipot.artifact import Kind
from equipot.metadata import Metadata
from equipot.models.mace import MACE
from equipot.nn.electrons import Electrons
from equipot.nn.radial import Radial
from equipot.physics.sum import add
from equipot.structure import Structure
from equipot.testing.subject import Subject

SMALL = {"cutoff": 4.0, "channels": 2, "l_max": 1, "correlation": 2, "radial": Radial(mlp=(4,))}
OH = Structure([8, 1], [[0, 0, 0], [0, 0, 1.0]], spin=1.0, source="oh.xyz, frame 7")


@pytest.fixture(autouse=True)
def _precision(double_precision):
    pass


def trained(charges=(), spins=(), electrons=None):
    potential = Subject(MACE(**SMALL, electrons=electrons)).potential
    return potential.replace(metadata=dataclasses.replace(potential.metadata, charges=charges, spins=spins))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"charge": -1.0, "spin": 0.0}, "oh.xyz, frame 7: has charge -1, but the potential was trained on 0, 1; correct it"),
        ({"spin": 3.0}, r"oh.xyz, frame 7: has 3 unpaired electrons \(spin\), but the potential was trained on 0, 1; correct"),
        ({"spin": 0.0}, r"9 electrons \(charge \+0\) cannot leave 0 unpaired: .* \(unpaired electrons: the multiplicity less"),
    ],
)
def test_what_the_training_frames_did_not_have_is_refused(changes, message):
    potential = trained((0.0, 1.0), (0.0, 1.0), Electrons(3))
    potential.check([OH])
    system = OH.replace(**changes)
    for use in (lambda: potential.check([OH, system]), lambda: equipot.evaluate(potential, system)):
        with pytest.raises(ValueError, match=message):
            use()
    atoms = system.to_ase()
    atoms.info |= {"charge": system.charge, "spin": system.spin}
    atoms.calc = potential.calculator()
    with pytest.raises(ValueError, match=message.removeprefix("oh.xyz, frame 7: ")):
        atoms.get_potential_energy()


def test_a_model_that_sees_neither_refuses_other_charges_but_no_spin():
    """Its energy of an ion would be that of the neutral molecule; a spin may be stated by one of two files of one molecule."""
    blind = trained((0.0,), (0.0,))
    blind.check([OH, OH.replace(spin=0.0)])
    with pytest.raises(ValueError, match="has charge 1, but the potential was trained on 0"):
        blind.check([OH.replace(charge=1.0)])
    trained().check([OH.replace(charge=1.0)])


def test_the_record_is_in_the_file_and_old_files_have_none(tmp_path):
    potential = trained((-1.0, 0.0), (0.0, 2.0), Electrons(3))
    eqp.save(potential, tmp_path / "new.eqp")
    again = eqp.load(tmp_path / "new.eqp", "float64").metadata
    assert (again.charges, again.spins) == ((-1.0, 0.0), (0.0, 2.0)) and hash(again) == hash(potential.metadata)
    content = eqp.POTENTIAL.read(tmp_path / "new.eqp")
    record = json.loads(json.dumps(content.record))
    del record["metadata"]["charges"], record["metadata"]["spins"]
    Kind("potential", ".eqp file", 2, "").write(tmp_path / "old.eqp", record, content.arrays)
    old = eqp.load(tmp_path / "old.eqp", "float64")
    assert (old.metadata.charges, old.metadata.spins) == ((), ())
    ion = OH.replace(charge=5.0, spin=0.0)
    np.testing.assert_array_equal(equipot.evaluate(old, ion, "energy").energy, equipot.evaluate(old, ion, "energy").energy)


def test_a_sum_knows_what_all_of_its_parts_know():
    both = add([trained((0.0, 1.0), (0.0, 1.0)), trained(), trained((1.0, 2.0), (1.0,))])
    assert (both.metadata.charges, both.metadata.spins) == ((1.0,), (1.0,))
    assert add([trained(), trained()]).metadata.charges == ()
    with pytest.raises(ValueError, match="trained on no charge in common"):
        add([trained((0.0,)), trained((1.0,))])


def test_records_are_joined():
    assert Metadata().trained_on([1.0, 0.0], [2.0]).trained_on([-1.0], [2.0, 0.0]) == Metadata(
        charges=(-1.0, 0.0, 1.0), spins=(0.0, 2.0)
    )


def test_the_calculator_takes_the_charge_that_the_potential_knows():
    potential = trained((1.0,), (0.0,), Electrons(3))
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    atoms.calc = potential.calculator()
    with pytest.raises(ValueError, match="HO: .*has charge 0|HO: 9 electrons"):
        atoms.get_potential_energy()
    atoms.calc = potential.calculator(charge=1)
    expected = equipot.evaluate(potential, OH.replace(charge=1.0, spin=0.0)).energy[0]
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-12)
