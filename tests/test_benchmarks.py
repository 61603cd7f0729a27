"""The harness of the benchmarks works, from the command to the table. What it measures is no matter of tests."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import ase
import jax
import numpy as np
import pytest
from ase.build import molecule

from equipot import __version__, config
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.physics.charges import PerSpecies
from equipot.physics.coulomb import Gaussians
from equipot.physics.electrostatics import Electrostatics
from equipot.structure import Structure
from equipot.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
# The benchmarks are not installed with the package.
sys.path.append(str(ROOT))

from benchmarks import gpu, long_range, separation, sweeps  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.peers.items import ITEMS, chosen  # noqa: E402
from benchmarks.peers.rounds import interleave, start  # noqa: E402
from benchmarks.peers.systems import benzyloxypyridinamine, make, molecules  # noqa: E402
from benchmarks.table import fill, text  # noqa: E402
from benchmarks.table import gpu as gpu_table  # noqa: E402

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


STUB = """
from benchmarks.peers.worker import Ready, serve

def prepare(job):
    if job["broken"]:
        raise ValueError("does not fit")
    return Ready(lambda: None, 12, lambda: {"energy": [1.5]}, {"parameters": 3})

serve(prepare, ("numpy",))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed", "--cores", "0"], "--cores 0 must be greater than 0"),
        (["md", "--steps", "-2"], "--steps -2 must be greater than 0"),
        (["gpu", "--atoms", "8", "-3"], "--atoms -3 must be greater than 0"),
        (["roofline", "--cores", "9999"], "9999 cores are asked for"),
    ],
)
def test_numbers_that_cannot_be_are_refused(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit, match=message):
        main()


def test_workers_answer_in_rounds_and_failures_are_told(tmp_path):
    command = [sys.executable, "-c", STUB]
    jobs = {"good": {"broken": False}, "bad": {"broken": True}}
    cores = [max(os.sched_getaffinity(0))]
    workers, told, failed = start(dict.fromkeys(jobs, command), jobs, cores, tmp_path)
    assert failed == {"bad": "ended with exit code 1: ValueError: does not fit"}
    assert told["good"]["pairs"] == 12 and told["good"]["parameters"] == 3 and told["good"]["first_call_s"] >= 0
    figures, late = interleave(workers, 3, 0.0)
    assert figures["good"]["calls"] == 3 and figures["good"]["peak_rss_MB"] > 1 and not late
    assert workers["good"].ask(want="answer") == {"energy": [1.5]}
    workers["good"].process.kill()
    assert interleave(workers, 1, 0.0) == ({}, {"good": "ended with exit code -9: no message"})
    workers["good"].close()


def test_systems_of_the_work_items():
    for name in {item.system for item in ITEMS.values()} - {"si1728", "si4096"}:
        assert all((a.positions == b.positions).all() for a, b in zip(make(name), make(name), strict=True))
    (water,) = make("water192")
    assert water.get_chemical_formula() == "H128O64"
    assert water.get_masses().sum() / water.get_volume() * 1.66054 == pytest.approx(1.0, abs=1e-4)
    assert benzyloxypyridinamine().get_chemical_formula() == "C12H12N2O" and len(molecules(5)) == 5
    distances = benzyloxypyridinamine().get_all_distances()
    assert distances[distances > 0].min() == pytest.approx(1.01)
    assert chosen(["W2", "W3"]) == [*(name for name in ITEMS if name.startswith("W2")), "W3"]
    with pytest.raises(ValueError, match="no item W9"):
        chosen(["W9"])


def test_roofline_counts_a_polynomial():
    from benchmarks.roofline import Size, flop, polynomial
    from equipot.models.mace import MACE
    from equipot.nn.interaction import Plain

    small = MACE(cutoff=5.0, channels=4, l_max=1, correlation=2, first=Plain())
    # Into a scalar: s, s^2 and the three squares of v.
    assert polynomial(small, [0]) == 4 * 5 + 5 * 4
    once, twice = flop(small, Size(10, 200, 2)), flop(small, Size(20, 400, 2))
    assert min(once.values()) > 0 and {name: 2 * value for name, value in once.items()} == twice


def test_sweeps_change_one_thing():
    assert sweeps.arguments_of("neighbors", 6.0) == {"atoms": 512, "changes": {"cutoff": 6.0}}
    assert sweeps.arguments_of("batch", 4) == {"atoms": 64, "batch": 4}
    assert sweeps.arguments_of("atoms", 64) == {"atoms": 64}


