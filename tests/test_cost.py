"""Errors that minutes buy: what is read of mace-torch's files, and the table and figure. No other program is run."""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

# The benchmarks are not installed with the package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import cost  # noqa: E402
from benchmarks.peers import recipes  # noqa: E402
from benchmarks.table import TABLES  # noqa: E402

LOG = """2026-11-28 19:28:00.000 INFO: ===========VERIFYING SETTINGS===========
2026-11-28 19:28:10.250 INFO: Initial: head: Default, loss=13.86, MAE_E_per_atom= 4851.20 meV, MAE_F=  797.24 meV / A
2026-11-28 19:29:00.500 INFO: Epoch 0: head: Default, loss=2.50, MAE_E_per_atom= 2375.64 meV, MAE_F=  289.92 meV / A
2026-11-28 19:29:50.750 INFO: Epoch 1: head: Default, loss=1.50, MAE_E_per_atom= 1375.64 meV, MAE_F=  189.92 meV / A
"""


def frames(count, energy=-10.0):
    made = []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.1 * np.random.default_rng(k).normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy + k, forces=np.full((3, 3), 0.1 * k))
        made.append(atoms)
    return made


@pytest.fixture
def files(tmp_path):
    for name in ("train", "valid", "test"):
        ase.io.write(tmp_path / f"{name}-in.xyz", frames(3), format="extxyz")
    alone = []
    for symbol, energy in (("H", -13.5), ("O", -432.0)):
        atoms = ase.Atoms(symbol)
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        alone.append(atoms)
    ase.io.write(tmp_path / "alone.xyz", alone, format="extxyz")
    return recipes.Files(*(tmp_path / f"{n}-in.xyz" for n in ("train", "valid", "test")), tmp_path / "alone.xyz", ("H", "O"))


def test_times_of_epochs_are_those_of_the_log(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "model_run-1.log").write_text(LOG)
    assert recipes.times_of(tmp_path) == [60.5, 110.75]


def test_labels_get_the_names_that_mace_expects_and_errors_are_read_back(tmp_path, files):
    path = recipes.relabelled(files.train, tmp_path / "train.xyz", files)
    read = ase.io.read(path, ":")
    assert [a.info.get("config_type") for a in read] == ["IsolatedAtom"] * 2 + [None] * 3
    assert [a.info["REF_energy"] for a in read] == [-13.5, -432.0, -10.0, -9.0, -8.0]
    np.testing.assert_allclose(read[4].arrays["REF_forces"], 0.2)
    path = recipes.relabelled(files.test, tmp_path / "test.xyz", files)
    said = ase.io.read(path, ":")
    assert len(said) == 3
    for k, atoms in enumerate(said):
        atoms.info["MACE_energy"] = atoms.info["REF_energy"] + 0.3 * (-1) ** k
        atoms.arrays["MACE_forces"] = atoms.arrays["REF_forces"] + 0.02
    ase.io.write(tmp_path / "said.xyz", said, format="extxyz")
    errors = recipes.errors_of(tmp_path / "said.xyz")
    expected = {"energy_mae": 0.3, "energy_rmse": 0.3, "energy_mae_per_atom": 0.1, "energy_rmse_per_atom": 0.1,
                "forces_mae": 0.02, "forces_rmse": 0.02}  # fmt: skip
    assert errors == pytest.approx(expected)


def test_the_recipe_of_nequip_names_the_frames_the_atoms_and_the_time(tmp_path, files):
    config = recipes.config(files, 90.5, tmp_path)
    assert config["trainer"]["max_time"] == "00:01:30:30"
    assert config["data"]["test_file_path"] == str(files.test)
    assert config["training_module"]["model"]["per_type_energy_shifts"] == {"H": -13.5, "O": -432.0}
    found = recipes.config(files._replace(atomic_energies=None), 1, tmp_path)["training_module"]["model"]
    assert found["per_type_energy_shifts"].startswith("${training_data_stats:")


def test_lines_become_a_table_and_a_figure(tmp_path):
    errors = {"energy_mae_per_atom": 0.001, "energy_rmse": 0.05, "forces_mae": 0.04, "forces_rmse": 0.07}
    curve = [[1.0, 0.01, 0.1], [2.0, 0.005, 0.08]]
    results = [
        {"set": key, "program": program, "minutes": minutes, "spent": 1.1 * minutes, "epochs": 10, "errors": errors,
         "validation": curve}
        for key in cost.SETS for program in ("equipot", "nequip") for minutes in (1.0, 2.0)
    ]  # fmt: skip
    table = TABLES["cost"](results)
    assert len(table.splitlines()) == 2 + len(results) and "| mlearn-Si | nequip" in table
    cost.draw(results, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000
