"""Whole runs with a tiny potential: killed, resumed, spread over devices, and everything that may go wrong."""

import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from equipot import eqp
from equipot.artifact import named_leaves
from equipot.data.config import DataConfig
from equipot.data.stats import typical_cutoff
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Gaussian, Radial
from equipot.physics.zbl import ZBL
from equipot.training import TrainConfig, checkpoint, loop
from equipot.training.config import Checkpoints, TrainingConfig
from equipot.training.loop import NotFiniteError
from equipot.training.loss import MSE, Ramp, Switch
from equipot.training.optimizer import AdamW, Muon
from equipot.training.schedule import Cosine, Plateau

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("compile_once")


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "elapsed"} for row in found]


def final(out):
    """Arrays of the last checkpoint, and those of the best potential."""
    return checkpoint.newest(out / "checkpoints").arrays, named_leaves(eqp.load(out / "best.eqp").variables)


def assert_same_run(one, other):
    for arrays, expected in zip(final(one), final(other), strict=True):
        assert arrays.keys() == expected.keys()
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], expected[name], name)
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_once):
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("whole") / "run"
    stream = io.StringIO()
    tiny.run(out, progress=stream)
    return out, stream.getvalue()


def test_a_cutoff_left_out_is_chosen_and_written_down(tmp_path):
    best = tiny.run(tmp_path / "run", {"epochs": 1}, model=tiny.Tiny())
    chosen = typical_cutoff(tiny.dataset().train)
    assert eqp.load(best).cutoff == chosen
    assert f"cutoff: {chosen}" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_run_learns_and_leaves_its_folder(whole):
    out, said = whole
    found = rows(out)
    assert [row["epoch"] for row in found] == list(range(1, 7)) and found[-1]["step"] == 18
    # The loss has other weights in the last quarter.
    assert found[-1]["train_forces_mae"] < found[0]["train_forces_mae"]
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "best.eqp", "report.md", "learning.png", "train.html"} <= set(
        os.listdir(out)
    )
    potential = eqp.load(out / "best.eqp")
    assert potential.elements == (1, 8) and dict(potential.metadata.atomic_energies) == tiny.ENERGIES
    assert "meV/atom" in said and "energy per atom" in (out / "report.md").read_text()
    assert json.loads((out / "errors.json").read_text())["test"]["frames"] == 3


def start(out, cache, mode, devices=1):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "tiny.py"), str(out), str(devices), mode]
    # A file, not a pipe: one that nobody reads while a test waits would fill up and stop the run.
    with open(log(out), "wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def log(out):
    return out.with_name(f"{out.name}.log")


def finish(process, out):
    """What a run said, once it has ended well."""
    process.wait(timeout=300)
    said = log(out).read_text()
    assert process.returncode == 0, said
    return said


def test_killed_and_resumed_is_not_killed(whole, cache, tmp_path):
    out = tmp_path / "run"
    for mode, steps in (("new", 4), ("resume", 11)):
        process, deadline = start(out, cache, mode), time.monotonic() + 300
        reached = lambda limit: any(int(p.stem[5:]) >= limit for p in checkpoint.paths(out / "checkpoints"))
        while process.poll() is None and not reached(steps) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, log(out).read_text()
    assert "resumed from" in finish(start(out, cache, "resume"), out)
    assert_same_run(out, whole[0])


def test_killed_before_its_last_epoch_is_closed(whole, tmp_path, monkeypatch):
    out, close = tmp_path / "run", loop.close_epoch

    def killed(run, state, cursor, validation):
        if cursor.epoch == 5:
            raise SystemExit
        return close(run, state, cursor, validation)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "close_epoch", killed)
        with pytest.raises(SystemExit):
            tiny.run(out)
    assert len(rows(out)) == 5
    tiny.run(out, resume=True)
    assert_same_run(out, whole[0])
    assert (out / "report.md").read_text().count("of the last step") == 1


def test_two_devices_train_as_one(whole, cache, tmp_path):
    assert "2 cpu device" in finish(start(tmp_path / "two", cache, "new", 2), tmp_path / "two")
    for row, expected in zip(rows(tmp_path / "two"), rows(whole[0]), strict=True):
        for key in row:
            np.testing.assert_allclose(row[key], expected[key], rtol=2e-4, err_msg=key)
    arrays, expected = final(tmp_path / "two")[0], final(whole[0])[0]
    for name in arrays:
        np.testing.assert_allclose(arrays[name], expected[name], rtol=2e-3, atol=1e-5, err_msg=name)


