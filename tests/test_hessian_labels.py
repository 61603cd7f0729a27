"""Labels of Hessians: their two forms, random directions, and their way through files and checks."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from equipot import hessian_labels, units
from equipot.data.checks.frames import check
from equipot.data.checks.hessians import asymmetry, drift
from equipot.data.hdf5 import HDF5Dataset, write_hdf5
from equipot.data.keys import Keys, Units
from equipot.data.read import read, read_one
from equipot.quantities import ENERGY, FORCES, HESSIAN
from equipot.structure import Structure
from equipot.training.errors import write_predictions

POSITIONS = np.array([[0.0, 0, 0], [1.1, 0, 0], [0.2, 1.3, 0.1], [0.1, 0.4, 1.2]])


def springs(positions, stiffness=20.0):
    """The Hessian of springs at rest between all atoms, in closed form: sum over pairs of k e (x) e, with unit vectors e."""
    n = len(positions)
    out = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(n):
            if i != j:
                e = (positions[j] - positions[i]) / np.linalg.norm(positions[j] - positions[i])
                out[i, :, i] += stiffness * np.outer(e, e)
                out[i, :, j] -= stiffness * np.outer(e, e)
    return out


WHOLE = springs(POSITIONS)
RNG = np.random.default_rng(0)
DIRECTIONS = RNG.normal(size=(3, 4, 3))
PRODUCTS = hessian_labels.of_products(DIRECTIONS, np.einsum("iajb,kjb->kia", WHOLE, DIRECTIONS))
UNITS_OF_COLUMNS = hessian_labels.unit_directions(np.array([7, 2]), 4)
COLUMNS = hessian_labels.of_products(UNITS_OF_COLUMNS, np.einsum("iajb,kjb->kia", WHOLE, UNITS_OF_COLUMNS))


def atoms(info=None, arrays=None):
    out = Atoms([8, 1, 1, 6], POSITIONS, info={"energy": -1.5, **(info or {})})
    for name, value in (arrays or {}).items():
        out.set_array(name, np.reshape(value, (4, -1)))
    return out


def by_atoms(stack):
    """(K, atoms, 3) as the columns of a file."""
    return np.moveaxis(stack, 0, 1)


def test_a_column_is_the_product_with_a_unit_vector():
    np.testing.assert_array_equal(COLUMNS[0, 1], WHOLE.reshape(4, 3, 12)[:, :, 7])


@pytest.mark.parametrize("label", [WHOLE, PRODUCTS, COLUMNS, PRODUCTS[:1]], ids=["whole", "products", "columns", "one"])
def test_drawn_directions_have_one_length_and_their_products(label):
    rng = np.random.default_rng(1)
    for _ in range(5):
        direction, product = hessian_labels.drawn(label, rng)
        np.testing.assert_allclose(product, np.tensordot(WHOLE, direction, 2), atol=1e-12)
        if label is WHOLE or len(label) == 1 or label is COLUMNS:
            # Directions that are not orthogonal have that length in the mean only.
            assert np.linalg.norm(direction) == pytest.approx(np.sqrt(12))


def test_the_mean_over_directions_is_the_error_of_the_matrix():
    """E |D v|^2 / 3n = |D|_F^2 / 3n for a whole matrix D, and the mean of |D d|^2 over unit directions for products."""
    rng = np.random.default_rng(2)
    mean = lambda label: np.mean([np.sum(hessian_labels.drawn(label, rng).product ** 2) / 12 for _ in range(20000)])
    assert mean(WHOLE) == pytest.approx(np.sum(WHOLE**2) / 12, rel=0.02)
    assert mean(COLUMNS) == pytest.approx(np.mean(np.sum(COLUMNS[:, 1] ** 2, axis=(1, 2))), rel=0.02)
    unit = PRODUCTS[:, 1] / np.linalg.norm(DIRECTIONS, axis=(1, 2))[:, None, None]
    assert mean(PRODUCTS) == pytest.approx(np.mean(np.sum(unit**2, axis=(1, 2))), rel=0.02)
    # So do the errors that tables show, without any drawing.
    assert np.mean(hessian_labels.compared(PRODUCTS) ** 2) == pytest.approx(np.mean(np.sum(unit**2, axis=(1, 2))))


def test_the_mean_does_not_grow_with_the_system():
    """Of a system far from its copy."""
    twice = np.zeros((8, 3, 8, 3))
    twice[:4, :, :4], twice[4:, :, 4:] = WHOLE, WHOLE
    rng = np.random.default_rng(3)
    means = [np.mean([np.mean(hessian_labels.drawn(h, rng).product ** 2) for _ in range(5000)]) for h in (WHOLE, twice)]
    assert means[1] == pytest.approx(means[0], rel=0.05)


def test_structures_hold_either_form():
    bare = Structure([8, 1, 1, 6], POSITIONS)
    for label in (WHOLE, PRODUCTS):
        np.testing.assert_array_equal(bare.replace(hessian=label).labels[HESSIAN], label)
    np.testing.assert_array_equal(bare.replace(hessian=WHOLE.reshape(12, 12)).labels[HESSIAN], WHOLE)
    with pytest.raises(ValueError, match=r"hessian has shape \(3, 3\), but 4 atoms need \(4, 3, 4, 3\), or \(K, 2, 4, 3\)"):
        bare.replace(hessian=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="a direction of the Hessian's products is zero"):
        bare.replace(hessian=np.zeros((1, 2, 4, 3)))


FORMS = {
    "flat": ({"hessian": WHOLE.ravel()}, {}, WHOLE),
    "square": ({"REF_hessian": WHOLE.reshape(12, 12)}, {}, WHOLE),
    "of four axes": ({"hessian": WHOLE}, {}, WHOLE),
    "by atoms": ({}, {"hessian": WHOLE}, WHOLE),
    "products by atoms": (
        {}, {"hessian_directions": by_atoms(DIRECTIONS), "hessian_products": by_atoms(PRODUCTS[:, 1])}, PRODUCTS
    ),
    "products of frames": (
        {"hessian_directions": DIRECTIONS.ravel(), "hessian_products": PRODUCTS[:, 1].ravel()}, {}, PRODUCTS
    ),
    "columns": ({"hessian_columns": [7, 2]}, {"hessian_products": by_atoms(COLUMNS[:, 1])}, COLUMNS),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_extended_xyz(form, tmp_path):
    info, arrays, label = FORMS[form]
    write(tmp_path / "a.xyz", [atoms(info, arrays), atoms()])
    frames = read(tmp_path / "a.xyz")
    np.testing.assert_allclose(frames[0].labels[HESSIAN], label, atol=1e-7)
    assert set(frames[1].labels) == {ENERGY} and not {k for k in frames[0].info if "hess" in k.lower()}
    off = read(tmp_path / "a.xyz", Keys(others={"hessian": "none"}))[0]
    assert set(off.labels) == {ENERGY}
    assert read_one(str(tmp_path / "a.xyz")).labels == {}


@pytest.mark.parametrize("label", [WHOLE, PRODUCTS], ids=["whole", "products"])
def test_units_and_names_and_weights(label, tmp_path):
    """Products have the unit of the Hessian, directions none."""
    entries, columns = hessian_labels.parts(label, "my_d2e")
    write(tmp_path / "a.xyz", atoms({**entries, "hessian_weight": 0.5}, columns))
    keys, given = Keys(others={"hessian": "my_d2e"}), Units(others={"hessian": "Hartree/bohr^2"})
    (frame,) = read(tmp_path / "a.xyz", keys, given)
    wanted = hessian_labels.scaled(label, units.hartree / units.bohr**2)
    np.testing.assert_allclose(frame.labels[HESSIAN], wanted, rtol=1e-6, atol=1e-5)
    assert frame.weight_of(HESSIAN) == 0.5
    if hessian_labels.is_whole(label):
        np.testing.assert_allclose(wanted, label * 97.1736, rtol=1e-5)
    else:
        np.testing.assert_array_equal(wanted[:, 0], label[:, 0])


@pytest.mark.parametrize(
    ("info", "arrays", "complaint"),
    [
        ({"hessian": np.ones(10)}, {}, r"the hessian has shape \(10,\), but 4 atoms need \(4, 3, 4, 3\)"),
        ({}, {"hessian_products": by_atoms(DIRECTIONS)}, "read from 'hessian_products' with either 'hessian_directions' or"),
        ({"hessian_columns": [12]}, {"hessian_products": DIRECTIONS[0]}, "holds a number that is not from 0 to 11"),
        ({"hessian_columns": [1, 2]}, {"hessian_products": DIRECTIONS[0]}, r"shape \(1, 4, 3\), but its directions have \(2"),
        (
            {"hessian": WHOLE.ravel(), "hessian_columns": [1, 2]}, {"hessian_products": by_atoms(DIRECTIONS[:2])},
            "holds both 'hessian' and 'hessian_products'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read(info, arrays, complaint, tmp_path):
    write(tmp_path / "a.xyz", atoms(info, arrays))
    with pytest.raises(ValueError, match=f"a.xyz, frame 0: .*{complaint}"):
        read(tmp_path / "a.xyz")


def labelled():
    """Frames of different sizes with each kind of label, and without."""
    base = [Structure([8, 1, 1, 6], POSITIONS, labels={"energy": -1.0 - k}) for k in range(3)]
    small = Structure([8, 1], POSITIONS[:2], labels={"energy": 2.0, "hessian": springs(POSITIONS[:2])})
    one = base[2].replace(hessian=COLUMNS[:1], label_weights={HESSIAN: 0.25})
    return [base[0].replace(hessian=WHOLE), base[1], small, base[2].replace(hessian=PRODUCTS), one]


def assert_labels(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        assert set(a.labels) == set(b.labels)
        for row, value in b.labels.items():
            np.testing.assert_allclose(a.labels[row], value, **tolerance)


def test_hdf5(tmp_path, monkeypatch):
    from equipot.data import hdf5

    # Later blocks add columns and matrices.
    monkeypatch.setattr(hdf5, "BLOCK", 2)
    frames = labelled()[1:2] + labelled()
    path = write_hdf5(tmp_path / "a.h5", frames)
    back = HDF5Dataset(path)
    assert_labels(back, frames, rtol=0)
    assert [s.weight_of(HESSIAN) for s in back] == [0, 1, 0, 1, 1, 0.25]
    # A file of this form is converted by writing what was read.
    assert_labels(read(write_hdf5(tmp_path / "b.h5", back)), frames, rtol=0)
    assert all(set(s.labels) == {ENERGY} for s in read(path, Keys(others={"hessian": "none"})))


def test_hdf5_without_hessians_is_read_by_earlier_versions(tmp_path):
    h5py = pytest.importorskip("h5py")
    versions = []
    for k, frames in enumerate(([s.replace(hessian=None) for s in labelled()], labelled())):
        with h5py.File(write_hdf5(tmp_path / f"{k}.h5", frames)) as file:
            versions.append(int(file.attrs["version"]))
    assert versions == [2, 3]


def test_written_predictions_are_read_again(tmp_path):
    frames = labelled()
    shifted = [s.replace(hessian=hessian_labels.scaled(s.labels[HESSIAN], 1.5)) if HESSIAN in s.labels else s for s in frames]
    write_predictions(frames, shifted, tmp_path / "p.xyz")
    assert_labels(read(tmp_path / "p.xyz", Keys(others={"hessian": "REF_hessian"})), frames, atol=1e-7)
    predicted = Keys(energy="predicted_energy", others={"hessian": "predicted_hessian"})
    assert_labels(read(tmp_path / "p.xyz", predicted), shifted, atol=1e-7)


def test_ase_atoms_carry_them(tmp_path):
    frames = labelled()
    write(tmp_path / "a.xyz", [s.to_ase() for s in frames])
    assert_labels(read(tmp_path / "a.xyz"), frames, atol=1e-7)


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    positions, forces = rng.normal(size=(3, 4, 3)) + 3 * np.arange(12).reshape(4, 3), rng.normal(size=(3, 4, 3))
    hessians = np.stack([WHOLE * (k + 1) for k in range(3)])
    held = {"z": [8, 1, 1, 6], "R": positions, "E": np.array([[1.0], [2.0], [3.0]]), "F": forces, "name": "made"}
    np.savez(tmp_path / "a.npz", **held, hessian=hessians.reshape(3, 12, 12))
    frames = read(f"{tmp_path}/a.npz@1:")
    assert [s.source.rpartition(", ")[2] for s in frames] == ["frame 1", "frame 2"] and frames[0].energy == 2.0
    np.testing.assert_array_equal(frames[1].positions, positions[2])
    np.testing.assert_array_equal(frames[1].labels[FORCES], forces[2])
    np.testing.assert_array_equal(frames[1].labels[HESSIAN], hessians[2])
    np.savez(tmp_path / "b.npz", **held, hessian_products=PRODUCTS[None, :, 1].repeat(3, 0), e_unit="kcal/mol", r_unit="Ang",
             hessian_directions=PRODUCTS[None, :, 0].repeat(3, 0), cell=10 * np.eye(3))  # fmt: skip
    with pytest.raises(ValueError, match="states the unit of its energy, .*, but not that of its forces"):
        read(tmp_path / "b.npz")
    (frame,) = read(f"{tmp_path}/b.npz@0:1", units=Units(forces="kcal/mol/Å", others={"hessian": "kcal/mol/Å^2"}))
    assert frame.energy == pytest.approx(units.kcal_per_mol) and frame.pbc.all()
    np.testing.assert_allclose(frame.labels[HESSIAN][:, 1], PRODUCTS[:, 1] * units.kcal_per_mol)
    np.testing.assert_array_equal(frame.labels[HESSIAN][:, 0], PRODUCTS[:, 0])


@pytest.mark.parametrize(
    ("held", "complaint"),
    [
        ({"R": POSITIONS[None]}, "no array.s. of numbers, called z, numbers"),
        ({"R": POSITIONS[None], "z": [1, 1]}, "do not fit atomic numbers"),
        ({"R": POSITIONS[None], "z": [1, 1, 0, 0]}, "without zeros; write frames of different sizes as extended XYZ"),
        ({"R": POSITIONS[None], "z": [8, 1, 1, 6], "E": np.array([{}], object)}, "as arrays without objects"),
    ],
)
def test_npz_that_cannot_be_read(held, complaint, tmp_path):
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path / "a.npz")


def problems(label):
    frame = Structure([8, 1, 1, 6], POSITIONS, labels={"energy": -1.0, "hessian": label}, source="a.xyz, frame 0")
    return {p.kind: p.severity for p in check({"train": [frame]}).problems if p.kind.startswith("hessian")}


def test_checks():
    """Of labels that are right there is nothing to say, of others it is said what is wrong."""
    noise = np.random.default_rng(4).normal(size=WHOLE.shape)
    assert asymmetry(WHOLE) < 1e-15 and drift(WHOLE) < 1e-15 and asymmetry(PRODUCTS) < 1e-14 and drift(PRODUCTS) < 1e-14
    for label in (WHOLE, PRODUCTS, COLUMNS, PRODUCTS[:1]):
        assert problems(label) == {}
    mass = np.sqrt(np.repeat([16.0, 1, 1, 12], 3))
    weighted = (WHOLE.reshape(12, 12) / mass / mass[:, None]).reshape(WHOLE.shape)
    assert problems(weighted)["hessian_sum"] == "error"
    assert problems(WHOLE / 97.17) == {"hessian_size": "warning"}
    assert problems(WHOLE + 0.5 * noise)["hessian_symmetry"] == "warning"
    assert problems(WHOLE + 5 * noise)["hessian_symmetry"] == "error"
    crossed = PRODUCTS.copy()
    crossed[:, 1] = crossed[::-1, 1]
    assert problems(crossed)["hessian_symmetry"] == "error"
