"""The last linear layer, solved for in closed form."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from ase import Atoms
from ase.io import write
from uncertain import CRYSTAL, FRAMES, MORE, labelled, made

import equipot
from equipot import config
from equipot.models.network import Network
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure
from equipot.training import TrainConfig, closing, refit, train
from equipot.training.refit import Rows, can_refit

NETWORKS = ["mace", "mace-biased", "nequip", "nequip-direct"]


@pytest.fixture
def _exact(double_precision):
    """Exactly means exactly."""


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Few frames do for networks without noise."""
    monkeypatch.setattr(refit, "LEAST_LABELS", 0)


def changed(potential, change):
    params = potential.term.with_last_layer(potential.params, change)
    return potential.replace(variables={**potential.variables, "params": params})


def size_of(potential):
    return equipot.evaluate(potential, FRAMES[0], want="features").others["features"].shape[1]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("_exact")
def test_a_change_of_the_weights_changes_energies_by_the_features(name):
    potential = made(name)
    change = np.random.default_rng(0).normal(size=size_of(potential))
    before = equipot.evaluate(potential, FRAMES, want=("energies", "features"))
    after = equipot.evaluate(changed(potential, change), FRAMES, want=("energies", "features"))
    assert np.std(after.energies - before.energies) > 1e-3
    np.testing.assert_allclose(after.energies - before.energies, before.others["features"] @ change, atol=1e-11)
    # What the network computes before is the same.
    np.testing.assert_array_equal(after.others["features"], before.others["features"])


