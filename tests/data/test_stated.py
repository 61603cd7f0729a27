"""Units that the comment of a frame states are used, or refused with a remedy; words and names of elements are no units."""

import re

import numpy as np
import pytest
from ase.data import chemical_symbols

from equipot.data.read import Keys, Units, read, read_one
from equipot.quantities import DIPOLE
from equipot.units import GPa, bohr, debye, hartree, kcal_per_mol, kJ_per_mol

LATTICE = 'Lattice="4 0 0 0 5 0 0 0 6"'
TENSOR = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3.0]])
"""xx yy zz yz xz xy = 1 2 3 4 5 6."""
KEYS = ["energy-unit", "energy_unit", "Energy_Units", "energyUnit", "units", "unit", "unit_energy", "units-energy",
        "unitEnergy", "unit_of_energy", "total_energy_unit"]  # fmt: skip
"""Spellings of an entry that states the unit of the energy."""


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("spelling", ["hartree", "Hartree", "Ha", "kcal/mol"])
def test_the_unit_that_a_comment_states_is_used(put, key, spelling):
    size = kcal_per_mol if spelling == "kcal/mol" else hartree
    assert read(put(f"{key}={spelling} energy=-1.5"))[0].energy == pytest.approx(-1.5 * size, rel=1e-12)


FORCES = "Properties=species:S:1:pos:R:3:forces:R:3"
PER_BOHR = hartree / bohr


