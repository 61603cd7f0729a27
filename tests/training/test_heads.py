"""Several levels of theory in one run: every head learns its own, with its own isolated atoms, and keeps it."""

import io
import json

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from tuning import SHIFTS, labelled, shifted, tune, write

import equipot
from equipot import config, eqp
from equipot.config import ConfigError
from equipot.data.batch import pad
from equipot.data.config import DataConfig
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.training import TrainConfig, checkpoint, train
from equipot.training.errors import evaluate_set

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")

TERM = MACE(3.5, elements=(1, 8), channels=8, l_max=1, hidden_l=0, correlation=2, layers=1, radial=Radial(mlp=(8,)))
HIGH = {z: tiny.ENERGIES[z] + SHIFTS[z] for z in SHIFTS}


def high(frames):
    """Frames of another level of theory: other isolated atoms, and interactions of the other sign, twice as large."""
    out = []
    for s in frames:
        interaction = s.energy - sum(tiny.ENERGIES[z] for z in s.numbers)
        stress = None if s.stress is None else -2 * s.stress
        out.append(s.replace(energy=sum(HIGH[z] for z in s.numbers) - 2 * interaction, forces=-2 * s.forces, stress=stress))
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data of both levels, as a config has them."""
    folder = tmp_path_factory.mktemp("levels")
    counts = {"train": (24, 5), "valid": (6, 6), "test": (5, 7)}
    sets = {name: tiny.structures(count, seed, (4, 4)) for name, (count, seed) in counts.items()}
    symbols = {1: "H", 8: "O"}
    return {
        level: {name: write(folder / f"{level}-{name}.xyz", make(frames)) for name, frames in sets.items()}
        | {"atomic_energies": {symbols[z]: e for z, e in energies.items()}, "level_of_theory": f"{level}/def2-SVP"}
        for level, make, energies in (("low", list, tiny.ENERGIES), ("high", high, HIGH))
    }


@pytest.fixture(scope="module")
def both(files, tmp_path_factory, compile_once):
    """A run on both levels, from random parameters."""
    settings = {"epochs": 40, "batch_size": 6, "ema": 0.9, "loss": {"energy": {"weight": 4}}}
    whole = {"data": {"heads": files}, "model": config.dump(TERM.clone(elements=())), "training": settings}
    out = tmp_path_factory.mktemp("both") / "run"
    stream = io.StringIO()
    train(config.build(TrainConfig, whole), out, progress=stream)
    (out / "console.txt").write_text(stream.getvalue())
    return out


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """One level of theory, random parameters."""
    metadata = Metadata(tuple(tiny.ENERGIES.items()), "low")
    made = fresh(TERM, pad(tiny.structures(2, 3, (4, 4)), 3.5), jax.random.key(1), metadata, scale=0.3)
    path = tmp_path_factory.mktemp("base") / "base.eqp"
    eqp.save(made, path)
    return path


def test_each_head_learns_its_level_of_theory(both):
    frames = tiny.structures(5, 7, (4, 4))
    spread = np.sqrt(np.mean(np.concatenate([s.forces for s in frames]) ** 2))
    for head, expected, factor in (("low", frames, 1), ("high", high(frames), 2)):
        table, _ = evaluate_set(equipot.load(f"{both / 'best.eqp'}@{head}"), expected)
        # Mixed up, forces would be wrong by three times their size, and energies by tens of eV.
        assert table["forces_rmse"] < 0.4 * factor * spread and table["energy_rmse_per_atom"] < 0.1
    best = equipot.load(both / "best.eqp")
    assert best.heads == ("low", "high") and best.metadata.atomic_energies == ((1, 0.0), (8, 0.0))
    assert dict(best.head("high").metadata.atomic_energies) == pytest.approx(HIGH)
    assert [head.level_of_theory for head in best.metadata.heads] == ["low/def2-SVP", "high/def2-SVP"]


def test_the_report_tells_the_levels_apart(both):
    errors = json.loads((both / "errors.json").read_text())
    assert list(errors) == ["validation.low", "validation.high", "test.low", "test.high"]
    table, _ = evaluate_set(equipot.load(f"{both / 'best.eqp'}@high"), high(tiny.structures(5, 7, (4, 4))))
    for name, value in errors["test.high"].items():
        assert value == pytest.approx(table[name], rel=1e-3, abs=1e-4), name
    console = (both / "console.txt").read_text()
    assert "low, train: 24 frames" in console and "high, valid: 6 frames" in console


def test_new_heads_begin_as_the_base_says(base, tmp_path):
    """Data that are the base's with other isolated atoms: the new head has no error on them before it has learned anything."""
    new = shifted(labelled(base, tiny.structures(12, 8, (2, 4))))
    data = {
        "heads": {"new": {"train": write(tmp_path / "new.xyz", new), "valid": 0}},
        "replay": {"files": write(tmp_path / "old.xyz", labelled(base, tiny.structures(9, 9, (2, 4))))},
    }  # fmt: skip
    stream = io.StringIO()
    model = {"head": "old", "atomic_energies": "refit"}
    best = tune(tmp_path / "run", base, data, model, {"epochs": 1}, progress=stream)
    assert "heads: old (of the base), new (new)" in stream.getvalue()
    before = json.loads((tmp_path / "run" / "base-errors.json").read_text())
    assert before["training.new"]["energy_rmse_per_atom"] < 1e-5 and before["replay"]["energy_rmse_per_atom"] < 1e-5
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert row["train_energy_rmse_per_atom"] < 0.05
    found = equipot.load(best)
    assert found.heads == ("old", "new") and found.head("old").metadata.level_of_theory == "low"
    assert dict(found.head("old").metadata.atomic_energies) == tiny.ENERGIES
    assert dict(found.head("new").metadata.atomic_energies) == pytest.approx(HIGH, abs=1e-4)
    assert found.head("new").metadata.level_of_theory == ""