def largest_error(potential, frames, quantity):
    found = equipot.evaluate_each(potential, frames, want=quantity.name)
    return max(np.abs(getattr(x, quantity.name) - s.labels[quantity]).max() for x, s in zip(found, frames, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("quantities", [(ENERGY, FORCES), (ENERGY,), (FORCES,)])
@pytest.mark.usefixtures("_exact")
def test_a_layer_that_made_the_labels_is_found(name, quantities, monkeypatch):
    monkeypatch.setattr(refit, "RIDGE", 1e-12)
    potential = made(name)
    teacher = changed(potential, np.random.default_rng(1).normal(size=size_of(potential)))
    frames = labelled(teacher, [*FRAMES, *MORE, CRYSTAL])
    found = refit.refit(potential, frames, quantities)
    for quantity in quantities:
        before, after = (largest_error(p, frames, quantity) for p in (potential, found))
        assert before > 1e-3 and after < 1e-4 * before


def test_the_solution_is_the_least_of_a_huber_loss(monkeypatch):
    """Against another algorithm: scipy's trust region on Huber's loss."""
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    truth, parts = rng.normal(size=4), []
    for count, spread in ((60, 0.1), (300, 0.5)):
        rows = rng.normal(size=(count, 4))
        error = rows @ truth + spread * rng.normal(size=count)
        error[::15] += 30 * spread
        parts.append(Rows(rows, error, rng.uniform(0.5, 2, size=count)))
    np.testing.assert_allclose(refit.solve(parts), truth, atol=0.06)
    monkeypatch.setattr(refit, "RIDGE", 0.0)
    exact = refit.solve(parts)
    scales = [1.4826 * np.median(np.abs(p.error)) for p in parts]

    def residuals(w):
        left = [(p.error - p.rows @ w) / s for p, s in zip(parts, scales, strict=True)]
        norm = [np.sqrt(p.weight / p.weight.sum()) for p in parts]
        root = lambda x: np.where(np.abs(x) < refit.TAIL, x, np.sqrt(np.maximum(2 * refit.TAIL * np.abs(x) - refit.TAIL**2, 0)))
        return np.concatenate([n * root(x) for n, x in zip(norm, left, strict=True)])

    expected = least_squares(residuals, exact + 0.01, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    np.testing.assert_allclose(exact, expected, atol=1e-4)


def test_energies_without_labels_of_forces_and_nothing_at_all():
    potential = made("mace").astype("float32")
    frames = labelled(changed(potential, np.ones(size_of(potential))), FRAMES)
    energies = [f.replace(labels={ENERGY: f.labels[ENERGY]}) for f in frames]
    found = refit.refit(potential, energies)
    mean = lambda p: np.mean(
        [abs(x.energy - f.labels[ENERGY]) for x, f in zip(equipot.evaluate_each(p, frames), frames, strict=True)]
    )
    assert mean(found) < 0.5 * mean(potential)


@pytest.mark.usefixtures("_exact")
def test_what_cannot_be_solved_is_said(monkeypatch):
    potential = made("mace")
    frames = labelled(changed(potential, np.ones(size_of(potential))), FRAMES)
    with pytest.raises(ValueError, match="no labels of energy or forces"):
        refit.refit(potential, [f.replace(labels={}) for f in frames])
    with pytest.raises(ValueError, match="no labels of energy or forces"):
        refit.refit(potential, [f.replace(weight=0.0) for f in frames])
    monkeypatch.setattr(refit, "LEAST_LABELS", 2)
    with pytest.raises(ValueError, match=f"7 energies are too few for {size_of(potential)} features"):
        refit.refit(potential, frames)
    monkeypatch.setattr(refit, "solve", lambda parts: np.full(size_of(potential), np.nan))
    monkeypatch.setattr(refit, "LEAST_LABELS", 0)
    with pytest.raises(ValueError, match="no finite solution"):
        refit.refit(potential, frames)


def test_forces_that_are_zero_by_symmetry_count_for_nothing_beside_energies():
    random = np.random.default_rng(0)
    rows, noise = random.normal(size=(90, 3)), Rows(random.normal(size=(300, 3)), 1e-7 * random.normal(size=300), np.ones(300))
    energies = Rows(rows, rows @ [0.3, -0.2, 0.1] + 0.01 * random.normal(size=90), np.ones(90))
    alone = refit.solve([energies])
    np.testing.assert_allclose(refit.solve([energies, noise._replace(rows=1e-7 * noise.rows, least=1e-4)]), alone, rtol=0.02)
    assert not np.allclose(refit.solve([energies, noise._replace(rows=1e-7 * noise.rows)]), alone, rtol=0.02)


def test_errors_of_which_most_are_zero_by_symmetry_have_a_spread():
    """Forces of dimers along an axis: two thirds are zero, and so is their median."""
    rows = np.zeros((90, 2))
    rows[::3] = np.random.default_rng(0).normal(size=(30, 2))
    error = rows @ [0.3, -0.2]
    weight = np.ones(90)
    np.testing.assert_allclose(refit.solve([Rows(rows, error, weight)]), [0.3, -0.2], rtol=0.01)


@pytest.mark.usefixtures("_exact")
def test_frames_without_a_label_or_weight_and_isolated_atoms_do_not_count():
    frames = labelled(made("mace"), FRAMES)
    alone = Structure.from_ase(Atoms("H")).replace(labels={ENERGY: -13.6})
    some = [alone, *frames, frames[0].replace(weight=0.0), frames[0].replace(labels={FORCES: frames[0].labels[FORCES]})]
    assert [id(s) for s in refit.with_label(some, ENERGY)] == [id(s) for s in frames]
    assert len(refit.with_label(some, FORCES)) == len(frames) + 1


def test_a_network_that_does_not_know_its_last_layer_says_so():
    with pytest.raises(ValueError, match="Network does not say which of its parameters are the last layer's"):
        Network(cutoff=3.0).with_last_layer({}, np.zeros(1))


def test_terms_of_other_kinds_are_left_alone():
    assert [name for name in ("mace", "nequip", "sum", "charged", "guarded") if can_refit(made(name))] == ["mace", "nequip"]


def settings(path, **training):
    network = {"kind": "MACE", "cutoff": 3.5, "channels": 3, "l_max": 1, "hidden_l": 0, "correlation": 1, "layers": 1,
               "radial": {"mlp": [4]}}  # fmt: skip
    return config.build(TrainConfig, {
        "data": {"train": str(path), "valid": 6, "atomic_energies": {"H": tiny.ENERGIES[1], "O": tiny.ENERGIES[8]}},
        "model": network, "training": {"epochs": 2, "batch_size": 5, **training},
    })  # fmt: skip


def errors(potential, frames):
    found = equipot.evaluate_each(potential, frames)
    return np.mean([abs(x.energy - f.labels[ENERGY]) / len(f) for x, f in zip(found, frames, strict=True)])


def test_a_run_ends_with_a_refitted_layer_and_does_not_do_it_twice(tmp_path, capsys):
    frames = tiny.structures(30, 0, (4, 4))
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in frames])
    plain = equipot.load(train(settings(tmp_path / "frames.xyz", refit=False), tmp_path / "plain", progress=None))
    best = train(settings(tmp_path / "frames.xyz"), tmp_path / "run", progress=True)
    assert "last layer: refitted, validation loss" in capsys.readouterr().out
    refitted, content = equipot.load(best), best.read_bytes()
    assert errors(refitted, frames) < 0.9 * errors(plain, frames)
    differ = jax.tree.map(lambda a, b: not np.array_equal(a, b), plain.params, refitted.params)
    assert {jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(differ) if x} == {
        "['readout0']['w1']"
    }
    train(settings(tmp_path / "frames.xyz"), tmp_path / "run", resume=True, progress=None)
    assert best.read_bytes() == content
    # As after a kill between the two writes.
    (tmp_path / "run" / "refit.json").unlink()
    train(settings(tmp_path / "frames.xyz"), tmp_path / "run", resume=True, progress=None)
    assert errors(equipot.load(best), frames) < 1.1 * errors(refitted, frames)


def test_nothing_is_refitted_without_validation_frames(tmp_path, capsys):
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in tiny.structures(10, 0, (4, 4))])
    config_ = settings(tmp_path / "frames.xyz")
    config_ = dataclasses.replace(config_, data=dataclasses.replace(config_.data, valid=0))
    train(config_, tmp_path / "run", progress=True)
    assert "last layer" not in capsys.readouterr().out and not (tmp_path / "run" / "refit.json").exists()


