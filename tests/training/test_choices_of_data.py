"""Settings that are left to the data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from equipot import config as configs
from equipot.cli.recipes import find_config
from equipot.data.checks.report import WARNING, Problem, Report
from equipot.data.config import DataConfig
from equipot.data.draw import Replayed
from equipot.data.read import Dataset
from equipot.data.stats import LONGEST, typical_cutoff
from equipot.models.from_data import FromData
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure
from equipot.training import TrainConfig, checkpoint, choices, train
from equipot.training.config import TrainingConfig
from equipot.training.loss import Huber, Switch
from equipot.training.optimizer import AdamW

pytestmark = pytest.mark.usefixtures("no_plots")


def dataset(sizes, *kinds, rows=(ENERGY, FORCES)):
    problems = tuple(Problem(WARNING, kind, "a.xyz", "what", "remedy") for kind in kinds)
    labels = lambda n: {row: np.zeros((n, 3)) if row.per == "atom" else 0.0 for row in rows}
    frames = [Structure(np.full(n, 14), np.zeros((n, 3)), labels=labels(n)) for n in sizes]
    return Dataset(frames, [], [], {14: 0.0}, "fit", Report(problems, ()))


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
    assert few.training.epochs * 50 == pytest.approx(choices.STEPS * 1e4 ** (1 / 3), rel=0.01) and "10000 energies" in note[0]
    assert many.training.epochs * 400 == pytest.approx(2 * few.training.epochs * 50, rel=0.05)
    timed, _ = chosen({"batch_size": 2, "max_minutes": 3.0}, dataset([33] * 100))
    assert timed.training.epochs == pytest.approx(choices.PATIENT * few.training.epochs, rel=0.01)


def test_labels_that_are_not_there_do_not_count():
    found, notes = chosen({"batch_size": 2}, dataset([33] * 100, rows=(ENERGY,)))
    assert found.training.epochs * 50 == pytest.approx(choices.STEPS * 100 ** (1 / 3), rel=0.01) and "100 energies" in notes[0]


def test_replayed_frames_count_as_often_as_an_epoch_draws_them():
    config = TrainConfig(DataConfig(train="a.xyz"), training=TrainingConfig(batch_size=2))
    few = choices.choose(config, dataset([33] * 20), tuning=True).config.training.epochs
    many = choices.choose(config, dataset([33] * 1010), tuning=True, replay=Replayed(1000, 10)).config.training.epochs
    assert many == few


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
    assert (first.training.loss["energy"], later.training.loss["energy"]) == (
        Huber(schedule=Switch()),
        Huber(weight=0.1, schedule=Switch()),
    )
    assert "training.loss.energy.weight 0.1, 1 in the last quarter: forces teach more" in notes
    # A run that an earlier version began goes on with what it chose, and nothing is said of what it did not choose.
    begun = {
        "batch_size": 7,
        "epochs": 9,
        "loss": {"energy": {"kind": "Huber", "weight": 1.0, "schedule": {"kind": "Constant"}}},
    }
    on, notes = choices.choose(TrainConfig(DataConfig(train="a.xyz")), dataset([2]), tuning=True, begun=begun)
    assert (on.training.batch_size, on.training.epochs, on.training.loss["energy"]) == (7, 9, Huber())
    assert not any("energy" in note for note in notes)
    given = TrainingConfig(epochs=1, batch_size=1, optimizer=AdamW(learning_rate=0.5), loss={"energy": Huber(weight=3.0)})
    kept = choices.choose(dataclasses.replace(config, training=given), dataset([2]), tuning=True).config.training
    assert kept.optimizer.learning_rate == 0.5 and kept.loss["energy"] == Huber(weight=3.0)


def test_an_optimizer_without_a_usual_rate_needs_one():
    class Own(AdamW):
        usual_rate = None

    with pytest.raises(ValueError, match="training.optimizer.learning_rate is missing: Own"):
        chosen({"epochs": 1, "batch_size": 1, "optimizer": Own()}, dataset([2]))


def of(*structures):
    """A set of real structures."""
    elements = {int(z): 0.0 for s in structures for z in s.numbers}
    return Dataset(list(structures), [], [], elements, "fit", Report((), ()))


CRYSTAL = of(Structure.from_ase(bulk("Cu", cubic=True)))
MOLECULE = of(*(Structure.from_ase(molecule(name)) for name in ("H2O", "CH3CH2OH")))
SALT = bulk("NaCl", "rocksalt", a=4.2, cubic=True)
LIQUID = of(Structure.from_ase(SALT * (3, 3, 2)))


def test_the_network_is_that_for_the_kind_of_data():
    assert [choices.kind_of(data) for data in (CRYSTAL, MOLECULE, LIQUID)] == ["crystal", "molecule", "liquid"]
    # Neither is a small cell, whose steps are cheap, nor a large gas.
    assert choices.kind_of(of(Structure.from_ase(SALT))) == "molecule"
    assert choices.kind_of(of(Structure.from_ase(bulk("NaCl", "rocksalt", a=12.0, cubic=True) * (3, 3, 2)))) == "molecule"
    crystal, molecules, liquid = (choices.default_model(data, FromData()) for data in (CRYSTAL, MOLECULE, LIQUID))
    assert crystal[0].channels < liquid[0].channels < molecules[0].channels and molecules[0].cutoff == LONGEST
    for (model, note), data in ((crystal, CRYSTAL), (liquid, LIQUID)):
        recipe = choices.RECIPES[choices.kind_of(data)]
        assert model.cutoff == typical_cutoff(data.train, recipe.neighbors) < LONGEST
        assert f"{model.channels} channels" in note and f"cutoff {model.cutoff} Å, for {recipe.what}" in note


def test_training_needs_nothing_but_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "STEPS", 4 / 90 ** (1 / 3))
    monkeypatch.setitem(choices.RECIPES, "molecule", dataclasses.replace(choices.RECIPES["molecule"], channels=2))
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
    # What was chosen is chosen again, from the checkpoint that is gone on with, which is read once.
    reads, newest = [], checkpoint.newest
    monkeypatch.setattr(checkpoint, "newest", lambda folder: reads.append(folder) or newest(folder))
    train(config, tmp_path / "run", resume=True, progress=None)
    assert reads == [tmp_path / "run" / "checkpoints"]
    train(written, tmp_path / "run", resume=True, progress=None)


def test_what_the_config_gives_is_kept():
    given = configs.build(TrainConfig, {"data": {"train": "a.xyz"}}, overrides=["model.channels=7", "model.cutoff=4.5"]).model
    model, note = choices.default_model(MOLECULE, given)
    assert (model.channels, model.cutoff, model.hidden_l) == (7, 4.5, 2) and "7 channels" in note


@pytest.mark.parametrize(
    "recipe, size, data", [("mace-crystals", 64, CRYSTAL), ("mace-molecules", 9, MOLECULE), ("mace-liquids", 192, LIQUID)]
)
def test_recipes_say_what_is_chosen(recipe, size, data):
    written = configs.load(find_config(Path(recipe)), TrainConfig)
    model, _ = choices.default_model(data, FromData())
    assert written.model.clone(cutoff=None) == model.clone(cutoff=None)
    chosen_ones, _ = chosen({}, dataset([size] * 200))
    for name in ("batch_size", "optimizer", "ema", "clip"):
        assert getattr(written.training, name) == getattr(chosen_ones.training, name), name
    assert dict(written.training.loss) == dict(chosen_ones.training.loss)


def test_little_time_gets_molecules_a_smaller_network(monkeypatch):
    from equipot.training import affordable

    frames = of(*[Structure.from_ase(molecule("CH3CH2OH"))] * 200)
    limited = TrainingConfig(max_minutes=5.0, batch_size=5)
    model = lambda **more: choices.default_model(frames, FromData(), **{"training": limited, **more})[0]
    channels = lambda found: (found.channels, found.hidden_l)
    monkeypatch.setattr(affordable, "speed", lambda: 1e12)
    assert channels(model()) == (64, 2)
    steps = affordable.affordable_steps(limited, frames.train, 6.0, 64, 2)
    # Ten times slower, a tenth of the steps; two processors, twice as many.
    monkeypatch.setattr(affordable, "speed", lambda: 1e11)
    assert affordable.affordable_steps(limited, frames.train, 6.0, 64, 2) == pytest.approx(steps / 10)
    assert affordable.affordable_steps(limited, frames.train, 6.0, 64, 2, devices=2) == pytest.approx(steps / 5)
    monkeypatch.setattr(affordable, "speed", lambda: 1e9)
    assert channels(model()) == (32, 1)
    # Neither without a limit, nor on an accelerator, nor in a run that began otherwise, nor where the config says a size.
    assert channels(model(training=dataclasses.replace(limited, max_minutes=None))) == (64, 2)
    assert channels(model(devices=None)) == (64, 2)
    assert channels(model(begun={"channels": 64, "hidden_l": 2})) == (64, 2)
    given = choices.default_model(frames, FromData(channels=48), limited)[0]
    assert channels(given) == (48, 1)


def test_the_network_that_a_run_began_with_is_found_in_sums():
    network = {"kind": "MACE", "channels": 7, "hidden_l": 1}
    sums = ([{"kind": "ZBL"}, network], {"kind": "Sum", "terms": [network]})
    for model in (network, {"kind": "Guarded", "base": network}, *sums):
        assert choices.network_in(model) == network
    assert choices.network_in(None) == {} == choices.network_in([{"kind": "ZBL"}])


def test_the_speed_of_a_processor_is_measured():
    from equipot.training.affordable import speed

    assert speed() > 0