@pytest.mark.parametrize("adapters", [None, {"rank": 1}], ids=["free", "adapters"])
def test_the_head_of_the_base_stays_where_only_readouts_of_others_are_trained(base, tmp_path, adapters):
    data = {"heads": {"new": {"train": write(tmp_path / "new.xyz", tiny.structures(12, 8, (4, 4))), "valid": 0}}}
    model = {"head": "old", "train": ["heads"], "adapters": adapters}
    training = {"ema": None, "optimizer": {"kind": "AdamW", "weight_decay": 0.0}}
    best = equipot.load(tune(tmp_path / "run", base, data, model, training))
    flat = lambda potential: flatten_dict(potential.variables, sep="/")
    kept, old = flat(best.head("old")), flat(equipot.load(base))
    assert kept.keys() == old.keys() and all(np.array_equal(kept[name], old[name]) for name in old)
    learned = flat(best.head("new"))
    changed = {name for name in old if not np.array_equal(learned[name], old[name])}
    assert changed == {"params/readout0/w0", "params/readout0/w1"}


def test_a_base_with_heads_goes_on_with_them_and_takes_new_ones(both, files, base, tmp_path):
    best = both / "best.eqp"
    stream = io.StringIO()
    short = {"epochs": 1}
    high, low = ({name: files[level][name] for name in ("train", "valid", "test")} for level in ("high", "low"))
    tuned = equipot.load(tune(tmp_path / "on", best, {"heads": {"high": high}}, training=short, progress=stream))
    assert tuned.heads == ("low", "high") and "heads: low (of the base), high (of the base)" in stream.getvalue()
    before, at_the_end = (
        json.loads(path.read_text())["test.high"] for path in (tmp_path / "on" / "base-errors.json", both / "errors.json")
    )
    assert before == pytest.approx(at_the_end, rel=1e-4)
    third = {"heads": {"third": {"train": low["train"], "valid": 0}}}
    tuned = equipot.load(tune(tmp_path / "third", best, third, {"head": "low"}, short))
    assert tuned.heads == ("low", "high", "third")
    with pytest.raises(ValueError, match="data.heads: third is new; set model.head to what it begins as, one of low, high"):
        tune(tmp_path / "no", best, third)
    with pytest.raises(ValueError, match="has no head 'middle'; its heads are low, high"):
        tune(tmp_path / "no", best, third, {"head": "middle"})
    with pytest.raises(ValueError, match=r"has the heads low, high: begin with one of them, model.from: .*best.eqp@low"):
        tune(tmp_path / "no", best, low)
    assert equipot.load(tune(tmp_path / "single", f"{best}@low", low, training=short)).heads == ()


