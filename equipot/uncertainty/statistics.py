"""Sums over the environments of structures, from which deviations and novelty follow: additive, so that sets can be joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from equipot.data.loader import sha256_of
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.posterior import Statistics
from equipot.potential import Potential
from equipot.quantities import FEATURE_SLOPES, FEATURES, LATENT
from equipot.structure import Structure

ROOM = 128
"""Number of environments of each element that are kept."""


def gather(potential: Potential, structures: Sequence[Structure], batch_size: int | None = None) -> Statistics:
    """Evaluate structures, whose labels are not used, and sum what uncertainty rests on.

    Returns:
        ``energy`` [features, features]: sum over systems of F F^T / N, F the sum of the features over the N atoms; ``forces``:
        sum of J^T J, J the derivatives of F by all positions, by ``feature_slopes``; ``frames``, the number of systems. For
        each of ``elements`` in turn: ``count`` of atoms, ``first`` and ``second`` moments of the latent descriptor, and
        ``kept``, descriptors of up to ``ROOM`` atoms chosen at random, by ``order``.

    Raises:
        ValueError: no structures, an element that the potential does not know, several heads, or a model without features.
    """
    if not len(structures):
        raise ValueError("there are no structures to fit an uncertainty to")
    if potential.heads:
        raise ValueError(f"the potential has the heads {', '.join(potential.heads)}; choose one, FILE@HEAD or potential.head")
    potential.correction.check(structures)
    want = (FEATURES.name, FEATURE_SLOPES.name, LATENT.name)
    sums = Sums()
    seed = int(sha256_of(structures)[:16], 16)
    bare = potential.correction.replace(posterior=None)
    # In the order of the structures, so that the sums do not depend on how they were batched.
    found: dict[int, Mapping[str, Any]] = {}
    due = 0
    for k, out in evaluate_in_batches(Job(bare, want), structures, batch_size):
        found[k] = dict(out.items())
        while due in found:
            sums.add(structures[due], found.pop(due), np.random.default_rng([seed, due]))
            due += 1
    return sums.statistics()


class Sums:
    """Sums of one structure after the other."""

    def __init__(self) -> None:
        self.energy: Any = 0.0
        self.forces: Any = 0.0
        self.frames = 0
        self.elements: dict[int, list[Any]] = {}

    def add(self, structure: Structure, found: Mapping[str, Any], random: np.random.Generator) -> None:
        """Add a structure.

        Raises:
            ValueError: a value that is not finite.
        """
        features, slopes, latent = (np.asarray(found[row.name], np.float64) for row in (FEATURES, FEATURE_SLOPES, LATENT))
        if not all(np.isfinite(x).all() for x in (features, slopes, latent)):
            raise ValueError(f"{structure.name}: the features of the model are not finite; correct the structure")
        whole = features.sum(axis=0)
        self.energy = self.energy + np.outer(whole, whole) / len(structure)
        self.forces = self.forces + slopes.T @ slopes / len(slopes)
        self.frames += 1
        order = random.random(len(structure))
        for z in np.unique(structure.numbers):
            mine = structure.numbers == z
            x = latent[mine]
            part = [mine.sum(), x.sum(axis=0), x.T @ x, order[mine], x]
            self.elements[int(z)] = part if z not in self.elements else _joined(self.elements[int(z)], part)
            self.elements[int(z)][3:] = _first(*self.elements[int(z)][3:])

    def statistics(self) -> Statistics:
        """Return the sums as arrays."""
        zs = sorted(self.elements)
        count, first, second, order, kept = ([self.elements[z][k] for z in zs] for k in range(5))
        width = max(map(len, order))
        fill = lambda x: np.concatenate([x, np.full((width - len(x), *x.shape[1:]), np.nan)])
        return Statistics(
            {
                "energy": self.energy,
                "forces": self.forces,
                "frames": np.asarray(self.frames),
                "elements": np.asarray(zs),
                "count": np.asarray(count),
                "first": np.stack(first),
                "second": np.stack(second),
                "order": np.stack([fill(x) for x in order]),
                "kept": np.stack([fill(x) for x in kept]).astype(np.float32),
            }
        )

    @classmethod
    def of(cls, statistics: Statistics) -> Sums:
        """Take up sums that were stored."""
        out, held = cls(), statistics.arrays
        out.energy, out.forces, out.frames = held["energy"], held["forces"], int(held["frames"])
        for k, z in enumerate(held["elements"].tolist()):
            used = np.isfinite(held["order"][k])
            kept = held["kept"][k][used].astype(np.float64)
            out.elements[z] = [held["count"][k], held["first"][k], held["second"][k], held["order"][k][used], kept]
        return out


def joined(a: Statistics, b: Statistics) -> Statistics:
    """Join the statistics of two sets of structures: those of all of them.

    Raises:
        ValueError: they are of different models.
    """
    if any(a.arrays[name].shape[-1] != b.arrays[name].shape[-1] for name in ("energy", "first")):
        raise ValueError("the statistics are of different models: their features differ in number")
    out, other = Sums.of(a), Sums.of(b)
    out.energy, out.forces, out.frames = out.energy + other.energy, out.forces + other.forces, out.frames + other.frames
    for z, part in other.elements.items():
        out.elements[z] = part if z not in out.elements else _joined(out.elements[z], part)
        out.elements[z][3:] = _first(*out.elements[z][3:])
    return out.statistics()


def _joined(a: list[Any], b: list[Any]) -> list[Any]:
    return [*(x + y for x, y in zip(a[:3], b[:3], strict=True)), *(np.concatenate(x) for x in zip(a[3:], b[3:], strict=True))]


def _first(order: Float[np.ndarray, " n"], kept: Float[np.ndarray, "n d"]) -> list[np.ndarray]:
    """Keep the environments whose random numbers are smallest: a sample of all, whatever was added when."""
    chosen = np.argsort(order)[:ROOM]
    return [order[chosen], kept[chosen]]
