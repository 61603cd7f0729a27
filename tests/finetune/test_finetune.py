"""Fine-tuning: what is frozen stays, what starts at the base starts there exactly, and another level of theory is found."""

import functools
import io
import json
import shutil

import jax
import numpy as np
import pytest
import synthetic_dispersion
import tiny
from flax.traverse_util import flatten_dict
from tuning import SHIFTS, labelled, shifted, tune, write

from equipot import config, eqp
from equipot.config import ConfigError
from equipot.data.batch import pad
from equipot.data.read import read
from equipot.evaluation import evaluate
from equipot.finetune.elements import extend, species_axes
from equipot.finetune.trainable import trainable
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.physics import dispersion
from equipot.physics.dispersion import D3, correction
from equipot.structure import Structure
from equipot.training import TrainConfig, checkpoint
from equipot.training.config import Adapters, FineTune
from equipot.training.errors import evaluate_set, predict
from equipot.training.merge import merge
from equipot.training.step import with_params

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")
flat = functools.partial(flatten_dict, sep="/")


@pytest.fixture(scope="module")
def base(tmp_path_factory, compile_once):
    """A potential that has been trained a little."""
    return tiny.run(tmp_path_factory.mktemp("base") / "run", {"epochs": 2})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Training and validation frames, every one of four atoms."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "train": write(folder / "train.xyz", tiny.structures(12, 5, (4, 4))),
        "valid": write(folder / "valid.xyz", tiny.structures(4, 6, (4, 4))),
    }


def params(path):
    return flat(eqp.load(path).variables["params"])


def moved(path, base):
    """Paths of the parameters that are not those of the base, bit by bit."""
    before, after = params(base), params(path)
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


# What is trained


@pytest.mark.parametrize("optimizer", ["Muon", "AMSGrad"])
def test_named_parts_are_trained_and_the_rest_is_frozen(base, files, tmp_path, optimizer):
    stream = io.StringIO()
    parts = {"train": ["Dense_1", "Dense_0/bias"]}
    best = tune(tmp_path / "run", base, {**files, "valid": 0}, parts, {"optimizer": optimizer}, progress=stream)
    assert moved(best, base) == {"Dense_1/kernel", "Dense_1/bias", "Dense_0/bias"}
    assert "trained: 17 of 201 parameters" in stream.getvalue()
    arrays = checkpoint.newest(tmp_path / "run" / "checkpoints").arrays
    assert not [name for name in arrays if "Dense_2" in name or ("Dense_0" in name and "kernel" in name)]
    for name, value in eqp.load(base).variables["constants"].items():
        np.testing.assert_array_equal(eqp.load(best).variables["constants"][name], value)


def test_a_rate_of_zero_freezes_and_a_small_one_slows(base, files, tmp_path):
    rates = {"*": 1e-3, "Dense_1": 1.0, "Dense_0/kernel": 0.0}
    adam = {"kind": "AdamW", "learning_rate": 5e-3, "weight_decay": 0.0}
    training = {"optimizer": adam, "ema": None, "epochs": 1, "batch_size": 12, "schedule": "Flat"}
    best = tune(tmp_path / "run", base, {**files, "valid": 0}, {"rates": rates}, training)
    before, after = params(base), params(best)
    assert moved(best, base) == params(base).keys() - {"Dense_0/kernel"}
    change = {name: float(np.max(np.abs(after[name] - before[name]))) for name in before}
    # The first step of Adam moves a parameter by the learning rate.
    np.testing.assert_allclose(change["Dense_1/bias"], 5e-3, rtol=1e-3)
    np.testing.assert_allclose(change["Dense_2/bias"], 5e-6, rtol=1e-1)


# Adapters


