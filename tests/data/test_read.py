"""Every format and key convention gives the same structures; what is ambiguous is asked about."""

import gzip
import lzma
import re
import warnings

import ase.db
import ase.io
import numpy as np
import pytest

from equipot.data.config import DataConfig
from equipot.data.hdf5 import HDF5Dataset, write_hdf5
from equipot.data.read import Keys, Units, load_data, read, read_one
from equipot.quantities import LABELLED, STRESS
from equipot.structure import Structure

CONVENTIONS = [
    {},
    {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"},
    {"energy": "dft_energy", "forces": "dft_force", "virial": "dft_virial"},
    {"energy": "DFT_energy", "forces": "DFT_forces", "virial": "virials"},
    {"energy": "free_energy", "forces": "force", "virial": "virial"},
    {"energy": "E", "forces": "F", "virial": "REF_virials"},
    {"energy": "REF_Energy", "forces": "DFT_Forces", "stress": "REF_Stress"},
    {"energy": "DFT_Energy", "forces": "Forces", "virial": "DFT_Virial"},
]


@pytest.mark.parametrize("names", CONVENTIONS, ids=lambda names: names.get("energy", "ase"))
def test_every_key_convention_reads_the_same(crystals, write, same, names):
    for a, b in zip(read(write(crystals, **names)), crystals, strict=True):
        same(a, b)
        assert a.info == {"config_type": "rattled"}


@pytest.mark.parametrize("wrap", [gzip.compress, lzma.compress])
def test_compressed_files(crystals, write, same, tmp_path, wrap):
    path = tmp_path / ("data.xyz.gz" if wrap is gzip.compress else "data.xyz.xz")
    path.write_bytes(wrap(write(crystals[:2]).read_bytes()))
    for a, b in zip(read(path), crystals[:2], strict=True):
        same(a, b)


def test_ase_database_and_trajectory(crystals, same, tmp_path):
    with ase.db.connect(tmp_path / "data.db") as database:
        for s in crystals[:3]:
            database.write(s.to_ase(), key_value_pairs={"config_weight": 0.5})
    ase.io.write(tmp_path / "data.traj", [s.to_ase() for s in crystals[:3]])
    for name, weight in (("data.db", 0.5), ("data.traj", 1.0)):
        for a, b in zip(read(tmp_path / name), crystals[:3], strict=True):
            same(a, b)
            assert a.weight == weight and a.source.startswith(str(tmp_path / name))


@pytest.mark.parametrize("names", [("dft_energy", "forces"), ("dft_energy", "F_pbe")], ids=lambda names: names[1])
@pytest.mark.parametrize("as_stored", [np.array, np.ndarray.tolist], ids=["array", "list"])
def test_forces_in_the_data_of_a_database(crystals, same, tmp_path, names, as_stored):
    energy, forces = names
    path = tmp_path / "schnet.db"
    with ase.db.connect(path) as database:
        for s in crystals[:3]:
            data = {forces: as_stored(s.forces), "stress": as_stored(s.stress), "ragged": [[1.0], [2.0, 3.0]]}
            database.write(s.without_labels().to_ase(), key_value_pairs={energy: s.energy}, data=data)
    keys = Keys() if forces == "forces" else Keys(forces=forces)
    for a, b in zip(read(path, keys), crystals[:3], strict=True):
        same(a, b)
    with pytest.raises(
        ValueError, match=rf"no frame has 'mine', set by keys.forces \(data.keys.forces in training\); there is {forces}$"
    ):
        read(path, Keys(forces="mine"))
    with pytest.raises(ValueError, match=r"schnet.db, frame 0: forces has shape \(3, 3\), but 16 atoms need"):
        read(path, Keys(forces="stress"))


def test_hdf5_keeps_everything_and_reads_lazily(crystals, molecules, same, tmp_path):
    marked = molecules[0].replace(
        charge=-1.0, spin=2.0, weight=0.5, label_weights={STRESS: 3.0}, info={"group": "x", "n": np.int64(3)}
    )
    n = len(molecules[3])
    moving = molecules[3].replace(
        masses=np.linspace(1, 20, n), momenta=np.arange(3.0 * n).reshape(n, 3), constraints=("FixAtoms",)
    )
    frames = [*crystals, marked, molecules[1].replace(energy=None), molecules[2].without_labels(), moving]
    path = write_hdf5(tmp_path / "data.h5", iter(frames))
    assert [p.name for p in tmp_path.iterdir()] == ["data.h5"]
    data = read(path)
    assert isinstance(data, HDF5Dataset) and len(data) == len(frames)
    for a, b in zip(data, frames, strict=True):
        same(a, b, atol=0)
    got = data[12]
    assert (got.charge, got.spin, got.weight, got.label_weights[STRESS], got.info) == (-1, 2, 0.5, 3, {"group": "x", "n": 3})
    assert (data[-1].masses == moving.masses).all() and (data[-1].momenta == moving.momenta).all()
    assert data[-1].constraints == ("FixAtoms",) and not data[-1].info
    assert (data[12].masses, data[12].momenta, data[12].constraints) == (None, None, ())
    assert data[-1].source == f"{path}, frame {len(frames) - 1}"
    assert [s.source for s in read(f"{path}@2:4")] == [f"{path}, frame {k}" for k in (2, 3)]
    with pytest.raises(IndexError):
        data[len(frames)]


def test_hdf5_that_is_cut_or_foreign(crystals, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(tmp_path / "data.h5", crystals)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="data.h5: not a whole HDF5 file"):
        read(path)
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ValueError, match="write_hdf5"):
        read(tmp_path / "other.h5")


