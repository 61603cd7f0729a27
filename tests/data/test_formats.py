"""What ASE's readers add to a file is taken away again, and what nobody can know is asked for."""

import ase.db
import numpy as np
import pytest

from equipot.data.read import Units, read
from equipot.quantities import DIPOLE
from equipot.units import bohr, debye, hartree, kcal_per_mol


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


def test_names_of_dl_poly_that_are_no_elements_are_refused(tmp_path):
    path = tmp_path / "CONFIG"
    text = "a salt\n0 1\n5 0 0\n0 5 0\n0 0 5\n{first} 1\n0 0 0\n{second} 2\n2.5 0 0\n"
    path.write_text(text.format(first="Na+", second="O_w"))
    assert read(path)[0].numbers.tolist() == [11, 8]
    for name in ("CL", "NA", "OW"):
        path.write_text(text.format(first="Na", second=name))
        with pytest.raises(ValueError, match=f"CONFIG: the name '{name}' of atoms does not say which element .* such as Cl"):
            read(path)


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
