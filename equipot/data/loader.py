"""Batches of a training run: frames of each batch, their padded shape, their device, and building ahead in a thread.

All random choices depend on (seed, epoch) only.
"""

from __future__ import annotations

import hashlib
import math
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from equipot.data.batch import Batch, Shape, find_slots, pad, pad_targets
from equipot.data.plan import plan_ladder
from equipot.extent import Extent
from equipot.graph import Shell
from equipot.neighbors import Slots
from equipot.neighbors.shells import crowding
from equipot.quantities import LABELLED, Quantity, ordered
from equipot.structure import Structure

T = TypeVar("T")
Shards = tuple[tuple[int, ...], ...]
"""Indices of the frames of one batch, for each device."""

SAMPLE = 2000
"""Number of batches from which shapes are chosen."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Structures of a set with their neighbour slots."""

    structures: Sequence[Structure]
    """A list, or another sequence such as a file that is read frame by frame."""
    cutoff: float
    """Å."""
    found: tuple[Slots | None, ...]
    """Neighbour slots of each structure; None if they are searched for again on use."""
    sizes: np.ndarray
    """(frames, 2) atoms and slots of each frame."""
    quantities: tuple[Quantity, ...]
    """Quantities of which any frame has a label."""
    headed: bool
    """Whether the frames have heads."""
    extent: Extent | None = None
    """Atoms and waves of all frames, for a term that needs ``space``."""
    shells: tuple[Shell, ...] = ()
    """Room for the neighbours within shorter cutoffs that any frame needs."""

    def __len__(self) -> int:
        return len(self.found)

    def slots(self, index: int, structure: Structure) -> Slots:
        """Return the neighbour slots of a frame, stored or searched for."""
        return self.found[index] or find_slots(structure, self.cutoff, bool(self.shells))


class Replayed(NamedTuple):
    """Replayed frames: the last frames of a set, of which each epoch draws some."""

    pool: int
    """Number of replayed frames in the set."""
    drawn: int
    """Number of replayed frames in an epoch, at most ``pool``."""


def prepare(
    structures: Sequence[Structure],
    cutoff: float,
    inner_cutoffs: Sequence[float] = (),
    memory: float = 1.0,
    extent: Extent | None = None,
) -> Frames:
    """Find the neighbour slots of a set; store them up to ``memory`` GiB, and search for the others again on use.

    Args:
        cutoff: Å.
        inner_cutoffs: Shorter cutoffs of parts of the term, Å.
        memory: GiB.
        extent: atoms and waves of all structures, for a term that needs ``space``.
    """
    found: list[Slots | None] = []
    sizes: list[tuple[int, ...]] = []
    crowds = [(1,) * len(inner_cutoffs)]
    quantities: set[Quantity] = set()
    used, headed = 0.0, False
    for k in range(len(structures)):
        structure = structures[k]
        s = find_slots(structure, cutoff, bool(inner_cutoffs))
        crowds.append(crowding(s, structure.positions, structure.cell, inner_cutoffs))
        sizes.append(s.mask.shape)
        used += sum(array.nbytes for array in s) / 2**30
        found.append(s if used < memory else None)
        quantities |= structure.labels.keys()
        headed |= structure.head is not None
    shells = tuple(Shell(c, max(counts)) for c, counts in zip(inner_cutoffs, zip(*crowds, strict=True), strict=True))
    sized = np.array(sizes, int).reshape(-1, 2)
    return Frames(structures, cutoff, tuple(found), sized, ordered(quantities), headed, extent, shells)


def sha256_of(structures: Sequence[Structure]) -> str:
    """Compute the SHA-256 of all numbers of all frames. Checkpoints store this digest: the definition must not change."""
    digest = hashlib.sha256()
    for k in range(len(structures)):
        _update(digest, structures[k])
    return digest.hexdigest()


def _update(digest: Any, s: Structure) -> None:
    factors = [s.label_weights.get(row, 1.0) for row in LABELLED]
    labels = [s.labels.get(row) for row in LABELLED]
    for value in (s.numbers, s.positions, s.cell, s.pbc, *labels, s.head, [s.charge, s.spin, s.weight, *factors]):
        digest.update(b"none" if value is None else np.asarray(value).tobytes())
    if s.field.any():
        digest.update(b"field" + s.field.tobytes())
    for row in ordered(s.labels.keys() - set(LABELLED)):
        digest.update(row.name.encode() + np.asarray([*np.ravel(s.labels[row]), s.label_weights.get(row, 1.0)]).tobytes())


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, replay: Replayed | None = None) -> list[np.ndarray]:
    """Shuffle the frames of an epoch by (seed, epoch) and split them into batches whose sizes differ by at most one.

    Args:
        count: number of frames in the set, replayed frames included.

    Returns:
        Indices of the frames of each batch.
    """
    rng = np.random.default_rng([seed, epoch])
    if replay is None:
        order = rng.permutation(count)
    else:
        first = count - replay.pool
        order = rng.permutation(np.concatenate([np.arange(first), first + rng.permutation(replay.pool)[: replay.drawn]]))
    return np.array_split(order, math.ceil(len(order) / batch_size))


