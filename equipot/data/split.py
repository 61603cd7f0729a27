"""Training, validation and limit: index sets that depend on the seed and the number of frames only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from equipot.quantities import Quantity
from equipot.structure import Structure


@dataclass(frozen=True, eq=False)
class Subset(Sequence):
    """Some frames of a sequence, in a given order, read when they are asked for."""

    parent: Sequence[Structure]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k):
        if isinstance(k, slice):
            return Subset(self.parent, self.indices[k])
        return self.parent[int(self.indices[k])]


@dataclass(frozen=True, eq=False)
class Chain(Sequence):
    """Several sequences one after the other."""

    parts: tuple[Sequence[Structure], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, k):
        if isinstance(k, slice):
            return Subset(self, np.arange(len(self))[k])
        index = k + len(self) if k < 0 else k
        for part in self.parts:
            if 0 <= index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(f"frame {k} of {len(self)}")


@dataclass(frozen=True, eq=False)
class Changed(Sequence):
    """Structures each of which is changed when it is asked for."""

    parent: Sequence[Structure]

    def __len__(self) -> int:
        return len(self.parent)

    def __getitem__(self, k):
        if isinstance(k, slice):
            return replace(self, parent=self.parent[k])
        return self.change(self.parent[k])

    def change(self, s: Structure) -> Structure:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Weighted(Changed):
    """Structures whose weight is multiplied by a factor of their config_type."""

    factors: Mapping[str, float]

    def change(self, s: Structure) -> Structure:
        return s.replace(weight=s.weight * self.factors.get(str(s.info.get("config_type")), 1.0))


@dataclass(frozen=True, eq=False)
class Scaled(Changed):
    """Structures whose weight is multiplied by a factor."""

    factor: float

    def change(self, s: Structure) -> Structure:
        return s.replace(weight=s.weight * self.factor)


@dataclass(frozen=True, eq=False)
class Rezeroed(Changed):
    """Structures whose energies are counted from other isolated atoms."""

    changes: Mapping[int, float]
    """Of the isolated atoms' energies, eV by Z; none means zero."""

    def change(self, s: Structure) -> Structure:
        if s.energy is None:
            return s
        return s.replace(energy=s.energy + sum(self.changes.get(int(z), 0.0) for z in s.numbers))


@dataclass(frozen=True, eq=False)
class Headed(Changed):
    """Structures with labels of one level of theory among several."""

    head: int

    def change(self, s: Structure) -> Structure:
        return s.replace(head=self.head)


@dataclass(frozen=True, eq=False)
class Counted(Changed):
    """Structures without labels of weight zero, which may be placeholders."""

    def change(self, s: Structure) -> Structure:
        kept = {row: value for row, value in s.labels.items() if s.weight_of(row)}
        return s if len(kept) == len(s.labels) else s.replace(labels=kept)


@dataclass(frozen=True, eq=False)
class Cleared(Changed):
    """Structures without the labels of some quantities, or without some weights."""

    labels: Collection[Quantity]
    weights: Collection[Quantity] = ()
    """Quantities whose weight is 1 instead."""
    weight: bool = False
    """Whether the weight of the whole frame is 1 instead."""

    def change(self, s: Structure) -> Structure:
        kept = {row: value for row, value in s.labels.items() if row not in self.labels}
        weights = {row: value for row, value in s.label_weights.items() if row not in self.weights}
        return s.replace(labels=kept, label_weights=weights, weight=1.0 if self.weight else s.weight)


def split(count: int, valid: float | int, limit: int | None, seed: int, first: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation indices, each ascending.

    ``valid`` below one is a share, from one on a number of frames. ``limit`` is the number of training frames: drawn at random
    (of one seed, the frames for a smaller limit are among those for a larger one), or the first of those not held out. With a
    limit, a share is one of the limit, so that a run on few frames does not select its model on many.

    Raises:
        ValueError: too few frames.
    """
    if valid < 0 or (isinstance(valid, float) and not (valid < 1 or valid.is_integer())):
        raise ValueError(f"valid = {valid:g} is neither a share below 1 nor a number of frames")
    base = count if limit is None else min(limit, count)
    held = int(valid) if valid >= 1 else (max(1, round(valid * base)) if valid > 0 else 0)
    train = count - held if limit is None else limit
    if train < 1 or held + train > count:
        raise ValueError(
            f"{count} frames are too few for {train} to train on and {held} to validate; lower data.valid or data.limit"
            if limit is not None or held < count
            else f"valid = {held} leaves no frame of {count} to train on; lower data.valid"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    # Validation is taken from the end, so that its number does not move the frames to train on.
    rest = np.sort(order[: count - held]) if first else order[: count - held]
    return np.sort(rest[:train]), np.sort(order[count - held :])
