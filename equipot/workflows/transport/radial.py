"""Radial distribution functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot.neighbors import neighbor_list
from equipot.workflows.statistics.pool import Pool
from equipot.workflows.statistics.trajectory import Trajectory
from equipot.workflows.transport.config import Radial


@dataclass(frozen=True)
class RadialDistribution:
    """Radial distribution functions g(r) of pairs of elements."""

    pairs: tuple[str, ...]
    """Names of the pairs, such as O-H."""
    edges: Float[np.ndarray, " edges"]
    """Edges of the bins, Å."""
    values: Float[np.ndarray, "pairs bins"]
    error: Float[np.ndarray, "pairs bins"]
    """Standard error from the scatter of successive parts of the trajectory; NaN for a single frame."""
    coordination: Float[np.ndarray, "pairs bins"]
    """Number of atoms of the second element within the outer edge of a bin about one of the first."""
    frames: int

    @property
    def centers(self) -> Float[np.ndarray, " bins"]:
        """Å."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def radial_distribution(trajectory: Trajectory, settings: Radial) -> RadialDistribution:
    """Compute g_ab(r) = (number of b in a shell about an a) / (shell volume x N_b / V) of every pair of elements.

    All periodic images count, an atom's own included, so that the coordination number is the mean number of neighbours and
    distances may exceed half the cell; of N atoms of one element at random, g is 1 - 1/N before the first own image. Volumes
    of shells are exact; each frame has its own volume.

    Raises:
        ValueError: a system that does not repeat in three directions.
    """
    if not all(trajectory.pbc):
        raise ValueError(f"{trajectory.name} does not repeat in three directions: it has no density; set radial: null")
    elements = trajectory.elements
    kind = np.zeros(len(trajectory.numbers), np.int64)
    for k, index in enumerate(elements.values()):
        kind[index] = k
    count = np.array([len(index) for index in elements.values()], float)
    names = [(a, b) for a in range(len(count)) for b in range(a, len(count))]
    edges = np.linspace(0, settings.longest, settings.bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    pool, numbers = Pool((len(names), settings.bins), most=32), Pool((len(names), settings.bins), most=2)
    used = 0
    for k, frame in enumerate(trajectory.checked()):
        if k % settings.every:
            continue
        positions = np.asarray(frame.positions, np.float64)
        found = neighbor_list(positions, frame.cell, trajectory.pbc, settings.longest)
        r = np.linalg.norm(positions[found.neighbors] + found.shifts @ frame.cell - positions[found.centers], axis=1)
        place = np.minimum((r / settings.longest * settings.bins).astype(np.int64), settings.bins - 1)
        which = (kind[found.centers] * len(count) + kind[found.neighbors]) * settings.bins + place
        table = np.bincount(which, minlength=len(count) ** 2 * settings.bins).reshape(len(count), len(count), -1)
        around = np.stack([table[a, b] / count[a] for a, b in names])
        density = np.array([count[b] for _, b in names]) / frame.volume
        pool.add(around / shells / density[:, None])
        numbers.add(around)
        used += 1
    result = pool.result()
    symbols = list(elements)
    return RadialDistribution(
        tuple(f"{symbols[a]}-{symbols[b]}" for a, b in names), edges, result.mean, result.error,
        np.cumsum(numbers.result().mean, axis=1), used,
    )  # fmt: skip
