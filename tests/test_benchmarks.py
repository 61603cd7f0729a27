"""The harness of the benchmarks works, from the command to the table. What it measures is no matter of tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipot import __version__, config
from equipot.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"


def benchmarks(*arguments: str) -> str:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_smallest_item_from_command_to_table(tmp_path):
    out = tmp_path / "result.json"
    shown = benchmarks("scaling", "--atoms", "8", "--seconds", "0.1", "--out", str(out))
    record = json.loads(out.read_text())
    assert record["item"] == "scaling"
    assert record["command"] == "python -m benchmarks scaling --atoms 8 --seconds 0.1 --out FILE"
    assert record["machine"]["cpu"] and record["machine"]["cores"] >= 1 and record["machine"]["memory_GB"] > 0
    assert record["versions"]["equipot"] == __version__
    assert {"python", "jax", "jaxlib", "commit"} <= record["versions"].keys()
    for when in ("before", "after"):
        assert record[when]["date"].startswith("20") and len(record[when]["load_average"]) == 3
    (result,) = record["results"]
    assert (result["case"], result["atoms"], result["edges"]) == ("scaling", 8, 224)
    assert result["device"] and result["model"]["kind"] == "MACE" and result["repeats"] >= 3
    assert 0 < result["cpu_ms_min"] <= result["cpu_ms"] and 0 < result["wall_ms_min"] <= result["wall_ms"]
    assert result["wall_ms_per_atom"] == result["wall_ms"] / 8
    assert result["temp_bytes"] > 0 and result["peak_rss_MB"] > 100
    assert "| atoms | edges |" in shown
    assert benchmarks("table", str(out)).strip() in shown


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda path: path.stem)
def test_kept_results_are_whole(path):
    record = json.loads(path.read_text())
    assert record["results"] and record["versions"]["commit"] and record["machine"]["cpu"]
    assert "/" not in record["command"]


@pytest.mark.parametrize("path", sorted((FOLDER / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(path):
    config.load(path, TrainConfig)


@pytest.mark.slow
def test_accuracy_from_data_to_table(tmp_path):
    """One epoch on bundled silicon in the place of a published set."""
    from ase.io import write

    from equipot.data import bundled

    (tmp_path / "mlearn").mkdir()
    for part in ("train", "test"):
        frames = [frame.to_ase() for frame in bundled.load(f"silicon/{part}")][:12]
        write(tmp_path / "mlearn" / f"Si_{part}.extxyz", frames, format="extxyz")
    small = ["training.epochs=1", "model.channels=2", "model.l_max=1", "model.layers=1", "model.correlation=1"]
    places = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "result.json")]
    shown = benchmarks("accuracy", "--only", "mlearn-Si", *places, *(word for s in small for word in ("--set", s)))
    (result,) = json.loads((tmp_path / "result.json").read_text())["results"]
    assert result["task"] == "mlearn-Si" and result["epochs"] == 1
    energy, forces = result["quantities"]
    assert energy["value"] == 1e3 * result["errors"]["energy_mae_per_atom"] and forces["value"] > 0
    assert energy["published"] == {"GAP": 2.91, "MTP": 2.21}
    assert "GAP 2.91, MTP 2.21" in shown and str(tmp_path) not in (tmp_path / "result.json").read_text()
