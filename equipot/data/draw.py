"""Draw the batches of training epochs and of evaluation, and choose shapes that hold them.

All random choices depend on (seed, epoch) only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot.data.batch import Shape
from equipot.data.compose import compose, fill
from equipot.data.plan import packed_cost, plan_ladder

Shards = tuple[tuple[int, ...], ...]
"""Indices of the frames of one batch, for each device."""
SAMPLE = 2000
"""Number of batches from which shapes are chosen."""
SHAPES = 4
"""Largest number of shapes of a set."""
USUAL = 0.7
"""Share of the epochs whose composed batches are within the largest shape at the first attempt, in each of its sizes."""
ROOM = 1.005
"""Size of a shape over that of the largest of the composed batches that are examples for it, so that later ones fit, too."""
WORTH_PACKING = 0.9
"""Largest share of the slots that may hold pairs where a shape has a capacity for pairs."""


class Replayed(NamedTuple):
    """Replayed frames: the last frames of a set, of which each epoch draws some."""

    pool: int
    """Number of replayed frames in the set."""
    drawn: int
    """Number of replayed frames in an epoch, at most ``pool``."""


def epoch_frames(count: int, seed: int, epoch: int, replay: Replayed | None = None) -> np.ndarray:
    """Draw and shuffle the frames of an epoch by (seed, epoch); ``count`` is the number of frames, replayed frames included."""
    rng = np.random.default_rng([seed, epoch])
    if replay is None:
        return rng.permutation(count)
    first = count - replay.pool
    return rng.permutation(np.concatenate([np.arange(first), first + rng.permutation(replay.pool)[: replay.drawn]]))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, replay: Replayed | None = None) -> list[np.ndarray]:
    """Shuffle the frames of an epoch by (seed, epoch) and split them into batches whose sizes differ by at most one.

    Args:
        count: number of frames in the set, replayed frames included.

    Returns:
        Indices of the frames of each batch.
    """
    order = epoch_frames(count, seed, epoch, replay)
    return np.array_split(order, math.ceil(len(order) / batch_size))


class Draw(NamedTuple):
    """Rule by which the batches of training epochs are drawn from a set, a function of (seed, epoch)."""

    sizes: np.ndarray
    """(frames, 3) atoms, slots and pairs of each frame."""
    batch_size: int
    """Frames per batch over all devices, in the mean over an epoch."""
    devices: int
    replay: Replayed | None = None

    @property
    def composed(self) -> bool:
        """Whether batches are composed, since frames have unequal numbers of atoms and a batch has several."""
        drawn = len(self.sizes) if self.replay is None else len(self.sizes) - self.replay.pool + self.replay.drawn
        enough = drawn > math.ceil(drawn / self.batch_size) * self.devices
        return enough and bool(np.ptp(self.sizes[:, 0]))

    def __call__(self, seed: int, epoch: int, attempt: int = 0) -> list[np.ndarray]:
        """Draw the frames of each batch; with another ``attempt``, compose the frames of the epoch in another way."""
        if not self.composed:
            return epoch_batches(len(self.sizes), self.batch_size, seed, epoch, self.replay)
        order = epoch_frames(len(self.sizes), seed, epoch, self.replay)
        rng = np.random.default_rng([seed, epoch, attempt])
        parts = compose(self.sizes[order][:, [0, 2]], math.ceil(len(order) / self.batch_size), self.devices, rng)
        return [order[part] for part in parts]


def sorted_batches(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split frames, sorted by size, into batches for evaluation; ``sizes`` are (frames, 3) atoms, slots and pairs."""
    order = np.lexsort((sizes[:, 0], sizes[:, 1]))
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def deal(frames: np.ndarray, sizes: np.ndarray, devices: int) -> Shards:
    """Distribute the frames of a batch over devices so that each gets about as many atoms and pairs.

    Frames with equally many atoms are dealt in snake order.
    """
    order = frames[np.argsort(-sizes[frames, 0], kind="stable")]
    if devices > 1 and len(order) and np.ptp(sizes[order, 0]):
        loads = sizes[order][:, [0, 2]]
        device = fill(loads / np.maximum(loads.sum(axis=0) / devices, 1), devices)
    else:
        turn = np.arange(len(order)) % (2 * devices)
        device = np.where(turn < devices, turn, 2 * devices - 1 - turn)
    return tuple(tuple(int(i) for i in order[device == d]) for d in range(devices))