def sorted_batches(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split frames, sorted by size, into batches for evaluation; ``sizes`` are (frames, 2) atoms and slots."""
    order = np.lexsort((sizes[:, 0], sizes[:, 1]))
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def deal(frames: np.ndarray, sizes: np.ndarray, devices: int) -> Shards:
    """Distribute the frames of a batch over devices in snake order by size, so that each gets about as many atoms."""
    order = frames[np.argsort(-sizes[frames, 0], kind="stable")]
    turn = np.arange(len(order)) % (2 * devices)
    device = np.where(turn < devices, turn, 2 * devices - 1 - turn)
    return tuple(tuple(int(i) for i in order[device == d]) for d in range(devices))


def need(shards: Shards, sizes: np.ndarray) -> tuple[int, int]:
    """Return the atoms and slots that hold the shard of every device."""
    atoms = max(int(sizes[list(s), 0].sum()) for s in shards)
    return max(atoms, 1), max((int(sizes[list(s), 1].max()) for s in shards if s), default=1)


@dataclass(frozen=True, eq=False)
class Loader:
    """Builder of the batches of a set in a planned ladder of shapes."""

    frames: Frames
    atomic_energies: Mapping[int, float]
    """E0, eV by Z."""
    shapes: tuple[Shape, ...]
    """Shapes of a batch on one device, cheapest first."""
    batch_size: int
    """Frames per batch over all devices."""
    devices: int
    dtype: Any
    replay: Replayed | None = None
    """Frames of which each epoch draws some."""

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Draw the batches of a training epoch, see ``epoch_batches``."""
        return epoch_batches(len(self.frames), self.batch_size, seed, epoch, self.replay)

    def shards(self, frames: np.ndarray) -> Shards:
        """Distribute the frames of a batch over the devices."""
        return deal(frames, self.frames.sizes, self.devices)

    def shape(self, shards: Shards) -> Shape:
        """Return the cheapest shape that holds the batch."""
        atoms, slots = need(shards, self.frames.sizes)
        return next(s for s in self.shapes if s.atoms >= atoms and s.slots >= slots)

    def build(self, shards: Shards, shape: Shape | None = None) -> Batch:
        """Build the padded batch on the host; every array has a leading axis of devices."""
        shape = shape or self.shape(shards)
        parts = [self._shard(list(indices), shape) for indices in shards]
        return jax.tree.map(lambda *x: np.stack(x), *parts)

    def _shard(self, indices: list[int], shape: Shape) -> Batch:
        structures = [self.frames.structures[i] for i in indices]
        found = [self.frames.slots(i, s) for i, s in zip(indices, structures, strict=True)]
        frames = self.frames
        graph = pad(structures, frames.cutoff, shape, self.dtype, found, frames.headed, frames.extent, frames.shells)
        targets = pad_targets(structures, shape, self.atomic_energies, indices, self.dtype, self.frames.quantities)
        return Batch(graph, targets)

    def padding(self, batches: Sequence[np.ndarray]) -> float:
        """Compute the share of padding in the slots of some batches, from 0 to 1."""
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
    """Plan a loader of at most ``limit`` shapes that suit the first ``SAMPLE`` of ``batches`` and hold any other batch."""
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
    """Plan a loader for shuffled epochs."""
    ahead = (b for epoch in range(SAMPLE) for b in epoch_batches(len(frames), batch_size, seed, epoch, replay))
    return replace(plan(frames, atomic_energies, batch_size, devices, dtype, ahead), replay=replay)


def plan_evaluation(frames: Frames, atomic_energies: Mapping[int, float], batch_size: int, devices: int, dtype: Any) -> Loader:
    """Plan a loader for one pass in ``sorted_batches``."""
    return plan(frames, atomic_energies, batch_size, devices, dtype, sorted_batches(frames.sizes, batch_size))


def prefetch(items: Iterable[T], build: Callable[[T], Any], depth: int = 2) -> Generator[tuple[T, Any]]:
    """Iterate over (item, build(item)), built up to ``depth`` items ahead in a thread; errors of the thread are raised here."""
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
