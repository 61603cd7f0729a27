"""Batches of a training run: neighbours of its frames, padded batches on the host, and building ahead in a thread."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import numpy as np

from equipot.data.batch import Batch, Shape, find_slots, pad, pad_targets
from equipot.data.draw import (
    SAMPLE,
    Draw,
    Replayed,
    Shards,
    choose_shapes,
    composed_shapes,
    deal,
    fits,
    need,
    shapes_of_all,
    sorted_batches,
)
from equipot.extent import Extent
from equipot.graph import Shell
from equipot.neighbors import Slots
from equipot.neighbors.shells import crowding
from equipot.quantities import LABELLED, Quantity, ordered
from equipot.structure import Structure

T = TypeVar("T")
COMPOSED = 10_000
"""Number of frames beyond which no further epoch is composed to choose shapes."""
ATTEMPTS = 20
"""Number of ways in which the batches of an epoch are composed until all fit their shapes."""


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
    """(frames, 3) atoms, slots and pairs of each frame."""
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
        sizes.append((*s.mask.shape, int(s.mask.sum())))
        used += sum(array.nbytes for array in s) / 2**30
        found.append(s if used < memory else None)
        quantities |= structure.labels.keys()
        headed |= structure.head is not None
    shells = tuple(Shell(c, max(counts)) for c, counts in zip(inner_cutoffs, zip(*crowds, strict=True), strict=True))
    sized = np.array(sizes, int).reshape(-1, 3)
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


@dataclass(frozen=True, eq=False)
class Loader:
    """Builder of the batches of a set in a planned ladder of shapes."""

    frames: Frames
    atomic_energies: Mapping[int, float]
    """E0, eV by Z."""
    shapes: tuple[Shape, ...]
    """Shapes of a batch on one device, cheapest first."""
    dtype: Any
    draw: Draw
    """Rule of the batches of training epochs."""
    drawn: dict[tuple[int, int], list[np.ndarray]] = field(default_factory=dict)
    """Batches of the last epoch asked for, by (seed, epoch): they are asked for more than once, and take time."""

    @property
    def batch_size(self) -> int:
        """Frames per batch over all devices, in the mean over an epoch."""
        return self.draw.batch_size

    @property
    def devices(self) -> int:
        """Number of devices that share a batch."""
        return self.draw.devices

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Draw the batches of a training epoch, each of which fits a shape of the loader.

        Where the batches of ``draw`` do not fit, others are composed; at the last, those of an epoch for which the shapes were
        planned, in another order.
        """
        if (seed, epoch) not in self.drawn:
            batches = self._fitting(seed, epoch)
            self.drawn.clear()
            self.drawn[seed, epoch] = batches
        return self.drawn[seed, epoch]

    def _fitting(self, seed: int, epoch: int) -> list[np.ndarray]:
        for attempt in range(ATTEMPTS):
            batches = self.draw(seed, epoch, attempt)
            if self._holds(batches):
                return batches
        others = (self.draw(seed, other) for other in range(SAMPLE))
        batches = next(filter(self._holds, others), [])
        assert batches, f"no epoch of {SAMPLE} fits the planned shape {self.shapes[-1]}"
        return [batches[k] for k in np.random.default_rng([seed, epoch]).permutation(len(batches))]

    def _holds(self, batches: Sequence[np.ndarray]) -> bool:
        """Return whether the largest shape holds each of the batches."""
        return all(fits(need(self.shards(batch), self.frames.sizes), self.shapes[-1]) for batch in batches)

    def shards(self, frames: np.ndarray) -> Shards:
        """Distribute the frames of a batch over the devices."""
        return deal(frames, self.frames.sizes, self.devices)

    def shape(self, shards: Shards) -> Shape:
        """Return the cheapest shape that holds the batch."""
        small = need(shards, self.frames.sizes)
        found = next((s for s in self.shapes if fits(small, s)), None)
        assert found is not None, f"no planned shape holds a batch that needs {small}: {self.shapes}"
        return found

    def build(self, shards: Shards, shape: Shape | None = None, key: tuple[int, ...] = ()) -> Batch:
        """Build the padded batch on the host; every array has a leading axis of devices.

        ``key`` decides about the random directions that Hessians are multiplied by, see ``pad_targets``: seed and epoch in
        training, so that a run that is resumed sees the same; nothing in validation, so that epochs can be compared.
        """
        shape = shape or self.shape(shards)
        parts = [self._shard(list(indices), shape, key) for indices in shards]
        return jax.tree.map(lambda *x: np.stack(x), *parts)

    def _shard(self, indices: list[int], shape: Shape, key: tuple[int, ...]) -> Batch:
        structures = [self.frames.structures[i] for i in indices]
        found = [self.frames.slots(i, s) for i, s in zip(indices, structures, strict=True)]
        frames = self.frames
        graph = pad(structures, frames.cutoff, shape, self.dtype, found, frames.headed, frames.extent, frames.shells)
        targets = pad_targets(structures, shape, self.atomic_energies, indices, self.dtype, self.frames.quantities, key)
        return Batch(graph, targets)

    def padding(self, batches: Sequence[np.ndarray]) -> tuple[float, float]:
        """Compute the shares of padding in the atoms and in the pairs of some batches, from 0 to 1."""
        shapes = [self.shape(self.shards(b)) for b in batches]
        atoms = sum(self.devices * s.atoms for s in shapes)
        pairs = sum(self.devices * (s.atoms * s.slots if s.pairs is None else s.pairs) for s in shapes)
        used = sum((self.frames.sizes[b].sum(axis=0) for b in batches), np.zeros(3, int))
        return 1 - float(used[0]) / max(1, atoms), 1 - float(used[2]) / max(1, pairs)


def plan_training(
    frames: Frames,
    atomic_energies: Mapping[int, float],
    batch_size: int,
    devices: int,
    dtype: Any,
    seed: int,
    replay: Replayed | None = None,
) -> Loader:
    """Plan a loader for shuffled epochs, whose shapes suit the first ``SAMPLE`` batches or more and hold those of any epoch."""
    draw = Draw(frames.sizes, batch_size, devices, replay)
    epochs, count = list[list[np.ndarray]](), 0
    while count < SAMPLE and not (draw.composed and len(epochs) * len(frames) > COMPOSED):
        epochs.append(draw(seed, len(epochs)))
        count += len(epochs[-1])
    sample = [batch for batches in epochs for batch in batches][:SAMPLE]
    # Composed epochs count as a whole: all batches of an epoch must fit.
    shapes = composed_shapes(epochs, draw) if draw.composed else choose_shapes(sample, draw)
    return Loader(frames, atomic_energies, shapes, dtype, draw)


def plan_evaluation(frames: Frames, atomic_energies: Mapping[int, float], batch_size: int, devices: int, dtype: Any) -> Loader:
    """Plan a loader for one pass in ``sorted_batches``."""
    draw, batches = Draw(frames.sizes, batch_size, devices), sorted_batches(frames.sizes, batch_size)
    return Loader(frames, atomic_energies, shapes_of_all(batches, draw), dtype, draw)


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
            put(None)
        except BaseException as error:
            put((None, None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            got = ready.get()
            if got is None:
                return
            item, built, error = got
            if error is not None:
                raise error
            yield item, built
    finally:
        stop.set()
        thread.join()