@pytest.mark.parametrize("key", ["charge", "spin"])
def test_charge_and_spin_are_one_number_or_absent(crystals, tmp_path, key):
    atoms = crystals[0].to_ase()
    atoms.info[key] = None
    ase.io.write(tmp_path / "data.traj", atoms)
    assert getattr(Structure.from_ase(atoms), key) == getattr(read(tmp_path / "data.traj")[0], key) == 0
    atoms.info[key] = np.int64(2)
    assert getattr(Structure.from_ase(atoms), key) == 2
    for value in ("singlet", [1, 2], np.ones(2)):
        atoms.info[key] = value
        with pytest.raises(ValueError, match=rf"Cu16: info\['{key}'\] is .*, not one number"):
            Structure.from_ase(atoms)


@pytest.mark.parametrize("kind", ["hdf5", "bundled"])
def test_names_and_units_of_formats_that_have_their_own(crystals, tmp_path, kind):
    source = "bundled:silicon" if kind == "bundled" else str(write_hdf5(tmp_path / "data.h5", crystals))
    with pytest.raises(ValueError, match=rf"{source}: is in eV and Å already; leave units \(data.units in training\) out"):
        read(source, units=Units("Hartree"))
    with pytest.raises(ValueError, match=rf"{source}: .* leave 'REF_forces' for keys.forces .* out, or say none"):
        read(source, Keys(forces="REF_forces"))
    with pytest.raises(ValueError, match="leave 'virial' for keys.virial"):
        read(source, Keys(virial="virial"))
    some = read(f"{source}@2:4", Keys(energy="energy", stress="none", virial="none", weight="none"))
    assert len(some) == 2 and all(s.stress is None and s.forces is not None and s.energy is not None for s in some)
    assert len(some[:1]) == 1 and some[:1][0].stress is None


def test_units_are_converted(crystals, write, same):
    bohr, hartree = 0.529177210564, 27.211386024
    scaled = [
        s.replace(
            positions=s.positions / bohr, cell=s.cell / bohr, energy=s.energy / hartree, forces=s.forces / hartree * bohr,
            stress=s.stress * 160.2176621,
        )
        for s in crystals
    ]  # fmt: skip
    path = write(scaled)
    for a, b in zip(read(path, units=Units("Hartree", "bohr", stress="GPa")), crystals, strict=True):
        same(a, b, atol=1e-7)
    with pytest.raises(ValueError, match="did you mean Hartree"):
        Units(energy="hartre")


def test_slices(crystals, write):
    path = write(crystals)
    frames = lambda source: [int(s.source.rpartition(" ")[2]) for s in read(source)]
    assert frames(f"{path}@:3") == [0, 1, 2]
    assert frames(f"{path}@-2:") == [10, 11]
    assert frames(f"{path}@::5") == [0, 5, 10]
    assert frames(f"{path}@8:2:-1") == [8, 7, 6, 5, 4, 3]
    assert frames(f"{path}@-1") == [11] and frames(f"{path}@4") == [4]
    with pytest.raises(ValueError, match="@x is not a frame number"):
        read(f"{path}@x")
    with pytest.raises(ValueError, match="no frames in @50:60"):
        read(f"{path}@50:60")


def test_two_energies_that_disagree_are_a_question(crystals, write):
    path = write(crystals, REF_energy=-3.5)
    with pytest.raises(ValueError, match=r"frame 0: 'energy' and 'REF_energy' disagree .* set keys.energy"):
        read(path)
    assert all(s.energy == -3.5 for s in read(path, Keys(energy="REF_energy")))
    assert read(path, Keys(energy="energy"))[3].energy == pytest.approx(crystals[3].energy)
    assert read(path, Keys(energy="none"))[0].energy is None