def test_adapters_start_at_the_base_train_and_merge_exactly(base, files, tmp_path):
    potential = eqp.load(base)
    settings = FineTune(str(base), adapters=Adapters(rank=2, parts=("Dense_0", "Dense_2")))
    start = trainable(potential.variables["params"], settings, {}, jax.random.key(0))
    assert start.adapted == 2 and set(flat(start.params)) >= {"Dense_0/kernel/a", "Dense_2/kernel/b", "Dense_0/bias"}
    frames = tiny.structures(3, 7)
    for one, other in zip(predict(with_params(potential, start.params), frames), predict(potential, frames), strict=True):
        assert one.energy == other.energy
        np.testing.assert_array_equal(one.forces, other.forces)
    adapters = {"train": ["*kernel"], "adapters": {"rank": 2, "parts": ["Dense_0", "Dense_2"]}}
    best = tune(tmp_path / "run", base, {**files, "valid": 0}, adapters, {"ema": None})
    assert moved(best, base) == {"Dense_0/kernel", "Dense_1/kernel", "Dense_2/kernel"}
    for name in ("Dense_0/kernel", "Dense_2/kernel"):
        values = np.linalg.svd(np.asarray(params(best)[name] - params(base)[name], np.float64), compute_uv=False)
        assert values[1] > 1e-4 and values[2] < 1e-5 * values[0]


def test_the_merged_file_predicts_as_the_adapters_did(base, files, tmp_path):
    """The errors of the validation, computed with adapters, are those of the file."""
    best = tune(tmp_path / "run", base, files, {"adapters": {"rank": 1}})
    assert moved(best, base) == params(base).keys()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    row = min(rows, key=lambda row: row["valid_loss"])
    table, _ = evaluate_set(eqp.load(best), tiny.structures(4, 6, (4, 4)))
    for name in ("forces_rmse", "energy_rmse_per_atom", "stress_rmse"):
        np.testing.assert_allclose(table[name], row[f"valid_{name}"], rtol=1e-5)


SMALL = {
    "MACE": MACE(3.5, elements=(1, 8), channels=6, l_max=1, correlation=2, layers=1, radial=Radial(mlp=(4,))),
    "NequIP": NequIP(3.5, elements=(1, 8), channels=6, l_max=1, layers=1, radial=Radial(mlp=(4,))),
}


@functools.cache
def small(name, elements=(1, 8)):
    frames = tiny.structures(2, 3, (4, 4))
    metadata = Metadata(atomic_energies=tuple(tiny.ENERGIES.items()))
    term = SMALL[name].clone(elements=elements)
    return fresh(term, pad(frames, 3.5), jax.random.key(1), metadata, scale=0.3, shift=np.arange(float(len(elements))))


@pytest.mark.parametrize("name", SMALL)
def test_every_irrep_and_species_has_its_own_adapter(name):
    potential = small(name)
    axes = {path.removeprefix("params/"): axis for path, axis in species_axes(potential.term).items()}
    found = trainable(potential.variables["params"], FineTune("x", adapters=Adapters(rank=2)), axes, jax.random.key(0))
    leaves = flat(found.params)
    assert "embedding/w" in leaves, "a row for each species is no matrix"
    path = "interaction0/skip/w0e" if name == "MACE" else "layer0/self/w0e"
    shape = flat(potential.variables["params"])[path].shape
    assert leaves[f"{path}/a"].shape == (2, shape[1], 2) and leaves[f"{path}/b"].shape == (2, 2, shape[2])
    changed = jax.tree.map(lambda x: x + 0.1, found.params)
    merged = flat(merge(potential.variables["params"], changed))
    a, b = np.asarray(leaves[f"{path}/a"] + 0.1), np.asarray(leaves[f"{path}/b"] + 0.1)
    expected = np.stack([a[k] @ b[k] for k in range(2)]) / np.sqrt(2)
    np.testing.assert_allclose(merged[path] - flat(potential.variables["params"])[path], expected, atol=1e-5)


# Another level of theory


def level_of(path):
    return dict(eqp.load(path).metadata.atomic_energies)


