"""What ``spin`` means in a file, and pairs of charge and spin that cannot be."""

import numpy as np
import pytest

from equipot import config
from equipot.data.checks.frames import check
from equipot.data.checks.report import DataError
from equipot.data.config import DataConfig, Reading
from equipot.data.hdf5 import HDF5Dataset, write_hdf5
from equipot.data.keys import Units
from equipot.data.read import load_sets, read, read_one
from equipot.electrons import impossible
from equipot.models.mace import MACE
from equipot.nn.electrons import Electrons
from equipot.structure import Structure

SEEN = ("charge", "spin")


@pytest.fixture
def put(tmp_path):
    """Write frames of OH (nine electrons) with the given comments, periodic ones with a lattice."""

    def written(*comments, name="oh.xyz"):
        frame = '2\nProperties=species:S:1:pos:R:3 pbc="F F F" energy={} {}\nO 0 0 {}\nH 0 0 0.97\n'
        path = tmp_path / name
        path.write_text("".join(frame.format(-1.0 - k, text, -0.01 * k) for k, text in enumerate(comments)))
        return str(path)

    return written


def spins(source, units=None):
    return [s.spin for s in read(source, units=units)]


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        (("charge=0 spin=1", "charge=-1 spin=0"), [1, 0]),
        (("charge=0 spin=2", "charge=-1 spin=1"), [1, 0]),
        (("charge=0 spin=2", "charge=1 spin=3"), [1, 2]),
        (("charge=0 multiplicity=2", "charge=-1 mult=1"), [1, 0]),
        (("charge=0 spin_multiplicity=4",), [3]),
        (("charge=0 spin=2 multiplicity=2",), [1]),
        (("charge=0 spin=1 multiplicity=2",), [1]),
    ],
)
def test_the_number_of_electrons_says_what_a_spin_is(put, comments, expected):
    for units in (Units(), Units().of_model(SEEN)):
        assert spins(put(*comments), units) == expected


def test_a_spin_whose_meaning_is_open_is_asked_for_where_it_matters(put):
    """Without a charge the number of electrons is not known, and bands of a crystal may be filled in part."""
    for comment in ("spin=2", 'charge=0 spin=2 Lattice="9 0 0 0 9 0 0 0 9"'):
        path = put(comment.replace("Lattice", 'pbc="T T T" Lattice') if "Lattice" in comment else comment)
        if "Lattice" in comment:
            text = open(path).read().replace('pbc="F F F" ', "")
            open(path, "w").write(text)
        assert spins(path) == [2]
        with pytest.raises(ValueError, match=r"oh.xyz, frame 0: spin is 2: unpaired.*set units.spin \(data.units.spin in"):
            read(path, units=Units().of_model(SEEN))
        for given, expected in (("unpaired", 2), ("multiplicity", 1)):
            assert spins(path, Units(spin=given).of_model(SEEN)) == [expected]


def test_a_file_in_which_no_meaning_fits(put):
    path = put("charge=0 spin=2", "charge=0 spin=1")
    assert spins(path) == [2, 1]
    expected = (
        r"as unpaired electrons the spin cannot be in .*frame 0 \(charge \+0, spin 2\), as a multiplicity not in .*, frame"
    )
    with pytest.raises(ValueError, match=expected):
        read(path, units=Units().of_model(SEEN))


@pytest.mark.parametrize(
    ("comment", "spin", "message"),
    [
        ("charge=0 spin=1 multiplicity=3", None, "spin is 1, read as unpaired electrons, but the multiplicity 3"),
        ("charge=0 spin=2 multiplicity=3", "multiplicity", "spin is 2, read as a multiplicity, but the multiplicity 3"),
        ("charge=0 multiplicity=0", None, "a multiplicity of 0 cannot be"),
        ("charge=0 mult=x", None, r"info\['mult'\] is 'x', not one number"),
        ("charge=0 mult=1 spin_multiplicity=2", None, "'mult' is 1, but 'spin_multiplicity' 2; leave one of them out"),
    ],
)
def test_statements_that_contradict_each_other(put, comment, spin, message):
    with pytest.raises(ValueError, match=message):
        read(put(comment), units=Units(spin=spin))