def test_gpu_begins_nothing_after_its_time():
    args = argparse.Namespace(network=["W1"], atoms=[64, 216], steps=1, seconds=0.0, budget=0.0, largest=True, cores=None)
    results = list(gpu.measure(args))
    assert [r["failed"] for r in results] == ["not begun: the time was over"] * 2
    assert "not begun" in gpu_table(results)


def test_newest_table_goes_into_its_place(tmp_path):
    kept = FOLDER / "results" / "md-2026-11-21.json"
    for date in ("2026-01-31", "2026-02-01"):
        record = json.loads(kept.read_text()) | {"command": f"measured {date}"}
        (tmp_path / f"md-{date}.json").write_text(json.dumps(record))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table md -->\nold\n<!-- end -->\n<!-- table speed -->\nkept\n<!-- end -->\n")
    fill(readme, tmp_path)
    once = readme.read_text()
    assert "measured 2026-02-01" in once and "2026-01-31" not in once and "old" not in once and "kept" in once
    assert text([kept]).splitlines()[-3] in once
    fill(readme, tmp_path)
    assert readme.read_text() == once


@pytest.mark.slow
def test_gpu_item_on_a_processor(tmp_path):
    out = tmp_path / "gpu.json"
    command = ("gpu", "--atoms", "8", "64", "--network", "W2", "--steps", "2", "--seconds", "0.1", "--no-largest")
    shown = benchmarks(*command, "--out", str(out))
    results = json.loads(out.read_text())["results"]
    assert [r["atoms"] for r in results] == [8, 64] and "Largest that fitted: W2 64 atoms" in shown
    for r in results:
        assert r["step_us_per_atom"] > 0 and r["evaluation_us_per_atom"] > 0
        assert r["ns_per_day_at_1_fs"] == pytest.approx(86.4 / r["step"]["wall_ms"])


@pytest.mark.slow
def test_peers_item_with_equipot_alone(tmp_path):
    out = tmp_path / "peers.json"
    shown = benchmarks(
        "peers", "--home", str(tmp_path), "--only", "W4t", "--programs", "equipot", "--rounds", "1", "--out", str(out)
    )
    (result,) = json.loads(out.read_text())["results"]
    found = result["programs"]["equipot"]
    assert (result["work"], result["atoms"], result["failed"]) == ("W4t", 135, {})
    assert found["ratio_to_equipot"] == 1 and found["weights"] == "random" and found["parameters"] > 0
    assert "W4t" in shown and str(tmp_path) not in out.read_text()


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda path: path.stem)
def test_kept_results_are_whole(path):
    record = json.loads(path.read_text())
    assert record["results"] and record["versions"]["commit"] and record["machine"]["cpu"]
    assert "/" not in record["command"]


@pytest.mark.parametrize("path", sorted((FOLDER / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(path):
    config.load(path, TrainConfig)


@pytest.mark.parametrize("name", long_range.SETS)
def test_recipes_of_the_long_range_load(name):
    for settings in long_range.models().values():
        config.load(long_range.CONFIG, TrainConfig, [*long_range.SETS[name][1], *settings])


def test_separated_ions_follow_coulombs_law(double_precision):
    term = Electrostatics(cutoff=3.0, charges=PerSpecies((1.0, -1.0)), kernel=Gaussians(0.5), elements=(11, 17))
    pair = ase.Atoms("NaCl", [[0, 0, 0], [2.4, 0, 0]])
    structure = Structure.from_ase(pair)
    graph = pad([structure], 3.0, extent=extent_of([structure], term.longest_wave))
    potential = fresh(term, graph, jax.random.key(0), Metadata(atomic_energies=((11, 0.0), (17, 0.0))))
    found = separation.curve(potential.astype("float64"), pair, np.array([True, False]))
    assert found["exponent"] == pytest.approx(-1, abs=1e-4)
    assert found["energy_times_distance_eV_A"] == pytest.approx(-14.399645, rel=1e-4)
    np.testing.assert_allclose(found["first_charge_e"], 1, atol=1e-12)
    np.testing.assert_allclose(found["gap_A"], found["centre_distance_A"])


def test_a_molecule_is_cut_at_the_bond_between_two_atoms():
    butane = molecule("trans-butane")
    bonded = separation.bonds(butane)
    carbons = [k for k in range(len(butane)) if butane.numbers[k] == 6]
    assert [bonded[k].sum() for k in carbons] == [4, 4, 4, 4]
    middle = [k for k in carbons if bonded[k][carbons].sum() == 2]
    half = separation.side(bonded, *middle)
    assert half.sum() == 7 and half[middle[0]] and not half[middle[1]]


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
