"""Settings that are left to the data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write

from equipot import config as configs
from equipot.cli.recipes import find_config
from equipot.data.checks.report import WARNING, Problem, Report
from equipot.data.config import DataConfig
from equipot.data.read import Dataset
from equipot.models.from_data import FromData
from equipot.training import TrainConfig, choices, train
from equipot.training.config import TrainingConfig
from equipot.training.loss import Constant, Huber, Switch
from equipot.training.optimizer import AdamW

pytestmark = pytest.mark.usefixtures("no_plots")


def dataset(sizes, *kinds):
    problems = tuple(Problem(WARNING, kind, "a.xyz", "what", "remedy") for kind in kinds)
    return Dataset([[0] * n for n in sizes], [], [], {14: 0.0}, "fit", Report(problems, ()))


def chosen(training, data, **settings):
    config = TrainConfig(DataConfig(train="a.xyz"), training=TrainingConfig(**training), **settings)
    return choices.choose(config, data, tuning=False)


@pytest.mark.parametrize("size, frames", [(9, 5), (40, 3), (64, 2), (192, 1), (2000, 1)])
def test_batch_holds_as_many_frames_as_make_some_atoms(size, frames):
    found, notes = chosen({"epochs": 1}, dataset([size] * 50))
    assert found.training.batch_size == frames and f"batch_size {frames}" in notes[0]


def test_steps_grow_with_the_labels():
    few, note = chosen({"batch_size": 2}, dataset([33] * 100))
    many, _ = chosen({"batch_size": 2}, dataset([33] * 800))
    # 100 labels a frame; twice the steps for eight times the labels.
    assert few.training.epochs * 50 == pytest.approx(choices.STEPS * 1e4 ** (1 / 3), rel=0.01) and "10000 labels" in note[0]
    assert many.training.epochs * 400 == pytest.approx(2 * few.training.epochs * 50, rel=0.05)
    timed, _ = chosen({"batch_size": 2, "max_minutes": 3.0}, dataset([33] * 100))
    assert timed.training.epochs == pytest.approx(choices.PATIENT * few.training.epochs, rel=0.01)


@pytest.mark.parametrize("kind", choices.UNSOUND)
def test_stress_that_is_no_derivative_is_left_out(kind):
    found, notes = chosen({"epochs": 1, "batch_size": 1}, dataset([2], kind))
    assert found.training.loss["stress"].weight == 0 and kind in notes[0]
    # Written down and read again, it is the same choice.
    again = configs.build(TrainConfig, yaml.safe_load(configs.to_yaml(found)))
    assert again.training.loss["stress"].weight == 0 and again.training.loss["energy"] == found.training.loss["energy"]


def test_stress_stays_where_the_check_is_told_to_go_past_it():
    config = TrainConfig(DataConfig(train="a.xyz", checks={"stress_size": "warn"}), training=TrainingConfig(epochs=1))
    assert choices.choose(config, dataset([2], "stress_size"), tuning=False).config.training.loss["stress"].weight == 1


def test_stress_that_the_config_names_or_that_is_sound_stays():
    named = {"epochs": 1, "batch_size": 1, "loss": {"stress": Huber(weight=0.5)}}
    assert chosen(named, dataset([2], "stress_pressure"))[0].training.loss["stress"].weight == 0.5
    assert chosen({"epochs": 1, "batch_size": 1}, dataset([2], "contradiction"))[0].training.loss["stress"].weight == 1


def test_a_base_is_changed_slowly():
    config = TrainConfig(DataConfig(train="a.xyz"), training=TrainingConfig(epochs=1, batch_size=1))
    first, _ = choices.choose(config, dataset([2]), tuning=False)
    later, notes = choices.choose(config, dataset([2]), tuning=True)
    assert later.training.optimizer.learning_rate < first.training.optimizer.learning_rate / 10 and "forgets" in notes[0]
    # In a few frames the energies are few: their weight does not grow.
    assert (first.training.loss["energy"].schedule, later.training.loss["energy"].schedule) == (Switch(), Constant())
    given = TrainingConfig(epochs=1, batch_size=1, optimizer=AdamW(learning_rate=0.5), loss={"energy": Huber(weight=3.0)})
    kept = choices.choose(dataclasses.replace(config, training=given), dataset([2]), tuning=True).config.training
    assert kept.optimizer.learning_rate == 0.5 and kept.loss["energy"] == Huber(weight=3.0)


def test_an_optimizer_without_a_usual_rate_needs_one():
    class Own(AdamW):
        usual_rate = None

    with pytest.raises(ValueError, match="training.optimizer.learning_rate is missing: Own"):
        chosen({"epochs": 1, "batch_size": 1, "optimizer": Own()}, dataset([2]))


def test_one_element_gets_a_narrower_network():
    one, note = choices.default_model(dataset([64] * 200), FromData())
    several, _ = choices.default_model(dataclasses.replace(dataset([64] * 200), atomic_energies={1: 0.0, 8: 0.0}), FromData())
    assert one.channels < several.channels and f"{one.channels} channels" in note and one.cutoff is None


def test_training_needs_nothing_but_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "STEPS", 4 / 90 ** (1 / 3))
    monkeypatch.setitem(choices.WIDTHS, "several elements", 2)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(10):
        atoms = Atoms("H2O", [[0.8, 0.6, 0], [-0.8, 0.6, 0], [0, 0, 0]] + rng.normal(0, 0.05, (3, 3)))
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -10 + rng.normal(0, 0.1), rng.normal(0, 0.1, (3, 3))
        frames.append(atoms)
    write(tmp_path / "train.xyz", frames)
    config = configs.build(TrainConfig, {"data": {"train": str(tmp_path / "train.xyz")}})
    assert isinstance(config.model, FromData)
    train(config, tmp_path / "run", progress=None)
    written = configs.load(tmp_path / "run" / "config.yaml", TrainConfig)
    assert written.model.channels == 2 and written.training.batch_size == 5 and written.training.epochs == 2
    # What was chosen is chosen again.
    train(config, tmp_path / "run", resume=True, progress=None)
    train(written, tmp_path / "run", resume=True, progress=None)


def test_what_the_config_gives_is_kept():
    given = configs.build(TrainConfig, {"data": {"train": "a.xyz"}}, overrides=["model.channels=7", "model.cutoff=4.5"]).model
    model, note = choices.default_model(dataset([64] * 200), given)
    assert (model.channels, model.cutoff, model.hidden_l) == (7, 4.5, 2) and "7 channels" in note


@pytest.mark.parametrize("recipe, size, elements", [("mace-crystals", 64, (14,)), ("mace-molecules", 9, (1, 6, 8))])
def test_recipes_say_what_is_chosen(recipe, size, elements):
    written = configs.load(find_config(Path(recipe)), TrainConfig)
    data = dataclasses.replace(dataset([size] * 200), atomic_energies=dict.fromkeys(elements, 0.0))
    model, _ = choices.default_model(data, FromData())
    assert written.model.clone(cutoff=None) == model
    chosen_ones, _ = chosen({}, data)
    for name in ("batch_size", "optimizer", "ema", "clip"):
        assert getattr(written.training, name) == getattr(chosen_ones.training, name), name
    assert dict(written.training.loss) == dict(chosen_ones.training.loss)
