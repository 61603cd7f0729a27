"""Samples of all parameters: against posteriors in closed form, and as members of a committee."""

from __future__ import annotations

import dataclasses
import signal
import sys

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_uncertainty import NETWORK

import equipot
from equipot import artifact, cli
from equipot.console import Console
from equipot.data.batch import pad
from equipot.data.method import method_of, start
from equipot.metadata import Metadata, Method
from equipot.models import fresh
from equipot.training.chain import NAME, SAMPLING, resumed
from equipot.training.langevin import Langevin
from equipot.training.parameter_posterior import ParameterPosterior, parameter_posterior
from equipot.training.swag import SWAG

SILENT = Console(None)


def regression(batches=8, size=6, seed=0):
    """Posterior of three weights given noisy values in batches, and its mean and covariance."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(batches, size, 3)) * [1.0, 3.0, 0.5]
    values = rows @ [0.5, -1.0, 2.0] + 0.4 * rng.normal(size=(batches, size))
    precision = np.einsum("bsi,bsj->ij", rows, rows) / 0.4**2 + np.eye(3) / 10**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ np.einsum("bsi,bs->i", rows, values) / 0.4**2

    def energy(w, batch):
        x, y = batch
        return batches * 0.5 * jnp.sum((x @ w - y) ** 2) / 0.4**2 + 0.5 * jnp.sum(w**2) / 10**2

    def epoch(k):
        order = np.random.default_rng(k).permutation(batches)
        return iter([(jnp.asarray(rows[b]), jnp.asarray(values[b])) for b in order])

    start = mean + 0.5 * rng.normal(size=3) * np.sqrt(np.diag(covariance))
    return ParameterPosterior(jnp.asarray(start), energy, epoch, batches), mean, covariance


def test_langevin_dynamics_sample_the_posterior_of_a_linear_regression(double_precision):
    """The shorter the steps, the closer; that of long ones is too wide by the noise of batches and of the integrator."""
    pytest.importorskip("blackjax")
    target, mean, covariance = regression()
    wrong = {}
    for step, epochs in ((0.3, 300), (0.06, 1500)):
        # The mean of one walk is off by 0.13 deviations.
        method = Langevin(samples=int(0.2 * epochs * target.count), epochs=epochs, step=step)
        walks = [dataclasses.replace(method, seed=seed).draw(target, SILENT) for seed in range(3)]
        samples = np.concatenate(walks)
        away = (samples.mean(axis=0) - mean) / np.sqrt(np.diag(covariance))
        assert np.abs(away).max() < 0.2
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), (samples - mean).T)
        wrong[step] = np.abs(whitened @ whitened.T / len(samples) - np.eye(3)).max()
    assert wrong[0.06] < 0.15 and wrong[0.06] < wrong[0.3]


def test_a_temperature_widens_the_posterior(double_precision):
    pytest.importorskip("blackjax")
    target, mean, covariance = regression()
    method = Langevin(samples=6000, epochs=1000, step=0.1, temperature=4.0)
    samples = np.array(method.draw(target, SILENT))
    np.testing.assert_allclose(np.std(samples, axis=0) / np.sqrt(np.diag(covariance)), 2.0, rtol=0.2)


def test_swag_has_the_moments_of_the_path_of_the_optimiser(double_precision):
    target, _, _ = regression()
    method = SWAG(samples=4000, epochs=12, rank=5, learning_rate=0.05)
    samples = np.array(method.draw(target, SILENT))
    adam = optax.adam(0.05)
    w, state, path, ends = target.start, adam.init(target.start), [], []
    for epoch in range(12):
        for batch in target.batches(epoch):
            change, state = adam.update(jax.grad(target.energy)(w, batch), state)
            w = w + change
            path.append(np.asarray(w))
        ends.append(path[-1] - np.mean(path, axis=0))
    own = np.diag(np.var(path, axis=0)) / 2 + np.array(ends[-5:]).T @ np.array(ends[-5:]) / (2 * 4)
    np.testing.assert_allclose(samples.mean(axis=0), np.mean(path, axis=0), atol=5 * np.sqrt(own.max() / 4000))
    np.testing.assert_allclose(np.cov(samples.T), own, atol=0.08 * own.max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("samplers")
    frames = tiny.structures(12, 0, (4, 4))
    potential = fresh(
        NETWORK.clone(elements=(1, 8)), pad(frames, 3.5), jax.random.key(0), Metadata(tuple(tiny.ENERGIES.items()))
    )
    equipot.save(potential, out / "model.eqp")
    ase.io.write(out / "frames.xyz", [frame.to_ase() for frame in frames])
    return out, potential, frames


def test_the_likelihood_is_that_of_the_errors(folder):
    """Half of the squared errors over their mean squares is half of their number, energies counted by atom."""
    _, potential, frames = folder
    target, made = parameter_posterior(potential, frames, 4, 10.0, 0)
    halves = [float(target.energy(target.start, batch)) for batch in target.batches(0)]
    prior = 0.5 * float(np.sum(np.asarray(target.start) ** 2)) / 100
    components = sum(3 * len(s) for s in frames) + sum(9 for s in frames if s.pbc.any())
    # Frames of one number of atoms, for which energies count alike.
    assert len({len(s) for s in frames}) == 1
    wanted = 0.5 * (components + len(frames[0]) * len(frames))
    assert np.mean(halves) - prior == pytest.approx(wanted, rel=0.02)
    np.testing.assert_array_equal(
        equipot.evaluate(made(target.start), frames).energy, equipot.evaluate(potential, frames).energy
    )


@pytest.mark.parametrize("kind", ["SWAG", "Langevin"])
def test_the_command_makes_a_committee_of_samples(folder, kind, capsys):
    if kind == "Langevin":
        pytest.importorskip("blackjax")
    out, potential, frames = folder
    sampler = f"sampler={{kind: {kind}, samples: 3, epochs: 3}}"
    path = out / f"{kind}.eqp"
    data = str(out / "frames.xyz")
    command = ["uncertainty", str(out / "model.eqp"), "--data", data, "--calibrate", data, "--set", sampler, "-o", str(path)]
    own = out / f"{kind}-sampling" / "notes.txt"
    own.parent.mkdir()
    own.write_text("not the sampler's")
    assert cli.main(command) == 0
    assert [x.name for x in own.parent.iterdir()] == ["notes.txt"]
    captured = capsys.readouterr()
    assert "warning: --calibrate: 12 of 12 frames are among those that the estimate rests on" in captured.err
    # Before any epoch.
    assert cli.main([*command, "--set", "method={kind: POPS}"]) == 2
    said = capsys.readouterr()
    assert "POPS is for a single network" in said.err and "epoch" not in said.out
    few = str(out / "few.xyz")
    ase.io.write(few, [frame.to_ase() for frame in frames[:3]])
    assert cli.main([few if k and command[k - 1] == "--calibrate" else word for k, word in enumerate(command)]) == 2
    said = capsys.readouterr()
    assert "--calibrate: 3 frames are too few; give at least 5" in said.err and "epoch" not in said.out
    model = equipot.load(path)
    found = equipot.evaluate(model, frames, want=("energy", "forces_std"))
    assert model.term.copies == 3 and np.all(found.others["forces_std"] > 0)
    near = equipot.evaluate(potential, frames)
    # Not far from where they began.
    assert 0 < np.abs(found.energy - near.energy).max() < 10
    capsys.readouterr()
    assert cli.main(["uncertainty", str(path), "--data", data, "--set", sampler, "-o", str(out / "x.eqp")]) == 2
    assert "take one of its members" in capsys.readouterr().err


class Interrupted(Console):
    """A person who presses Ctrl-C in the second epoch."""

    def progress(self, figures, **others):
        super().progress(figures, **others)
        if "epoch 2 of" in figures:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", [SWAG, Langevin])
def test_an_interrupted_walk_goes_on_bit_for_bit(kind, folder, tmp_path, capsys):
    if kind is Langevin:
        pytest.importorskip("blackjax")
    _, potential, frames = folder
    sampler = kind(samples=2, epochs=4)
    whole = sampler.members(potential, frames, SILENT)
    with pytest.raises(KeyboardInterrupt, match=f"{kind.__name__}: stopped after epoch 2 of 4; the same command goes on"):
        sampler.members(potential, frames, Interrupted(None), tmp_path)
    parts = sampler.members(potential, frames, Console(sys.stdout), tmp_path)
    assert "going on after epoch 2" in capsys.readouterr().out
    for one, other in zip(jax.tree.leaves([p.params for p in whole]), jax.tree.leaves([p.params for p in parts]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_state_of_another_run_or_damaged_is_not_gone_on_with(tmp_path, capsys):
    path, start = tmp_path / NAME, {"vector": jnp.zeros(3)}
    SAMPLING.write(path, {"identity": {"seed": 0}, "epochs": 2}, artifact.named_leaves({"vector": jnp.ones(3)}))
    state, done = resumed(start, path, {"seed": 0}, Console(sys.stdout))
    assert done == 2 and float(state["vector"][0]) == 1 and "going on after epoch 2" in capsys.readouterr().out
    assert resumed(start, path, {"seed": 1}, Console(sys.stdout)) == (start, 0)
    assert "is of another run (seed: 0 -> 1); sampling begins anew" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-8])
    assert resumed(start, path, {"seed": 0}, Console(sys.stdout)) == (start, 0)
    assert "sampling begins anew" in capsys.readouterr().out


LJ = {"calculator": "ase.calculators.lj:LennardJones", "options": {"sigma": 1.0, "epsilon": 0.01, "rc": 3.0}}


def test_a_correction_is_sampled_given_the_labels_less_its_method(folder, tmp_path):
    """What is drawn for a correction is what is drawn for the network itself, given the labels without the method."""
    _, potential, frames = folder
    method = method_of(LJ)
    correction = potential.replace(metadata=dataclasses.replace(potential.metadata, subtracted=method))
    runner = start(method, "a test")
    more = [s.replace(labels={row: v + runner.run(s)[row] for row, v in s.labels.items()}) for s in frames]
    sampler = SWAG(samples=2, epochs=2)
    own = sampler.members(potential, frames, SILENT)
    found = sampler.members(correction, more, SILENT, tmp_path, runner)
    assert {p.metadata.subtracted for p in found} == {method}
    for one, other in zip(jax.tree.leaves([p.params for p in own]), jax.tree.leaves([p.params for p in found]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def corrected(potential):
    return potential.replace(metadata=dataclasses.replace(potential.metadata, subtracted=Method("lj")))


def test_bad_settings_and_runaways_are_refused(folder):
    _, potential, frames = folder
    cases = {
        "samples 1": lambda: SWAG(samples=1),
        "learning_rate 0": lambda: SWAG(learning_rate=0),
        "step -1": lambda: Langevin(step=-1),
        "no labels": lambda: SWAG().members(potential, [frame.replace(labels={}) for frame in frames], SILENT),
        "correction to lj, which must be subtracted": lambda: SWAG().members(corrected(potential), frames, SILENT),
        "ran away; lower": lambda: SWAG(samples=2, epochs=2, learning_rate=1e30).members(potential, frames, SILENT),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