def need(shards: Shards, sizes: np.ndarray) -> Shape:
    """Return the smallest shape that holds the shard of every device; ``sizes`` are (frames, 3) atoms, slots and pairs."""
    held = [sizes[list(s)] for s in shards if s]
    most = lambda values: max((int(v) for v in values), default=1)
    return Shape(
        max(most(s[:, 0].sum() for s in held), 1),
        most(s[:, 1].max() for s in held),
        most(len(s) for s in held),
        most(s[:, 2].sum() for s in held),
    )


def fits(small: Shape, shape: Shape) -> bool:
    """Return whether a batch that needs the shape ``small`` fits into another shape."""
    return all(limit is None or (n is not None and n <= limit) for n, limit in zip(small, shape, strict=True))


def largest_need(sizes: np.ndarray, graphs: int) -> Shape:
    """Return the smallest shape that holds any ``graphs`` frames; ``sizes`` are (frames, 3) atoms, slots and pairs."""
    most = lambda values: max(1, int(np.sort(values)[-graphs:].sum()))
    return Shape(most(sizes[:, 0]), max(1, int(sizes[:, 1].max(initial=1))), graphs, most(sizes[:, 2]))


def composed_shapes(epochs: Sequence[Sequence[np.ndarray]], draw: Draw) -> tuple[Shape, ...]:
    """Choose at most ``SHAPES`` shapes, cheapest first, that hold the composed batches of at least one of the epochs.

    Their pairs decide, not their slots. The last shape is for most of the epochs: the others are composed in another way.
    """
    needs = [needs_of(batches, draw) for batches in epochs]
    largest = np.array([held.max(axis=0) for held in needs])
    # Each of three sizes is exceeded by less than a third of the epochs, so that one epoch has all batches within them.
    cover = np.quantile(largest, USUAL, axis=0, method="higher")
    most = [math.ceil(n * ROOM) for n in cover]
    every = np.concatenate(needs)
    slots, every = int(every[:, 1].max()), every[(every[:, [0, 2, 3]] <= cover[[0, 2, 3]]).all(axis=1)]
    rungs = plan_ladder(every[:, [0, 3]], (most[0], most[3]), SHAPES, packed_cost)
    return tuple(packed(Shape(atoms, slots, most[2], pairs)) for atoms, pairs in rungs)


def choose_shapes(batches: Sequence[np.ndarray], draw: Draw) -> tuple[Shape, ...]:
    """Choose at most ``SHAPES`` shapes, cheapest first, that suit batches; the last holds any that are not composed."""
    return covering_shapes(needs_of(batches, draw), largest_need(draw.sizes, math.ceil(draw.batch_size / draw.devices)))


def shapes_of_all(batches: Sequence[np.ndarray], draw: Draw) -> tuple[Shape, ...]:
    """Choose at most ``SHAPES`` shapes, cheapest first, the last of which holds each of the batches: there are no others."""
    needs = needs_of(batches, draw)
    return covering_shapes(needs, Shape(*(int(n) for n in needs.max(axis=0, initial=1))))


def covering_shapes(left: np.ndarray, cover: Shape) -> tuple[Shape, ...]:
    """Choose at most ``SHAPES`` shapes that suit batches, the last of which is ``cover``; ``left`` are ``needs_of`` batches."""
    assert cover.pairs is not None
    shapes = list[Shape]()
    for atoms, slots in plan_ladder(left[:, :2], cover[:2], SHAPES):
        inside = (left[:, :2] <= (atoms, slots)).all(axis=1)
        pairs = cover.pairs if (atoms, slots) == cover[:2] else int(left[inside, 3].max(initial=1))
        shapes.append(packed(Shape(atoms, slots, cover.graphs, pairs)))
        left = left[~inside]
    return tuple(shapes)


def needs_of(batches: Sequence[np.ndarray], draw: Draw) -> np.ndarray:
    """Compute the smallest shape of each batch: (batches, 4) atoms, slots, graphs and pairs."""
    needs = [need(deal(batch, draw.sizes, draw.devices), draw.sizes) for batch in batches]
    return np.array(needs, int).reshape(-1, 4)


def packed(shape: Shape) -> Shape:
    """Drop the capacity for pairs where hardly any slot is without a pair, as among equal molecules."""
    assert shape.pairs is not None
    return shape if shape.pairs < WORTH_PACKING * shape.atoms * shape.slots else shape._replace(pairs=None)
