"""Training on Hessians: products along random directions, their gradient, runs that learn and go on, and errors."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ase import Atoms
from ase.vibrations import VibrationsData
from jax.flatten_util import ravel_pytree

from equipot import eqp, hessian_labels
from equipot.artifact import named_leaves
from equipot.data.batch import Batch, Shape, find_slots, pad, pad_targets, smallest_shape
from equipot.data.loader import plan_training, prepare
from equipot.data.method import method_of, start
from equipot.evaluation import hessian_of
from equipot.evaluation.hessians import evaluate_along, hessian_matrix, predicted_label, products
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.potential import Potential, forces_at
from equipot.quantities import ENERGY, FORCES, HESSIAN, LABELLED, TRAINED
from equipot.rigid_motions import rigid_motions
from equipot.structure import Structure
from equipot.training import checkpoint
from equipot.training.errors import error_rows, evaluate_set, table_text
from equipot.training.hessian_errors import frequencies
from equipot.training.loss import MSE, Loss, counts, evaluate_batch, penalty_sums, residuals, total
from equipot.training.report import parity_data
from equipot.training.step import error_sums, mean_errors

WANTS = TRAINED


def hessian_by_hand(s, step=1e-4):
    """Central differences of the forces of ``tiny.pair_energy``, which no derivative of JAX enters."""
    n, columns = len(s), []
    for k in range(3 * n):
        shift = step * np.eye(3 * n)[k].reshape(n, 3)
        back, forth = (tiny.pair_energy(s.positions + sign * shift, s.cell, s.pbc)[1] for sign in (-1, 1))
        columns.append((back - forth) / (2 * step))
    square = np.reshape(columns, (3 * n, 3 * n))
    return ((square + square.T) / 2).reshape(n, 3, n, 3)


def labelled(count, seed=0, sizes=(4, 4)):
    """Frames with whole matrices, with products along two directions, and without a Hessian, in turn."""
    out, rng = [], np.random.default_rng(seed)
    for k, s in enumerate(tiny.structures(count, seed, sizes)):
        whole = hessian_by_hand(s)
        directions = rng.normal(size=(2, len(s), 3))
        along = hessian_labels.of_products(directions, np.einsum("iajb,kjb->kia", whole, directions))
        out.append(s.replace(hessian=(whole, along, None)[k % 3]))
    return out


def batch_of(structures, extra=(0, 0, 0), cutoff=3.5, frames=None, key=()):
    found = [find_slots(s, cutoff) for s in structures]
    shape = Shape(*(n + m for n, m in zip(smallest_shape(found)[:3], extra, strict=True)))
    frames = range(len(structures)) if frames is None else frames
    targets = pad_targets(structures, shape, tiny.ENERGIES, frames, np.float64, WANTS, key)
    return Batch(pad(structures, cutoff, shape, np.float64, found), targets)


def made(name, frames):
    """A small network with random parameters, in double precision."""
    if name == "tiny":
        return tiny.potential(frames).astype("float64")
    metadata = Metadata(atomic_energies=tuple(tiny.ENERGIES.items()))
    term = TERMS[name]
    return fresh(term, pad(frames, term.cutoff), jax.random.key(0), metadata, scale=0.3, avg_num_neighbors=4.0).astype(
        "float64"
    )


TERMS = {
    "mace": MACE(
        cutoff=3.0, channels=2, hidden_l=1, l_max=1, correlation=2, layers=2, radial=Radial(mlp=(8,)), elements=(1, 8)
    ),
    "nequip": NequIP(cutoff=3.0, channels=2, l_max=1, layers=2, radial=Radial(mlp=(8,)), elements=(1, 8)),
}
NETWORKS = ("tiny", *TERMS)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", NETWORKS)
def test_products_and_their_gradient_are_differences(name):
    """H v of a padded batch is a difference of forces, the gradient of its loss by the parameters one of the loss."""
    frames = labelled(3)
    potential = made(name, frames)
    batch = batch_of(frames, (2, 1, 1), potential.cutoff)
    directions, loss = batch.targets.directions, Loss({"hessian": MSE(scale=1.0)})
    start, unravel = ravel_pytree(potential.params)

    @jax.jit
    def everything(vector):
        def value(vector):
            model = potential.replace(variables={**potential.variables, "params": unravel(vector)})
            found = evaluate_batch(model, batch, (ENERGY, HESSIAN))
            error = residuals(found, batch, (ENERGY, HESSIAN))
            sums = penalty_sums(loss, (HESSIAN,), error, batch)
            return total(loss.weights((HESSIAN,), 0.0), sums, counts(batch, (HESSIAN,))), found

        return jax.value_and_grad(value, has_aux=True)(vector)

    (_, found), gradient = everything(start)
    h, at = 1e-5, jax.jit(lambda shift: forces_at(potential, batch.graph, batch.graph.positions + shift))
    expected = (at(-h * directions) - at(h * directions)) / (2 * h)
    mask = batch.graph.node_mask
    assert np.abs(expected[mask]).max() > 0.1
    np.testing.assert_allclose(found[HESSIAN][mask], expected[mask], atol=1e-6 * np.abs(expected).max())
    # Forces and energy are those of a pass without a direction.
    np.testing.assert_allclose(found.forces[mask], at(0 * directions)[mask], atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(2):
        v = rng.normal(size=len(start))
        v /= np.linalg.norm(v)
        difference = (everything(start + h * v)[0][0] - everything(start - h * v)[0][0]) / (2 * h)
        np.testing.assert_allclose(gradient @ v, difference, rtol=1e-5, atol=1e-7 * np.linalg.norm(gradient))


def gradient(parts, potential, extra, frames):
    """Loss and gradient from the sums of several batches."""
    loss = Loss()
    batches = [batch_of(part, extra, frames=own) for part, own in zip(parts, frames, strict=True)]
    names = [row.name for row in WANTS]
    numbers = {name: sum(counts(b, WANTS)[name] for b in batches) for name in names}

    def value(params):
        model = potential.replace(variables={**potential.variables, "params": params})
        found = [penalty_sums(loss, WANTS, residuals(evaluate_batch(model, b, WANTS), b, WANTS), b) for b in batches]
        return total(loss.weights(WANTS, 0.0), {name: sum(p[name] for p in found) for name in names}, numbers)

    return jax.jit(jax.value_and_grad(value))(potential.params)


@pytest.mark.usefixtures("double_precision")
def test_padding_batching_order_and_rotation_change_nothing():
    frames = labelled(6, sizes=(2, 4))
    potential, order = tiny.potential(frames).astype("float64"), np.array([4, 2, 0, 5, 3, 1])
    whole, slope = gradient([frames], potential, (0, 0, 0), [range(6)])
    parts = [order[:2], order[2:]]
    other, other_slope = gradient([[frames[i] for i in part] for part in parts], potential, (3, 2, 1), parts)
    np.testing.assert_allclose(other, whole, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), slope, other_slope)
    # A single product is the same whatever is drawn, up to its sign; atoms of each frame in another order, and turned.
    only = [s.replace(hessian=s.labels[HESSIAN][:1]) for s in frames[1::3]]
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]

    def turned(s):
        place = np.random.default_rng(len(s)).permutation(len(s))
        labels = {ENERGY: s.energy, FORCES: (s.forces @ turn)[place], HESSIAN: (s.labels[HESSIAN] @ turn)[:, :, place]}
        return Structure(s.numbers[place], s.positions[place] @ turn, s.cell @ turn, s.pbc, labels)

    bare = [s.replace(stress=None) for s in only]
    straight = gradient([bare], potential, (0, 0, 0), [range(2)])[0]
    assert straight != pytest.approx(
        float(gradient([[s.replace(hessian=None) for s in bare]], potential, (0, 0, 0), [range(2)])[0])
    )
    np.testing.assert_allclose(gradient([[turned(s) for s in bare]], potential, (0, 0, 0), [range(2)])[0], straight, rtol=1e-10)


def test_directions_depend_on_key_and_frame_alone():
    frames = labelled(6)
    draw = lambda picked, key=(): batch_of([frames[i] for i in picked], key=key, frames=picked).targets
    together, alone = draw([0, 1, 3]), draw([3])
    np.testing.assert_array_equal(together.directions[8:12], alone.directions)
    np.testing.assert_array_equal(together.labels["hessian"][8:12], alone.labels["hessian"])
    assert not np.allclose(draw([3], (0, 1)).directions, draw([3], (0, 2)).directions)
    assert not np.allclose(together.directions[:4], draw([3]).directions)
    unlabelled = draw([2])
    assert not unlabelled.directions.any() and not unlabelled.present["hessian"].any()
    # A set without labels has no directions, and pays nothing.
    loader = plan_training(prepare([s.replace(hessian=None) for s in frames], 3.5), tiny.ENERGIES, 2, 1, np.float64, 0)
    assert loader.build(loader.shards(np.arange(2))).targets.directions is None


@pytest.mark.usefixtures("double_precision")
def test_missing_labels_count_for_nothing_and_errors_are_named():
    frames = labelled(6)
    potential, batch = tiny.potential(frames).astype("float64"), batch_of(frames, (3, 0, 1))
    errors = residuals(jax.jit(lambda m: evaluate_batch(m, batch, WANTS))(potential), batch, WANTS)
    assert float(counts(batch, WANTS)["hessian"]) == 4 * 4
    hidden = ~np.asarray(batch.targets.present["hessian"])[np.asarray(batch.graph.node_graph)]
    assert hidden.sum() == 2 * 4 + 3 and not np.asarray(errors["hessian"])[hidden].any()
    found = mean_errors(WANTS, {k: float(v) for k, v in error_sums(errors, batch, WANTS).items()})
    rmse = np.sqrt(np.mean(np.asarray(errors["hessian"])[~hidden] ** 2))
    assert found["hessian_product_rmse"] == pytest.approx(rmse) and "hessian_mae" not in found


def test_what_a_loss_wants():
    assert Loss().wants(TRAINED, ()) == TRAINED and Loss().wants(LABELLED, ()) == LABELLED
    assert Loss({"hessian": MSE(weight=0.0)}).wants(TRAINED, ()) == LABELLED
    assert Loss({"hessian": MSE(weight=3.0)}).weights((HESSIAN,), 0.5)["hessian"] == 3.0


# Runs


SETTINGS = {
    "epochs": 30, "checkpoint": {"seconds": 1e9}, "optimizer": {"kind": "Muon", "learning_rate": 0.03},
    "loss": {"hessian": {"kind": "Huber", "weight": 2.0, "scale": 0.3}},
}  # fmt: skip


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "elapsed"} for row in found]


@pytest.fixture(scope="module")
def frames():
    return labelled(12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, frames, compile_once, no_plots):
    out = tmp_path_factory.mktemp("hessians") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "dataset", dataset)
        tiny.run(out, SETTINGS, train=frames)
    return out


def dataset(train):
    from equipot.data.read import Dataset

    return Dataset(train, labelled(4, 1), labelled(3, 2), tiny.ENERGIES, "config", "")


def test_a_run_learns_hessians_and_reports_them(whole):
    found = rows(whole)
    assert found[-1]["valid_hessian_product_rmse"] < 0.3 * found[0]["valid_hessian_product_rmse"]
    assert found[-1]["train_hessian_product_mae"] < found[0]["train_hessian_product_mae"]
    errors = json.loads((whole / "errors.json").read_text())["test"]
    for name in ("hessian_mae", "hessian_eigenvalue_rmse", "frequency_mae_per_cm", "hessian_product_rmse"):
        assert errors[name] > 0
    report = (whole / "report.md").read_text()
    for label in ("| hessian ", "| hessian eigenvalues ", "| harmonic frequencies ", "| hessian products ", "cm^-1"):
        assert label in report
    # Least squares of the last layer by energies and forces would forget Hessians.
    assert not (whole / "refit.json").exists()


def test_a_run_that_is_interrupted_within_an_epoch_goes_on_bit_for_bit(whole, frames, tmp_path, monkeypatch):
    from equipot.training import loop

    monkeypatch.setattr(tiny, "dataset", dataset)
    add_report, out = loop.add_report, tmp_path / "run"

    def interrupted(run, state, cursor, *rest):
        if (cursor.epoch, cursor.batch) == (2, 1) and not (tmp_path / "pressed").exists():
            (tmp_path / "pressed").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return add_report(run, state, cursor, *rest)

    monkeypatch.setattr(loop, "add_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(out, SETTINGS, train=frames)
    tiny.run(out, SETTINGS, resume=True, train=frames)
    assert rows(out) == rows(whole)
    arrays, expected = (checkpoint.newest(folder / "checkpoints").arrays for folder in (out, whole))
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name], name)


def test_a_batch_spread_over_devices_has_the_same_means(frames):
    """Shares of the loss, each over the counts of the whole batch, add up to the loss of one device."""
    potential, loss = tiny.potential(frames), Loss()
    loaders = [plan_training(prepare(frames, 3.5), tiny.ENERGIES, 6, devices, np.float32, 0) for devices in (1, 2)]
    shared = jax.jit(lambda b: penalty_sums(loss, WANTS, residuals(evaluate_batch(potential, b, WANTS), b, WANTS), b))
    found = []
    for loader in loaders:
        built = loader.build(loader.shards(np.arange(6)), key=(0, 3))
        shares = [jax.tree.map(lambda x, k=k: x[k], built) for k in range(loader.devices)]
        sums = [shared(b) for b in shares]
        numbers = [counts(b, WANTS) for b in shares]
        found.append([sum(float(part["hessian"]) for part in parts) for parts in (sums, numbers)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert found[0][1] == 16


# What is refused


def test_a_method_is_not_subtracted_from_hessians():
    frame = Structure([18, 18], [[0, 0, 0], [0, 0, 3.7]], labels={"energy": 1.0, "hessian": np.zeros((2, 3, 2, 3))})
    runner = start(method_of({"calculator": "lj"}), "test")
    with pytest.raises(ValueError, match="has a label of the Hessian, .* data.keys.others.hessian: none"):
        runner.check_labels(frame)


# Predictions and errors


@pytest.mark.usefixtures("double_precision")
def test_padded_hessians_are_those_of_single_systems():
    frames = labelled(3)
    potential = tiny.potential(frames).astype("float64")
    for s in frames[:2]:
        exact = hessian_of(potential, s)
        np.testing.assert_allclose(hessian_matrix(potential, s), exact, atol=1e-10)
    directions = np.random.default_rng(0).normal(size=(20, 4, 3))
    expected = np.einsum("iajb,kjb->kia", exact, directions)
    np.testing.assert_allclose(products(potential, frames[1], directions), expected, atol=1e-10)
    label = frames[1].labels[HESSIAN]
    found = predicted_label(potential, frames[1], label)
    np.testing.assert_array_equal(found[:, 0], label[:, 0])
    np.testing.assert_allclose(found[:, 1], np.einsum("iajb,kjb->kia", exact, label[:, 0]), atol=1e-10)


@pytest.mark.usefixtures("double_precision")
def test_errors_by_hand():
    frames = labelled(3)
    potential = tiny.potential(frames).astype("float64")
    table, predictions = evaluate_set(potential, frames)
    assert [HESSIAN in s.labels for s in predictions] == [True, True, False]
    exact, reference = hessian_of(potential, frames[0]), frames[0].labels[HESSIAN]
    assert table["hessian_mae"] == pytest.approx(np.mean(np.abs(exact - reference)))
    values = [np.linalg.eigvalsh(h.reshape(12, 12)) for h in (exact, reference)]
    assert table["hessian_eigenvalue_rmse"] == pytest.approx(np.sqrt(np.mean((values[0] - values[1]) ** 2)))
    modes = [frequencies(frames[0], h) for h in (exact, reference)]
    assert table["frequency_mae_per_cm"] == pytest.approx(np.mean(np.abs(modes[0] - modes[1])))
    label, one = frames[1].labels[HESSIAN], hessian_of(potential, frames[1])
    error = np.einsum("iajb,kjb->kia", one, label[:, 0]) - label[:, 1]
    length = np.linalg.norm(label[:, 0], axis=(1, 2))[:, None, None]
    assert table["hessian_product_mae"] == pytest.approx(np.mean(np.abs(error) * np.sqrt(12) / length))
    text = table_text({"test": table}, [HESSIAN])
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [row.label for row in error_rows(HESSIAN, [])]
    (panel,) = [p for p in parity_data(frames, predictions, None) if "hessian" in p.title]
    np.testing.assert_array_equal(panel.reference, reference.ravel())


@pytest.mark.parametrize(
    "positions, modes",
    [([[0, 0, 0.1], [0, 0.76, -0.47], [0, -0.76, -0.47]], 3), ([[0, 0, 0], [0, 0, 1.2], [0, 0, -1.1]], 4)],
    ids=["bent", "linear"],
)
def test_frequencies_are_those_of_ase(positions, modes):
    """Springs at rest: the rigid motions have frequency zero, and others are the same with a projection or without."""
    atoms, n = Atoms("OH2", positions), 3
    h = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(n):
            if i != j:
                e = (atoms.positions[j] - atoms.positions[i]) / np.linalg.norm(atoms.positions[j] - atoms.positions[i])
                block = 30 * np.outer(e, e) + (2 * (np.eye(3) - np.outer(e, e)) if modes == 4 else 0)
                h[i, :, i] += block
                h[i, :, j] -= block
    structure = Structure.from_ase(atoms)
    assert len(rigid_motions(structure)) == 9 - modes
    expected = VibrationsData(atoms, h).get_frequencies()
    found = frequencies(structure, h)
    assert len(found) == modes
    if modes == 3:
        np.testing.assert_allclose(found, np.sort(np.real(expected))[-3:], rtol=1e-5)
    # Upside down, all are imaginary.
    np.testing.assert_allclose(frequencies(structure, -h), -found[::-1], rtol=1e-10)
    # Where it repeats, only translations are projected out.
    repeated = dataclasses.replace(structure, cell=9 * np.eye(3), pbc=np.ones(3, bool))
    assert len(frequencies(repeated, h)) == 6
    real = np.sort(np.real(expected) - np.imag(expected))
    np.testing.assert_allclose(np.sort(frequencies(repeated, h))[-3:], real[-3:], rtol=1e-5)


def test_a_product_of_a_dimer_in_closed_form():
    """Lennard-Jones at a distance r along x: H = [[V'', -V''], ...] along the bond and V'/r across."""
    from equipot.physics.lennard_jones import LennardJones
    from equipot.potential import initial

    with jax.enable_x64(True):
        term, r = LennardJones(cutoff=8.0, epsilon=0.05, sigma=2.2, onset=0.99), 2.6
        dimer = Structure([18, 18], [[0, 0, 0], [r, 0, 0]])
        variables = initial(term, jax.random.key(0), pad([dimer], 8.0))
        potential = Potential(term, variables, Metadata(atomic_energies=((18, 0.0),))).astype("float64")
        x = (2.2 / r) ** 6
        first, second = 4 * 0.05 * (-12 * x**2 + 6 * x) / r, 4 * 0.05 * (156 * x**2 - 42 * x) / r**2
        block = np.diag([second, first / r, first / r])
        expected = np.block([[block, -block], [-block, block]])
        np.testing.assert_allclose(hessian_matrix(potential, dimer).reshape(6, 6), expected, rtol=1e-9, atol=1e-10)


def test_a_potential_with_a_best_file_is_evaluated_alone(whole):
    """What the table of a run says is what the saved potential gives."""
    potential = eqp.load(whole / "best.eqp")
    errors = json.loads((whole / "errors.json").read_text())["test"]
    table, _ = evaluate_set(potential, labelled(3, 2))
    for name, value in table.items():
        assert errors[name] == pytest.approx(value, rel=1e-4)
    assert named_leaves(potential.variables)
    assert evaluate_along(potential, pad(labelled(1), 3.5), (), jnp.zeros((4, 3), jnp.float32))[HESSIAN].shape == (4, 3)
