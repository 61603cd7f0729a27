"""Elements and units of LAMMPS files are read where they are stated, and asked for where they are not."""

import warnings

import numpy as np
import pytest

from equipot.data.read import read
from equipot.units import bohr, fs, kcal_per_mol

DUMP = """\
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 5
0 5
0 5
ITEM: ATOMS id type {columns}x y z fx fy fz
1 1 {first}0 0 0 0.5 0 0
2 2 {second}0 0 2 -0.5 0 0
"""


@pytest.fixture
def dump(tmp_path):
    def put(columns="", first="", second="", units="metal"):
        path = tmp_path / "run.lammpstrj"
        path.write_text((f"ITEM: UNITS\n{units}\n" if units else "") + DUMP.format(columns=columns, first=first, second=second))
        return path

    return put


def test_types_of_a_dump_need_names(dump):
    with pytest.raises(ValueError, match=r"run.lammpstrj: has numbers of atom types \(up to 2\), not elements; name them in"):
        read(dump())
    [s] = read(dump(), types=("Si", "O"))
    assert s.numbers.tolist() == [14, 8] and s.energy is None and s.forces[0, 0] == 0.5 and s.pbc.all()
    with pytest.raises(
        ValueError, match=r"run.lammpstrj: has 2 atom types, but types .* names 1, Si; name the element of each"
    ):
        read(dump(), types=("Si",))


@pytest.mark.parametrize("given", [("element ", "Si ", "O "), ("mass ", "28.085 ", "15.999 ")], ids=lambda given: given[0])
def test_elements_of_a_dump_are_read(dump, given):
    [s] = read(dump(*given))
    assert s.numbers.tolist() == [14, 8] and s.energy is None


def test_types_are_not_used_where_a_file_names_its_elements(dump, tmp_path):
    (tmp_path / "data.xyz").write_text("1\nenergy=-1.0\nH 0 0 0\n")
    [s] = read(tmp_path / "data.xyz", types=("Si", "O"))
    assert s.numbers.tolist() == [1]
    [s] = read(dump("element ", "Si ", "O "), types=("Si", "O"))
    assert s.numbers.tolist() == [14, 8]


@pytest.mark.parametrize(
    ("types", "told"), [(("O", "Si"), "type 1 Si, but types .* says O"), (("Si",), "type 2 O, .* nothing")]
)
def test_types_that_contradict_a_file_are_refused(dump, types, told):
    with pytest.raises(ValueError, match=rf"run.lammpstrj: calls atom {told}"):
        read(dump("element ", "Si ", "O "), types=types)


@pytest.mark.parametrize(
    ("mass", "element"),
    [(1.01, 1), (1.00794, 1), (12.0, 6), (14.0, 7), (28.09, 14), (58.933, 27), (58.7, 28), (208.98, 83), (238.03, 92)],
)
def test_a_standard_mass_names_its_element(dump, mass, element):
    assert read(dump("mass ", f"{mass} ", "15.999 "))[0].numbers.tolist() == [element, 8]


@pytest.mark.parametrize("mass", [1.0, 3.024, 2.014, 14.027, 16.043, 72.0, 40.0, 0.0])
def test_a_mass_of_no_element_or_of_two_needs_types(dump, mass):
    path = dump("mass ", f"{mass} ", "15.999 ")
    with pytest.raises(ValueError, match=rf"run.lammpstrj: the mass {mass:g} names no element .* in types \(data.types in tr"):
        read(path)
    [s] = read(path, types=("H", "O"))
    assert s.numbers.tolist() == [1, 8] and s.masses.tolist() == [mass, 15.999]


def test_two_types_of_one_element_are_one_element(dump):
    """Types differ in charges or bonds, too."""
    assert read(dump("mass ", "28.0855 ", "28.0855 "))[0].numbers.tolist() == [14, 14]


def test_types_that_contradict_masses_are_refused(dump):
    path = dump("mass ", "15.9994 ", "1.008 ")
    with pytest.raises(
        ValueError, match=r"atom type 1 has the mass 15.9994 of O, but types .* says H; name the elements in the"
    ):
        read(path, types=("H", "O"))
    assert read(path, types=("O", "H"))[0].numbers.tolist() == [8, 1]
    # An oxygen that gave 2 amu to each of two hydrogens has the mass of carbon.
    assert read(dump("mass ", "12.0 ", "3.0 "), types=("O", "H"))[0].numbers.tolist() == [8, 1]


