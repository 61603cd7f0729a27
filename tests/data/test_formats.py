"""What ASE's readers add to a file is taken away again, and what nobody can know is asked for."""

import ase.db
import numpy as np
import pytest

from equipot.data.read import Units, read
from equipot.quantities import DIPOLE
from equipot.units import bohr, debye, fs, hartree, kcal_per_mol

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
    def put(columns="", first="", second="", units=""):
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


def test_two_types_of_one_mass_need_types(dump):
    path = dump("mass ", "28.0855 ", "28.0855 ")
    with pytest.raises(ValueError, match=r"atom types 1 and 2 both have the mass 28.0855, which may not .* in types"):
        read(path)
    assert read(path, types=("Si", "Si"))[0].numbers.tolist() == [14, 14]


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


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "run.lammpstrj",
            b"\xf6" + b"\xff" * 7 + b"DUMPCUSTOM" + bytes(40),
            "a binary dump of LAMMPS is not read; let LAMMPS write",
        ),
        ("run.bin", bytes(80), r"a binary dump .* `dump_modify 1 element Si O`, or convert the file with binary2txt"),
        (
            "run.nc",
            b"CDF\x02" + bytes(80),
            r"a NetCDF trajectory does not say which elements .* \(with cpptraj or MDAnalysis\) to",
        ),
        (
            "run.gro",
            b"ions\n    1\n    1MG      MG    1   0.263   0.607   0.514\n   2.00000   2.00000   2.00000\n",
            r"a .gro file names its atoms .*, not their elements; convert it with its topology .* to PDB with elements in",
        ),
        (
            "run.g96",
            b"TITLE\nx\nEND\nPOSITION\n    1 ALA   CA         1    0.1 0.2 0.3\nEND\n",
            r"a .g96 file names its atoms",
        ),
    ],
)
@pytest.mark.parametrize("types", [(), ("Si", "O")])
def test_formats_without_elements_are_refused_with_what_helps(tmp_path, name, content, expected, types):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {expected}"):
        read(tmp_path / name, types=types)


PDB_FILE = """\
CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1
ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00{nitrogen}
ATOM      2  CA  ALA A   1      11.639   6.071  -5.147  1.00  0.00{carbon}
END
"""


def test_atoms_of_a_pdb_file_without_elements_are_refused(tmp_path):
    path = tmp_path / "run.pdb"
    path.write_text(PDB_FILE.format(nitrogen="           N", carbon="           C"))
    assert read(path)[0].numbers.tolist() == [7, 6]
    path.write_text(PDB_FILE.format(nitrogen="           N", carbon=""))
    with pytest.raises(ValueError, match="run.pdb, line 3: the atom 'CA' has no element in columns 77 and 78, .*; write these"):
        read(path)


CIF_FILE = """\
data_x
_cell_length_a 5
_cell_length_b 5
_cell_length_c 5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_occupancy
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{sites}
"""


def test_sites_that_are_occupied_partially_are_refused(tmp_path):
    path = tmp_path / "run.cif"
    path.write_text(CIF_FILE.format(sites="Si1 1.0 0 0 0\nO1 1.0 0.3 0 0"))
    assert read(path)[0].numbers.tolist() == [14, 8]
    for sites, told in [("Si1 0.5 0 0 0\nGe1 0.5 0 0 0", "Si 0.5, Ge 0.5"), ("O1 1.0 0 0 0\nH1 0.5 0.3 0 0", "H 0.5")]:
        path.write_text(CIF_FILE.format(sites=sites))
        with pytest.raises(ValueError, match=rf"run.cif, frame 0: has a site that is occupied partially \({told}\), .* super"):
            read(path)


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
        ("15.9994", "atom types 1 and 2 both have the mass 15.9994"),
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


def test_units_of_a_schnetpack_database_are_used(molecules, same, tmp_path):
    path = tmp_path / "schnet.db"
    with ase.db.connect(path) as database:
        for s in molecules[:3]:
            bare = s.without_labels().replace(positions=s.positions / bohr)
            data = {"energy": np.array([s.energy / kcal_per_mol]), "forces": s.forces / hartree * bohr}
            data["dipole"] = np.array([[0.0, 0.0, 2.0]])
            database.write(bare.to_ase(), data=data)
        units = {"energy": "kcal/mol", "forces": "Hartree/Bohr", "dipole": "Debye"}
        database.metadata = {"_property_unit_dict": units, "_distance_unit": "Bohr"}
    for a, b in zip(read(path), molecules, strict=False):
        same(a, b)
    np.testing.assert_allclose(read(path, quantities=(DIPOLE,))[0].labels[DIPOLE], [0, 0, 2 * debye])
    with pytest.raises(ValueError, match="frame 0: states the unit 'kcal/mol' of its energy, but units.energy .* is 'eV'"):
        read(path, units=Units("eV"))


def test_an_enthalpy_of_airss_is_no_energy(tmp_path):
    text = (
        "TITL run-1 {pressure} 40.0 -210.5 0 0 1 (P1) n - 1\nCELL 1.54 3 3 3 90 90 90\nLATT -1\nSFAC Si\nSi 1 0 0 0 1.0\nEND\n"
    )
    path = tmp_path / "run.res"
    path.write_text(text.format(pressure=0.0))
    assert read(path)[0].energy == -210.5
    path.write_text(text.format(pressure=10.0))
    with pytest.raises(ValueError, match="run.res: AIRSS writes the enthalpy under 10 GPa where ASE reads an energy"):
        read(path)


@pytest.mark.parametrize(
    ("head", "program"), [("DBCSR| x\n CP2K| version string", "CP2K"), ("Psi4: An Open-Source Ab", "Psi4")]
)
@pytest.mark.parametrize("name", ["job.out", "job.log", "job"])
def test_outputs_that_ase_does_not_read_are_named_with_a_remedy(tmp_path, head, program, name):
    path = tmp_path / name
    path.write_text(head + "\n" + "some text\n" * 20)
    with pytest.raises(
        ValueError, match=f"looks like an output of {program}, which ASE does not read; convert it to extended XYZ"
    ):
        read(path)


def test_a_file_in_no_known_format(tmp_path):
    (tmp_path / "what").write_text("nothing that anyone knows\n")
    with pytest.raises(
        ValueError, match="what: ASE cannot read it .*; if nothing is wrong with the file, convert it to extended"
    ):
        read(tmp_path / "what")
    (tmp_path / "empty.traj").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.traj: is empty; fetch or write it again"):
        read(tmp_path / "empty.traj")
