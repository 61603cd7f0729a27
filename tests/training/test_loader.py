"""Batches: every frame once, the same for the same seed, in few shapes that hold them all."""

import numpy as np
import pytest
import tiny

from equipot.data.batch import centred
from equipot.data.loader import (
    Replayed,
    deal,
    epoch_batches,
    need,
    plan_evaluation,
    plan_training,
    prefetch,
    prepare,
    sha256_of,
    sorted_batches,
)
from equipot.data.plan import cost, plan_ladder


@pytest.fixture(scope="module")
def frames():
    return prepare(tiny.structures(23, 3), 3.5)


@pytest.mark.parametrize("count, size", [(23, 4), (8, 4), (3, 5), (1, 1)])
def test_an_epoch_has_every_frame_once_in_even_batches(count, size):
    batches = epoch_batches(count, size, seed=1, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(count))
    lengths = [len(b) for b in batches]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1


def test_order_follows_from_seed_and_epoch_alone():
    order = lambda seed, epoch: np.concatenate(epoch_batches(50, 5, seed, epoch)).tolist()
    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_an_epoch_draws_anew_from_what_is_replayed():
    seen = set()
    for epoch in range(12):
        frames = np.concatenate(epoch_batches(20, 4, 1, epoch, Replayed(pool=12, drawn=3)))
        drawn = set(frames[frames >= 8].tolist())
        assert sorted(frames[frames < 8]) == list(range(8)) and len(frames) == 11 and len(drawn) == 3
        seen |= drawn
    assert len(seen) > 9


def test_devices_share_a_batch_evenly(frames):
    shards = deal(np.arange(12), frames.sizes, 3)
    assert sorted(i for s in shards for i in s) == list(range(12))
    atoms = [frames.sizes[list(s), 0].sum() for s in shards]
    assert max(atoms) - min(atoms) <= frames.sizes[:, 0].max()


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_shapes_hold_every_batch(frames, devices):
    loader = plan_training(frames, tiny.ENERGIES, 5, devices, np.float32, seed=0)
    assert 1 <= len(loader.shapes) <= 4
    for epoch in range(30):
        for batch in epoch_batches(23, 5, 0, epoch):
            shards = loader.shards(batch)
            atoms, slots = need(shards, frames.sizes)
            shape = loader.shape(shards)
            assert shape.atoms >= atoms and shape.slots >= slots and shape.graphs >= max(map(len, shards))
    assert 0 <= loader.padding(epoch_batches(23, 5, 0, 0)) < 1


def test_a_ladder_of_two_where_batches_come_in_two_sizes():
    needs = np.array([[10, 5]] * 50 + [[100, 40]] * 2)
    assert plan_ladder(needs, (100, 40), 4) == [(10, 5), (100, 40)]
    assert plan_ladder(needs, (100, 40), 1) == [(100, 40)]
    assert plan_ladder(needs[:1], (10, 5), 4) == [(10, 5)]
    assert cost(10, 5) < cost(100, 40)


def test_a_batch_holds_its_frames_labels(frames):
    loader = plan_evaluation(frames, tiny.ENERGIES, 6, 2, np.float64)
    seen = []
    for chosen in sorted_batches(frames.sizes, 6):
        shards = loader.shards(chosen)
        graph, targets = loader.build(shards)
        for device, indices in enumerate(shards):
            seen += indices
            first = 0
            for k, i in enumerate(indices):
                s = frames.structures[i]
                rows = slice(first, first + len(s))
                first += len(s)
                free = sum(tiny.ENERGIES[z] for z in s.numbers)
                np.testing.assert_allclose(targets.labels["energy"][device, k], s.energy - free, atol=1e-12)
                np.testing.assert_array_equal(targets.labels["forces"][device, rows], s.forces)
                np.testing.assert_array_equal(graph.positions[device, rows], centred(s))
                assert targets.present["stress"][device, k] == (s.stress is not None)
                assert targets.frame[device, k] == i and targets.atoms[device, k] == len(s)
            assert not targets.present["energy"][device, len(indices) :].any()
    assert sorted(seen) == list(range(23))


def test_neighbours_found_again_are_the_ones_kept():
    structures = tiny.structures(5)
    kept, forgotten = prepare(structures, 3.5), prepare(structures, 3.5, memory=0.0)
    assert all(f is None for f in forgotten.found)
    for k, s in enumerate(structures):
        for a, b in zip(kept.slots(k, s), forgotten.slots(k, s), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_hash_sees_every_label():
    structures = tiny.structures(3)
    same = sha256_of(tiny.structures(3))
    assert sha256_of(structures) == same
    for changes in ({"energy": None}, {"forces": structures[1].forces + 1e-12}, {"weight": 2.0}, {"charge": 1.0}):
        changed = [structures[0], structures[1].replace(**changes), structures[2]]
        assert sha256_of(changed) != same, changes


def test_nothing_is_hashed_that_nobody_asks_for(monkeypatch):
    monkeypatch.setattr("equipot.data.loader._update", lambda *_: pytest.fail("hashed"))
    prepare(tiny.structures(3), 3.5)


def test_prefetch_keeps_order_and_passes_errors_on():
    assert [b for _, b in prefetch(range(20), lambda x: x**2)] == [x**2 for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(prefetch([1, 0], lambda x: 1 / x))
    feed = prefetch(range(100), lambda x: x)
    assert next(feed) == (0, 0)
    feed.close()


def test_an_element_without_isolated_atom_energy_is_named(frames):
    loader = plan_evaluation(frames, {1: -13.6}, 6, 1, np.float32)
    with pytest.raises(ValueError, match="Z = 8"):
        loader.build(loader.shards(np.arange(6)))
