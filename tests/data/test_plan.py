"""Batches of any list: each structure once, within the limit, in few shapes, with little padding."""

from collections import Counter

import numpy as np
import pytest

from equipot.data.plan import Limit, cost, plan_batches, rung, rung_below


def random_sizes(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(1, 400, count), rng.integers(1, 90, count)], axis=1)


LISTS = {
    "molecules": np.tile([9, 8], (1000, 1)),
    "molecules beside a great cell": np.array([*[[9, 20]] * 600, [5000, 60], *[[12, 22]] * 400]),
    "anything": random_sizes(1000),
    "one": np.array([[7, 5]]),
    "lone atoms": np.array([[1, 1]] * 3 + [[1, 0]] * 2),
}


def test_rungs_are_a_quarter_of_an_octave_apart():
    assert [rung(n) for n in (1, 7, 8, 9, 15, 16, 17, 33, 4096, 5000)] == [1, 7, 8, 10, 16, 16, 20, 40, 4096, 5120]
    for n in range(1, 3000):
        assert rung_below(n) <= n <= rung(n) <= max(n, 1.25 * n) and rung(rung(n)) == rung(n) == rung_below(rung(n))
    assert len({rung(n) for n in range(1, 2**20 + 1)}) <= 8 + 4 * 17


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("limit", [Limit(2**13), Limit(2**20), Limit(50), Limit(frames=7), Limit(2**13, 5)], ids=str)
def test_every_structure_once_in_a_shape_that_holds_it(name, limit):
    sizes = LISTS[name]
    batches = plan_batches(sizes, limit)
    assert sorted(i for b in batches for i in b.frames) == list(range(len(sizes)))
    for frames, shape in batches:
        atoms, slots = int(sizes[list(frames), 0].sum()), int(sizes[list(frames), 1].max())
        assert shape.atoms >= atoms and shape.slots >= slots and shape.graphs >= len(frames)
        if len(frames) > 1:
            assert limit.slots is None or atoms * slots <= limit.slots
            assert limit.frames is None or len(frames) <= limit.frames
    work = [cost(b.shape.atoms, b.shape.slots) for b in batches]
    assert work == sorted(work, reverse=True)
    assert plan_batches(sizes, limit) == batches


def test_molecules_are_not_padded_to_a_great_cell():
    sizes = LISTS["molecules beside a great cell"]
    batches = plan_batches(sizes, Limit(2**13))
    assert len({b.shape for b in batches}) == 2
    assert batches[0].frames == (600,) and batches[0].shape[:2] == (5120, 64)
    assert all(b.shape.slots <= 24 for b in batches[1:])
    used = int((sizes[:, 0] * sizes[:, 1]).sum())
    assert used > 0.75 * sum(b.shape.atoms * b.shape.slots for b in batches)


@pytest.mark.parametrize("name, most", [("molecules", 1), ("anything", 25), ("one", 1), ("lone atoms", 1)])
def test_few_shapes(name, most):
    batches = plan_batches(LISTS[name], Limit(2**13))
    assert len({b.shape for b in batches}) <= most
    used = int((LISTS[name][:, 0] * np.maximum(LISTS[name][:, 1], 1)).sum())
    assert used > 0.5 * sum(b.shape.atoms * b.shape.slots for b in batches) or len(batches) == 1


def test_lists_that_differ_a_little_share_their_shapes():
    shapes = Counter(b.shape for k in range(60) for b in plan_batches(np.tile([9, 8], (200 + k, 1)), Limit(2**13)))
    assert len(shapes) <= 4


def test_nothing_needs_no_batch():
    assert plan_batches(np.zeros((0, 2), int), Limit(100)) == []