def test_time_limit_stops_cleanly_and_resumes_exactly(whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    best = tiny.run(out, {"max_minutes": 1e-9})
    assert best.exists() and len(checkpoint.paths(out / "checkpoints")) == 1
    assert "stopped by training.max_minutes" in (out / "report.md").read_text()
    tiny.run(out, {"max_minutes": None}, resume=True)
    assert_same_run(out, whole[0])


def test_ctrl_c_leaves_a_state_to_resume_from(whole, tmp_path, monkeypatch):
    from equipot.training import loop

    out, add_report = tmp_path / "run", loop.add_report

    def interrupted(run, state, cursor, *rest):
        if cursor.epoch == 2 and not (out / "pressed").exists():
            (out / "pressed").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return add_report(run, state, cursor, *rest)

    monkeypatch.setattr(loop, "add_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(out, {"checkpoint": {"seconds": 1e9}})
    tiny.run(out, {"checkpoint": {"seconds": 1e9}}, resume=True)
    assert_same_run(out, whole[0])


def test_composed_batches_resume_exactly_within_an_epoch(tmp_path, monkeypatch):
    from equipot.training import loop

    frames, settings = tiny.structures(30, 5, (2, 8)), {"epochs": 3, "checkpoint": {"seconds": 1e9}}
    tiny.run(tmp_path / "whole", settings, train=frames)
    out, add_report = tmp_path / "run", loop.add_report

    def interrupted(run, state, cursor, *rest):
        if (cursor.epoch, cursor.batch) == (1, 3) and not (out / "pressed").exists():
            (out / "pressed").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return add_report(run, state, cursor, *rest)

    monkeypatch.setattr(loop, "add_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(out, settings, train=frames)
    tiny.run(out, settings, resume=True, train=frames)
    assert_same_run(out, tmp_path / "whole")


def test_resume_refuses_another_config_or_other_data(whole, tmp_path):
    out = whole[0]
    with pytest.raises(ValueError, match="training.clip: 10.0 -> 3.0"):
        tiny.run(out, {"clip": 3.0}, resume=True)
    other = tiny.dataset().train
    other[3] = other[3].replace(energy=other[3].energy + 1e-3)
    with pytest.raises(ValueError, match=r"train set \(SHA-256\)"):
        tiny.run(out, resume=True, train=other)
    with pytest.raises(ValueError, match="holds a run already"):
        tiny.run(out)


def test_frames_that_make_the_loss_infinite_are_named(tmp_path):
    train = tiny.dataset().train
    forces = train[7].forces.copy()
    forces[1, 2] = np.nan
    train[7] = train[7].replace(forces=forces)
    with pytest.raises(NotFiniteError, match=r"not finite at epoch 1.*made, frame 7 \(number 7 of its set\) alone") as caught:
        tiny.run(tmp_path / "run", train=train)
    assert "frame 6" not in str(caught.value)
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    arrays, record = found.arrays, found.record
    assert all(np.isfinite(a).all() for a in arrays.values()) and arrays[".ok"]
    assert record["cursor"]["batch"] == arrays[".step"] < 3


def test_a_bad_validation_frame_is_named(tmp_path, monkeypatch):
    good = tiny.dataset
    bad = tiny.structures(4, 1, (4, 4))
    bad[2] = bad[2].replace(energy=np.inf)
    monkeypatch.setattr(tiny, "dataset", lambda train=None: dataclasses.replace(good(train), valid=bad))
    with pytest.raises(NotFiniteError, match=r"validation.*frame 2 \(number 2 of its set\) alone"):
        tiny.run(tmp_path / "run")


def test_divergence_is_told_from_a_bad_frame(tmp_path):
    with pytest.raises(NotFiniteError, match="no single frame.*learning_rate"):
        tiny.run(tmp_path / "run", {"optimizer": {"learning_rate": 1e38}, "clip": None})


def test_a_full_disk_ends_in_one_line_and_can_be_resumed(whole, tmp_path, monkeypatch):
    out, calls, fsync = tmp_path / "run", [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 25:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="make room, then use --resume"):
        tiny.run(out)
    tiny.run(out, resume=True)
    assert_same_run(out, whole[0])


def test_a_model_without_parameters_is_refused(tmp_path):
    with pytest.raises(ValueError, match="model: ZBL has no parameters, so that nothing can be trained"):
        tiny.run(tmp_path / "run", model=ZBL(cutoff=3.5))


def test_early_stop(tmp_path):
    from equipot.training.config import TrainingConfig

    tiny.run(tmp_path / "run", {"optimizer": {"learning_rate": 1e-30}, "ema": None, "patience": 2, "epochs": 50})
    found = rows(tmp_path / "run")
    losses = [row["valid_loss"] for row in found]
    assert min(losses[-2:]) >= losses[-3] and len(found) < 50
    assert "no improvement" in (tmp_path / "run" / "report.md").read_text()
    with pytest.raises(ValueError, match="ema"):
        TrainingConfig(ema=1.0)


def test_a_missing_logger_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"equipot\[tensorboard\]"):
        tiny.run(tmp_path / "run", {"logger": {"kind": "TensorBoard"}})


def test_tensorboard_gets_every_figure(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path / "run" / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    tiny.run(tmp_path / "run", {"logger": {"kind": "TensorBoard"}, "epochs": 1})
    (row,) = rows(tmp_path / "run")
    assert {name: value for name, value, step in written if name != "elapsed" and step == 1} == {
        name: value for name, value in row.items() if name != "epoch"
    }


def test_a_bar_on_a_terminal(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    tiny.run(tmp_path / "run", progress=stream)
    said = stream.getvalue()
    assert "18/18" in said and "meV/atom" in said and "meV/Å" in said and "report.md" in said


def test_from_files_of_every_kind_to_a_potential(tmp_path):
    """The real reader: extended XYZ for training, HDF5 read frame by frame for validation."""
    pytest.importorskip("h5py")
    import ase.io

    from equipot.data.config import DataConfig
    from equipot.data.hdf5 import write_hdf5
    from equipot.training import TrainConfig, evaluate_set, train
    from equipot.training.config import TrainingConfig

    ase.io.write(tmp_path / "train.xyz", [s.to_ase() for s in tiny.structures(12, 0, (4, 4))])
    write_hdf5(tmp_path / "valid.h5", tiny.structures(5, 1, (3, 4)))
    energies = {"H": tiny.ENERGIES[1], "O": tiny.ENERGIES[8]}
    data = DataConfig(train=str(tmp_path / "train.xyz"), valid=str(tmp_path / "valid.h5"), atomic_energies=energies)
    config = TrainConfig(data, tiny.Tiny(3.5), TrainingConfig(epochs=2, batch_size=4), dtype="float64")
    best = train(config, tmp_path / "run", progress=None)
    potential = eqp.load(best)
    assert potential.dtype == np.float64
    table, _ = evaluate_set(potential, tiny.structures(5, 1, (3, 4)))
    row = rows(tmp_path / "run")[-1]
    for key in ("forces_mae", "forces_rmse", "energy_mae_per_atom", "stress_mae"):
        np.testing.assert_allclose(table[key], row[f"valid_{key}"], rtol=1e-9)


def test_more_devices_than_there_are(tmp_path):
    with pytest.raises(ValueError, match="training.devices 99"):
        tiny.run(tmp_path / "run", {"devices": 99})
    assert jax.local_device_count() < 99


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: TrainingConfig(patience=0), "patience 0 must be at least 1"),
        (lambda: TrainingConfig(devices=-1), "devices -1 must be at least 1"),
        (lambda: TrainingConfig(max_minutes=-1), "max_minutes -1 must be positive"),
        (lambda: Cosine(warmup=5), "warmup 5 must lie between 0 and 1"),
        (lambda: MSE(weight=float("nan")), "weight nan must be"),
        (lambda: Muon(learning_rate=float("inf")), "learning_rate inf must be"),
        (lambda: MACE(5.0, channels=0), "channels 0 must be at least 1"),
        (lambda: MACE(5.0, correlation=0), "correlation .0, 0. must be one number or one for each of 2 layers, 1 or more"),
        (lambda: NequIP(5.0, layers=0), "layers 0 must be at least 1"),
        (lambda: Radial(mlp=(0,)), "every width in mlp"),
        (lambda: TrainConfig(DataConfig("x"), MACE(5.0), seed=-1), "seed -1 must be from 0 to"),
        (lambda: TrainConfig(DataConfig("x"), MACE(5.0), seed=2**64), "seed 18446744073709551616 must be"),
        (lambda: MACE(5.0, elements=(1, 200)), "elements: 200 is not an atomic number"),
        (lambda: NequIP(5.0, elements=(1, 6, 6)), "has one of them twice"),
        (lambda: Radial(Gaussian(1)), "n is 1, but the width of a Gaussian"),
        (lambda: Cosine(final=-1), "final -1 must lie between 0 and 1"),
        (lambda: Plateau(final=2), "final 2 must lie between 0 and 1"),
        (lambda: Switch(at=75), "at 75 must lie between 0 and 1"),
        (lambda: Switch(factor=-10), "factor -10 must be 0 or a positive"),
        (lambda: Ramp(stop=50), "must lie between 0 and 1"),
        (lambda: AdamW(beta1=1.5), "beta1 1.5 must lie between 0 and 1"),
        (lambda: MSE(scale=float("inf")), "scale inf must be positive and finite"),
        (lambda: Checkpoints(seconds=-1), "seconds -1 must be 0 or"),
        (lambda: DataConfig("x", min_distance=float("nan")), "min_distance = nan must be a number"),
        (lambda: DataConfig("x", max_force=float("nan")), "max_force = nan must be a number"),
    ],
)
def test_numbers_that_make_no_sense_are_named_before_anything_starts(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
