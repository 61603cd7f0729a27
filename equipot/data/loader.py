"""Batches of a training run: which frames go together, in which padded shape of a planned ladder, on which device, built ahead.

Everything random follows from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from equipot.data.batch import Batch, Shape, find_slots, pad, pad_targets
from equipot.data.plan import plan_ladder
from equipot.neighbors import Slots
from equipot.quantities import LABELLED, Quantity, ordered
from equipot.structure import Structure

T = TypeVar("T")
Shards = tuple[tuple[int, ...], ...]
"""The frames of one batch, for each device."""

SAMPLE = 2000
"""Batches looked at when shapes are chosen."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Structures with their neighbour slots, found once and kept as far as memory allows."""

    structures: Sequence[Structure]
    """Anything with a length and an index: a list, or a file read frame by frame."""
    cutoff: float
    """Å."""
    found: tuple[Slots | None, ...]
    sizes: np.ndarray
    """(frames, 2) atoms and slots of each."""
    quantities: tuple[Quantity, ...]
    """What any frame has a label of."""
    headed: bool
    """Whether the frames have heads."""

    def __len__(self) -> int:
        return len(self.found)

    def slots(self, index: int, structure: Structure) -> Slots:
        return self.found[index] or find_slots(structure, self.cutoff)


class Replayed(NamedTuple):
    """The last frames of a set, of which an epoch has a random part."""

    pool: int
    drawn: int
    """Of the pool, for each epoch; at most all of it."""


def prepare(structures: Sequence[Structure], cutoff: float, memory: float = 1.0) -> Frames:
    """Find the neighbour slots of a set in one pass: kept until they fill ``memory`` GiB, else found again when needed."""
    found: list[Slots | None] = []
    sizes, quantities, used, headed = [], set(), 0.0, False
    for k in range(len(structures)):
        structure = structures[k]
        s = find_slots(structure, cutoff)
        sizes.append(s.mask.shape)
        used += sum(array.nbytes for array in s) / 2**30
        found.append(s if used < memory else None)
        quantities |= structure.labels.keys()
        headed |= structure.head is not None
    sizes = np.array(sizes, int).reshape(-1, 2)
    return Frames(structures, cutoff, tuple(found), sizes, ordered(quantities), headed)


def sha256_of(structures: Sequence[Structure]) -> str:
    """SHA-256 of every number in every frame. Checkpoints keep it: what it is made of must not change."""
    digest = hashlib.sha256()
    for k in range(len(structures)):
        _update(digest, structures[k])
    return digest.hexdigest()


def _update(digest: Any, s: Structure) -> None:
    factors = [s.label_weights.get(row, 1.0) for row in LABELLED]
    labels = [s.labels.get(row) for row in LABELLED]
    for value in (s.numbers, s.positions, s.cell, s.pbc, *labels, s.head, [s.charge, s.spin, s.weight, *factors]):
        digest.update(b"none" if value is None else np.asarray(value).tobytes())
    for row in ordered(s.labels.keys() - set(LABELLED)):
        digest.update(row.name.encode() + np.asarray([*np.ravel(s.labels[row]), s.label_weights.get(row, 1.0)]).tobytes())


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, replay: Replayed | None = None) -> list[np.ndarray]:
    """Frames of each batch of an epoch: shuffled by (seed, epoch), in batches whose sizes differ by at most one.

    With ``replay``, the last frames of the ``count`` are a pool of which every epoch has some.
    """
    rng = np.random.default_rng([seed, epoch])
    if replay is None:
        order = rng.permutation(count)
    else:
        first = count - replay.pool
        order = rng.permutation(np.concatenate([np.arange(first), first + rng.permutation(replay.pool)[: replay.drawn]]))
    return np.array_split(order, math.ceil(len(order) / batch_size))


