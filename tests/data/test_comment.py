"""What the comment line of a frame states is read as it is meant; words are no labels."""

import numpy as np
import pytest

from equipot.data import comment
from equipot.data.checks.frames import check
from equipot.data.checks.report import DataError
from equipot.data.config import Reading
from equipot.data.read import Keys, read
from equipot.quantities import CHARGES, DIPOLE, ENERGY, Quantity
from equipot.structure import Structure

LATTICE = 'Lattice="4 0 0 0 5 0 0 0 6"'

MAGMOMS = Quantity("magmoms", "atom")


WORDS = [
    "Iteration 0 Energy -1.1",
    "Coordinates from ORCA-job w E -76.3",
    " energy: -5.07 gnorm: 0.0003 xtb: 6.4.1 (23d549d)",
    "Energy",
    "free_energy stress virial charge 0",
    "it's a frame",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_are_no_labels(put, text):
    [s] = read(put(text))
    assert s.energy is None and s.stress is None and s.charge == 0 and s.weight == 1
    assert s.info == {"comment": " ".join(text.split())}


def test_a_frame_with_words_only_is_told_how_to_label(put):
    with pytest.raises(
        DataError, match="has no energy, forces or stress; .*words in the comment .*Energy -1.1.* write energy="
    ):
        check({"train": read(put("Iteration 0 Energy -1.1"))}).raise_errors()


def test_a_boolean_is_no_number(put):
    assert read(put("Energy=T step=3"))[0].energy is None
    with pytest.raises(ValueError, match="frame 0: the energy is True, not a number"):
        read(put("Energy=T"), Keys(energy="Energy"))
    with pytest.raises(ValueError, match="frame 0: the forces_weight is False, not a number; give the number, or take"):
        read(put("energy=-1.0 forces_weight=F"))
    with pytest.raises(ValueError, match=r"frame 0: info\['charge'\] is 'True', not one number"):
        read(put("energy=-1.0 charge=T"))
    with pytest.raises(ValueError, match="frame 0: 'charge -1' in the comment is no entry; write charge=-1"):
        read(put("energy=-1.0 charge -1"))


@pytest.mark.parametrize(
    "value", ['"T F T"', '"_JSON [true, false, true]"', '"_JSON [true, 0.5, 1]"', '"_JSON [[1, 2], true]"']
)
def test_booleans_are_no_numbers_where_ase_has_results(put, value):
    for name in ("dipole", "Dipole", "REF_dipole"):
        path = put(f"energy=-1.0 {name}={value}")
        assert set(read(path, quantities=(DIPOLE,))[0].labels) == {ENERGY}
        with pytest.raises(ValueError, match="frame 0: the dipole is .*, not a number; give the number, or take"):
            read(path, Keys(others={"dipole": name}), quantities=(DIPOLE,))
    assert "free_energy" not in read(put("free_energy=T step=3"))[0].labels
    assert set(read(put(f"{LATTICE} energy=-1 stress={value}"))[0].labels) == {ENERGY}


@pytest.mark.parametrize("name", ["charges", "forces", "masses", "momenta", "magmoms"])
def test_columns_of_booleans_are_no_numbers(tmp_path, name):
    size = 3 if name in ("forces", "momenta") else 1
    path = tmp_path / "data.xyz"
    path.write_text(f"1\nProperties=species:S:1:pos:R:3:{name}:L:{size} energy=-1.0\nH 0 0 0{' T' * size}\n")
    if name in ("masses", "momenta"):
        with pytest.raises(ValueError, match=f"frame 0: the {name} is .*True.*, not a number"):
            read(path)
        return
    assert set(read(path, quantities=(CHARGES, MAGMOMS))[0].labels) == {ENERGY}
    named = Keys(forces="forces") if name == "forces" else Keys(others={name: name})
    with pytest.raises(ValueError, match=f"frame 0: the {name} is .*True.*, not a number"):
        read(path, named, quantities=(CHARGES, MAGMOMS))


@pytest.mark.parametrize("key", ["energy", "REF_energy", "charge", "Spin", "energy_weight", "units", "scf_converged"])
def test_a_key_with_two_values_is_refused(put, key):
    one, two = ("eV", "Hartree") if key == "units" else ("0", "1")
    rest = "" if key in ("energy", "REF_energy") else "energy=-1.0 "
    with pytest.raises(ValueError, match=f"frame 0: the comment states '{key}' twice, with different values; leave one"):
        read(put(f"{rest}{key}={one} step=1 {key}={two}"))
    assert read(put(f"{rest}{key}={two} step=1 step=2 {key}={two}"))[0].info["step"] == 2


def test_two_values_of_what_is_not_read(put):
    assert read(put("energy=-1 energy=-1.0"))[0].energy == -1
    assert read(put("energy=-1 energy=-2"), Keys(energy="none"))[0].energy is None
    with pytest.raises(ValueError, match=r"frame 0 .*Lattice is stated twice, with different values"):
        read(put(f'{LATTICE} lattice="4 0 0 0 5 0 0 0 7" energy=-1'))


def test_charge_and_spin_have_one_parser(put):
    [s] = read(put("energy=-1.0 Total_Charge=-1 Spin=1"))
    assert (s.charge, s.spin, s.info) == (-1, 1, {})
    with pytest.raises(ValueError, match="'charge' is 1, but 'total_charge' 0; leave one of them out"):
        read(put("energy=-1.0 charge=1 total_charge=0"))
    from ase import Atoms

    ion = Structure.from_ase(Atoms("H", info={"CHARGE": 1.0, "spin": None}))
    assert (ion.charge, ion.spin) == (1, 0)
    with pytest.raises(ValueError, match=r"H: info\['spin'\] is 'True', not one number"):
        Structure.from_ase(Atoms("H", info={"spin": True}))


@pytest.mark.parametrize("key", ["Lattice", "lattice", "LATTICE"])
def test_a_lattice_in_any_case_is_periodic_unless_said_otherwise(put, key):
    cell = f'{key}="4 0 0 1 5 0 0 0 6"'
    [s] = read(put(f"{cell} energy=-1.0"))
    np.testing.assert_array_equal(s.cell, [[4, 0, 0], [1, 5, 0], [0, 0, 6]])
    assert s.pbc.all()
    assert read(put(f'{cell} PBC="T F T" energy=-1.0'))[0].pbc.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("lattice", "pbc"),
    [
        ("0 0 0 0 0 0 0 0 0", [False, False, False]),
        ("0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0", [False, False, False]),
        ("5 0 0 0 5 0 0 0 0", [True, True, False]),
        ("0 0 0 0 0 0 0 0 5", [False, False, True]),
        ("5 0 0 5 5 0 0 0 5", [True, True, True]),
    ],
)
def test_directions_without_a_lattice_vector_are_open(put, lattice, pbc):
    assert read(put(f'Lattice="{lattice}" energy=-1'))[0].pbc.tolist() == pbc
    assert read(put(f'lattice="{lattice}" pbc="F F T" energy=-1'))[0].pbc.tolist() == [False, False, True]


