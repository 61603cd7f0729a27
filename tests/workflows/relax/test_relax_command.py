"""``equipot relax`` from the command line: its files, its page, interruption and resumption."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from commands import assert_alike, interrupt_after, typed, without_unit
from pair_crystals import cluster, make_argon

import equipot
from equipot.evaluation import evaluate


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A potential, and structures of two kinds."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    equipot.save(make_argon(), tmp_path / "argon.eqp")
    ase.io.write(tmp_path / "clusters.xyz", [cluster(3 + k % 2, seed=k) for k in range(4)])
    ase.io.write(tmp_path / "crystal.xyz", bulk("Ar", "fcc", a=3.5))
    return tmp_path


def test_clusters(folder, capsys):
    found = typed(capsys, "relax", folder / "argon.eqp", folder / "clusters.xyz", out=folder / "out")
    assert found.code == 0 and found.err == "" and "4 of 4 relaxed" in found.out
    assert "largest force" in found.out and f"everything is in {folder / 'out'}" in found.out
    told = found.told
    assert told["failures"] == [] and len(told["structures"]) == 4 and not without_unit(told)
    assert told["settings"]["optimizer"]["kind"] == "LBFGS" and told["model"].endswith("argon.eqp")
    frames = ase.io.read(folder / "out" / "relaxed.extxyz", ":")
    for atoms, row in zip(frames, told["structures"], strict=True):
        assert row["converged"] and row["largest_force_eV_per_A"] <= 1e-3 and row["volume_A3"] is None
        assert atoms.get_potential_energy() == pytest.approx(row["energy_eV"])
        assert float(evaluate(make_argon(), atoms).energy[0]) == pytest.approx(row["energy_eV"], abs=1e-8)
    (plot,) = found.page.plots
    assert plot["x_label"] == "evaluations" and plot["y_label"] == "largest force (eV/Å)" and plot["log_y"]
    assert len(plot["curves"]) == 4 and all(curve["y"][-1] <= 1e-3 < curve["y"][0] for curve in plot["curves"])
    (viewer,) = found.page.viewers
    assert [s["size"] for s in viewer["structures"]] == [3, 4, 3, 4] and "energy (eV/atom)" in viewer["properties"]
    assert (folder / "out" / "relax.png").read_bytes().startswith(b"\x89PNG")
    again = typed(capsys, "relax", folder / "argon.eqp", folder / "clusters.xyz", out=folder / "out")
    assert again.code == 2 and "--resume" in again.err


def test_a_crystal_under_pressure_keeps_its_group(folder, capsys):
    settings = ("cell=full", "pressure_GPa=2")
    found = typed(capsys, "relax", folder / "argon.eqp", folder / "crystal.xyz", out=folder / "out", settings=settings)
    assert found.code == 0 and "space group Fm-3m (225) kept" in found.out
    (row,) = found.told["structures"]
    (atoms,) = ase.io.read(folder / "out" / "relaxed.extxyz", ":")
    stress = np.asarray(evaluate(make_argon(), atoms).stress)[0]
    np.testing.assert_allclose(stress, -2 * equipot.units.GPa * np.eye(3), atol=0.01 * equipot.units.GPa)
    assert row["volume_A3"] == pytest.approx(atoms.get_volume()) and row["stress_error_GPa"] <= 0.01
    assert row["space_group_kept"] == "Fm-3m (225)" and row["space_group_change"] == "" and not row["symmetry_broken"]
    assert {"stress error (GPa)", "space group"} <= set(found.page.text["th"])


def test_what_cannot_be_is_an_error_of_the_input(folder, capsys):
    ase.io.write(folder / "neon.xyz", bulk("Ne", "fcc", a=4.0))
    for file, setting, says in (
        ("neon.xyz", "fmax=0.01", "does not know Ne"),
        ("crystal.xyz", "fmax=0", "fmax 0.0 eV/Å must be positive"),
        ("crystal.xyz", "fmxa=0.1", "did you mean `fmax`"),
        ("none.xyz", "fmax=0.01", "none.xyz"),
    ):
        found = typed(capsys, "relax", folder / "argon.eqp", folder / file, out=folder / "bad", settings=(setting,))
        assert found.code == 2 and says in found.err and found.told is None


def test_an_interrupted_run_goes_on_with_what_is_left(folder, capsys, monkeypatch):
    args = (folder / "argon.eqp", folder / "clusters.xyz")
    whole = typed(capsys, "relax", *args, out=folder / "whole")
    with monkeypatch.context() as patched:
        first = interrupt_after(patched, 2)
        cut = typed(capsys, "relax", *args, out=folder / "cut")
    assert cut.code == 130 and cut.told is None and len(first) == 2
    assert "interrupted; continue with: equipot relax" in cut.err and cut.err.rstrip().endswith("--resume")
    # A kill may leave half of a line.
    with open(folder / "cut" / "finished.jsonl", "a") as file:
        file.write('["structure 9", {"conv')
    other = typed(capsys, "relax", *args, "--resume", out=folder / "cut", settings=("fmax=0.1",))
    assert other.code == 2 and "begun with other settings" in other.err
    with monkeypatch.context() as patched:
        second = interrupt_after(patched, 99)
        resumed = typed(capsys, "relax", *args, "--resume", out=folder / "cut")
    assert resumed.code == 0 and sorted(first + second) == [f"structure {k}" for k in range(4)]
    # Beside other structures of a batch, rounding may take one evaluation more.
    assert_alike(resumed.told, whole.told, atol=1e-4, counts=1)
    for one, other in zip(resumed.told["structures"], whole.told["structures"], strict=True):
        assert one["energy_eV"] == pytest.approx(other["energy_eV"], abs=1e-8)
