"""Error tables against numbers by hand; predictions and plots as files."""

import json

import jax
import numpy as np
import pytest
import tiny

from equipot.potential import evaluate
from equipot.quantities import CHARGES
from equipot.structure import Structure
from equipot.training.errors import error_table, evaluate_set, predict, table_text, write_json, write_predictions
from equipot.training.panels import learning_data
from equipot.training.report import learning_curves, parity


def test_table_by_hand():
    water = lambda *labels: Structure(
        [8, 1, 1], np.eye(3), labels=dict(zip(("energy", "forces", "stress"), labels, strict=False))
    )
    hydrogen = lambda labels: Structure([1], np.zeros((1, 3)), labels=labels)
    zero, error = np.zeros((3, 3)), np.zeros((3, 3))
    error[0], error[1, 0] = [0.3, 0, 0], 0.6
    references = [water(1.0, zero, zero), hydrogen({"energy": 5.0})]
    predictions = [water(1.6, error, 0.09 * np.eye(3)), hydrogen({"energy": 4.6, "forces": np.ones((1, 3))})]
    expected = {
        "frames": 2,
        "atoms": 4,
        "energy_mae": 0.5,
        "energy_rmse": np.sqrt((0.36 + 0.16) / 2),
        "energy_mae_per_atom": (0.2 + 0.4) / 2,
        "energy_rmse_per_atom": np.sqrt((0.04 + 0.16) / 2),
        "forces_mae": 0.9 / 9,
        "forces_rmse": np.sqrt((0.09 + 0.36) / 9),
        "forces_mae_O": 0.1,
        "forces_rmse_O": np.sqrt(0.03),
        "forces_mae_H": 0.1,
        "forces_rmse_H": np.sqrt(0.06),
        "stress_mae": 0.03,
        "stress_rmse": np.sqrt(3 * 0.0081 / 9),
    }
    table = error_table(references, predictions)
    assert table.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(table[key], value, rtol=1e-12, err_msg=key)
    text = table_text({"test": table})
    assert "meV/atom" in text and "forces on O" in text and len({len(line) for line in text.splitlines()}) == 1


def test_what_belongs_to_atoms_has_a_line_for_each_element():
    charged = lambda charges: [Structure([8, 1, 1], np.eye(3), labels={"charges": charges})]
    table = error_table(charged([-0.8, 0.4, 0.4]), charged([-0.6, 0.4, 0.3]))
    text = table_text({"test": table}, (CHARGES,))
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == ["charges", "charges on H", "charges on O"]


@pytest.fixture(scope="module")
def predicted():
    structures = tiny.structures(7, 4)
    return structures, tiny.potential(structures)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_predictions_do_not_depend_on_the_batch(predicted, batch_size):
    from equipot.data.batch import Shape, pad

    structures, potential = predicted
    alone = jax.jit(evaluate)
    for s, p in zip(structures, predict(potential, structures, batch_size), strict=True):
        one = alone(potential, pad([s], 3.5, Shape(6, 40, 1)))
        free = sum(tiny.ENERGIES[z] for z in s.numbers)
        np.testing.assert_allclose(p.energy, float(one.interaction[0]) + free, atol=1e-5)
        np.testing.assert_allclose(p.forces, one.forces[: len(s)], atol=1e-5)
        assert (p.stress is None) == (not s.pbc.any())
        if p.stress is not None:
            np.testing.assert_allclose(p.stress, one.stress[0], atol=1e-6)


def test_an_unknown_element_is_named(predicted):
    with pytest.raises(ValueError, match="Fe"):
        evaluate_set(predicted[1], [Structure([26], np.zeros((1, 3)))])
    with pytest.raises(ValueError, match="no structures"):
        evaluate_set(predicted[1], [])


def test_files(predicted, tmp_path):
    import ase.io

    structures, potential = predicted
    table, predictions = evaluate_set(potential, structures)
    # What databases hold and this format cannot is left out, so that the file can be read.
    predictions[0] = predictions[0].replace(info={"tag": "a", "vector": np.ones(3), "ragged": [[1.0], [2.0, 3.0]], "more": {}})
    write_predictions(structures, predictions, tmp_path / "p.xyz")
    frames = ase.io.read(tmp_path / "p.xyz", ":")
    assert len(frames) == 7 and frames[0].info["tag"] == "a" and len(frames[0].info["vector"]) == 3
    assert not {"ragged", "more"} & frames[0].info.keys()
    for atoms, s, p in zip(frames, structures, predictions, strict=True):
        np.testing.assert_allclose(atoms.info["REF_energy"], s.energy, atol=1e-7)
        np.testing.assert_allclose(atoms.info["predicted_energy"], p.energy, atol=1e-7)
        np.testing.assert_allclose(atoms.arrays["REF_forces"], s.forces, atol=1e-7)
        np.testing.assert_allclose(atoms.arrays["predicted_forces"], p.forces, atol=1e-7)
        assert ("predicted_stress" in atoms.info) == (p.stress is not None)
    write_json(table, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text()) == table
    parity(structures, predictions, tmp_path / "parity.png", "a set", tiny.ENERGIES)
    panels = learning_data([{"epoch": 1, "loss": 1.0, "valid_loss": 2.0, "valid_forces_mae": 0.1}])
    learning_curves(panels, tmp_path / "curves.png")
    for name in ("parity.png", "curves.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
