"""What goes wrong for users ends in one clear line, the right exit code, and leaves nothing broken."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from flax import linen as nn

from equipot import cli, eqp
from equipot.metadata import Metadata
from equipot.potential import Potential
from equipot.term import Atomic, Term


class Bumps(Term):
    """A repulsive pair term with one parameter: it compiles at once."""

    @nn.compact
    def __call__(self, graph, vectors):
        height = self.param("height", nn.initializers.constant(0.3), ())
        x = jnp.sum(vectors**2, axis=-1) / self.cutoff**2
        return Atomic(energy=height * jnp.sum(jnp.where(graph.slot_mask & (x < 1), (1 - jnp.minimum(x, 1)) ** 3, 0.0), axis=-1))


MODEL = f"{__name__}:Bumps"
CONFIG = f"""\
data:
  train: train.xyz
  valid: 2
  atomic_energies: {{Ar: 0.0}}
model:
  kind: {MODEL}
  cutoff: 5.0
training:
  epochs: 2
  batch_size: 4
  devices: 1
"""
MD = """\
model: model.eqp
structure: start.xyz
ensemble: NVE
steps: 40
log_every: 1
trajectory: {kind: ExtXYZ, every: 1}
"""


def frame(rng: np.random.Generator, **labels) -> Atoms:
    atoms = Atoms("Ar3", [[0, 0, 0], [3.7, 0, 0], [0, 3.8, 0]] + 0.1 * rng.normal(size=(3, 3)), cell=[9, 9, 9], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, **{"energy": 0.1, "forces": 0.01 * rng.normal(size=(3, 3))} | labels)
    return atoms


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A place with everything that a run needs, and nothing wrong with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    monkeypatch.delenv("EQUIPOT_DEBUG", raising=False)
    rng = np.random.default_rng(0)
    frames = [frame(rng) for _ in range(10)]
    write("train.xyz", frames)
    write("start.xyz", frames[0])
    Path("c.yaml").write_text(CONFIG)
    Path("md.yaml").write_text(MD)
    variables = {"params": {"height": jnp.float32(0.3)}}
    eqp.save(Potential(Bumps(5.0), variables, Metadata(atomic_energies=((18, 0.0),))), "model.eqp")
    return tmp_path


def complaint(capsys, *argv: str, code: int = 2) -> str:
    """The one line that a command ends in."""
    assert cli.main(argv) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("equipot: error: "), lines
    return lines[0].removeprefix("equipot: error: ")


def write_frames(*frames: Atoms) -> None:
    write("train.xyz", [frame(np.random.default_rng(k)) for k in range(9)] + list(frames))


def test_unknown_key(capsys):
    Path("c.yaml").write_text(CONFIG.replace("cutoff", "cutof"))
    assert complaint(capsys, "train", "c.yaml") == "c.yaml:7: model.cutof: Bumps has no such field; did you mean `cutoff`?"
    Path("c.yaml").write_text(CONFIG)
    message = "--set training.epoch: training.epoch: TrainingConfig has no such field; did you mean `epochs`?"
    assert complaint(capsys, "train", "c.yaml", "--set", "training.epoch=3") == message
    assert not Path("runs").exists()


def test_type_error(capsys):
    Path("c.yaml").write_text(CONFIG.replace("epochs: 2", "epochs: ten"))
    assert complaint(capsys, "train", "c.yaml") == "c.yaml:9: training.epochs: expected int, got 'ten'"


def test_value_that_makes_no_sense(capsys):
    message = complaint(capsys, "train", "c.yaml", "--set", "training.epochs=0")
    assert message == "--set training.epochs: training: epochs 0 must be at least 1"


@pytest.mark.parametrize("argv", [["evaluate", "model.eqp", "train.xyz"], ["data", "train.xyz"]], ids=" ".join)
def test_settings_that_would_do_nothing(capsys, argv):
    assert "Reading has no such field" in complaint(capsys, *argv, "--set", "limit=2")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "c.yaml", "--set", "data.train=nowhere.xyz"], "nowhere.xyz"),
        (["evaluate", "nowhere.eqp", "train.xyz"], "nowhere.eqp"),
        (["evaluate", "model.eqp", "nowhere.xyz"], "nowhere.xyz"),
        (["data", "nowhere.xyz"], "nowhere.xyz"),
        (["doctor", "nowhere.eqp"], "nowhere.eqp"),
        (["doctor", "model.eqp", "nowhere.xyz"], "nowhere.xyz"),
        (["md", "md.yaml", "--set", "model=nowhere.eqp"], "nowhere.eqp"),
        (["md", "md.yaml", "--set", "structure=nowhere.xyz"], "nowhere.xyz"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_missing_file(capsys, argv, name):
    message = complaint(capsys, *argv)
    assert name in message and "no such file" in message.lower()


def test_extxyz_cut_in_the_middle(capsys):
    text = Path("train.xyz").read_text()
    Path("train.xyz").write_text(text[: int(0.75 * len(text))])
    for argv in (["train", "c.yaml"], ["data", "train.xyz"], ["evaluate", "model.eqp", "train.xyz"]):
        message = complaint(capsys, *argv)
        assert "train.xyz" in message and "frame 7" in message


def test_nan_labels(capsys):
    write_frames(frame(np.random.default_rng(9), energy=np.nan))
    message = complaint(capsys, "train", "c.yaml")
    assert "train.xyz, frame 9: energy holds NaN" in message
    assert not Path("runs/c/best.eqp").exists()


def test_unknown_element(capsys):
    atoms = frame(np.random.default_rng(0))
    atoms.symbols[0] = "Kr"
    write("start.xyz", atoms)
    for argv in (["evaluate", "model.eqp", "start.xyz"], ["md", "md.yaml"], ["doctor", "model.eqp", "start.xyz"]):
        message = complaint(capsys, *argv)
        assert "start.xyz" in message and "does not know Kr" in message and "Ar" in message


def test_elements_that_a_doctor_cannot_examine(capsys):
    message = complaint(capsys, "doctor", "model.eqp", "--elements", "Ar,Kr")
    assert message == "elements: the potential does not know Kr; it was trained on Ar"
    message = complaint(capsys, "doctor", "model.eqp", "--elements", "Ar;Kr")
    assert message == "--elements Ar;Kr: 'Ar;Kr' is no element; give symbols with commas between, such as Si,O"
    assert "is not one frame" in complaint(capsys, "doctor", "model.eqp", "train.xyz@:")


def test_cell_without_volume(capsys):
    flat = frame(np.random.default_rng(9))
    flat.set_cell([9, 9, 0])
    write_frames(flat)
    assert "train.xyz, frame 9" in complaint(capsys, "train", "c.yaml")
    write("start.xyz", flat)
    for argv in (["evaluate", "model.eqp", "start.xyz"], ["md", "md.yaml"], ["doctor", "model.eqp", "start.xyz"]):
        message = complaint(capsys, *argv)
        assert "cell" in message and "no volume" in message


def test_two_atoms_at_the_same_place(capsys):
    twins = frame(np.random.default_rng(9))
    twins.positions[1] = twins.positions[0]
    write_frames(twins)
    assert "train.xyz, frame 9: atoms 0 (Ar) and 1 (Ar) are at the same place" in complaint(capsys, "train", "c.yaml")
    write("start.xyz", twins)
    for argv in (["md", "md.yaml"], ["doctor", "model.eqp", "start.xyz"]):
        assert "atoms 0" in complaint(capsys, *argv)


@pytest.mark.parametrize("damage", ["cut", "one byte", "empty", "text"])
def test_damaged_potential(capsys, damage):
    content = bytearray(Path("model.eqp").read_bytes())
    content[-1] ^= 1
    damaged = {"cut": content[:-3], "one byte": content, "empty": b"", "text": b"hello"}[damage]
    Path("model.eqp").write_bytes(damaged)
    for argv in (["evaluate", "model.eqp", "train.xyz"], ["md", "md.yaml"]):
        assert "model.eqp" in complaint(capsys, *argv)


def test_results_that_could_not_be_written(capsys):
    """Said before the evaluation, not after it."""
    Path("there").mkdir()
    assert "there" in complaint(capsys, "evaluate", "model.eqp", "nowhere.xyz", "--json", "there")
    Path("taken").write_text("")
    assert "taken" in complaint(capsys, "evaluate", "model.eqp", "nowhere.xyz", "--out", "taken/pictures")


@pytest.mark.parametrize("setting", ["training.patience=3", "training.schedule=Plateau"])
def test_nothing_to_wait_for(capsys, setting):
    message = complaint(capsys, "train", "c.yaml", "--set", "data.valid=0", "--set", setting)
    assert "no validation frames; set data.valid" in message
    assert not Path("runs/c/best.eqp").exists()


def test_full_disk_and_resume(capsys, monkeypatch):
    Path("c.yaml").write_text(CONFIG + "  checkpoint: {seconds: 0}\n")
    assert cli.main(["train", "c.yaml", "--out", "uncut"]) == 0
    capsys.readouterr()

    real, room = os.fsync, [12]

    def fsync(descriptor: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    message = complaint(capsys, "train", "c.yaml", "--out", "cut")
    assert "No space left on device" in message and "--resume" in message
    assert not list(Path("cut").rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)

    assert "holds a run already; continue it with --resume" in complaint(capsys, "train", "c.yaml", "--out", "cut")
    assert cli.main(["train", "c.yaml", "--out", "cut", "--resume"]) == 0
    cut, uncut = (eqp.load(f"{run}/best.eqp").variables["params"]["height"] for run in ("cut", "uncut"))
    assert cut == uncut != 0.3


def test_a_run_that_succeeds(capsys):
    assert cli.main(["train", "c.yaml"]) == 0
    assert "potential: runs/c/best.eqp" in capsys.readouterr().out
    argv = ["evaluate", "runs/c/best.eqp", "train.xyz", "--json", "deep/e.json", "--out", "pictures"]
    assert cli.main(argv) == 0
    assert "meV/atom" in capsys.readouterr().out
    table = json.loads(Path("deep/e.json").read_text())
    assert table["frames"] == 10 and table["forces_mae"] > 0 and table["energy_mae_per_atom"] >= 0
    assert len(read("pictures/predictions.xyz", ":")) == 10 and Path("pictures/parity.png").stat().st_size > 1000
    assert "forces, by component: MAE" in Path("pictures/evaluate.html").read_text()


def test_summary_of_data(capsys):
    assert cli.main(["data", "train.xyz"]) == 0
    out = capsys.readouterr().out
    assert "10 frames of 3 atoms (Ar)" in out and "eV/Å, standard deviation" in out and "level of theory" not in out
    for level, said in (("PBE", "without dispersion"), ("PBE-D3(BJ)", "with D3")):
        assert cli.main(["data", "train.xyz", "--set", f"level_of_theory={level}"]) == 0
        assert f"level of theory: {level}, {said}" in capsys.readouterr().out
    write_frames(frame(np.random.default_rng(9), energy=np.nan))
    assert cli.main(["data", "train.xyz"]) == 2
    captured = capsys.readouterr()
    assert "train.xyz, frame 9: energy holds NaN" in captured.out
    assert captured.err == "equipot: error: training would refuse these data, because of the 1 error(s) above\n"


def test_exploding_time_step(capsys):
    message = complaint(capsys, "md", "md.yaml", "--set", "timestep_fs=20", "--set", "temperature_K=1e5", code=1)
    assert "step" in message
    assert len(read("runs/md/trajectory.xyz", ":")) >= 1


def test_training_that_diverges(capsys):
    settings = ["--set", "training.optimizer.learning_rate=1e38", "--set", "training.clip=null"]
    message = complaint(capsys, "train", "c.yaml", *settings, code=1)
    assert "not finite" in message and "lower training.optimizer.learning_rate" in message