def test_a_run_with_heads_resumes_bit_for_bit(base, files, tmp_path):
    data = {
        "heads": {"new": files["high"] | {"valid": 0, "test": None}},
        "replay": {"files": files["low"]["train"], "labels": "base"}, "forget": {"old": files["low"]["test"]},
    }  # fmt: skip
    model = {"head": "low", "atomic_energies": "refit"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tune(whole, base, data, model, {"epochs": 3})
    tune(broken, base, data, model, {"epochs": 3, "max_minutes": 1e-9})
    tune(broken, base, data, model, {"epochs": 3}, resume=True)
    one, other = (checkpoint.newest(out / "checkpoints").arrays for out in (whole, broken))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    assert eqp.load(whole / "best.eqp").metadata == eqp.load(broken / "best.eqp").metadata
    assert set(json.loads((whole / "errors.json").read_text())) == {"training.new", "replay", "old"}


@pytest.mark.parametrize(
    "data, model, complaint",
    [
        ({}, {"from": "x"}, "nothing to train on: give train, or heads"),
        ({"train": "a", "heads": {"x": {"train": "b"}}}, {"from": "x"}, "train stands beside heads; give it for each of x"),
        ({"valid": 2, "heads": {"x": {"train": "b"}}}, {"from": "x"}, "valid stands beside heads"),
        (
            {"heads": {"x": {"train": "b", "valid": 0}, "y": {"train": "b"}}}, {"from": "x"},
            "heads: x has valid: 0, so that only the others would say which parameters are best",
        ),
        ({"heads": {"x": {"train": "b"}}, "forget": {"old": "c"}}, {"from": "x"}, "set model.head to the head that replay and"),
        ({"train": "b"}, {"from": "x", "head": "old"}, "model.head is for data.heads, but there are none"),
    ],
)  # fmt: skip
def test_configs_that_make_no_sense(data, model, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.build(TrainConfig, {"data": data, "model": model})


def test_models_without_heads(files):
    data = config.build(DataConfig, {"heads": files})
    with pytest.raises(ValueError, match="data.heads: Tiny has no heads"):
        TrainConfig(data, tiny.Tiny(3.5))
    with pytest.raises(ValueError, match=r"model.heads \['a'\] are not those of data.heads, \['low', 'high'\]; leave"):
        TrainConfig(data, TERM.clone(heads=("a",)))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["model: {kind: ZBL, cutoff: 4}", "data: {heads: {a: {train: x}}}"], "y:2: .*data.heads: ZBL has no heads"),
        (["seed: 1", "data: {train: x}", "model: {kind: MACE, heads: [a]}"], r"y:[23]: .*model.heads \['a'\] are not those"),
        (
            ["data:", "  heads:", "    a: {train: x, valid: -1, max_force: -2}", "model: {kind: MACE}"],
            "y:3: data.heads.a: max_f",
        ),
        (["model: {kind: MACE}", "data: {heads: {a: {train: x, colour: red}}}"], "y:2: data.heads.a.colour: Labelled has no"),
    ],
)
def test_errors_of_heads_name_the_line(tmp_path, lines, complaint):
    (tmp_path / "y").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=complaint):
        config.load(tmp_path / "y", TrainConfig)
