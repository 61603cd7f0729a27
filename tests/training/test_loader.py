"""Batches: every frame once, the same for the same seed, in few shapes that hold them all."""

import dataclasses

import numpy as np
import pytest
import tiny

from equipot.data.batch import Shape, centred
from equipot.data.draw import Draw, Replayed, deal, epoch_batches, fits, need, sorted_batches
from equipot.data.loader import Frames, plan_evaluation, plan_training, prefetch, prepare, sha256_of
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
        for batch in loader.epoch(0, epoch):
            shards = loader.shards(batch)
            assert fits(need(shards, frames.sizes), loader.shape(shards))
    assert all(0 <= share < 1 for share in loader.padding(loader.epoch(0, 0)))


def clusters(count, seed=0):
    """Sizes of clusters of 8 to 87 atoms, whose pairs grow faster than their atoms, and a loader's frames with these sizes."""
    rng = np.random.default_rng(seed)
    atoms = rng.choice([8, 10, 12, 15, 20, 24, 30, 36, 45, 60, 87], count)
    slots = np.minimum(atoms - 1, 9 + atoms // 3)
    return np.stack([atoms, slots, (atoms * slots * rng.uniform(0.5, 0.9, count)).astype(int)], axis=1)


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_shapes_hold_every_batch_of_an_evaluation(devices):
    """A device with small frames gets more of them than another with a large one."""
    for seed in range(12):
        frames = sized(clusters(41 + seed, seed))
        loader = plan_evaluation(frames, {}, 20, devices, np.float32)
        for batch in sorted_batches(frames.sizes, 20):
            shards = loader.shards(batch)
            assert fits(need(shards, frames.sizes), loader.shape(shards)) and sum(map(len, shards)) == len(batch)


def test_frames_without_pairs_do_not_share_a_device_while_another_is_empty():
    sizes = np.array([[10, 0, 0], [3, 4, 12]])
    assert sorted(map(len, deal(np.arange(2), sizes, 2))) == [1, 1]


def sized(sizes):
    return Frames((), 5.0, (None,) * len(sizes), sizes, (), headed=False)


@pytest.mark.parametrize("replay", [None, Replayed(pool=60, drawn=17)])
@pytest.mark.parametrize("count, size, devices", [(180, 4, 1), (180, 16, 2), (1501, 5, 1), (97, 8, 1)])
def test_composed_batches_have_every_frame_once_and_hardly_padding(count, size, devices, replay):
    loader = plan_training(sized(clusters(count)), {}, size, devices, np.float32, 0, replay)
    number = count if replay is None else count - replay.pool + replay.drawn
    for epoch in range(3 if count > 1000 else 40):
        batches = loader.epoch(0, epoch)
        drawn = np.concatenate(batches)
        assert len(batches) == -(-number // size) and len(set(drawn.tolist())) == len(drawn) == number
        assert set(range(count - (replay.pool if replay else 0))) <= set(drawn.tolist())
        assert max(loader.padding(batches)) < (0.12 if replay is None else 0.2)
    assert len(loader.shapes) <= 2


def test_composition_follows_from_seed_and_epoch_and_differs_between_epochs():
    draw = Draw(clusters(60), 4, 1)
    together = lambda batches: {frozenset(batch.tolist()) for batch in batches if len(batch) > 1}
    assert [b.tolist() for b in draw(1, 2)] == [b.tolist() for b in draw(1, 2)]
    assert len(together(draw(1, 2)) & together(draw(1, 3))) < 3 and len(together(draw(1, 2)) & together(draw(2, 2))) < 3
    # A frame meets others in every epoch: nearly all in the end.
    met = {int(j) for epoch in range(120) for batch in draw(0, epoch) if 7 in batch for j in batch}
    assert len(met) > 45


@pytest.mark.parametrize("sizes", [[9, 9, 9, 9, 9], [5, 6, 7]], ids=["equal frames", "as many batches as frames"])
def test_batches_are_not_composed_where_nothing_can_be_gained(sizes):
    table = np.array([(n, n - 1, n * (n - 1) // 2) for n in sizes])
    size = 2 if len(sizes) > 3 else 1
    loader = plan_training(sized(table), {}, size, 1, np.float32, 3)
    for epoch in range(4):
        for got, expected in zip(loader.epoch(3, epoch), epoch_batches(len(sizes), size, 3, epoch), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_an_epoch_whose_batches_do_not_fit_is_composed_in_another_way():
    loader = plan_training(sized(clusters(40)), {}, 4, 1, np.float32, 0)
    (shape,) = loader.shapes
    least = min(max(need(loader.shards(b), loader.frames.sizes).pairs for b in loader.draw(0, 7, k)) for k in range(20))
    assert least < shape.pairs
    # Room for the first epoch and hardly any other.
    needs = np.array([need(loader.shards(b), loader.frames.sizes) for b in loader.draw(0, 0)]).max(axis=0)
    tight = dataclasses.replace(loader, shapes=(Shape(*map(int, needs)),))
    for epoch in range(40):
        batches = tight.epoch(0, epoch)
        assert sorted(np.concatenate(batches)) == list(range(40))
        assert all(fits(need(tight.shards(b), tight.frames.sizes), tight.shapes[0]) for b in batches)


def test_no_pair_is_dropped_from_a_batch(frames):
    loader = plan_training(frames, tiny.ENERGIES, 5, 1, np.float32, seed=0)
    shards = loader.shards(loader.epoch(0, 0)[0])
    graph = loader.build(shards).graph
    assert graph.slot_mask.sum() == frames.sizes[list(shards[0]), 2].sum()
    shape = loader.shape(shards)._replace(pairs=int(graph.slot_mask.sum()) - 1)
    with pytest.raises(ValueError, match="does not fit"):
        loader.build(shards, shape)


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
        for batch in sorted_batches(frames.sizes, 6):
            loader.build(loader.shards(batch))
