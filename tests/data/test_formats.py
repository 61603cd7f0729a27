"""What ASE's readers add to a file is taken away again, and what nobody can know is asked for."""

import ase.db
import numpy as np
import pytest

from equipot.data.read import Units, read
from equipot.quantities import DIPOLE
from equipot.units import bohr, debye, hartree, kcal_per_mol

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
    with pytest.raises(ValueError, match="ASE cannot read it"):
        read(dump(), types=("Si",))


@pytest.mark.parametrize("given", [("element ", "Si ", "O "), ("mass ", "28.085 ", "15.999 ")], ids=lambda given: given[0])
def test_elements_of_a_dump_are_read(dump, given):
    [s] = read(dump(*given))
    assert s.numbers.tolist() == [14, 8] and s.energy is None
    with pytest.raises(ValueError, match="names its elements itself; leave types out"):
        read(dump(*given), types=("Si", "O"))


def test_units_that_a_dump_states(dump):
    [s] = read(dump("element ", "Si ", "O ", units="real"))
    np.testing.assert_allclose(s.forces[0, 0], 0.5 * kcal_per_mol, rtol=1e-6)


def test_a_data_file_of_lammps(tmp_path):
    text = "# data\n\n1 atoms\n1 atom types\n0 4 xlo xhi\n0 4 ylo yhi\n0 4 zlo zhi\n\n{masses}Atoms # atomic\n\n1 1 0 0 0\n"
    path = tmp_path / "start.lammps-data"
    path.write_text(text.format(masses=""))
    with pytest.raises(ValueError, match=r"has numbers of atom types \(up to 1\)"):
        read(path)
    assert read(path, types=("C",))[0].numbers.tolist() == [6]
    path.write_text(text.format(masses="Masses\n\n1 12.011\n\n"))
    assert read(path)[0].numbers.tolist() == [6]


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
    with pytest.raises(ValueError, match="frame 0: states the unit 'kcal/mol' of its energy, but data.units.energy is 'eV'"):
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