def test_types_win_over_masses_and_velocities_stay(dump):
    path = dump("mass ", "3.024 ", "12.011 ")
    path.write_text(path.read_text().replace("fx fy fz", "vx vy vz").replace("1 1 3", "9 1 3"))
    [s] = read(path, types=("H", "O"))
    assert s.numbers.tolist() == [8, 1] and s.masses.tolist() == [12.011, 3.024]
    np.testing.assert_allclose((s.momenta / s.masses[:, None])[:, 0] * 1e3 * fs, [-0.5, 0.5], rtol=1e-12)


def test_units_that_a_dump_states(dump):
    [s] = read(dump("element ", "Si ", "O ", units="real"))
    np.testing.assert_allclose(s.forces[0, 0], 0.5 * kcal_per_mol, rtol=1e-6)


def test_forces_and_velocities_without_units_are_a_warning(dump):
    path = dump("element ", "Si ", "O ", units="")
    with pytest.warns(
        UserWarning, match=r"run.lammpstrj: states no units; it is read as metal .* `dump_modify 1 units yes`"
    ) as told:
        [s] = read(path)
    assert s.forces[0, 0] == 0.5 and len(told) == 1
    path.write_text(path.read_text().replace("fx fy fz", "vx vy vz"))
    with pytest.warns(UserWarning, match="states no units"):
        read(path)
    stated = dump("element ", "Si ", "O ", units="metal").rename(path.with_name("stated.lammpstrj"))
    path.write_text(stated.read_text().replace("ITEM: UNITS\nmetal\n", "").replace("fx fy fz", "c_1 c_2 c_3"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(stated)[0].forces[0, 0] == 0.5
        assert read(path)[0].forces is None


def test_units_without_a_size_are_refused(dump):
    with pytest.raises(ValueError, match="run.lammpstrj: is in the units 'lj'; give it in one of metal"):
        read(dump("element ", "Si ", "O ", units="lj"))


def test_a_column_of_elements_that_lammps_filled_is_refused(dump):
    with pytest.raises(ValueError, match="has '1' in the column `element`, which is no element; let LAMMPS write"):
        read(dump("element ", "1 ", "2 "))
    carbon = dump("element ", "C ", "C ")
    with pytest.raises(ValueError, match="calls all of its 2 atom types C, as LAMMPS does where no elements are given; let"):
        read(carbon)
    assert read(carbon, types=("C", "C"))[0].numbers.tolist() == [6, 6]


def test_a_type_that_is_no_element_is_refused(dump):
    with pytest.raises(ValueError, match="types .*: 'Cc' is not the symbol of an element"):
        read(dump(), types=("Cc", "O"))


DATA = """\
LAMMPS data{units}

2 atoms
2 atom types

0 5 xlo xhi
0 5 ylo yhi
0 5 zlo zhi

{masses}Atoms{style}

1 1 {more}0 0 0
2 2 {more}1 1 1
"""


@pytest.fixture(params=["w.data", "w.lmp", "w.lammps", "data.w", "w.lammps-data"])
def data(tmp_path, request):
    def put(masses="", style=" # atomic", more="", units=""):
        path = tmp_path / request.param
        masses = "".join(f"{k} {mass}\n" for k, mass in enumerate(masses, 1))
        masses = f"Masses\n\n{masses}\n" if masses else ""
        path.write_text(DATA.format(masses=masses, style=style, more=more, units=units))
        return path

    return put


def test_a_data_file_of_lammps_in_any_name(data):
    with pytest.raises(ValueError, match=r"has numbers of atom types \(up to 2\), not elements; name them in types"):
        read(data())
    assert read(data(), types=("C", "O"))[0].numbers.tolist() == [6, 8]
    with pytest.raises(ValueError, match="has 2 atom types, but types .* names 1, C; name the element of each"):
        read(data(), types=("C",))
    assert read(data((1.008, 15.9994)))[0].numbers.tolist() == [1, 8]
    with pytest.raises(ValueError, match=r"the mass 3.024 of atom type 1 names no element .* in types"):
        read(data((3.024, 15.9994)))
    [s] = read(data((3.024, 15.9994)), types=("H", "O"))
    assert s.numbers.tolist() == [1, 8]
    # ASE and LAMMPS take Avogadro's number from different years.
    np.testing.assert_allclose(s.masses, [3.024, 15.9994], rtol=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "numbers"),
    [
        ("28.0855 # Si", "15.9994 # O", [14, 8]),
        ("1.0 # H", "16.0", [1, 8]),
        ("12.011 # C of a ring", "12.011 # C", [6, 6]),
        ("12.011 # CT", "1.008 # HC", [6, 1]),
        ("14.007 # NH", "1.008 # opls_140", [7, 1]),
    ],
)
def test_comments_of_masses_name_elements(tmp_path, first, second, numbers):
    path = tmp_path / "w.data"
    path.write_text(DATA.format(masses=f"Masses\n\n1 {first}\n2 {second}\n\n", style=" # atomic", more="", units=""))
    assert read(path)[0].numbers.tolist() == numbers


@pytest.mark.parametrize(
    ("mass", "told"),
    [
        ("1.0 # Si", r"\(1 1 # Si\) do not agree; name the element of each atom type in types"),
        ("58.693 # Co", r"\(1 58.693 # Co\) do not agree"),
        ("4.0 # H", r"\(1 4 # H\) do not agree"),
        ("14.0 # CH2", r"\(1 14 # CH2\) do not agree"),
        ("14.027 # CH2", r"the mass 14.027 of atom type 1 \(1 14.027 # CH2\) names no element"),
        ("1.0", "the mass 1 of atom type 1 names no element"),
    ],
)
def test_masses_that_their_comments_do_not_confirm_are_refused(tmp_path, mass, told):
    path = tmp_path / "w.data"
    path.write_text(DATA.format(masses=f"Masses\n\n1 {mass}\n2 15.9994\n\n", style=" # atomic", more="", units=""))
    with pytest.raises(ValueError, match=told):
        read(path)


def test_types_that_contradict_the_masses_of_a_data_file_are_refused(data):
    with pytest.raises(ValueError, match=r"atom type 1 has the mass 15.9994 of O, but types .* says H"):
        read(data((15.9994, 1.008)), types=("H", "O"))
    assert read(data((1.0, 1.0)), types=("Si", "O"))[0].numbers.tolist() == [14, 8]


def test_the_style_of_a_data_file_is_stated_or_asked_for(data):
    masses = (1.008, 15.999)
    for style, more in [(" # charge", "0.5 "), (" # full", "1 0.5 "), ("", "")]:
        text = data(masses, style, more)
        if style == " # full":
            text.write_text(text.read_text().replace("2 2 1 0.5", "2 1 2 0.5"))
        [s] = read(text)
        assert s.numbers.tolist() == [1, 8] and s.positions[1].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="does not state its atom style; write one of atomic, .* such as 'Atoms # atomic'"):
        read(data(masses, "", "1 0.5 "))
    with pytest.raises(ValueError, match="has the atom style 'sphere', which is not read; write one of"):
        read(data(masses, " # sphere", "1 0.5 "))


