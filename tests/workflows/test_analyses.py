"""``equipot spectra`` and ``equipot transport`` from the command line, on trajectories that are made here."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from autoregressive import langevin
from pair_crystals import make_argon

import equipot
from equipot.cli import main
from equipot.md.trajectory import ExtXYZ, Frame, System
from equipot.units import fs


def write_run(folder, count=1500, pbc=True):
    """A run of free Langevin particles, as ``equipot md`` writes one, with a log that has a dipole moment."""
    rng, numbers = np.random.default_rng(0), np.array([18] * 6 + [10] * 2)
    v, x = langevin(rng, count, 8, 0.1, 40.0)
    mass = np.where(numbers == 18, 39.95, 20.18)[:, None]
    v, x, cell = v * 0.05 / np.sqrt(mass), x * 0.05 / np.sqrt(mass), 12.0 * np.eye(3) * pbc
    start = np.stack(np.meshgrid([0, 6], [0, 6], [0, 6]), axis=-1).reshape(-1, 3)
    frames = [Frame(4 * k, 4.0 * k, start + x[k], v[k] / fs * mass, 0 * v[k], cell, -1.0) for k in range(count)]
    folder.mkdir(exist_ok=True)
    ExtXYZ().writer(folder, System(numbers, mass, (pbc,) * 3, True)).append(frames)
    names = "step,time_ps,temperature_K,potential_eV,kinetic_eV,total_eV,conserved_eV,pressure_GPa,volume_A3"
    dipoles = (v * np.linspace(-1, 1, 8)[:, None]).sum(axis=1)
    lines = [
        f"{4 * k},{0.004 * k},{300 + rng.normal()},-1,1,0,0,{0.1 * rng.normal() if pbc else ''},{1728.0 if pbc else 0.0},"
        + ",".join(map(str, dipoles[k]))
        for k in range(count)
    ]
    (folder / "log.csv").write_text("\n".join([names + ",dipole_x_eA,dipole_y_eA,dipole_z_eA", *lines]) + "\n")


def test_spectra_of_a_run(tmp_path, capsys):
    write_run(tmp_path / "run")
    args = ["spectra", str(tmp_path / "run"), "--set", "resolution_THz=4", "--out", str(tmp_path / "out")]
    main(args)
    told = json.loads((tmp_path / "out" / "spectra.json").read_text())
    assert set(told["density_per_THz"]) == {"Ne", "Ar"} and told["infrared"]["absorption_unit"] == "cm^-1"
    assert sum(told["degrees_of_freedom"].values()) == pytest.approx(24)
    assert "density of states" in capsys.readouterr().out
    for name in ("spectra.png", "spectra.html", "config.yaml", "work.json"):
        assert (tmp_path / "out" / name).stat().st_size
    assert main(args) == 2 and "--resume" in capsys.readouterr().err
    assert main(["spectra", str(tmp_path / "run"), "--set", "resolution_THz=0.01", "--out", str(tmp_path / "fine")]) == 2
    assert "too short" in capsys.readouterr().err


def test_transport_of_a_run(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert main(["transport", str(tmp_path / "run"), "--set", "radial.longest=7", "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "transport.json").read_text())
    assert told["averages"]["temperature_K"]["mean"] == pytest.approx(300, abs=5 * told["averages"]["temperature_K"]["error"])
    assert told["diffusion"]["Ar"]["coefficient_cm2_per_s"] > 0 and "Ne-Ar" in told["radial_distribution"]["pairs"]
    assert "thermal_conductivity" not in told and told["failures"] == []
    assert "diffusion of Ne" in capsys.readouterr().out and (tmp_path / "out" / "transport.html").exists()
    assert main(["transport", str(tmp_path / "run"), "--set", "run.steps=100", "--out", str(tmp_path / "made")]) == 2
    assert "--model" in capsys.readouterr().err


def test_transport_with_a_model_has_a_conductivity(tmp_path):
    rng, frames = np.random.default_rng(1), []
    for _ in range(320):
        atoms = bulk("Ar", "fcc", a=3.5, cubic=True)
        atoms.rattle(0.05, rng=rng)
        atoms.set_momenta(rng.normal(size=(4, 3)))
        frames.append(atoms)
    write(tmp_path / "frames.traj", frames)
    equipot.save(make_argon(cutoff=4.0), tmp_path / "argon.eqp")
    args = ["transport", str(tmp_path / "frames.traj"), "--model", str(tmp_path / "argon.eqp"), "--set", "interval_fs=2"]
    assert main([*args, "--set", "radial=null", "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "transport.json").read_text())
    found = told["thermal_conductivity"]
    # White noise: the integral is that of a single point, and positions that come back are no diffusion.
    assert found["value_W_per_mK"] == pytest.approx(found["direct_integral_W_per_mK"], rel=0.5)
    assert told["viscosity"]["value_mPa_s"] is None and told["diffusion"]["Ar"]["reason"]
    assert len((tmp_path / "out" / "flux.csv").read_text().splitlines()) == 321


@pytest.mark.slow
def test_transport_makes_its_own_trajectory(tmp_path):
    write(tmp_path / "argon.xyz", bulk("Ar", "fcc", a=3.5, cubic=True))
    equipot.save(make_argon(cutoff=4.0), tmp_path / "argon.eqp")
    args = ["transport", str(tmp_path / "argon.xyz"), "--model", str(tmp_path / "argon.eqp"), "--out", str(tmp_path / "out")]
    run = ["run.steps=2000", "run.equilibration_steps=400", "run.repeat=[2,2,2]", "run.temperature_K=60", "radial=null"]
    options = [part for setting in run for part in ("--set", setting)]
    main([*args, *options])
    text = (tmp_path / "out" / "transport.json").read_bytes()
    told = json.loads(text)
    assert told["averages"]["total_eV"]["mean"] and told["thermal_conductivity"]["value_W_per_mK"] > 0
    main([*args, *options, "--resume"])
    assert (tmp_path / "out" / "transport.json").read_bytes() == text
