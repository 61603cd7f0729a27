"""Estimate how many steps a run of limited time can make on a processor, before anything is compiled.

The time of a training step of a MACE with l_max 3 and correlation 3 is

    seconds = WORK x atoms x (neighbors + 15) x channels x (1 + hidden_l)^1.5 / speed

for a batch of so many atoms with so many neighbours each: 15 stands for what is done once for each atom. With ``WORK`` from
one core it fits the steps of five kinds of runs (water, carbonates, ethanol, and dipeptides with 64 channels and hidden_l 2
and with 32 and 1) within a tenth. The speed is that of small matrix products by NumPy, measured on the spot.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import numpy as np

from equipot.data.split import evenly
from equipot.neighbors import neighbor_list
from equipot.structure import Structure
from equipot.training.config import TrainingConfig

WORK = 7.6e3
"""Operations of small matrix products in the time that a unit of the estimate takes."""
PER_ATOM = 15
"""Neighbours whose cost is that of what is done once for each atom."""
READY = 0.85
"""Share of the time that is left for steps, after reading, compiling and validation."""
EXAMPLES = 50
"""Number of frames from which atoms and neighbours are estimated."""


def affordable_steps(
    training: TrainingConfig, structures: Sequence[Structure], cutoff: float, channels: int, hidden_l: int, devices: int = 1
) -> float:
    """Estimate the number of training steps within ``training.max_minutes``, with ``training.batch_size`` frames each.

    Args:
        training: Settings with a time limit and a batch size.
        structures: Training frames.
        cutoff: Å.
        channels: Channels of the network.
        hidden_l: Largest degree of the features between layers.
        devices: Number of processors that share a batch.
    """
    assert training.max_minutes is not None and training.batch_size is not None
    some = [structures[int(k)] for k in evenly(len(structures), EXAMPLES)]
    pairs = sum(len(neighbor_list(s.positions, s.cell, s.pbc, cutoff).centers) for s in some)
    atoms = sum(map(len, some))
    units = (pairs + PER_ATOM * atoms) / max(1, len(some)) * training.batch_size * channels * (1 + hidden_l) ** 1.5
    seconds = WORK * units / (speed() * max(1, devices))
    return READY * 60 * training.max_minutes / max(seconds, 1e-6)


@functools.cache
def speed() -> float:
    """Measure how many operations per second small matrix products in single precision reach: the best of 20 tries of 1 ms."""
    size, count = 32, 500
    a = np.random.default_rng(0).random((count, size, size), np.float32)
    out, best = np.empty_like(a), np.inf
    for _ in range(20):
        begun = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - begun)
    return 2.0 * count * size**3 / best
