"""The gate of a run: what it records, where it stops, and that a run with a gate goes on exactly."""

from __future__ import annotations

import dataclasses
import io

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
    for gate in (md.Gate(None, 1e-9), md.Gate(novelty=1e-9)):
        with pytest.raises(md.Halted, match="step 0: .*does not know this structure"):
            md.simulate(known, water(0, 0.02), config(gate=gate), tmp_path / "never", progress=None)
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
        assert np.isnan(one["particles/trajectory/observables/novelty/value"][:]).all()
        np.testing.assert_array_equal(one[series][:], two[series][:])
        # Frames at 50, 150, ... are between two checks.
        assert np.isnan(one[series][:]).all(axis=1).tolist() == [False, True] * 4 + [False]


def hot(gate, **changes):
    """A config of a run that leaves what the potential knows."""
    changes = {"temperature_K": 150.0, "chunk_steps": 40, "trajectory": md.ExtXYZ(every=20), "steps": 200} | changes
    return config(gate=gate, **changes)


def columns(folder):
    return log.read(folder / "log.csv")


@pytest.fixture(scope="module")
def watched(known, tmp_path_factory):
    """Folder of a run of which every step is kept, and the novelty of every step."""
    out = tmp_path_factory.mktemp("watched") / "run"
    run = hot(md.Gate(record_novelty=1e-6), log_every=1, trajectory=md.ExtXYZ(every=1))
    md.simulate(known, water(0, 0.02), run, out, progress=None)
    frames = ase.io.read(out / "trajectory.xyz", ":")
    found = equipot.evaluate_each(known.astype("float64"), frames, want=("novelty",))
    return out, np.array([np.max(x.others["novelty"]) for x in found])


@pytest.fixture(scope="module")
def limit(watched):
    """A novelty that is first reached between two lines of the log, and not in the first chunk."""
    highest = np.maximum.accumulate(watched[1])
    step = next(k for k in range(81, 200) if highest[k] > highest[k - 1] and k % 10)
    return float(0.5 * (highest[step] + highest[step - 1])), step


