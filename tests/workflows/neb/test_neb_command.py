"""``equipot neb`` from the command line: its files, its page, kills at any moment and resumption."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from commands import assert_alike, interrupt_after, typed, without_unit
from pair_crystals import make_argon

import equipot

SETTINGS = ("images=5", "band.fmax=0.002", "reaction_coordinate=true", "temperatures=[100, 300]")
KILLED = """
import os, signal, sys
from equipot.cli import main
from equipot.workflows.journal import Journal
from equipot.workflows.neb import band
band.KEPT = 3
count, add = 0, Journal.add
def adding(self, name, result):
    global count
    add(self, name, result)
    count += name == "path"
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = adding
main(sys.argv[1:])
"""
"""A run that is killed when the path has been kept once, after three evaluations."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A potential, and an atom on a slab in both of its hollows, by the side of the first of which it begins."""
    folder = tmp_path_factory.mktemp("neb")
    equipot.save(make_argon(), folder / "argon.eqp")
    slab, ends = fcc111("Ar", (2, 2, 2), a=3.42, vacuum=6.0), []
    for site in ("fcc", "hcp"):
        atoms = slab.copy()
        add_adsorbate(atoms, "Ar", 1.9, site)
        atoms.set_constraint(FixAtoms(range(len(slab))))
        ends.append(atoms)
    ase.io.write(folder / "ends.xyz", ends)
    return folder


def test_an_adatom_hops_and_a_killed_run_ends_alike(folder, capsys, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    args = (folder / "argon.eqp", folder / "ends.xyz")
    whole = typed(capsys, "neb", *args, out=folder / "whole", settings=SETTINGS)
    assert whole.code == 0, whole.err
    told = whole.told
    assert told["failures"] == [] and not without_unit(told)
    assert "barrier" in whole.out and "saddle point found" in whole.out and "prefactor" in whole.out and "ends" in whole.out
    path, saddle = told["path"], told["saddle"]
    assert path["converged"] and path["evaluations"] > 3 and saddle["converged"] and saddle["order_checked"]
    assert saddle["lowest_curvature_eV_per_A2"] < 0 < saddle["second_lowest_curvature_eV_per_A2"]
    assert told["barrier_eV"] == pytest.approx(saddle["energy_above_first_eV"]) and told["barrier_eV"] > 0
    assert told["barrier_eV"] - told["barrier_back_eV"] == pytest.approx(told["reaction_energy_eV"])
    assert set(told["rate"]["rates_per_s"]) == {"100_K", "300_K"}
    images = ase.io.read(folder / "whole" / "path.extxyz", ":")
    energies = [atoms.get_potential_energy() for atoms in images]
    assert [e - energies[0] for e in energies] == pytest.approx(path["energies_eV"], abs=1e-7) and len(images) == 5
    assert ase.io.read(folder / "whole" / "saddle.extxyz").get_potential_energy() >= max(energies) - 1e-4
    labels = [(plot["x_label"], plot["y_label"]) for plot in whole.page.plots]
    assert ("length of the path (Å)", "energy (eV)") in labels and len(labels) == 2
    top, images = whole.page.viewers
    assert top["shapes"]["vectors"]["kind"] == "arrow" and len(images["structures"]) == 5
    assert (folder / "whole" / "neb.png").read_bytes().startswith(b"\x89PNG")

    options = [word for text in SETTINGS for word in ("--set", text)]
    line = [sys.executable, "-c", KILLED, "neb", *map(str, args), "--out", str(folder / "cut"), *options]
    environment = {**os.environ, "EQUIPOT_CACHE": "off", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(line, env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert not (folder / "cut" / "neb.json").exists()
    with monkeypatch.context() as patched:
        kept = interrupt_after(patched, 99)
        resumed = typed(capsys, "neb", *args, "--resume", out=folder / "cut", settings=SETTINGS)
    assert resumed.code == 0, resumed.err
    assert "end 0" not in kept and kept[0] == "path" and "saddle point" in kept
    # The path went on from the state that was kept last, by the same steps.
    assert_alike(resumed.told, told)


def test_interrupted_after_its_saddle_point_it_is_not_sought_again(folder, capsys, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    args, settings = (folder / "argon.eqp", folder / "ends.xyz"), ("images=5", "band.climb_below=0.01")
    with monkeypatch.context() as patched:
        kept = interrupt_after(patched, 1)
        cut = typed(capsys, "neb", *args, out=folder / "ends", settings=settings)
    assert cut.code == 130 and kept in (["end 0"], ["end 1"]) and "--resume" in cut.err
    with monkeypatch.context() as patched:
        kept = interrupt_after(patched, 99)
        found = typed(capsys, "neb", *args, "--resume", out=folder / "ends", settings=settings)
    assert found.code == 0 and sum(name.startswith("end") for name in kept) == 1
    with monkeypatch.context() as patched:
        kept = interrupt_after(patched, 99)
        again = typed(capsys, "neb", *args, "--resume", out=folder / "ends", settings=settings)
    # All that is kept once more is the path, at its end.
    assert kept == ["path"]
    assert_alike(again.told, found.told, rel=0, atol=0)


def test_failures_are_told(folder, capsys, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    args = (folder / "argon.eqp", folder / "ends.xyz")
    few = typed(capsys, "neb", *args, out=folder / "few", settings=("images=5", "band.max_steps=2", "saddle.max_steps=1"))
    assert few.code == 1 and "2 evaluations were not enough" in few.err and "1 steps were not enough" in few.err
    assert any("saddle point" in text for text in few.told["failures"]) and "not found" in few.out
    assert few.told["saddle"]["reason"] and "rate" not in few.told and "2 evaluations were not enough" in few.alarms
    one = typed(capsys, "neb", args[0], f"{args[1]}@0", out=folder / "one")
    assert one.code == 2 and "a path has two ends" in one.err