@pytest.mark.parametrize(
    ("stated", "energy", "forces", "length"),
    [
        ("energy=-1.5 unit_energy=hartree unit_forces=hartree/bohr", hartree, PER_BOHR, 1),
        ("energy=-1.5 Hartree unitForces=au", hartree, PER_BOHR, 1),
        ("energy=-1.5 [kcal/mol], force_units=kcal/mol/Ang", kcal_per_mol, kcal_per_mol, 1),
        ("energy=-1.5 eV", 1, 1, 1),
        ("energy=-1.5 step 7", 1, 1, 1),
        ("energy=-1.5 a frame", 1, 1, 1),
        ("REF_energy=-1.5 Ha forces_unit=eV/Å", hartree, 1, 1),
        ('units="energy: hartree, forces: eV/Å" energy=-1.5', hartree, 1, 1),
        ('units="energy=hartree forces=hartree/bohr length=bohr" energy=-1.5', hartree, PER_BOHR, bohr),
        ("units={'energy': 'kcal/mol', 'forces': 'kcal/mol/Å'} energy=-1.5", kcal_per_mol, kcal_per_mol, 1),
        ('units="_JSON {\\"energy\\": \\"Ha\\", \\"forces\\": \\"Ha/bohr\\"}" energy=-1.5', hartree, PER_BOHR, 1),
        ('units="eV Å" energy=-1.5', 1, 1, 1),
        ("units=Ha,Å,Ha/bohr energy=-1.5", hartree, PER_BOHR, 1),
        ("units=atomic length_unit=bohr energy=-1.5", hartree, PER_BOHR, bohr),
        ("unit=a.u. length_unit=Å energy=-1.5", hartree, PER_BOHR, 1),
        ("units: Hartree energy=-1.5 forces_unit: Ha/bohr", hartree, PER_BOHR, 1),
        ("energy=-1.5 Hartree energy_unit=Ha forces_unit=eV/Å", hartree, 1, 1),
        ("energy=-1.5 energy_unit=eV time_unit=fs", 1, 1, 1),
        ("energy=-1.5 unit_cell=conventional", 1, 1, 1),
        ("energy=-1.5 unit=2x2x2", 1, 1, 1),
        ("energy=-1.5 units=none", 1, 1, 1),
        ("energy=-1.5 units=ASE", 1, 1, 1),
        ("energy=-1.5 units=metal", 1, 1, 1),
        ('energy=-1.5 units="LAMMPS metal"', 1, 1, 1),
        ("energy=-1.5 units=real", kcal_per_mol, kcal_per_mol, 1),
        ("energy=-1.5 units=real energy_unit=eV", 1, kcal_per_mol, 1),
        ('energy=-1.5 units="eV Angstrom fs"', 1, 1, 1),
        ('energy=-1.5 units="eV, Ang, amu"', 1, 1, 1),
        ('energy=-1.5 units="Ha Å Ha/bohr ps e"', hartree, PER_BOHR, 1),
        ('energy=-1.5 units="forces: kcal/(mol*A), energy: kcal/mol"', kcal_per_mol, kcal_per_mol, 1),
    ],
)
def test_units_in_every_form_are_used(put, stated, energy, forces, length):
    [s] = read(put(f"{FORCES} {stated}", forces=True))
    assert s.energy == pytest.approx(-1.5 * energy, rel=1e-12) and s.forces[0, 0] == pytest.approx(0.1 * forces, rel=1e-12)
    assert s.positions[1, 2] == pytest.approx(0.75 * length, rel=1e-12)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("units=atomic", r"states the units 'atomic', but positions .* write length_unit=bohr or length_unit=Å"),
        ("units=au", r"states the units 'au', but positions .*, or set units.length \(data.units.length in training\)"),
        (
            "units=lj",
            "states the units 'lj', which are not understood; write energy_unit=..., forces_unit=... and length_",
        ),
        ('units="energy hartree"', "states the units 'energy hartree', which are not understood"),
        ('units="eV fs"', "states the units 'eV fs', which are not understood"),
        ('units="eV Å kcal"', "states the units 'eV Å kcal', which are not understood"),
        ('units="eV Å eV/atom"', "states the units 'eV Å eV/atom', which are not understood"),
        ('units="eV Å D"', "states the units 'eV Å D', which are not understood"),
        ('units="eV Ha Å"', "states the units 'eV Ha Å', which are not understood"),
        ("units=bohr", "states the unit of its length, bohr, but not that of its forces"),
        ("unit_energy=furlong", "states the unit 'furlong' of its energy, which is unknown"),
        ("energy_unit=T", "states the unit 'True' of its energy, which is unknown"),
        ("unit_energy=hartree energy_unit=eV", "states the unit 'hartree and eV' of its energy, which is unknown"),
        ("units=eV unit_energy=Ha", "states the unit 'eV and Ha' of its energy, which is unknown"),
        ("units='energy: hartree'", "states the unit of its energy, Hartree, but not that of its forces"),
    ],
)
def test_units_that_are_not_understood_are_refused(put, stated, expected):
    with pytest.raises(ValueError, match=f"frame 0: {expected}"):
        read(put(f"{FORCES} {stated} energy=-1.5", forces=True))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Hartree", "states the unit of its energy, Hartree, but not that of its forces"),
        ("cm-1", "states the unit 'cm-1' of its energy, which is unknown"),
        ("MeV", "states the unit 'MeV' of its energy, which is unknown"),
        ("GPa", "states the unit 'GPa' of its energy, which is unknown"),
        ("eV energy_unit=Hartree", "states the unit 'eV and Hartree' of its energy, which is unknown"),
    ],
)
def test_a_unit_after_a_value_is_not_overlooked(put, word, expected):
    with pytest.raises(ValueError, match=f"frame 0: {expected}"):
        read(put(f"{FORCES} energy=-1.5 {word}", forces=True))


@pytest.mark.parametrize("symbol", ["Au", "Pa", "(Au)", "Au/Pa", "Pm"])
def test_the_symbol_of_an_element_is_no_unit(put, symbol):
    [s] = read(
        put(f'{LATTICE} energy=-6.1 {symbol} dimer stress="1 2 3 4 5 6" Au fcc dipole="0 0 2" {symbol}'), quantities=(DIPOLE,)
    )
    assert s.energy == -6.1
    np.testing.assert_array_equal(s.stress, TENSOR)
    np.testing.assert_array_equal(s.labels[DIPOLE], [0, 0, 2])