def test_the_format_of_nep(put):
    text = 'LATTICE="4 0 0 0 5 0 0 0 6" ENERGY=-1.5 VIRIAL="1 0 0 0 2 0 0 0 3" PROPERTIES=SPECIES:S:1:POS:R:3:FORCE:R:3'
    [s] = read(put(text, forces=True))
    assert s.pbc.all() and s.energy == -1.5 and s.forces[0, 0] == 0.1
    np.testing.assert_allclose(s.stress, -np.diag([1, 2, 3]) / 120)


def test_a_cell_of_another_name_is_not_overlooked(put):
    with pytest.raises(ValueError, match=r"frame 0 \(line 2\): .*there is a 'cell' but no Lattice; name it Lattice"):
        read(put('cell="4 0 0 0 5 0 0 0 6" energy=-1.0'))
    assert not read(put('cell="4 5 6" pbc="F F F" energy=-1.0'))[0].pbc.any()
    with pytest.raises(ValueError, match="Lattice is .*, not nine numbers"):
        read(put('Lattice="4 5 6" energy=-1.0'))


TENSOR = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3.0]])
"""xx yy zz yz xz xy = 1 2 3 4 5 6."""
SPELLINGS = [
    '"1 2 3 4 5 6"', "{1 2 3 4 5 6}", "[1,2,3,4,5,6]", '"1, 2, 3, 4, 5, 6"', '"1 6 5 6 2 4 5 4 3"',
    '"[[1, 6, 5], [6, 2, 4], [5, 4, 3]]"', "[[1,6,5],[6,2,4],[5,4,3]]", '"_JSON [[1, 6, 5], [6, 2, 4], [5, 4, 3]]"',
]  # fmt: skip