def test_nan_is_called_nan_and_no_disagreement(crystals, write):
    path = write(crystals, free_energy=0.559)
    path.write_text(re.sub(r" energy=\S+", " energy=nan", path.read_text(), count=1))
    with pytest.raises(ValueError, match="frame 0: 'energy' holds NaN or infinity; calculate the frame again"):
        read(path)


def test_names_that_change_within_a_file_are_a_question(crystals, write, tmp_path):
    both = write(crystals[:2]).read_text() + write(crystals[2:], energy="dft_energy").read_text()
    (tmp_path / "both.xyz").write_text(both)
    with pytest.raises(ValueError, match=r"both.xyz: energy has different names .*'energy' in 2.*'dft_energy' in 10"):
        read(tmp_path / "both.xyz")


def test_a_named_key_must_exist(crystals, write):
    with pytest.raises(
        ValueError,
        match=r"no frame has 'mp_energy', set by keys.energy \(data.keys.energy in training\); there is config_type, energy",
    ):
        read(write(crystals), Keys(energy="mp_energy"))


def test_stress_and_virial_that_disagree(crystals, write):
    path = write(crystals)
    lines = path.read_text().splitlines()
    wrong_sign = crystals[0].stress * crystals[0].volume
    lines[1] += ' virial="' + " ".join(f"{x:.8f}" for x in wrong_sign.ravel()) + '"'
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"frame 0: 'stress' and -'virial'/volume disagree .* set keys.stress"):
        read(path)


def test_voigt_order_is_that_of_ase(crystals, write):
    path = write(crystals[:1])
    s = crystals[0].stress
    six = " ".join(f"{x:.10f}" for x in (s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]))
    nine = " ".join(f"{x:.10f}" for x in s.ravel())
    path.write_text(path.read_text().replace(f'stress="{nine}"', f'REF_stress="{six}"'))
    np.testing.assert_allclose(read(path)[0].stress, s, atol=1e-9)


def test_weights(molecules, write):
    path = write(molecules, config_weight=2.0, config_energy_weight=0.5, config_forces_weight=3.0, config_stress_weight=0)
    s = read(path)[0]
    assert (s.weight, *(s.label_weights[row] for row in LABELLED)) == (2, 0.5, 3, 0)
    with pytest.raises(ValueError, match="'config_weight' is -1; a weight must be zero or positive"):
        read(write(molecules, config_weight=-1))


def test_config_type_weights(crystals, write):
    data = load_data(DataConfig(str(write(crystals)), weights={"rattled": 4.0}), 0)
    assert {s.weight for s in data.train} == {4.0} and {s.weight for s in data.valid} == {1.0}
    with pytest.raises(ValueError, match="no training frame has config_type 'bulk'"):
        load_data(DataConfig(str(write(crystals)), weights={"bulk": 4.0}), 0)