def test_a_layer_that_harms_is_not_kept(tmp_path, capsys, monkeypatch):
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in tiny.structures(30, 0, (4, 4))])
    plain = train(settings(tmp_path / "frames.xyz", refit=False), tmp_path / "plain", progress=None)
    monkeypatch.setattr(refit, "solve", lambda parts: np.full(parts[0].rows.shape[1], 100.0))
    best = train(settings(tmp_path / "frames.xyz"), tmp_path / "run", progress=True)
    assert "last layer: left as trained: validation says energy" in capsys.readouterr().out
    assert "left as trained" in (tmp_path / "run" / "refit.json").read_text()
    same = jax.tree.map(np.array_equal, equipot.load(best).params, equipot.load(plain).params)
    assert all(jax.tree.leaves(same))


def test_quantities_without_weight_have_no_say(tmp_path, capsys):
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in tiny.structures(30, 0, (4, 4))])
    train(settings(tmp_path / "frames.xyz", loss={"energy": {"weight": 0}}), tmp_path / "run", progress=True)
    text = (tmp_path / "run" / "refit.json").read_text()
    assert "refitted" in text and "energy" not in text


def test_a_higher_loss_is_refused_though_no_error_is_much_higher(tmp_path, monkeypatch):
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in tiny.structures(30, 0, (4, 4))])
    found = iter([(1.0, {"energy_mae_per_atom": 0.1}), (1.2, {"energy_mae_per_atom": 0.11})])
    monkeypatch.setattr(closing, "validate", lambda *_: next(found))
    train(settings(tmp_path / "frames.xyz"), tmp_path / "run", progress=None)
    assert "left as trained: validation says loss 1 -> 1.2" in (tmp_path / "run" / "refit.json").read_text()


def test_a_correction_is_refitted_once(tmp_path):
    """The file on disk says what was subtracted, and the potential that is refitted does not."""
    given = settings(tmp_path / "frames.xyz")
    write(tmp_path / "frames.xyz", [frame.to_ase() for frame in tiny.structures(30, 0, (4, 4))])
    subtract = {"calculator": "lj", "sigma": 1.0, "epsilon": 0.001, "rc": 3.0}
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, subtract=subtract))
    best = train(given, tmp_path / "run", progress=None)
    content = best.read_bytes()
    assert "refitted" in (tmp_path / "run" / "refit.json").read_text()
    train(given, tmp_path / "run", resume=True, progress=None)
    assert best.read_bytes() == content