@pytest.mark.parametrize("name", ["stress", "REF_stress", "virial", "virials", "STRESS"])
@pytest.mark.parametrize("value", SPELLINGS)
def test_six_and_nine_numbers_in_every_spelling(put, name, value):
    [s] = read(put(f"{LATTICE} {name}={value} energy=-1"))
    np.testing.assert_allclose(s.stress, -TENSOR / 120 if "virial" in name else TENSOR, atol=1e-12)


def test_the_order_of_six_numbers_can_be_stated(put):
    [s] = read(put(f'{LATTICE} stress="1 2 3 6 4 5"'), Keys(six="xx yy zz xy yz zx"))
    np.testing.assert_array_equal(s.stress, TENSOR)
    with pytest.raises(ValueError, match="six = 'xx yy zz' is not an order of six components, such as xx yy zz yz xz xy"):
        Keys(six="xx yy zz")
    with pytest.raises(ValueError, match=r"frame 0: 'stress' has shape \(5,\); give 3x3, nine or six numbers"):
        read(put(f'{LATTICE} stress="1 2 3 4 5"'))
    with pytest.raises(ValueError, match="'stress' is not symmetric"):
        read(put(f'{LATTICE} stress="1 2 3 4 5 6 7 8 9"'))


@pytest.mark.parametrize("key", ["dipole_weight", "config_dipole_weight", "Dipole_Weight"])
def test_the_weight_of_a_further_quantity_reaches_the_structure(put, key):
    path = put(f'energy=-1.5 dipole="0 0 1" {key}=0.25')
    [s] = read(path, quantities=(DIPOLE,))
    assert s.weight_of(DIPOLE) == 0.25 and s.weight_of(ENERGY) == 1 and key not in s.info
    [off] = read(path, Keys(others={"dipole_weight": "none"}), quantities=(DIPOLE,))
    assert off.weight_of(DIPOLE) == 1
    with pytest.raises(ValueError, match="is -1; a weight must be zero or positive"):
        read(put(f'energy=-1.5 dipole="0 0 1" {key}=-1'), quantities=(DIPOLE,))


def test_comments_are_taken_apart():
    found = comment.parse(
        r"""a=1 b = "x y" c={1 2.5} step 7 d="say \"hi\"" e= -3.0, f=T g="T F" h=[1,2] pbc="T T F" k='q=1' """
    )
    assert {key: found.values[key] for key in "abdefgk"} == {
        "a": 1, "b": "x y", "d": 'say "hi"', "e": -3.0, "f": True, "g": [True, False], "k": "q=1",
    }  # fmt: skip
    np.testing.assert_array_equal(found.values["c"], [1, 2.5])
    np.testing.assert_array_equal(found.values["h"], [1, 2])
    assert found.words == ("step", "7")
    assert found.after("step") == "7" and found.after("charge") is None


def test_types_must_be_elements():
    with pytest.raises(ValueError, match="types: 'Qq' is not the symbol of an element"):
        Reading(types=("Si", "Qq"))