BROKEN = {
    "missing file": (None, r"gone.xyz: no such file"),
    "cut between atoms": (lambda t: "".join(t.splitlines(True)[:25]), r"frame 1: the file ends after 5 of 16 atoms; it was"),
    "cut after the header": (lambda t: "".join(t.splitlines(True)[:20]), r"frame 1: the file ends after 0 of 16 atoms"),
    "cut in a line": (lambda t: t[: t.rindex(" ")], r"frame 11: the file ends inside the line of its last atom"),
    "cut in a number": (lambda t: t[:-4], r"frame 11: the file ends inside the line of its last atom"),
    "not a number": (lambda t: t.replace("Cu 0", "Cu zero", 1).replace("Cu -0", "Cu zero", 1), r"frame 0 \(line \d+\): 'zero"),
    "too few atoms": (lambda t: t.replace("16\n", "15\n", 1), r"frame 1 \(line 18\): expected the number of atoms, got 'Cu"),
    "too many atoms": (lambda t: t.replace("16\n", "17\n", 1), r"frame 1 \(line 20\): .*; the frame before may"),
    "energy is a word": (lambda t: t.replace("energy=", "energy=none x=", 1), r"frame 0: the energy is 'none', not a number"),
    "unknown element": (lambda t: t.replace("\nCu ", "\nQq ", 1), r"frame 0 \(line 3\): 'Qq' is no element symbol"),
    "label of an atom": (lambda t: "Cu1 ".join(t.rsplit("Cu ", 1)), r"frame 11 \(line 216\): 'Cu1' is no element symbol"),
    "bad lattice": (lambda t: t.replace('Lattice="', 'Lattice="a ', 1), r"frame 0 \(line \d+\)"),
    "five numbers of stress": (lambda t: t.replace('stress="', 'stress="1 2 3 4 5" x="', 1), r"frame 0"),
    "two columns of forces": (lambda t: t.replace("forces:R:3", "forces:R:2"), r"frame 0: forces has shape \(16, 2\)"),
    "empty": (lambda t: "", r"no frames"),
    "binary": (lambda t: "\x00\x01 no xyz\n", r"frame 0 \(line 1\): expected the number of atoms.*is this an extended XYZ"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_extxyz_ends_in_one_line_with_file_and_frame(crystals, write, name):
    breaks, message = BROKEN[name]
    path = write(crystals)
    if breaks is None:
        path = path.with_name("gone.xyz")
    else:
        path.write_text(breaks(path.read_text()))
    with pytest.raises((ValueError, OSError), match=message) as error:
        read(path)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_what_is_whole_of_a_cut_file_can_be_read(crystals, write):
    path = write(crystals)
    path.write_text("".join(path.read_text().splitlines(True)[:25]))
    assert len(read(f"{path}@:1")) == 1


def test_a_file_cut_anywhere_is_refused_or_whole(molecules, write, same):
    path = write(molecules[:2], energy="REF_energy")
    text = path.read_text()
    second = len(write(molecules[:1], name="one.xyz", energy="REF_energy").read_text())
    for end in [*range(second - 40, second), *range(second + 1, len(text) - 60, 7), *range(len(text) - 60, len(text))]:
        path.write_text(text[:end])
        try:
            frames = read(path)
        except ValueError as error:
            assert f"{path}, frame " in str(error) and "\n" not in str(error)
        else:
            assert end in (second - 1, len(text) - 1)
            for a, b in zip(frames, molecules, strict=False):
                same(a, b)


@pytest.mark.parametrize("end", ["0.5", "0.25", "12"])
def test_a_last_number_that_may_be_cut_is_a_warning(tmp_path, end):
    path = tmp_path / "short.xyz"
    text = f"2\nenergy=1.0\nH 0 0 0\nH 0 0 {end}"
    path.write_text(text)
    with pytest.warns(UserWarning, match="short.xyz, frame 0: the last line has no newline, .* newline if it is whole"):
        read(path)
    path.write_text(text + "\n")
    with warnings.catch_warnings():
        # Only warnings of this package: a library's deprecation is none of its business.
        warnings.simplefilter("error", UserWarning)
        read(path)


def test_a_broken_file_of_another_format(tmp_path):
    (tmp_path / "data.traj").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="data.traj: ASE cannot read it"):
        read(tmp_path / "data.traj")


@pytest.mark.parametrize("name", ["data.xyz", "data.traj", "data.db"])
def test_one_frame_has_masses_and_momenta_but_no_labels(crystals, tmp_path, name):
    """What dynamics and the doctor start from is read as training data are, also where the labels contradict each other."""
    images = [s.to_ase() for s in crystals[:3]]
    for k, atoms in enumerate(images):
        atoms.set_masses(np.linspace(1.0, 90.0, len(atoms)))
        atoms.set_momenta(np.full((len(atoms), 3), 0.5 + k))
        atoms.info["charge"] = float(k)
    ase.io.write(tmp_path / name, images)
    frames = read(tmp_path / name)
    for source, default, k in ((str(tmp_path / name), -1, 2), (str(tmp_path / name), 0, 0), (f"{tmp_path / name}@1", -1, 1)):
        one = read_one(source, default)
        assert one.energy is None and one.forces is None and one.stress is None and frames[k].energy is not None
        for field in ("numbers", "positions", "cell", "pbc", "masses", "momenta", "charge", "spin", "source"):
            assert np.array_equal(getattr(one, field), getattr(frames[k], field)), field
        np.testing.assert_allclose(one.masses, images[k].get_masses())
        np.testing.assert_allclose(one.momenta, images[k].get_momenta())
    for index in ("@:", "@0:2"):
        with pytest.raises(ValueError, match=f"{index} is not one frame; name one, such as .*{name}@0"):
            read_one(f"{tmp_path / name}{index}")
    with pytest.raises(ValueError, match="no frames in @7, there are 3"):
        read_one(f"{tmp_path / name}@7")


def test_labels_that_contradict_each_other_are_no_matter_for_one_frame(tmp_path):
    path = tmp_path / "start.xyz"
    path.write_text("1\nenergy=1.0 REF_energy=2.0 charge=-1 Properties=species:S:1:pos:R:3\nH 0 0 0\n")
    with pytest.raises(ValueError, match="REF_energy"):
        read(path)
    assert read_one(str(path)).charge == -1.0
