"""Laws of smoothness: nothing jumps where atoms enter or leave the cutoff, nor between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from equipot.structure import Structure
from equipot.testing.subject import Subject, small
from equipot.testing.systems import CLUSTER, structure

SHORTEST = 1.0
"""Shortest distance of a cluster before it swells, Å."""
SWELLING = 320
"""Number of sizes of a cluster that swells."""
SUSPECTS, ZOOMS = 8, 5
"""Number of places at which a jump is looked for, and of times that the steps there are divided by ten."""


def smooth_at_the_cutoff(subject: Subject) -> None:
    """A third atom crosses the cutoff: energy, forces and what the term provides are continuous."""
    at = lambda r: structure([8, 6, 1], [[0, 0, 0], [1.2, 0, 0], [-r * 0.6, r * 0.8, 0]], source="crossing")
    gaps, jumps = [], []
    for h in (1e-2, 1e-3):
        inside, outside = subject.predict(at(subject.cutoff - h)), subject.predict(at(subject.cutoff + h))
        jumps.append([np.abs(inside[row] - outside[row]).max() for row in subject.term.provides])
        gaps.append((abs(inside.interaction[0] - outside.interaction[0]), np.abs(inside.forces - outside.forces).max()))
    # An envelope that leaves with the third power: a step ten times smaller shrinks energies 1000-fold and forces 100-fold.
    (e1, f1), (e2, f2) = gaps
    power = subject.vanishes
    small("jump of the energy", e2, 100 * 1e-3**power)
    small("jump of the forces", f2, 100 * 1e-3 ** (power - 1))
    small("jump of the energy over the distance to the cutoff", e2, e1 / (0.3 * 10**power) + 1e-13)
    small("jump of the forces over the distance to the cutoff", f2, f1 / (0.3 * 10 ** (power - 1)) + 1e-12)
    for row, far, near in zip(subject.term.provides, *jumps, strict=True):
        small(f"jump of {row.name}", near, far / 3 + 1e-12)


def smooth_inside_the_cutoff(subject: Subject) -> None:
    """A cluster swells until its atoms lose each other: energy, forces and what the term provides have no jump on the way."""
    n, apart = len(CLUSTER), np.linalg.norm(CLUSTER.positions[:, None] - CLUSTER.positions, axis=-1)
    shape = CLUSTER.positions / apart[apart > 0].min()
    sizes = [1, 3 * n, *(row.size * (n if row.per == "atom" else 1) for row in subject.term.provides)]
    names = np.repeat(["energy", "forces", *(row.name for row in subject.term.provides)], sizes)

    def at(distances: np.ndarray) -> np.ndarray:
        swollen = [CLUSTER.replace(positions=distance * shape) for distance in distances]
        return np.concatenate([_values(subject, pair) for pair in zip(swollen[::2], swollen[1::2], strict=True)])

    where, which, jump = _largest_jump(at, np.linspace(SHORTEST, subject.cutoff + 0.1, SWELLING))
    assert not jump, f"{names[which]}: a jump of {jump:.1e} at a shortest distance of {where:.4f} Å"


def _values(subject: Subject, pair: Sequence[Structure]) -> np.ndarray:
    """Energy, forces and what the term provides of two structures of equal size: [2, values]."""
    out, n = subject.predict(*pair), len(pair[0])
    rows = [out.interaction[:2], out.forces[: 2 * n]]
    rows += [out[row][: 2 * n if row.per == "atom" else 2] for row in subject.term.provides]
    return np.concatenate([np.reshape(x, (2, -1)) for x in rows], axis=1)


def _largest_jump(at: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> tuple[float, int, float]:
    """Find a jump of functions, ``at(x)`` of shape [x, functions]: its place, function and size, zero where there is none.

    A jump makes third differences of a few steps larger than those around it. Since a network may bend sharply, such places are
    looked at with smaller and smaller steps, which shrink third differences unless there is a jump.
    """
    values = at(x)
    bends = np.abs(np.diff(values, 3, axis=0))
    padded = np.pad(bends, ((6, 6), (0, 0)), mode="edge")
    around = np.max([padded[6 + k : 6 + k + len(bends)] for k in (-6, -5, -4, 4, 5, 6)], axis=0)
    excess = bends / (3 * around + 1e-9 * np.abs(values).max(initial=1e-3))
    for place in np.argsort(excess, axis=None)[::-1][:SUSPECTS]:
        k, which = np.unravel_index(place, excess.shape)
        if excess[k, which] < 1:
            break
        size, ends = float(bends[k, which]), (x[k], x[k + 3])
        for _ in range(ZOOMS):
            closer = np.linspace(*ends, 32)
            left = np.abs(np.diff(at(closer)[:, which], 3))
            ends = closer[left.argmax()], closer[left.argmax() + 3]
        if left.max() > size / 4:
            return float(ends[0]), int(which), float(left.max())
    return 0.0, 0, 0.0