@pytest.mark.parametrize("symbol", chemical_symbols[1:])
def test_the_symbol_of_an_element_at_the_end_of_a_name_is_no_unit(put, symbol):
    path = put(f'{LATTICE} energy_{symbol}=-6.1 {symbol} stress_{symbol}="1 2 3 4 5 6"')
    [s] = read(path, Keys(energy=f"energy_{symbol}", stress=f"stress_{symbol}"))
    assert s.energy == -6.1
    np.testing.assert_array_equal(s.stress, TENSOR)


@pytest.mark.parametrize(
    "text",
    ["energy_unit=Au energy=-6", "energy=-6 au", "energy=-6 a.u. Au", "energy=-6 (atomic units)", "energy_unit=AU energy=-6"],
)
def test_atomic_units_are_understood_beside_gold(put, text):
    assert read(put(text))[0].energy == pytest.approx(-6 * hartree, rel=1e-12)


def test_bare_words_that_may_be_elements_are_a_question(put):
    with pytest.raises(ValueError, match=r"states the unit 'AU \(atomic units or gold\)' of its energy, which is unknown; set"):
        read(put("energy=-6.1 AU"))
    assert read(put("energy=-6.1 AU"), units=Units("Hartree"))[0].energy == pytest.approx(-6.1 * hartree, rel=1e-12)
    with pytest.raises(
        ValueError, match=r"states the unit 'Pa \(pascal or protactinium\)' of its stress, which is unknown; set"
    ):
        read(put(f'{LATTICE} stress="1 2 3 4 5 6" Pa'))


PER_ATOM = ["energy=-3.05 eV/atom", "energy=-3.05 [eV/atom] Cu", "energy=-3.05 eV per atom", "energy=-3.05 (in Ha / atom)",
            "energy=-3.05 kcal/mol/atom", "energy=-3.05 eV*atom^-1", "energy=-3.05 eV atom-1", "energy=-3.05 per atom",
            "energy_unit=eV/atom energy=-3.05", 'energy_unit="eV per atom" energy=-3.05',
            "units=eV/atom energy=-3.05", 'units="eV/atom Å" energy=-3.05']  # fmt: skip


@pytest.mark.parametrize("text", PER_ATOM)
@pytest.mark.parametrize("units", [Units(), Units("eV")])
def test_energies_per_atom_are_refused(put, text, units):
    with pytest.raises(
        ValueError, match="of its energy, which is divided by the number of atoms; multiply it by the number of"
    ):
        read(put(text), units=units)


def test_a_name_that_says_per_atom_is_refused(put):
    with pytest.raises(ValueError, match="the unit 'eV/atom' of its energy, which is divided by the number of atoms"):
        read(put("energy(eV/atom)=-3.05"), Keys(energy="energy(eV/atom)"))


@pytest.mark.parametrize("words", ["(in Hartree)", "in Hartree", "[in hartree], step 7", "unit Ha", "(units Ha) eV"])
def test_a_unit_after_a_preposition_is_used(put, words):
    assert read(put(f"energy=-76.4 {words}"))[0].energy == pytest.approx(-76.4 * hartree, rel=1e-12)
    assert read(put("energy=-76.4 in water, Hartree trees"))[0].energy == -76.4


@pytest.mark.parametrize(("system", "unit"), [("metal", "bar or eV/Å^3"), ("real", "atm or kcal/mol/Å^3")])
def test_a_stress_in_units_of_lammps_is_a_question(put, system, unit):
    text = f'{LATTICE} energy=-1 units={system} stress="1 2 3 4 5 6"'
    with pytest.raises(ValueError, match=f"states the unit '{re.escape(unit)}' of its stress, which is unknown; set units.str"):
        read(put(text))
    np.testing.assert_allclose(read(put(f"{text} stress_unit=GPa"))[0].stress, TENSOR * GPa, rtol=1e-12)
    np.testing.assert_allclose(read(put(text), units=Units(stress="GPa"))[0].stress, TENSOR * GPa, rtol=1e-12)


PER_FORCE = {
    "kcal/(mol*A)": kcal_per_mol, "kcal mol^-1 A^-1": kcal_per_mol, "eV*A^-1": 1, "hartree bohr^-1": PER_BOHR,
    "eV/ångström": 1, "electronvolt/Angstroem": 1, "kJ·mol⁻¹·nm⁻¹": kJ_per_mol / 10, "(kcal/mol)/Å": kcal_per_mol,
    "Ha a0**-1": PER_BOHR, "kcal / mol / Å": kcal_per_mol, "Ha/a₀": PER_BOHR,
}  # fmt: skip