@pytest.mark.parametrize(
    ("charge", "spin", "message"),
    [
        (0, 1, ""), (0, 9, ""), (-1, 0, ""), (9, 0, ""), (0.5, 0, ""), (0, 0.3, ""),
        (0, 0, "9 electrons (charge +0) cannot leave 0 unpaired: both numbers are even, or both odd"),
        (1, 1, "8 electrons (charge +1) cannot leave 1 unpaired: both numbers are even, or both odd"),
        (0, 11, "11 electrons are said to be unpaired, but with charge +0 there are 9 in all"),
        (10, 0, "a charge of +10 takes more electrons away than there are (9)"),
        (0, -1, "a spin of -1 is no number of unpaired electrons"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be(charge, spin, message):
    assert impossible(np.array([8, 1]), False, charge, spin) == message
    repeats = impossible(np.array([8, 1]), True, charge, spin)
    assert repeats == ("" if "both numbers" in message else message)


def test_a_pair_that_cannot_be_is_refused_for_a_model_that_sees_the_spin(put):
    settings = {"train": put("charge=0 spin=1", "charge=1 spin=1"), "valid": 0}
    load_sets(DataConfig(**settings, units=Units(spin="unpaired")), 0)
    seen = DataConfig(**settings, units=Units(spin="unpaired")).also((), SEEN)
    with pytest.raises(DataError, match=r"oh.xyz, frame 1: 8 electrons \(charge \+1\) cannot leave 1 unpaired.*correct charge"):
        load_sets(seen, 0, needs=SEEN)


def test_frames_to_validate_on_must_not_have_another_charge(put):
    train, other = put("charge=0 spin=1"), put("charge=1 spin=0", name="ion.xyz")
    for needs in (SEEN, ()):
        with pytest.raises(DataError, match="ion.xyz, frame 0: has charge 1, but the training frames have 0; train on"):
            load_sets(DataConfig(train=train, valid=other), 0, needs=needs)


def test_charge_and_spin_survive_every_file(put, tmp_path):
    [doublet] = read(put("charge=0 spin=1"))
    states = [doublet, doublet.replace(charge=-1.0, spin=2.0), doublet.replace(charge=1.0, spin=0.0)]
    from ase.io import write

    write(tmp_path / "again.xyz", [s.to_ase() for s in states])
    write_hdf5(tmp_path / "again.h5", states)
    expected = [(0, 1), (-1, 2), (1, 0)]
    for path in ("again.xyz", "again.h5"):
        found = read(tmp_path / path, units=Units().of_model(SEEN))
        assert [(s.charge, s.spin) for s in found] == expected
    assert read_one(f"{tmp_path / 'again.h5'}@1").electrons == {"charge": -1.0, "spin": 2.0}
    with HDF5Dataset(tmp_path / "again.h5") as data:
        assert data[1].spin == 2
    with pytest.raises(ValueError, match="again.h5: holds numbers of unpaired electrons; leave units.spin"):
        read(tmp_path / "again.h5", units=Units(spin="multiplicity"))


def test_the_config_says_what_a_spin_is():
    reading = config.build(Reading, {"units": {"spin": "multiplicity"}})
    assert reading.units.spin == "multiplicity" and not reading.units.are_given
    with pytest.raises(config.ConfigError, match="units.spin: expected 'unpaired' or 'multiplicity'"):
        config.build(Reading, {"units": {"spin": "2S+1"}})
    assert reading.also((), MACE(electrons=Electrons()).needs).units.spin_matters
    assert not reading.also((), MACE().needs).units.spin_matters


def test_a_check_names_frames_of_impossible_spin():
    oh = Structure([8, 1], [[0, 0, 0], [0, 0, 1.0]], labels={"energy": -1.0}, source="a.xyz, frame 0")
    assert "electrons" not in str(check({"train": [oh]}))
    assert "cannot leave 0 unpaired" in str(check({"train": [oh]}, needs=SEEN))
