"""Hessians in fine-tuning with frozen parts and adapters, beside a frozen potential, of a committee, at the command line."""

import json

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from tuning import tune, write

from equipot import cli, config, eqp, hessian_labels
from equipot.data.read import read
from equipot.evaluation import hessian_of
from equipot.evaluation.hessians import hessian_matrix
from equipot.physics.committee import committee
from equipot.quantities import HESSIAN
from equipot.training import TrainConfig, train
from equipot.training.errors import evaluate_set

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")
FAST = {"optimizer": {"kind": "Muon", "learning_rate": 0.03}, "batch_size": 4, "ema": None, "devices": 1, "refit": False}


def frames(count, seed):
    """Frames with the product of their Hessian with one direction, by differences of forces; every third without."""
    out, rng, h = [], np.random.default_rng(seed), 1e-4
    for k, s in enumerate(tiny.structures(count, seed, (4, 4))):
        d = rng.normal(size=(4, 3))
        back, forth = (tiny.pair_energy(s.positions + sign * h * d, s.cell, s.pbc)[1] for sign in (-1, 1))
        label = hessian_labels.of_products(d[None], ((back - forth) / (2 * h))[None])
        out.append(s.replace(hessian=None if k % 3 == 2 else label))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    files = {"train": write(folder / "train.xyz", frames(12, 5)), "valid": write(folder / "valid.xyz", frames(6, 6))}
    return files | {"atomic_energies": {"H": tiny.ENERGIES[1], "O": tiny.ENERGIES[8]}}


@pytest.fixture(scope="module")
def base(tmp_path_factory, data, compile_once):
    """A network that has seen no Hessian."""
    settings = {"data": {**data, "keys": {"others": {"hessian": "none"}}}, "model": {"kind": "tiny:Tiny", "cutoff": 3.5}}
    whole = config.build(TrainConfig, settings | {"training": {**FAST, "epochs": 15}})
    return train(whole, tmp_path_factory.mktemp("base") / "run", progress=None)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_labels_that_are_switched_off_are_not_seen(base):
    assert not any("hessian" in key for line in lines(base.parent) for key in line)
    assert "hessian_product_mae" not in json.loads((base.parent / "errors.json").read_text())["validation"]


@pytest.mark.parametrize("model", [{"train": ["Dense_1", "Dense_2"]}, {"adapters": {"rank": 2}}], ids=["frozen", "adapters"])
def test_a_base_learns_hessians_with_frozen_parts_and_through_adapters(model, base, data, tmp_path):
    loss = {"hessian": {"kind": "Huber", "weight": 5.0, "scale": 0.3}}
    files = {name: data[name] for name in ("train", "valid")}
    best = tune(tmp_path / "run", base, files, model, {**FAST, "epochs": 25, "loss": loss})
    before = json.loads((tmp_path / "run" / "base-errors.json").read_text())["validation"]
    after = json.loads((tmp_path / "run" / "errors.json").read_text())["validation"]
    assert after["hessian_product_rmse"] < 0.8 * before["hessian_product_rmse"]
    old, new = (flatten_dict(eqp.load(path).params, sep="/") for path in (base, best))
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {name for name in old if "adapters" in model or name.startswith(("Dense_1", "Dense_2"))}
    # What training sees of a single product is what the table says of it.
    assert lines(tmp_path / "run")[-1]["valid_hessian_product_rmse"] == pytest.approx(after["hessian_product_rmse"], rel=1e-3)


def test_beside_a_frozen_potential_the_hessian_is_that_of_the_sum(base, data, tmp_path):
    """Energies and forces are learned less those of the frozen part; of Hessians no difference is made."""
    terms = [{"kind": "potential", "from": str(base)}, {"kind": "tiny:Tiny", "cutoff": 3.5}]
    loss = {"hessian": {"kind": "Huber", "weight": 5.0, "scale": 0.3}}
    whole = {"data": {**data, "atomic_energies": "fit"}, "model": terms, "training": {**FAST, "epochs": 8, "loss": loss}}
    best = train(config.build(TrainConfig, whole), tmp_path / "run", progress=None)
    potential, valid = eqp.load(best), read(data["valid"])
    table, _ = evaluate_set(potential, valid)
    assert lines(tmp_path / "run")[-1]["valid_hessian_product_rmse"] == pytest.approx(table["hessian_product_rmse"], rel=2e-3)
    s = valid[0]
    d = s.labels[HESSIAN][0, 0]
    error = np.einsum("iajb,jb->ia", hessian_of(potential, s), d) - s.labels[HESSIAN][0, 1]
    one, _ = evaluate_set(potential, [s])
    assert one["hessian_product_mae"] == pytest.approx(np.mean(np.abs(error)) * np.sqrt(12) / np.linalg.norm(d), rel=1e-3)


def test_the_command_evaluates_them(base, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["evaluate", str(base), data["valid"], "--json", str(tmp_path / "e.json"), "--out", str(out)]) == 0
    assert "| hessian products " in capsys.readouterr().out
    told, predicted = json.loads((tmp_path / "e.json").read_text()), read(out / "predictions.xyz")
    assert told["hessian_product_mae"] > 0 and [HESSIAN in s.labels for s in predicted] == [True, True, False] * 2


def test_the_hessian_of_a_committee_is_the_mean_of_its_members(base, data):
    """So members are trained one by one, and the committee has what they have learned."""
    one, s = eqp.load(base), read(data["valid"])[0]
    other = one.replace(variables={**one.variables, "params": jax.tree.map(lambda x: 1.1 * x, one.params)})
    mean = (hessian_matrix(one, s) + hessian_matrix(other, s)) / 2
    np.testing.assert_allclose(hessian_matrix(committee([one, other]), s), mean, atol=1e-4 * np.abs(mean).max())
