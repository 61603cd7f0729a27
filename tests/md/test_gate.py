"""The gate of a run: what it records, where it stops, and that a run with a gate goes on exactly."""

from __future__ import annotations

import dataclasses

import ase.io
import h5py
import jax
import numpy as np
import pytest
from ase.build import molecule

import equipot
from equipot import md, uncertainty
from equipot.data.batch import pad
from equipot.md import log
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure

TERM = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))


def water(seed, size):
    atoms = molecule("H2O")
    atoms.positions += size * np.random.default_rng(seed).normal(size=(3, 3))
    return Structure.from_ase(atoms, source="water")


@pytest.fixture(scope="module")
def known():
    """A potential that knows water close to equilibrium, calibrated on labels with errors."""
    frames = [water(seed, 0.02) for seed in range(40)]
    bare = fresh(TERM, pad(frames[:3], 4.0), jax.random.key(1), Metadata(((1, 0.0), (8, 0.0))), scale=[0.05, 0.05])
    rng, labelled = np.random.default_rng(1), []
    for frame, out in zip(frames, equipot.evaluate_each(bare, frames, want=("energy", "forces")), strict=True):
        labels = {ENERGY: float(out.energy), FORCES: out.forces + 0.03 * rng.normal(size=(3, 3))}
        labelled.append(frame.replace(labels=labels))
    return uncertainty.fit(bare, frames[:20], calibrate=labelled[20:])


def config(**changes):
    gate = md.Gate(record=1e-3, halt=None, every=20)
    made = md.MDConfig("-", "-", md.NVTLangevin(), 400, 0.5, 300.0, dtype="float64", chunk_steps=100, gate=gate)
    return dataclasses.replace(made, **changes)


def test_log_trajectory_and_recorded_frames_have_the_deviations(known, tmp_path):
    run = config(trajectory=md.ExtXYZ(every=40), gate=md.Gate(record=1e-6, halt=None, every=20), steps=200)
    md.simulate(known, water(0, 0.02), run, tmp_path, progress=None)
    table = log.read(tmp_path / "log.csv")
    assert np.isfinite(table["max_forces_std_eV_A"]).tolist() == [step % 20 == 0 for step in table["step"]]
    recorded = ase.io.read(tmp_path / "recorded.xyz", ":")
    assert [frame.info["step"] for frame in recorded] == list(range(0, 201, 20))
    found = equipot.evaluate_each(known.astype("float64"), recorded, want=("energy_std", "forces_std"))
    for frame, out in zip(recorded, found, strict=True):
        np.testing.assert_allclose(frame.arrays["forces_std"], out.others["forces_std"], rtol=1e-5)
        line = int(frame.info["step"] / 10)
        assert table["max_forces_std_eV_A"][line] == pytest.approx(out.others["forces_std"].max(), rel=1e-5)
        assert table["energy_std_eV"][line] == pytest.approx(float(out.others["energy_std"]), rel=1e-5)
    assert all("forces_std" in frame.arrays for frame in ase.io.read(tmp_path / "trajectory.xyz", ":"))
    assert (tmp_path / "recorded.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_stops_where_a_force_is_first_seen_to_be_unsure(known, tmp_path):
    free = config(gate=md.Gate(record=None, halt=None, every=20), temperature_K=600.0)
    md.simulate(known, water(0, 0.02), free, tmp_path / "free", progress=None)
    assert not (tmp_path / "free" / "recorded.png").exists()
    table = log.read(tmp_path / "free" / "log.csv")
    seen = table["max_forces_std_eV_A"]
    first, limit = seen[0], 0.5 * (np.nanmax(seen) + seen[0])
    assert np.nanmax(seen) > 1.02 * first, "nothing to stop for"
    gated = dataclasses.replace(free, gate=md.Gate(record=None, halt=float(limit), every=20))
    with pytest.raises(md.Halted, match=r"step \d+: the force on atom \d has a deviation of .*gate.halt"):
        md.simulate(known, water(0, 0.02), gated, tmp_path / "gated", progress=None)
    step = int(table["step"][np.nonzero(seen >= limit)[0][0]])
    whole, ended = ((tmp_path / name / "log.csv").read_text() for name in ("free", "gated"))
    assert whole.startswith(ended) and ended.splitlines()[-1].startswith(f"{step},")
    last = ase.io.read(tmp_path / "gated" / "recorded.xyz", ":")
    assert [frame.info["step"] for frame in last] == [step] and last[0].arrays["forces_std"].max() >= limit
    assert (tmp_path / "gated" / "recorded.png").stat().st_size > 5000
    with pytest.raises(md.Halted, match="step 0: .*does not know this structure"):
        md.simulate(known, water(0, 0.02), config(gate=md.Gate(None, 1e-9)), tmp_path / "never", progress=None)
    assert not (tmp_path / "never").exists()


def test_a_run_that_explodes_draws_what_was_recorded_before(known, tmp_path):
    hot = config(gate=md.Gate(record=1e-6, halt=None, every=20), max_temperature_K=50.0)
    with pytest.raises(md.Explosion, match="max_temperature_K"):
        md.simulate(known, water(0, 0.02), hot, tmp_path, progress=None)
    assert len(ase.io.read(tmp_path / "recorded.xyz", ":")) == 1
    assert (tmp_path / "recorded.png").stat().st_size > 5000


def test_a_run_with_a_gate_that_is_resumed_is_one_that_was_not_interrupted(known, tmp_path):
    run = lambda folder, **how: md.simulate(
        known,
        water(0, 0.02),
        config(**{"trajectory": md.H5MD(every=50)} | how),
        tmp_path / folder,
        how.get("steps") is None and folder == "cut",
        progress=None,
    )
    run("whole")
    run("cut", steps=200)
    with open(tmp_path / "cut" / "recorded.xyz", "a") as file:
        file.write("half a li")
    run("cut")
    for name in ("log.csv", "recorded.xyz"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with h5py.File(tmp_path / "cut" / "trajectory.h5") as one, h5py.File(tmp_path / "whole" / "trajectory.h5") as two:
        series = "particles/trajectory/observables/forces_std/value"
        np.testing.assert_array_equal(one[series][:], two[series][:])
        # Frames at 50, 150, ... are between two checks.
        assert np.isnan(one[series][:]).all(axis=1).tolist() == [False, True] * 4 + [False]


def test_gates_that_cannot_be_are_refused(known, tmp_path):
    bare = known.replace(posterior=None)
    cases = {
        "gate: the potential has no estimate of its uncertainty": lambda: md.simulate(bare, water(0, 0.02), config(), tmp_path),
        r"gate.every \(25\) must be a multiple of log_every": lambda: config(gate=md.Gate(every=25)),
        "gate.record 1.0 eV/Å is above gate.halt 0.5": lambda: md.Gate(1.0, 0.5),
        "gate.halt 0 eV/Å must be positive": lambda: md.Gate(None, 0),
        "gate.every 0 must": lambda: md.Gate(every=0),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