def test_refit_finds_the_shift_of_every_element(base, tmp_path):
    frames = shifted(labelled(base, tiny.structures(16, 8, (2, 4))))
    data = {"train": write(tmp_path / "new.xyz", frames[:12]), "valid": write(tmp_path / "valid.xyz", frames[12:])}
    stream = io.StringIO()
    frozen = {"train": ["Dense_1/bias"], "atomic_energies": "refit"}
    best = tune(tmp_path / "run", base, data, frozen, {"epochs": 1}, progress=stream)
    for z, energy in level_of(best).items():
        np.testing.assert_allclose(energy, tiny.ENERGIES[z] + SHIFTS[z], atol=1e-5)
    assert "E0 of H, O (fitted to what the base leaves)" in stream.getvalue()
    before = json.loads((tmp_path / "run" / "base-errors.json").read_text())
    assert before["training"]["energy_mae_per_atom"] < 1e-5 and before["validation"]["energy_mae_per_atom"] < 1e-5
    assert "### validation" in (tmp_path / "run" / "report.md").read_text()


def test_energies_of_another_level_are_noticed(base, tmp_path):
    stream = io.StringIO()
    data = {"train": write(tmp_path / "new.xyz", shifted(tiny.structures(12, 8, (4, 4)))), "valid": 0}
    best = tune(tmp_path / "run", base, data, training={"epochs": 1}, progress=stream)
    assert "look like another level of theory" in stream.getvalue() and level_of(best) == tiny.ENERGIES


def test_what_compositions_leave_open_is_said_and_stays_near_the_base(base, tmp_path):
    water = lambda s: s.replace(numbers=[1, 1, 8], positions=s.positions[:3], forces=None, stress=None)
    frames = [water(s) for s in tiny.structures(9, 9, (4, 4))]
    frames = shifted(labelled(base, frames), {1: 1.0, 8: 4.0})
    stream = io.StringIO()
    data = {"train": write(tmp_path / "new.xyz", frames), "valid": 0}
    best = tune(tmp_path / "run", base, data, {"atomic_energies": "refit"}, {"epochs": 1}, progress=stream)
    assert "determine 1 of 2 element energies; no frame notices O +1 eV with H -0.5 eV" in stream.getvalue()
    for z, energy in level_of(best).items():
        np.testing.assert_allclose(energy, tiny.ENERGIES[z] + 2.0, atol=1e-4)


@pytest.mark.parametrize(
    ("off", "choice", "used"), [(0.2, "auto", True), (5.0, "auto", False), (5.0, "isolated", True)], ids=str
)
def test_isolated_atoms_of_the_new_level_are_used_where_the_base_counts_from_them(base, tmp_path, off, choice, used):
    atoms = [Structure([z], np.zeros((1, 3)), labels={"energy": tiny.ENERGIES[z] + SHIFTS[z] + off}) for z in (1, 8)]
    frames = shifted(labelled(base, tiny.structures(12, 8, (2, 4))))
    data = {"train": write(tmp_path / "new.xyz", [*atoms, *frames]), "valid": 0, "atomic_energies": choice}
    stream = io.StringIO()
    model = {"train": ["Dense_1"], "atomic_energies": "refit"}
    best = tune(tmp_path / "run", base, data, model, {"epochs": 1}, progress=stream)
    for z, energy in level_of(best).items():
        np.testing.assert_allclose(energy, tiny.ENERGIES[z] + SHIFTS[z] + (off if used else 0), rtol=0, atol=1e-5)
    origin = "from isolated atoms of the data" if used else "fitted to what the base leaves"
    assert f"({origin}): the base is " in stream.getvalue()
    assert ("may not count from isolated atoms" in stream.getvalue()) == (off > 1)


