"""Compose batches of frames of unequal sizes so that all batches have nearly as many atoms and nearly as many pairs.

Batches of equally many frames would differ in size by the largest frames, and most of a shape that holds each of them would be
padding. Here a batch with a large frame has fewer others. The frames are in random order, and the order changes what shares a
batch: first large frames, in blurred order, to the emptiest batch each (the rule of the longest processing time first), then
exchanges between the fullest batch and others, until no exchange makes the fullest smaller.

Where a loss is a mean over the frames of a batch, as of energies and stresses, a large frame counts for more than a small one,
since it has fewer frames beside it: 1.2 times as much among clusters of 8 to 87 atoms, 6 times where a few frames have 25 times
the atoms of the others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

BLUR = 0.3
"""Standard deviation of the logarithm of the random factor on sizes that blurs the order from large to small."""
BLOCK = 128
"""Largest number of bins (batches, times devices) between which frames are exchanged, for the time of composition."""
CROWD = 16
"""Mean number of frames of a bin beyond which none are exchanged: many frames fill bins evenly."""
ENOUGH = 1.02
"""Largest load over the mean load at which exchanges end."""


def compose(
    sizes: Int[np.ndarray, "frames 2"], count: int, devices: int, rng: np.random.Generator
) -> list[Int[np.ndarray, " members"]]:
    """Distribute frames at random over ``count`` batches of nearly equal size, each frame once.

    Args:
        sizes: Atoms and pairs of each frame; at least ``count * devices`` frames.
        count: Number of batches.
        devices: Number of devices that share a batch.
        rng: Generator of random numbers.

    Returns:
        Indices of the frames of each batch.
    """
    loads = sizes / np.maximum(sizes.sum(axis=0) / (count * devices), 1)
    blurred = loads.max(axis=1) * np.exp(BLUR * rng.normal(size=len(loads)))
    order = np.argsort(-blurred)
    # Every block has frames of all sizes: each row of as many frames as there are batches is dealt at random.
    places = np.concatenate([rng.permutation(count) for _ in range(-(-len(order) // count))])[: len(order)]
    blocks = np.array_split(np.arange(count), -(-count // max(1, BLOCK // devices)))
    batches: list[np.ndarray] = []
    for block in blocks:
        members = order[(places >= block[0]) & (places <= block[-1])]
        bins = fill(loads[members], len(block) * devices)
        # The devices of a batch wait for each other, so that they get bins of about the same load.
        full = np.array([loads[members[bins == k]].max(axis=1, initial=0).sum() for k in range(len(block) * devices)])
        groups = np.argsort(-full, kind="stable").reshape(len(block), devices)
        batches += [members[np.isin(bins, group)] for group in groups]
    return [rng.permutation(batches[k]) for k in rng.permutation(count)]


def fill(loads: Float[np.ndarray, "frames kinds"], count: int) -> Int[np.ndarray, " frames"]:
    """Distribute frames, in the given order, over ``count`` bins so that the largest load of a bin is small.

    Args:
        loads: Loads of each frame of several kinds, such as atoms and pairs, in units of the mean load of a bin.
        count: Number of bins.

    Returns:
        Bin of each frame. No bin is empty if there are enough frames with a load.
    """
    bins, total = np.zeros(len(loads), int), np.zeros((count, loads.shape[1]))
    for k, load in enumerate(loads):
        # Among equally full bins the emptier one, so that a frame without pairs does not share a bin while another is empty.
        bins[k] = np.lexsort((total.sum(axis=1), (total + load).max(axis=1)))[0]
        total[bins[k]] += load
    if len(loads) <= CROWD * count:
        _exchange(loads, bins, total)
    return bins


def _exchange(loads: np.ndarray, bins: np.ndarray, total: np.ndarray) -> None:
    """Move frames out of the fullest bin, or exchange them with frames of other bins, while this makes it less full.

    Args:
        loads: (frames, kinds) loads of each frame.
        bins: Bin of each frame, changed in place.
        total: (bins, kinds) loads of each bin, changed in place.
    """
    # Bins that hold one large frame alone stay as they are.
    closed = np.zeros(len(total), bool)
    for _ in range(8 * len(total)):
        peaks = np.where(closed, 0, total.max(axis=1))
        fullest = int(np.argmax(peaks))
        if peaks[fullest] <= ENOUGH:
            return
        own = np.flatnonzero(bins == fullest)
        more = loads[None] - loads[own, None]
        swapped = np.maximum(total[fullest] + more, total[bins][None] - more).max(axis=2)
        swapped[:, own] = np.inf
        moved = np.maximum((total[fullest] - loads[own])[:, None], total[None] + loads[own, None]).max(axis=2)
        moved[:, fullest] = np.inf
        if min(swapped.min(), moved.min()) > peaks[fullest] - 1e-9:
            closed[fullest] = True
            continue
        if swapped.min() <= moved.min():
            mine, other = np.unravel_index(np.argmin(swapped), swapped.shape)
            _move(loads, bins, total, int(own[mine]), int(bins[other]))
            _move(loads, bins, total, int(other), fullest)
        else:
            mine, to = np.unravel_index(np.argmin(moved), moved.shape)
            _move(loads, bins, total, int(own[mine]), int(to))


def _move(loads: np.ndarray, bins: np.ndarray, total: np.ndarray, frame: int, to: int) -> None:
    """Move a frame to the bin ``to``."""
    total[bins[frame]] -= loads[frame]
    total[to] += loads[frame]
    bins[frame] = to
