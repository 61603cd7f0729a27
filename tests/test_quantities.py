"""The table of quantities; and that a row and a term defined here alone are read, checked, stored, trained, reported, plotted
and predicted, without a line of the package that knows them."""

import io
import json
from dataclasses import replace
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import equipot
from equipot import config, units
from equipot.data.checks.frames import check
from equipot.data.hdf5 import HDF5Dataset, write_hdf5
from equipot.data.keys import Keys
from equipot.data.read import read, read_one
from equipot.finetune import fine_tune
from equipot.quantities import DIPOLE, ENERGY, FORCES, STRESS, TABLE, Quantity, among, further, ordered
from equipot.structure import Structure
from equipot.term import Atomic, Term
from equipot.training import TrainConfig, train

SPREAD = Quantity("spread", "atom", unit="Å^2", dimension=(0, 2, 0), scale=0.1, symbol="W", display=("Å^2", 1.0))
"""A scalar of each atom: here the mean square distance of its neighbours, as far as a smooth weight sees them."""
MOMENT = Quantity("moment", "graph", (3,), unit="e Å", dimension=(0, 1, 1), keys=("mu",), scale=0.1, display=("me Å", 1e3))
"""A vector of each graph, a sum over atoms."""
CUTOFF = 3.0


class Sensor(Term):
    """Two numbers to learn: a factor on a known spread of each atom, another on a known moment."""

    provides: ClassVar = (SPREAD, MOMENT)
    elements: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, graph, vectors):
        number = lambda name: self.param(name, nn.initializers.constant(0.5), ())
        smooth = weights(jnp, vectors) * graph.slot_mask
        dense = jnp.sum(smooth, axis=1)
        spread = jnp.sum(smooth * jnp.sum(vectors**2, -1), axis=1)
        moment = jnp.sum(smooth[..., None] * vectors, axis=1) * graph.numbers[:, None]
        factors = number("spread"), number("moment")
        return Atomic(number("depth") * dense, others={"spread": factors[0] * spread, "moment": factors[1] * moment})


def weights(xp, vectors):
    return xp.where((r2 := xp.sum(vectors**2, -1)) < CUTOFF**2, (1 - xp.minimum(r2 / CUTOFF**2, 1)) ** 3, 0.0)


TRUE = {"spread": 1.7, "moment": -0.8, "depth": -1.2}