# New elements


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("parents", [{17: None}, {17: 8, 6: None, 9: 1}])
def test_new_elements_leave_the_old_ones_alone(name, parents, double_precision):
    potential = small(name).astype("float64")
    larger = extend(potential, parents)
    assert larger.term.elements == (1, 8, *parents) and larger.elements == tuple(sorted((1, 8, *parents)))
    frames = tiny.structures(3, 4)
    for one, other in zip(predict(larger, frames), predict(potential, frames), strict=True):
        np.testing.assert_allclose(one.energy, other.energy, rtol=0, atol=1e-10)
        np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=1e-10)
    if parents.get(17):
        # What begins as oxygen is oxygen, but for its isolated atom.
        renamed = [s.replace(numbers=np.where(s.numbers == 8, 17, s.numbers)) for s in frames]
        for one, other in zip(predict(larger, renamed), predict(potential, frames), strict=True):
            np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=1e-10)
    mean = np.mean(potential.variables["constants"]["shift"])
    rows = dict(zip(larger.term.elements, np.asarray(larger.variables["constants"]["shift"]), strict=True))
    for z, parent in parents.items():
        np.testing.assert_allclose(rows[z], mean if parent is None else rows[parent], rtol=1e-12)


def test_rows_that_were_never_trained_are_replaced():
    potential = small("NequIP", (1, 8, 17))
    larger = extend(potential, {17: 8})
    assert larger.term.elements == (1, 8, 17)
    table = np.asarray(larger.variables["params"]["embedding"]["w"])
    np.testing.assert_array_equal(table[2], table[1])
    np.testing.assert_array_equal(table[:2], potential.variables["params"]["embedding"]["w"][:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_new_element_is_trained_with_an_energy_from_the_data(name, tmp_path):
    eqp.save(small(name), tmp_path / "base.eqp")
    old = predict(eqp.load(tmp_path / "base.eqp"), tiny.structures(8, 3, (4, 4)))
    chlorine = lambda s: s.replace(numbers=[17, *s.numbers[1:]], energy=s.energy - 12000.0 - tiny.ENERGIES[int(s.numbers[0])])
    data = {"train": write(tmp_path / "new.xyz", [chlorine(s) for s in old]), "valid": 0}
    best = tune(tmp_path / "run", tmp_path / "base.eqp", data, {"elements": {"Cl": "O"}}, {"epochs": 1, "batch_size": 8})
    found = level_of(best)
    assert {z: found[z] for z in (1, 8)} == tiny.ENERGIES and abs(found[17] + 12000) < 3
    assert eqp.load(best).term.elements == (1, 8, 17)
    before = json.loads((tmp_path / "run" / "base-errors.json").read_text())
    assert before["training"]["energy_mae_per_atom"] < 0.5


# Replay


@pytest.fixture(scope="module")
def forgetting(base, tmp_path_factory):
    """Hydrogen with 0.1 eV per atom more than the base has, and hydroxides as the base sees them."""
    folder = tmp_path_factory.mktemp("forget")
    of = lambda numbers, count, seed: [s.replace(numbers=numbers) for s in tiny.structures(count, seed, (4, 4))]
    write(folder / "new.xyz", shifted(labelled(base, of([1, 1, 1, 1], 8, 20)), {1: 0.1}))
    write(folder / "old.xyz", labelled(base, of([1, 8, 8, 8], 24, 21)))
    write(folder / "bare.xyz", [s.without_labels() for s in of([1, 8, 8, 8], 24, 21)])
    write(folder / "watched.xyz", labelled(base, of([1, 8, 8, 8], 6, 22)))
    return folder


def test_replay_keeps_what_the_base_knew(base, forgetting, tmp_path):
    data = {"train": str(forgetting / "new.xyz"), "valid": 0, "forget": {"old": str(forgetting / "watched.xyz")}}
    old = {name: {"files": str(forgetting / f"{name}.xyz"), "share": 0.6} for name in ("old", "bare")}
    old["bare"]["labels"] = "base"
    errors = {}
    for name, changes in (("without", {}), ("old", {"replay": old["old"]}), ("bare", {"replay": old["bare"]})):
        tune(tmp_path / name, base, {**data, **changes}, training={"epochs": 30, "ema": None})
        after, before = (json.loads((tmp_path / name / f"{kind}.json").read_text()) for kind in ("errors", "base-errors"))
        assert before["old"]["energy_rmse_per_atom"] < 1e-6 and before["training"]["energy_rmse_per_atom"] > 0.099
        errors[name] = after["old"]["energy_rmse_per_atom"]
        assert after["training"]["energy_rmse_per_atom"] < 0.01
        text = (tmp_path / name / "report.md").read_text()
        assert "### old" in text and ("### replay" in text) == ("replay" in before) == ("replay" in after) == bool(changes)
    assert errors["without"] > 0.03 and max(errors["old"], errors["bare"]) < 0.1 * errors["without"]


def test_replayed_energies_count_from_the_isolated_atoms_of_the_base(base, tmp_path):
    """New level and old level in one run: with exact E0 for each, the base has no error on either, and no step moves it far."""
    new = shifted(labelled(base, tiny.structures(12, 8, (2, 4))))
    data = {
        "train": write(tmp_path / "new.xyz", new), "valid": 0,
        "replay": {"files": write(tmp_path / "old.xyz", labelled(base, tiny.structures(9, 9, (2, 4))))},
    }  # fmt: skip
    tune(tmp_path / "run", base, data, {"atomic_energies": "refit"}, {"epochs": 1})
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert row["train_energy_rmse_per_atom"] < 0.05
    before = json.loads((tmp_path / "run" / "base-errors.json").read_text())
    assert before["replay"]["energy_rmse_per_atom"] < 1e-5


# Resuming


def test_a_fine_tuning_resumes_bit_for_bit(base, forgetting, tmp_path):
    data = {
        "train": str(forgetting / "new.xyz"), "valid": 0,
        "replay": {"files": str(forgetting / "bare.xyz"), "labels": "base"},
    }  # fmt: skip
    model = {"adapters": {"rank": 2}, "rates": {"Dense_0": 0.5}}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tune(whole, base, data, model, {"epochs": 4})
    tune(broken, base, data, model, {"epochs": 4, "max_minutes": 1e-9})
    tune(broken, base, data, model, {"epochs": 4}, resume=True)
    one, other = (checkpoint.newest(out / "checkpoints").arrays for out in (whole, broken))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)
    assert moved(whole / "best.eqp", broken / "best.eqp") == set()
    assert level_of(whole / "best.eqp") == level_of(broken / "best.eqp")


def test_resuming_knows_the_base_by_its_numbers(base, files, tmp_path):
    copy, other = tmp_path / "copy.eqp", tmp_path / "other.eqp"
    shutil.copy(base, copy)
    changed = eqp.load(base)
    eqp.save(changed.replace(variables=jax.tree.map(lambda x: x * 1.001, changed.variables)), other)
    files = {**files, "valid": 0}
    tune(tmp_path / "run", base, files, training={"max_minutes": 1e-9})
    with pytest.raises(ValueError, match=r"base \(SHA-256\)"):
        tune(tmp_path / "run", other, files, resume=True)
    tune(tmp_path / "run", copy, files, resume=True)


# What is refused


@pytest.mark.parametrize(
    "model, data, complaint",
    [
        ({"train": ["readout"]}, {}, r"model.train: 'readout' fits no parameter; there are Dense_0, Dense_1, Dense_2"),
        ({"rates": {"layer1*": 0.1}}, {}, r"model.rates: 'layer1\*' fits no parameter"),
        ({"rates": {"*": 0.0}}, {}, "nothing is trained: model.rates are 0"),
        ({"train": ["Dense_2"], "rates": {"Dense_2": 0}}, {}, "nothing is trained"),
        ({"adapters": {"parts": ["nothing"]}}, {}, "model.adapters.parts: 'nothing' fits no parameter"),
        ({"adapters": {"rank": 64}}, {}, "rank 64 makes no trained matrix smaller"),
        ({}, {"atomic_energies": "fit"}, "data.atomic_energies would do nothing"),
        ({"atomic_energies": "refit"}, {"atomic_energies": "isolated"}, "no isolated-atom frame for H, O"),
        ({"elements": {"Cl": "O"}}, {}, "model.elements: Cl is in no training frame"),
        ({"elements": {"O": "H"}}, {}, "model.elements: O is known already"),
        ({"elements": {"Xx": "H"}}, {}, "'Xx' is not the symbol of an element"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(base, files, tmp_path, model, data, complaint):
    with pytest.raises(ValueError, match=complaint):
        tune(tmp_path / "run", base, {**files, **data}, model)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "elements, complaint",
    [
        ("known", r"the data contain Cl, but .*best.eqp knows only H, O; .*model.elements to extend, .* \{Cl: H\}"),
        ({"F": "O"}, "F is in no training frame"),
        ({"Cl": "Br"}, r"Br is not known \(H, O\)"),
        ("extend", "Tiny cannot take new elements: params/Dense_0/kernel does not have a row for each"),
    ],
)
def test_elements_that_the_base_lacks(base, tmp_path, elements, complaint):
    frames = [s.replace(numbers=[17, *s.numbers[1:]]) for s in tiny.structures(8, 3, (4, 4))]
    with pytest.raises(ValueError, match=complaint):
        tune(tmp_path / "run", base, {"train": write(tmp_path / "new.xyz", frames), "valid": 2}, {"elements": elements})


def test_other_data_may_not_have_elements_that_the_base_lacks(base, files, tmp_path):
    foreign = write(tmp_path / "cl.xyz", [s.replace(numbers=[17, *s.numbers[1:]]) for s in tiny.structures(8, 3, (4, 4))])
    for data in ({"replay": {"files": foreign}}, {"forget": {"salts": foreign}}):
        with pytest.raises(ValueError, match="does not know Cl"):
            tune(tmp_path / "run", base, {**files, **data})


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("model: {from: a.eqp, train: []}", "x.yaml:2: model: train is an empty list"),
        ("model: {from: a.eqp, rates: {x: -1}}", "x.yaml:2: model: rates: x has -1"),
        ("model: {from: a.eqp, adapters: {rank: 0}}", "x.yaml:2: model.adapters: rank 0 must be at least 1"),
        ("model: {from: a.eqp, atomic_energies: fit}", "expected 'keep' or 'refit', got 'fit'"),
        ("model: {from: a.eqp, elements: [Cl]}", "model.elements: expected 'known' or 'extend'"),
        ("model: {kind: MACE, from: a.eqp}", "model.from: MACE has no such field"),
        ("model: MACE\ndata.replay: 1", "data.replay: TrainConfig has no such field"),
    ],
)
def test_config_errors(tmp_path, text, complaint):
    (tmp_path / "x.yaml").write_text(f"data: {{train: a.xyz}}\n{text}\n")
    with pytest.raises(ConfigError, match=complaint):
        config.load(tmp_path / "x.yaml", TrainConfig)


@pytest.mark.parametrize(
    "data, complaint",
    [
        ({"replay": {"files": "a", "share": 1.0}}, "share = 1 must lie between 0 and 1"),
        ({"replay": {"files": "a", "weight": 0}}, "weight = 0 must be positive"),
        ({"replay": {"files": "a", "most": 0}}, "most = 0 leaves nothing to replay"),
        ({"replay": {"share": 0.5}}, "data.replay.files: Replay needs this field"),
        ({"forget": {"test": "a.xyz"}}, "forget: 'test' is taken"),
        ({"forget": {"a/b": "a.xyz"}}, "forget: 'a/b' is no name for a file"),
    ],
)
def test_config_errors_of_data(data, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.build(TrainConfig, {"data": {"train": "x", **data}, "model": {"from": "a.eqp"}})


def test_replay_is_for_fine_tuning():
    with pytest.raises(ConfigError, match="data.replay is for fine-tuning: give model.from"):
        config.build(TrainConfig, {"data": {"train": "x", "replay": {"files": "a"}}, "model": {"kind": "MACE"}})


def test_a_base_that_is_not_there(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.eqp: no such file"):
        tune(tmp_path / "run", tmp_path / "nothing.eqp", files)


def test_the_level_of_theory_of_the_data_is_that_of_the_result(base, files, tmp_path, monkeypatch):
    found = eqp.load(tune(tmp_path / "run", base, {**files, "level_of_theory": "r2SCAN"}, training={"epochs": 1}))
    assert found.metadata.level_of_theory == "r2SCAN"
    monkeypatch.setattr(dispersion, "reference", synthetic_dispersion.reference)
    eqp.save(correction(D3(functional="pbe"), (1, 8)), tmp_path / "d3.eqp")
    with pytest.raises(ValueError, match="level of theory PBE-D4: D4 is dispersion already"):
        tune(tmp_path / "twice", tmp_path / "d3.eqp", {**files, "level_of_theory": "PBE-D4"})


def test_licence_and_citation_of_the_base_stay(base, files, tmp_path):
    licensed = eqp.load(base)
    metadata = Metadata(licensed.metadata.atomic_energies, "PBE", "Somebody, 2026", "CC-BY 4.0")
    eqp.save(licensed.replace(metadata=metadata), tmp_path / "base.eqp")
    found = eqp.load(tune(tmp_path / "run", tmp_path / "base.eqp", files, training={"epochs": 1})).metadata
    assert (found.level_of_theory, found.citation, found.licence) == ("PBE", "Somebody, 2026", "CC-BY 4.0")
    assert "base.eqp" in dict(found.extra)["fine-tuned from"]
    assert evaluate(eqp.load(tmp_path / "run" / "best.eqp"), tiny.structures(1, 4)).energy.shape == (1,)


# Charge and spin


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Frames of even electrons, neutral and with charges of two; in the latter an energy and a force of charge and place."""
    neutral = [s for s in tiny.structures(60, 5, (4, 4)) if s.numbers.sum() % 2 == 0][:16]
    ions = [s.replace(charge=2.0, energy=s.energy + 1.5) for s in neutral]
    folder = tmp_path_factory.mktemp("states")
    return {
        "train": write(folder / "train.xyz", [*neutral[:12], *ions[:12]]),
        "valid": write(folder / "valid.xyz", [*neutral[12:], *ions[12:]]),
    }


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small MACE, said to be trained on neutral singlets."""
    term = MACE(cutoff=3.5, channels=3, l_max=1, correlation=2, elements=(1, 8), radial=Radial(mlp=(4,)))
    metadata = Metadata(tuple(tiny.ENERGIES.items()), charges=(0.0,), spins=(0.0,))
    potential = fresh(term, pad(tiny.structures(4, 0), 3.5), jax.random.key(0), metadata, scale=0.1, avg_num_neighbors=3.0)
    path = tmp_path_factory.mktemp("network") / "mace.eqp"
    eqp.save(potential, path)
    return path


def test_electrons_are_added_without_a_change_of_any_number(network, states, tmp_path):
    """Without a step to speak of the result is the base, for every state; trained alone, they leave neutral singlets alone."""
    model = {"electrons": {"width": 4}, "train": ["electrons"]}
    still = {"optimizer": {"kind": "AdamW", "learning_rate": 1e-30}}
    begun = eqp.load(tune(tmp_path / "begun", network, states, model, still))
    trained = eqp.load(tune(tmp_path / "trained", network, states, model, {"epochs": 8}))
    before = eqp.load(network)
    frames = list(read(states["valid"]))
    old = predict(before.replace(metadata=Metadata(before.metadata.atomic_energies)), frames)
    assert begun.metadata.charges == trained.metadata.charges == (0.0, 2.0)
    for new, expected in zip(predict(begun, frames), old, strict=True):
        assert new.energy == pytest.approx(expected.energy, abs=1e-4)
    for new, expected in zip(predict(trained, frames), old, strict=True):
        assert (abs(new.energy - expected.energy) < 1e-4) == (expected.charge == 0)
    assert moved_parts(trained, before) == {"electrons"}
    with pytest.raises(ValueError, match="has charge 1, but the potential was trained on 0, 2"):
        trained.check([Structure([1], np.zeros((1, 3)), charge=1.0)])


def moved_parts(potential, base):
    """First parts of the paths of parameters that the base lacks or that differ from it."""
    after, before = (flat(p.variables["params"]) for p in (potential, base))
    return {path.split("/")[0] for path in after if path not in before or not np.array_equal(after[path], before[path])}


def test_electrons_that_cannot_be_added(base, network, states, tmp_path):
    seeing = tune(tmp_path / "seeing", network, states, {"electrons": {}}, {"epochs": 1})
    with pytest.raises(ValueError, match="model.electrons: the base sees charge and spin already; leave it out"):
        tune(tmp_path / "again", seeing, states, {"electrons": {}})
    with pytest.raises(ValueError, match="model.electrons: Tiny is no network that electrons could be added to"):
        tune(tmp_path / "tiny", base, states, {"electrons": {}})


# The scale of the base


STILL = {"epochs": 1, "optimizer": {"kind": "AdamW", "learning_rate": 1e-12, "weight_decay": 0.0}}


def scale(path):
    return np.asarray(eqp.load(path).variables["constants"]["scale"])


def scaled_labels(potential, frames, factor):
    """Frames with interaction energies of the potential times a factor, and other E0."""
    energies = dict(eqp.load(potential).metadata.atomic_energies)
    out = []
    for s in labelled(potential, frames):
        free = sum(energies[z] for z in s.numbers)
        new = {"forces": factor * s.forces, "energy": free + factor * (s.energy - free)}
        out.append(s.replace(**new, **({"stress": factor * s.stress} if s.stress is not None else {})))
    return shifted(out)


def test_base_that_is_too_soft_is_put_right_before_the_first_step(base, tmp_path):
    frames = scaled_labels(base, tiny.structures(12, 5, (4, 4)), 1.3)
    data = {"train": write(tmp_path / "train.xyz", frames), "valid": 0}
    stream = io.StringIO()
    model = {"scale": "refit", "atomic_energies": "refit"}
    best = tune(tmp_path / "run", base, data, model, STILL, progress=stream)
    assert "interaction energies of the base times 1.3, " in stream.getvalue()
    after = evaluate_set(eqp.load(best), frames)[0]
    assert after["forces_rmse"] < 1e-5 and after["energy_rmse_per_atom"] < 1e-5
    before = evaluate_set(eqp.load(base), frames)[0]
    assert before["forces_rmse"] > 1e-4
    # A resumed run remembers the factor.
    again = tune(tmp_path / "run", base, data, model, STILL, resume=True)
    assert scale(again) == pytest.approx(1.3 * scale(base))


def test_scale_is_kept_where_no_factor_explains_the_forces(base, tmp_path):
    frames = scaled_labels(base, tiny.structures(8, 5, (4, 4)), -1.0)
    data = {"train": write(tmp_path / "train.xyz", frames), "valid": 0, "checks": {"force_sign": "skip", "stress_sign": "skip"}}
    stream = io.StringIO()
    best = tune(tmp_path / "run", base, data, {"scale": "refit", "atomic_energies": "refit"}, STILL, progress=stream)
    assert "its scale is kept" in stream.getvalue()
    np.testing.assert_array_equal(scale(best), scale(base))


def test_scale_of_a_base_with_parts_is_refused(base, files, tmp_path):
    from equipot.physics.guard import Wall, guard

    eqp.save(guard(eqp.load(base), Wall()), tmp_path / "guarded.eqp")
    with pytest.raises(ValueError, match=r"model\.scale: refit multiplies the whole interaction energy"):
        tune(tmp_path / "run", tmp_path / "guarded.eqp", {**files}, {"scale": "refit", "atomic_energies": "refit"})


def test_scale_without_atomic_energies_is_refused():
    """Total energies would be off by the cohesive energy times the factor less one."""
    with pytest.raises(ValueError, match="set atomic_energies: refit, too"):
        FineTune("base.eqp", scale="refit")