@pytest.mark.parametrize("text", PER_FORCE)
def test_usual_units_of_forces(put, text):
    path = put(f'{FORCES} energy=-1 energy_unit=eV forces_unit="{text}"', forces=True)
    assert read(path)[0].forces[0, 0] == pytest.approx(0.1 * PER_FORCE[text], rel=1e-12)


PRESSURES = {
    "eV/Å³": 1, "eV Å^-3": 1, "kB": 0.1 * GPa, "MPa": 1e-3 * GPa, "Mbar": 100 * GPa, "kilobar": 0.1 * GPa,
    "Hartree bohr⁻³": hartree / bohr**3,
}  # fmt: skip


@pytest.mark.parametrize("text", PRESSURES)
@pytest.mark.parametrize("form", ['stress_unit="{}" stress="1 2 3 4 5 6"', 'stress="1 2 3 4 5 6" {}'])
def test_usual_units_of_the_stress(put, text, form):
    [s] = read(put(f"{LATTICE} energy=-1 {form.format(text)}"))
    np.testing.assert_allclose(s.stress, TENSOR * PRESSURES[text], rtol=1e-12)


@pytest.mark.parametrize(("label", "text"), [("stress", "mPa"), ("stress", "mbar"), ("energy", "kB"), ("energy", "MPa")])
def test_units_of_another_size_or_quantity_are_unknown(put, label, text):
    value = '"1 2 3 4 5 6"' if label == "stress" else "-1"
    with pytest.raises(ValueError, match=f"states the unit '{text}' of its {label}, which is unknown"):
        read(put(f"{LATTICE} {label}_unit={text} {label}={value}"))


def test_units_of_all_quantities_are_overruled_by_the_config(put):
    [s] = read(put(f"{FORCES} energy=-1.5 units=real", forces=True), units=Units("kcal/mol", "Å"))
    assert s.energy == pytest.approx(-1.5 * kcal_per_mol) and s.forces[0, 0] == pytest.approx(0.1 * kcal_per_mol)
    [s] = read(put(f"{FORCES} energy=-1.5 units=atomic", forces=True), units=Units(length="bohr"))
    assert s.energy == pytest.approx(-1.5 * hartree) and s.positions[1, 2] == pytest.approx(0.75 * bohr)


def test_units_after_a_stress_and_of_further_quantities(put):
    text = f'{LATTICE} energy=-1 stress="1 2 3 4 5 6" GPa dipole="0 0 2" Debye'
    [s] = read(put(text), quantities=(DIPOLE,))
    np.testing.assert_allclose(s.stress, TENSOR * GPa, rtol=1e-12)
    np.testing.assert_allclose(s.labels[DIPOLE], [0, 0, 2 * debye], rtol=1e-12)
    text = f'{LATTICE} energy=-1 stress="1 2 3 4 5 6" dipole="0 0 2" units=atomic length_unit=Å'
    [s] = read(put(text), quantities=(DIPOLE,))
    np.testing.assert_allclose(s.stress, TENSOR * hartree / bohr**3, rtol=1e-12)
    np.testing.assert_allclose(s.labels[DIPOLE], [0, 0, 2 * bohr], rtol=1e-12)


@pytest.mark.parametrize("name", ["energy_Ha", "energy(Ha)", "energy[hartree]", "dft-energy-au"])
def test_the_unit_in_a_name_is_used(put, name):
    assert read(put(f"{name}=-1.5"), Keys(energy=name))[0].energy == pytest.approx(-1.5 * hartree, rel=1e-12)
    with pytest.raises(ValueError, match="of its energy, but units.energy .* is 'eV'"):
        read(put(f"{name}=-1.5"), Keys(energy=name), Units("eV"))