def labelled(seed):
    """A molecule of four atoms with everything that the term can learn, by hand."""
    rng = np.random.default_rng(seed)
    positions = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0], [0.2, 0.3, 1.3]]) + rng.normal(0, 0.15, (4, 3))
    numbers = np.array([8, 1, 1, 6])
    vectors = positions[None] - positions[:, None] + 1e3 * np.eye(4)[..., None]
    w = weights(np, vectors)
    slope = -6 / CUTOFF**2 * np.where(w > 0, (1 - np.sum(vectors**2, -1) / CUTOFF**2) ** 2, 0)
    return Atoms(numbers, positions), {
        "energy": TRUE["depth"] * w.sum(),
        "forces": 2 * TRUE["depth"] * np.sum(slope[..., None] * vectors, axis=1),
        "spread": TRUE["spread"] * np.sum(w * np.sum(vectors**2, -1), axis=1),
        "moment": TRUE["moment"] * np.sum(w[..., None] * vectors * numbers[:, None, None], axis=(0, 1)),
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An extended XYZ file; the moment stands there in e bohr under a name of its own, one frame has no spread."""
    path, frames = tmp_path_factory.mktemp("data") / "frames.xyz", []
    for k in range(12):
        atoms, labels = labelled(k)
        atoms.info |= {"energy": labels["energy"], "REF_mu": labels["moment"]}
        atoms.arrays["forces"] = labels["forces"]
        if k != 5:
            atoms.arrays["spread"] = labels["spread"]
        frames.append(atoms)
    write(path, frames)
    return path


@pytest.fixture(scope="module")
def frames(file):
    return list(read(file, quantities=(SPREAD, MOMENT)))


def test_read(frames):
    for k, s in enumerate(frames):
        _, labels = labelled(k)
        assert set(s.labels) == {ENERGY, FORCES, MOMENT} | ({SPREAD} if k != 5 else set())
        for row, value in s.labels.items():
            np.testing.assert_allclose(value, labels[row.name], atol=1e-7)
    named = read(frames[0].source.split(",")[0], Keys(others={"moment": "none"}), quantities=(SPREAD, MOMENT))
    with pytest.raises(
        ValueError, match=r"\(data.keys.others.momnt in training\): no such quantity is read; choose from hessian, .*moment,"
    ):
        read(frames[0].source.split(",")[0], Keys(others={"momnt": "dipole"}), quantities=(SPREAD, MOMENT))
    assert MOMENT not in named[0].labels and SPREAD in named[0].labels


def test_a_file_that_nobody_asks_for_them_is_read_without_them(file):
    assert set(read(file)[0].labels) == {ENERGY, FORCES}


def test_checked(frames):
    broken = [*frames[:3], frames[3].replace(labels={**frames[3].labels, MOMENT: [0.0, np.nan, 0.0]})]
    report = check({"train": broken})
    assert [p.what for p in report.errors] == ["moment holds NaN or infinity"]
    assert "spread in 11, moment in all" in str(check({"train": frames})) or "moment in all, spread in 11" in str(
        check({"train": frames})
    )
    with pytest.raises(ValueError, match=r"spread has shape \(3,\), but 4 atoms need \(4,\)"):
        frames[0].replace(labels={SPREAD: np.zeros(3)})


def test_stored(frames, tmp_path):
    write_hdf5(tmp_path / "a.h5", frames)
    for s, back in zip(frames, HDF5Dataset(tmp_path / "a.h5"), strict=True):
        assert set(back.labels) == set(s.labels)
        for row, value in s.labels.items():
            np.testing.assert_array_equal(back.labels[row], value)


def test_stored_labels_are_read_under_the_row_of_the_reader(frames, tmp_path):
    path = write_hdf5(tmp_path / "a.h5", [s.replace(label_weights={SPREAD: 2.0}) for s in frames])
    changed = replace(SPREAD, scale=0.5, keys=("width",), display=("pm^2", 1e4), symbol="", agreement=1e-3)
    in_bohr = replace(MOMENT, unit="e*bohr", axis=("D", 1 / units.debye))
    for s, back in zip(frames, read(path, quantities=(changed, in_bohr)), strict=True):
        assert set(back.labels) == {ENERGY, FORCES, in_bohr} | ({changed} if SPREAD in s.labels else set())
        assert back.label_weights == {changed: 2.0}
        np.testing.assert_allclose(back.labels[in_bohr] * units.bohr, s.labels[MOMENT], rtol=1e-14)
        if SPREAD in s.labels:
            np.testing.assert_array_equal(back.labels[changed], s.labels[SPREAD])
    for other, held, wanted in (
        (replace(MOMENT, shape=(3, 3)), r"per graph, shape \(3,\), unit e Å", r"per graph, shape \(3, 3\), unit e Å"),
        (replace(MOMENT, per="atom"), "per graph", "per atom"),
        (replace(MOMENT, unit="eV", dimension=(1, 0, 0)), "unit e Å", "unit eV is to be read"),
        (replace(MOMENT, dimension=(0, 0, 0)), "unit e Å", r"dimensions \(0, 1, 1\) and \(0, 0, 0\)"),
        (replace(MOMENT, unit="furlong"), "unit e Å", "unit furlong"),
    ):
        with pytest.raises(
            ValueError, match=rf"a.h5: holds moment .*{held}.* but .*{wanted}.*data.keys.others.moment in training\) to none"
        ):
            read(path, quantities=(other,))
        off = read(path, Keys(others={"moment": "none"}), quantities=(other, SPREAD))[0]
        assert set(off.labels) == {ENERGY, FORCES, SPREAD}


def test_a_stored_row_of_the_table_that_has_changed_since(frames, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(tmp_path / "a.h5", [s.replace(labels={ENERGY: 1.5, DIPOLE: [1.0, 2.0, 3.0]}) for s in frames[:2]])
    with h5py.File(path, "a") as file:
        rows = json.loads(file.attrs["quantities"])
        file.attrs["quantities"] = json.dumps([row | {"scale": 7.0, "keys": []} for row in rows])
    for quantities in ((), (DIPOLE,)):
        labels = read(path, quantities=quantities)[1].labels
        assert labels[ENERGY] == 1.5 and labels[DIPOLE].tolist() == [1.0, 2.0, 3.0] and len(labels) == 2


def test_a_geometry_is_read_whatever_its_labels_are(frames, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(tmp_path / "a.h5", [frames[0].replace(labels={ENERGY: 1.5, DIPOLE: [1.0, 2.0, 3.0]})])
    assert read_one(str(path)).labels == {}
    with h5py.File(path, "a") as file:
        rows = json.loads(file.attrs["quantities"])
        file.attrs["quantities"] = json.dumps([row | {"unit": "furlong"} for row in rows])
    with pytest.raises(ValueError, match="holds .* per graph, .* unit furlong"):
        read(path)
    one = read_one(str(path))
    assert one.labels == {} and one.positions.tolist() == frames[0].positions.tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: [row | {"colour": "red"} for row in rows], "energy has the unknown field 'colour'"),
        (lambda rows: [{k: v for k, v in row.items() if k != "per"} for row in rows], "missing 1 required .* 'per'"),
        (lambda rows: [row | {"scale": -1.0} for row in rows], r"energy: scale -1.0 must be positive"),
        (lambda rows: [row["name"] for row in rows], ""),
    ],
    ids=["unknown field", "missing field", "wrong value", "no rows"],
)
def test_stored_rows_that_cannot_be_read(frames, tmp_path, change, reason):
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(tmp_path / "a.h5", frames[:2])
    with h5py.File(path, "a") as file:
        file.attrs["quantities"] = json.dumps(change(json.loads(file.attrs["quantities"])))
    with pytest.raises(ValueError, match=rf"a.h5: the quantities of its labels cannot be read \(.*{reason}.*; update equipot"):
        read(path)


def test_trained_reported_plotted_and_predicted(file, tmp_path):
    whole = config.build(
        TrainConfig,
        {
            "data": {"train": str(file), "valid": 3, "atomic_energies": {"H": 0.0, "C": 0.0, "O": 0.0}},
            "model": {"kind": f"{__name__}:Sensor", "cutoff": CUTOFF} if __name__ != "__main__" else {},
            "training": {
                "epochs": 150, "batch_size": 9, "ema": None, "optimizer": {"kind": "AMSGrad", "learning_rate": 0.05},
                "loss": {"moment": {"weight": 2.0}},
            },
        },
    )  # fmt: skip
    best = train(whole, tmp_path / "run", progress=None)
    potential = equipot.load(best)
    for name, value in TRUE.items():
        np.testing.assert_allclose(potential.variables["params"][name], value, rtol=0.02)
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())["validation"]
    assert errors["moment_mae"] < 0.05 and errors["spread_mae"] < 0.1 and "spread_mae_O" in errors
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["valid_spread_mae"] < metrics[0]["valid_spread_mae"]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| spread " in report and "| moment " in report and "me Å" in report
    assert (tmp_path / "run" / "parity-validation.png").stat().st_size > 0
    atoms, labels = labelled(100)
    out = equipot.evaluate(potential, [Structure.from_ase(atoms)] * 2, want=("energy", "spread", "moment"))
    np.testing.assert_allclose(out[SPREAD], np.tile(labels["spread"], 2), rtol=0.02)
    np.testing.assert_allclose(out[MOMENT], np.stack([labels["moment"]] * 2), rtol=0.02, atol=1e-3)
    with pytest.raises(ValueError, match="no such quantity 'dipoles'; choose from .*spread, moment"):
        equipot.evaluate(potential, atoms, want=("dipoles",))


@pytest.mark.parametrize(
    "name", ["virial", "weight", "energy", "Energy", "charge", "interaction", "spin", "spread_weight", "dipole", "masses"]
)
def test_names_that_are_taken(file, name):
    with pytest.raises(ValueError, match=f"a further quantity cannot be called '{name}': the name is taken; choose another"):
        read(file, quantities=(SPREAD, Quantity(name, "graph")))


def test_rows_of_one_name():
    with pytest.raises(ValueError, match="cannot be called 'spread'"):
        further((SPREAD, replace(SPREAD, scale=2.0)))
    assert further((SPREAD, *TABLE)) == (SPREAD, *TABLE)


def test_a_fine_tuning_reads_and_sums_up_what_its_base_provides(file, tmp_path):
    short = {"epochs": 1, "batch_size": 9}
    data = {"train": str(file), "valid": 3, "atomic_energies": {"H": 0.0, "C": 0.0, "O": 0.0}}
    model = {"kind": f"{__name__}:Sensor", "cutoff": CUTOFF}
    best = train(config.build(TrainConfig, {"data": data, "model": model, "training": short}), tmp_path / "base", progress=None)
    others = {"replay": {"files": str(file)}, "forget": {"old": str(file), "same": {"files": str(file)}}}
    tuned = config.build(
        TrainConfig, {"data": {**data, **others}, "model": {"from": str(best), "atomic_energies": "refit"}, "training": short}
    )
    fine_tune(tuned, tmp_path / "tuned", progress=(said := io.StringIO()))
    before = json.loads((tmp_path / "tuned" / "base-errors.json").read_text())
    lines = said.getvalue().splitlines()
    for name in ("replay", "old", "same"):
        assert {"energy_mae_per_atom", "spread_mae", "moment_mae"} <= before[name].keys()
        (start,) = [line for line in lines if line.startswith(f"base on {name}: ")]
        (end,) = [line for line in lines if line.startswith(f"{name}: base: ")]
        for text in (start, *end.split("; after: ")):
            assert " E " in f" {text}" and " W " in f" {text}" and " moment " in f" {text}"


def test_rows_are_found_by_name_and_ordered():
    assert among(["stress", "energy"]) == (STRESS, ENERGY)
    assert ordered([SPREAD, STRESS, MOMENT, ENERGY, STRESS]) == (ENERGY, STRESS, MOMENT, SPREAD)
    assert len({row.name for row in TABLE}) == len(TABLE)
    with pytest.raises(ValueError, match="no such quantity 'entropy'"):
        among(["entropy"])