def test_novelty_is_seen_in_every_step(known, watched, limit, tmp_path):
    folder, novelty = watched
    every = columns(folder)["max_novelty"]
    np.testing.assert_allclose(every, novelty, rtol=1e-5)
    # No deviations are calibrated, and none are needed.
    bare = known.replace(posterior=known.posterior.replace(calibrations={}))
    value, step = limit
    with pytest.raises(
        md.Halted, match=rf"step {step}: the environment of atom \d has a novelty of .*gate.novelty is {value:g}"
    ):
        md.simulate(bare, water(0, 0.02), hot(md.Gate(novelty=value)), tmp_path / "run", progress=None)
    table = columns(tmp_path / "run")
    assert table["step"].tolist() == [*range(0, step, 10), step] and np.isnan(table["max_forces_std_eV_A"]).all()
    largest = [novelty[0], *(novelty[k + 1 : k + 11].max() for k in range(0, step - 10, 10)), novelty[step]]
    np.testing.assert_allclose(table["max_novelty"], largest, rtol=1e-5)
    (last,) = ase.io.read(tmp_path / "run" / "recorded.xyz", ":")
    there = ase.io.read(folder / "trajectory.xyz", step)
    assert last.info["step"] == there.info["step"] == step and last.arrays["novelty"].max() >= value
    np.testing.assert_allclose(last.positions, there.positions, atol=1e-7)
    assert last.get_potential_energy() == pytest.approx(there.get_potential_energy(), abs=1e-6)
    frames = ase.io.read(tmp_path / "run" / "trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [*range(0, step, 20)]


def test_the_newest_frame_between_two_lines_is_recorded(known, watched, tmp_path):
    _, novelty = watched
    least = float(np.quantile(novelty, 0.7))
    gate = md.Gate(record=1e-6, every=20, record_novelty=least)
    md.simulate(known, water(0, 0.02), hot(gate), tmp_path / "run", progress=None)
    recorded = ase.io.read(tmp_path / "run" / "recorded.xyz", ":")
    newest = {k + 1 + int(np.argmax(novelty[k + 1 : k + 11])) for k in range(0, 200, 10)}
    steps = {*range(0, 201, 20), *(k for k in newest if novelty[k] >= least)}
    assert len(steps) > 12 and [frame.info["step"] for frame in recorded] == sorted(steps)
    for frame in recorded:
        assert frame.arrays["novelty"].max() == pytest.approx(novelty[frame.info["step"]], rel=1e-5)


FILES = ("log.csv", "recorded.xyz", "trajectory.xyz", "config.yaml")


@pytest.mark.parametrize("of", ["novelty", "forces"])
def test_a_halted_run_goes_on_with_another_gate(of, known, limit, tmp_path):
    """Bit for bit as with that gate from the start; with the same gate it halts again, and it goes on without any."""
    if of == "novelty":
        low, high = (md.Gate(novelty=x * limit[0], record_novelty=0.8 * limit[0]) for x in (1.0, 1e3))
    else:
        md.simulate(known, water(0, 0.02), hot(md.Gate(every=20)), tmp_path / "free", progress=None)
        seen = columns(tmp_path / "free")["max_forces_std_eV_A"]
        low, high = (md.Gate(record=1e-6, halt=float(x * np.nanmax(seen)), every=20) for x in (0.99, 1e3))
    run = lambda folder, gate, **how: md.simulate(
        known, water(0, 0.02), hot(gate), tmp_path / folder, **{"progress": None} | how
    )
    contents = lambda folder: {name: (tmp_path / folder / name).read_bytes() for name in FILES}
    run("whole", high)
    with pytest.raises(md.Halted) as first:
        run("cut", low)
    before = contents("cut")
    with pytest.raises(md.Halted) as again:
        run("cut", low, resume=True)
    assert str(again.value) == str(first.value) and contents("cut") == before
    run("cut", high, resume=True)
    assert contents("cut") == contents("whole") != before
    with pytest.raises(md.Halted):
        run("none", low)
    recorded = (tmp_path / "none" / "recorded.xyz").read_bytes()
    other = uncertainty.with_statistics(known, known.posterior.statistics, uncertainty.FeatureNorm(), "others")
    other = other.replace(posterior=other.posterior.replace(calibrations=known.posterior.calibrations))
    with pytest.raises(ValueError, match="another estimate of uncertainty"):
        md.simulate(other, water(0, 0.02), hot(high), tmp_path / "none", resume=True, progress=None)
    run("none", None, resume=True)
    kept, whole = columns(tmp_path / "none"), columns(tmp_path / "whole")
    assert kept.keys() == whole.keys() and kept["step"].tolist() == whole["step"].tolist()
    np.testing.assert_allclose(kept["potential_eV"], whole["potential_eV"], atol=1e-6)
    assert np.isnan(kept["max_novelty"][-3:]).all()
    assert (tmp_path / "none" / "recorded.xyz").read_bytes() == recorded


@pytest.mark.parametrize("trajectory", [md.ExtXYZ(every=20), md.H5MD(every=20)], ids=lambda x: type(x).__name__)
def test_files_keep_the_columns_that_they_began_with(trajectory, known, tmp_path):
    run = lambda gate, steps, **how: md.simulate(
        known, water(0, 0.02), hot(gate, steps=steps, trajectory=trajectory), tmp_path / "run", **{"progress": None} | how
    )
    told = io.StringIO()
    run(None, 80)
    run(md.Gate(record_novelty=1e-6), 200, resume=True, progress=told)
    assert "began without a gate" in told.getvalue()
    table = columns(tmp_path / "run")
    assert "max_novelty" not in table and len(table["step"]) == 21
    assert len(ase.io.read(tmp_path / "run" / "recorded.xyz", ":")) == 12
    if isinstance(trajectory, md.H5MD):
        with h5py.File(tmp_path / "run" / "trajectory.h5") as file:
            group = file["particles/trajectory"]
            assert list(group["observables"]) == ["potential_energy"] and len(group["position/step"]) == 11


def test_gates_that_cannot_be_are_refused(known, tmp_path):
    bare = known.replace(posterior=None)
    cases = {
        "gate: the potential has no estimate of its uncertainty": lambda: md.simulate(bare, water(0, 0.02), config(), tmp_path),
        r"gate.every \(25\) must be a multiple of log_every": lambda: config(gate=md.Gate(every=25)),
        "gate: the potential has no estimate of its uncertainty, and so no novelty": lambda: md.simulate(
            bare, water(0, 0.02), config(gate=md.Gate(novelty=3.0)), tmp_path
        ),
        "gate has no limits": lambda: md.Gate(),
        "gate.record 1.0 eV/Å is above gate.halt 0.5": lambda: md.Gate(1.0, 0.5),
        "gate.record_novelty 4.0 is above gate.novelty 3.0": lambda: md.Gate(novelty=3.0, record_novelty=4.0),
        "gate.novelty inf must be positive": lambda: md.Gate(novelty=np.inf),
        "gate.halt 0 eV/Å must be positive": lambda: md.Gate(None, 0),
        "gate.every 0 must": lambda: md.Gate(every=0),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