def test_units_of_every_label_can_be_stated(put):
    stated = 'energy-unit="kcal/mol" force_unit=Ha/Bohr length-unit=bohr stress-unit=GPa'
    [s] = read(put(f'{LATTICE} {stated} energy=2 stress="1 2 3 4 5 6" Properties=species:S:1:pos:R:3:forces:R:3', forces=True))
    assert s.energy == pytest.approx(2 * kcal_per_mol) and s.forces[0, 0] == pytest.approx(0.1 * hartree / bohr)
    np.testing.assert_allclose(s.stress, TENSOR * GPa)
    assert s.cell[0, 0] == pytest.approx(4 * bohr) and s.positions[1, 2] == pytest.approx(0.75 * bohr)


def test_units_that_are_unclear_or_contradict_are_a_question(put):
    with pytest.raises(ValueError, match="states the unit 'furlong' of its energy, which is unknown; set units.energy"):
        read(put("energy-unit=furlong energy=-1.5"))
    assert read(put("energy-unit=furlong energy=-1.5"), units=Units("meV"))[0].energy == pytest.approx(-1.5e-3)
    with pytest.raises(ValueError, match="states the unit 'hartree' of its energy, but units.energy .* is 'eV'"):
        read(put("energy-unit=hartree energy=-1.5"), units=Units("eV"))
    columns = "Properties=species:S:1:pos:R:3:forces:R:3"
    with pytest.raises(ValueError, match="states the unit of its energy, Hartree, but not that of its forces; set units.f"):
        read(put(f"energy-unit=hartree energy=-1.5 {columns}", forces=True))
    [s] = read(put(f"energy-unit=hartree energy=-1.5 {columns}", forces=True), units=Units(forces="eV/Å"))
    assert s.forces[0, 0] == 0.1 and s.energy == pytest.approx(-1.5 * hartree)


@pytest.mark.parametrize("key", ["dipole_unit", "dipole-unit", "Dipole_Units", "REF_dipole_unit", "dipole_moment_unit"])
def test_the_unit_of_a_further_quantity_that_a_comment_states_is_used(put, key):
    [s] = read(put(f'{key}=Debye energy=-1.5 REF_dipole="0 0 1"'), quantities=(DIPOLE,))
    np.testing.assert_allclose(s.labels[DIPOLE], [0, 0, 0.20819434], rtol=1e-7)
    [s] = read(put(f'{key}="e bohr" length_unit=Å energy=-1.5 REF_dipole="0 0 1"'), quantities=(DIPOLE,))
    np.testing.assert_allclose(s.labels[DIPOLE], [0, 0, bohr], rtol=1e-12)


def test_units_of_further_quantities_by_the_config(put):
    dipole = 'energy=-1.5 dipole="0 0 1"'
    held = lambda comment, **given: read(put(comment), units=Units(**given), quantities=(DIPOLE,))[0].labels[DIPOLE][2]
    assert held(dipole) == 1 and held(dipole, length="bohr") == pytest.approx(bohr)
    assert held(dipole, others={"dipole": "Debye"}, length="bohr") == pytest.approx(debye)
    assert held(f"dipole_unit=D {dipole}", others={"dipole": "Debye"}) == pytest.approx(debye)
    assert held(f"dipole_unit=furlong {dipole}", others={"dipole": "Debye"}) == pytest.approx(debye)


@pytest.mark.parametrize(
    ("stated", "given", "expected"),
    [
        (
            "dipole_unit=furlong",
            {},
            "states the unit 'furlong' of its dipole, which is unknown; convert it to e Å, or set units.others",
        ),
        ("dipole_unit=eV", {}, "states the unit 'eV' of its dipole, which is unknown"),
        ("dipole_unit=D", {"others": {"dipole": "e Å"}}, "'D' of its dipole, but units.others.dipole .* is 'e Å'"),
        (
            "length_unit=bohr",
            {},
            "states the unit of its length, but not that of its dipole; set units.others.dipole .*, such as",
        ),
        ("", {"others": {"dipole": "eV"}}, "units.others.dipole .*: 'eV' is not understood; give a unit such as e Å"),
        ("", {"others": {"dipol": "Debye"}}, "units.others.dipol .*: no such quantity is read; choose from dipole"),
    ],
)
def test_units_of_further_quantities_that_are_unclear_are_a_question(put, stated, given, expected):
    with pytest.raises(ValueError, match=expected):
        read(put(f'{stated} energy=-1.5 dipole="0 0 1"'), units=Units(**given), quantities=(DIPOLE,))


