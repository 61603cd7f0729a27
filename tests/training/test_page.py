"""Pages of training and of evaluation, from figures that no run has made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from page_reader import read

from equipot.pages import write_page
from equipot.quantities import LABELLED
from equipot.structure import Structure
from equipot.training.errors import error_table
from equipot.training.page import evaluation_blocks
from equipot.training.report import write_report


@pytest.fixture
def pairs():
    """Three dimers, and predictions whose forces are 0.1 eV/Å and whose energies are 0.02 eV off."""
    rng = np.random.default_rng(0)
    references = [
        Structure([1, 8], rng.normal(0, 1, (2, 3)), labels={"energy": float(k), "forces": rng.normal(0, 1, (2, 3))})
        for k in range(3)
    ]
    return references, [s.replace(energy=s.energy + 0.02, forces=s.forces + 0.1) for s in references]


def test_the_page_of_a_run(pairs, tmp_path):
    rows = [{"epoch": k, "loss": 1 / k, "train_forces_mae": 0.5 / k, "learning_rate": 0.01} for k in range(1, 21)]
    for row in rows[::5]:
        row |= {"valid_loss": 2 / row["epoch"], "valid_forces_mae": 0.7 / row["epoch"]}
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "config.yaml").write_text("model: {kind: MACE}\n")
    references, predictions = pairs
    table, said = error_table(references, predictions), []
    before = {"validation": {**table, "forces_mae": 0.9}}
    write_report(tmp_path, {"end": "<b>"}, {"validation": (table, references, predictions)}, said.append, None, before)
    assert said == []
    page = read(tmp_path / "train.html")
    headings = [
        "Run",
        "Errors of best.eqp",
        "Base and result, validation",
        "Loss",
        "Forces MAE (meV/Å)",
        "Parity, validation",
        "Config",
    ]
    assert page.text["h2"] == headings and "<b>" in page.text["td"]
    # 0.02 eV of two atoms, 0.1 eV/Å, and the base.
    assert {"10", "100", "900"} <= set(page.text["td"])
    loss, forces = page.plots
    assert loss["log_y"] and loss["curves"][0]["y"] == [pytest.approx(1 / k) for k in range(1, 21)]
    assert forces["curves"][1]["name"] == "validation" and forces["curves"][1]["x"] == [1, 6, 11, 16]
    assert forces["curves"][1]["y"] == [pytest.approx(700 / k) for k in (1, 6, 11, 16)]
    assert len(page.sources) == 1 and "model: {kind: MACE}" in page.text["pre"][0]


def test_a_page_that_cannot_be_written_does_not_lose_the_report(pairs, tmp_path):
    (tmp_path / "train.html").mkdir()
    references, predictions = pairs
    said = []
    table = error_table(references, predictions)
    text = write_report(tmp_path, {"end": "finished"}, {"validation": (table, references, predictions)}, said.append)
    assert "forces" in text and (tmp_path / "report.md").exists() and (tmp_path / "parity-validation.png").exists()
    assert len(said) == 1 and "train.html could not be written" in said[0]


def test_the_page_of_an_evaluation(pairs, tmp_path):
    references, predictions = pairs
    table = error_table(references, predictions)
    blocks = evaluation_blocks(references, predictions, {"test.xyz": table}, LABELLED, ["model on test.xyz: 3 frames"])
    page = read(write_page(tmp_path / "evaluate.html", "Errors", blocks))
    assert page.text["h2"][:2] == ["Errors", "Remarks"] and "test.xyz MAE" in page.text["th"]
    energy, forces = page.plots
    assert "forces, by component: MAE 100, RMSE 100 meV/Å" in page.text["h2"]
    drawn = np.array([forces["curves"][0]["x"], forces["curves"][0]["y"]])
    np.testing.assert_allclose(drawn[0], np.concatenate([s.forces.ravel() for s in references]), atol=1e-9)
    np.testing.assert_allclose(drawn[1] - drawn[0], 0.1, atol=1e-9)
    assert energy["x_label"] == "reference (eV/atom)" and len(energy["curves"][0]["x"]) == 3
