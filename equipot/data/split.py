"""Split frames into training and validation sets, and lazy sequences of changed structures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equipot.quantities import Quantity
from equipot.structure import Structure


def evenly(total: int, most: int) -> np.ndarray:
    """Return at most ``most`` indices of ``total`` items, spread evenly from the first to the last; none of none."""
    return np.unique(np.linspace(0, total - 1, most).astype(int)) if total else np.zeros(0, int)


@dataclass(frozen=True, eq=False)
class Subset(Sequence):
    """Frames of a sequence at given indices, read on access."""

    parent: Sequence[Structure]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return Subset(self.parent, self.indices[k])
        return self.parent[int(self.indices[k])]


@dataclass(frozen=True, eq=False)
class Chain(Sequence):
    """Concatenation of several sequences."""

    parts: tuple[Sequence[Structure], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, k: Any) -> Any:
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
    """Sequence that changes each structure on access."""

    parent: Sequence[Structure]

    def __len__(self) -> int:
        return len(self.parent)

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return replace(self, parent=self.parent[k])
        return self.change(self.parent[k])

    def change(self, s: Structure) -> Structure:
        """Return the changed structure."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Weighted(Changed):
    """Structures with the weight multiplied by a factor, by config_type."""

    factors: Mapping[str, float]

    def change(self, s: Structure) -> Structure:
        return s.replace(weight=s.weight * self.factors.get(str(s.info.get("config_type")), 1.0))


@dataclass(frozen=True, eq=False)
class Scaled(Changed):
    """Structures with the weight multiplied by one factor."""

    factor: float

    def change(self, s: Structure) -> Structure:
        return s.replace(weight=s.weight * self.factor)


@dataclass(frozen=True, eq=False)
class Rezeroed(Changed):
    """Structures with an energy per element added to the total energy."""

    changes: Mapping[int, float]
    """Energy to add for each atom, eV by Z; zero for other elements."""

    def change(self, s: Structure) -> Structure:
        if s.energy is None:
            return s
        return s.replace(energy=s.energy + sum(self.changes.get(int(z), 0.0) for z in s.numbers))


@dataclass(frozen=True, eq=False)
class Headed(Changed):
    """Structures assigned to a head."""

    head: int

    def change(self, s: Structure) -> Structure:
        return s.replace(head=self.head)


@dataclass(frozen=True, eq=False)
class Counted(Changed):
    """Structures without the labels of weight zero, which may be placeholders."""

    def change(self, s: Structure) -> Structure:
        kept = {row: value for row, value in s.labels.items() if s.weight_of(row)}
        return s if len(kept) == len(s.labels) else s.replace(labels=kept)


@dataclass(frozen=True, eq=False)
class Cleared(Changed):
    """Structures without some labels or weights."""

    labels: Collection[str]
    """Names of the quantities whose labels are removed."""
    weights: Collection[Quantity] = ()
    """Quantities whose weight is set to 1."""
    weight: bool = False
    """Whether to set the frame weight to 1."""

    def change(self, s: Structure) -> Structure:
        kept = {row: value for row, value in s.labels.items() if row.name not in self.labels}
        weights = {row: value for row, value in s.label_weights.items() if row not in self.weights}
        return s.replace(labels=kept, label_weights=weights, weight=1.0 if self.weight else s.weight)


def split(count: int, valid: float | int, limit: int | None, seed: int, first: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw training and validation indices, each ascending; they depend on the arguments only.

    Args:
        count: number of frames.
        valid: share (below 1) or number of validation frames. With a limit, a share is a share of the limit, so that a run on
            few frames does not select its model on many.
        limit: number of training frames; for one seed, a smaller limit selects a subset of the frames of a larger one.
        first: whether a limit keeps the first training frames instead of random ones.

    Raises:
        ValueError: too few frames, or a ``valid`` that is neither a share nor a number.
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