def test_positions_of_cp2k_are_neither_in_ev_nor_known_to_be_open(put):
    path = put("i =        3, time =        1.500, E =       -17.1643871")
    with pytest.raises(ValueError, match="frame 0: looks like positions that CP2K wrote, with energies in Hartree and without"):
        read(path)
    assert read(path, units=Units("Hartree"))[0].energy == pytest.approx(-17.1643871 * hartree)


@pytest.mark.parametrize("more", [", a = 5", " step 7", ", Temp = 300.0"])
def test_positions_of_cp2k_with_further_fields(put, more):
    path = put(f"i = 3, time = 1.5, E = -17.0{more}")
    with pytest.raises(ValueError, match="frame 0: looks like positions that CP2K wrote, with energies in Hartree and without"):
        read(path)
    assert read(path, units=Units("Hartree"))[0].energy == pytest.approx(-17 * hartree, rel=1e-12)


def test_positions_of_cp2k_with_a_cell_are_in_hartree(put):
    [s] = read(put(f"i = 3, time = 1.5, E = -17.0, {LATTICE}"))
    assert s.energy == pytest.approx(-17 * hartree, rel=1e-12) and s.cell[0, 0] == 4
    assert read(put(f"i = 3, time = 1.5, E = -17.0, energy_unit=eV {LATTICE}"))[0].energy == -17
    assert read(put(f"i = 3, time = 1.5, E = -17.0, energy=-17.0 {LATTICE}"), Keys(energy="energy"))[0].energy == -17
    with pytest.raises(ValueError, match="states the unit 'Hartree' of its energy, but units.energy .* is 'eV'"):
        read(put(f"i = 3, time = 1.5, E = -17.0, {LATTICE}"), units=Units("eV"))


def test_energies_of_extended_xyz_from_cp2k_are_a_question(put):
    line = f'{LATTICE} Properties=species:S:1:pos:R:3 pbc="T T T" Step=20 Time=10.000 Energy=-17.5'
    with pytest.raises(
        ValueError, match="has the entries Step, Time and Energy as CP2K writes them, in Hartree; write energy_u"
    ):
        read(put(line))
    for path, units in [(put(line), Units("Hartree")), (put(f"{line} energy_unit=Hartree", name="stated.xyz"), Units())]:
        assert read(path, units=units)[0].energy == pytest.approx(-17.5 * hartree, rel=1e-12)
    assert read_one(str(put(line))).cell[0, 0] == 4


@pytest.mark.parametrize("beside", ["units=none", "unit=2x2x2", "time_unit=fs", "length_unit=Å"])
def test_units_of_other_quantities_do_not_hide_the_hartree_of_cp2k(put, beside):
    [s] = read(put(f"i = 3, time = 1.5, E = -17.0, {LATTICE} {beside}"))
    assert s.energy == pytest.approx(-17 * hartree, rel=1e-12)


def test_the_unit_of_a_stress_beside_the_hartree_of_cp2k(put):
    [s] = read(put(f'i = 3, time = 1.5, E = -17.0, {LATTICE} stress="1 2 3 4 5 6" GPa'))
    assert s.energy == pytest.approx(-17 * hartree, rel=1e-12)
    np.testing.assert_allclose(s.stress, TENSOR * GPa, rtol=1e-12)


def test_positions_of_cp2k_that_say_they_are_open_are_a_start(put):
    """Dynamics and the doctor have no units to set: the remedy that they name is in the file."""
    line = "i =        3, time =        1.500, E =       -17.1643871"
    with pytest.raises(ValueError, match=r'Lattice="\.\.\." \(pbc="F F F" for an open cluster\)'):
        read_one(str(put(line)))
    assert not read_one(str(put(f'{line}, pbc="F F F"'))).pbc.any()