def test_units_that_a_data_file_states(data):
    [s] = read(data((1.008, 15.999), units=" via write_data, units = electron"))
    np.testing.assert_allclose(s.cell[0, 0], 5 * bohr, rtol=1e-6)
    with pytest.raises(ValueError, match="is in the units 'lj'; give it in one of metal"):
        read(data((1.008, 15.999), units=" via write_data, units = lj"))


def test_velocities_of_a_data_file_without_units_are_a_warning(data):
    for units in ("", " via write_data, units = real"):
        path = data((1.008, 15.999), units=units)
        path.write_text(path.read_text() + "\nVelocities\n\n1 0.1 0 0\n2 0 0 0\n")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            [s] = read(path)
        assert [("states no units" in str(w.message), "`units = real`" in str(w.message)) for w in told] == [(True,) * 2] * (
            not units
        )
        # Å/fs in real, Å/ps in metal
        np.testing.assert_allclose(s.momenta[0, 0] / s.masses[0] * fs, 0.1 if units else 1e-4, rtol=1e-5)


def test_labels_of_types_in_a_data_file_are_refused(tmp_path):
    path = tmp_path / "w.data"
    labels = "Atom Type Labels\n\n1 Si\n2 O\n\n"
    path.write_text(DATA.format(masses=labels, style=" # atomic", more="", units="").replace("1 1 0", "1 Si 0"))
    with pytest.raises(ValueError, match=r"w.data: has labels of types \(Si\) in Atoms, not numbers; let LAMMPS write numbers"):
        read(path)