def sorted_batches(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Every frame once, like sizes together: for evaluation, where the order does not matter."""
    order = np.lexsort((sizes[:, 0], sizes[:, 1]))
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def deal(frames: np.ndarray, sizes: np.ndarray, devices: int) -> Shards:
    """The frames of a batch over the devices, the largest first, to and fro, so that atoms are shared evenly."""
    order = frames[np.argsort(-sizes[frames, 0], kind="stable")]
    turn = np.arange(len(order)) % (2 * devices)
    device = np.where(turn < devices, turn, 2 * devices - 1 - turn)
    return tuple(tuple(int(i) for i in order[device == d]) for d in range(devices))


def need(shards: Shards, sizes: np.ndarray) -> tuple[int, int]:
    """Atoms and slots that the fullest device needs."""
    atoms = max(int(sizes[list(s), 0].sum()) for s in shards)
    return max(atoms, 1), max((int(sizes[list(s), 1].max()) for s in shards if s), default=1)


@dataclass(frozen=True, eq=False)
class Loader:
    """How a set becomes batches: the frames, the isolated atoms' energies, the ladder of shapes and the devices."""

    frames: Frames
    atomic_energies: Mapping[int, float]
    shapes: tuple[Shape, ...]
    batch_size: int
    """Frames of a whole batch, over all devices."""
    devices: int
    dtype: Any
    replay: Replayed | None = None
    """What an epoch does not have in full."""

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of a training epoch, see ``epoch_batches``."""
        return epoch_batches(len(self.frames), self.batch_size, seed, epoch, self.replay)

    def shards(self, frames: np.ndarray) -> Shards:
        return deal(frames, self.frames.sizes, self.devices)

    def shape(self, shards: Shards) -> Shape:
        """The cheapest rung that holds the batch."""
        atoms, slots = need(shards, self.frames.sizes)
        return next(s for s in self.shapes if s.atoms >= atoms and s.slots >= slots)

    def build(self, shards: Shards, shape: Shape | None = None) -> Batch:
        """The padded batch on the host, with a leading axis of devices."""
        shape = shape or self.shape(shards)
        parts = [self._shard(list(indices), shape) for indices in shards]
        return jax.tree.map(lambda *x: np.stack(x), *parts)

    def _shard(self, indices: list[int], shape: Shape) -> Batch:
        structures = [self.frames.structures[i] for i in indices]
        found = [self.frames.slots(i, s) for i, s in zip(indices, structures, strict=True)]
        graph = pad(structures, self.frames.cutoff, shape, self.dtype, found, self.frames.headed)
        targets = pad_targets(structures, shape, self.atomic_energies, indices, self.dtype, self.frames.quantities)
        return Batch(graph, targets)

    def padding(self, batches: Sequence[np.ndarray]) -> float:
        """Share of the slots of these batches that hold no atom's neighbour row of its own frame: padding of both kinds."""
        sizes = self.frames.sizes
        used = sum(int((sizes[b, 0] * sizes[b, 1]).sum()) for b in batches)
        shapes = [self.shape(self.shards(b)) for b in batches]
        return 1 - used / max(1, sum(self.devices * s.atoms * s.slots for s in shapes))


def plan(
    frames: Frames,
    atomic_energies: Mapping[int, float],
    batch_size: int,
    devices: int,
    dtype: Any,
    batches: Iterable[np.ndarray],
    limit: int = 4,
) -> Loader:
    """A loader whose shapes suit ``batches`` (as many as are looked at) and hold any other batch of as many frames."""
    sizes = frames.sizes
    graphs = math.ceil(batch_size / devices)
    sample = [b for b, _ in zip(batches, range(SAMPLE), strict=False)]
    needs = np.array([need(deal(b, sizes, devices), sizes) for b in sample])
    cover = (max(1, int(np.sort(sizes[:, 0])[-graphs:].sum())), max(1, int(sizes[:, 1].max())))
    shapes = tuple(Shape(atoms, slots, graphs) for atoms, slots in plan_ladder(needs, cover, limit))
    return Loader(frames, atomic_energies, shapes, batch_size, devices, dtype)


def plan_training(
    frames: Frames,
    atomic_energies: Mapping[int, float],
    batch_size: int,
    devices: int,
    dtype: Any,
    seed: int,
    replay: Replayed | None = None,
) -> Loader:
    """A loader for shuffled epochs."""
    ahead = (b for epoch in range(SAMPLE) for b in epoch_batches(len(frames), batch_size, seed, epoch, replay))
    return replace(plan(frames, atomic_energies, batch_size, devices, dtype, ahead), replay=replay)


def plan_evaluation(frames: Frames, atomic_energies: Mapping[int, float], batch_size: int, devices: int, dtype: Any) -> Loader:
    """A loader for one pass in ``sorted_batches``."""
    return plan(frames, atomic_energies, batch_size, devices, dtype, sorted_batches(frames.sizes, batch_size))


def prefetch(items: Iterable[T], build: Callable[[T], Any], depth: int = 2) -> Iterator[tuple[T, Any]]:
    """Each item with ``build(item)``, built up to ``depth`` ahead in a thread; an error there is raised here."""
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(value: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(value, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                put((item, build(item), None))
            put((None, None, StopIteration()))
        except BaseException as error:
            put((None, None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, built, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item, built
    finally:
        stop.set()
        thread.join()
