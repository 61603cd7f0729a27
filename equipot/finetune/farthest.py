"""Choose the frames to replay: those whose atoms are farthest from each other's, and from those of the new frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.evaluation import evaluate_each
from equipot.potential import Potential
from equipot.structure import Structure

EXAMPLES = 200
"""Number of new frames, drawn evenly, that replayed frames keep away from."""
LEAST_SPREAD = 0.01
"""Least deviation of a component among the atoms of an element, over that among all atoms: less is rounding."""


class Environments(NamedTuple):
    """The environments of the atoms of a frame, as a potential describes them."""

    numbers: Int[np.ndarray, " atoms"]
    """Atomic numbers."""
    latent: Float[np.ndarray, "atoms n"]
    """Descriptors."""


def environments(potential: Potential, frames: Sequence[Structure], batch_size: int) -> list[Environments]:
    """Compute the descriptors of all atoms of frames.

    Raises:
        ValueError: the potential has no descriptors.
    """
    # Descriptors are those of the network alone: a method that it corrects is not run.
    network = potential.replace(metadata=dataclasses.replace(potential.metadata, subtracted=None))
    try:
        found = evaluate_each(network, list(frames), ("latent",), batch_size) if len(frames) else []
    except ValueError as error:
        raise ValueError(f"data.replay.most: frames are chosen by descriptors; leave it out ({error})") from None
    return [Environments(s.numbers, np.asarray(out.latent, np.float64)) for s, out in zip(frames, found, strict=True)]


def farthest(pool: Sequence[Environments], known: Sequence[Environments], count: int) -> Int[np.ndarray, " count"]:
    """Choose ``count`` frames of ``pool``, one after another: the next is that with most elements that no frame before it has,
    among equals the one with the atom that is farthest from all atoms of its element in these and in the ``known`` frames
    (farthest point sampling).

    The distance is the Euclidean one of descriptors whose components are divided by their standard deviations among the atoms
    of the element in the pool, so that elements that vary less than others are not left out.

    Returns:
        Indices of the frames, in ascending order.
    """
    numbers, first = np.concatenate([frame.numbers for frame in pool]), np.cumsum([0, *(len(frame.numbers) for frame in pool)])
    latent = np.concatenate([frame.latent for frame in pool])
    least = LEAST_SPREAD * latent.std(axis=0)
    scales = {z: spread(latent[numbers == z], least) for z in np.unique(numbers)}
    latent /= np.stack([scales[z] for z in numbers])
    square = np.full(len(numbers), np.inf)

    def cover(frame: Environments) -> None:
        """Take the atoms of a frame into account in the distances of the pool."""
        for z in np.unique(frame.numbers):
            if z not in scales:
                continue
            mine, other = numbers == z, frame.latent[frame.numbers == z] / scales[z]
            x = latent[mine]
            between = np.sum(x**2, axis=1)[:, None] + np.sum(other**2, axis=1) - 2 * x @ other.T
            square[mine] = np.minimum(square[mine], np.maximum(np.min(between, axis=1, initial=np.inf), 0))

    def rank(k: int) -> tuple[int, float]:
        own = slice(first[k], first[k + 1])
        new = np.isinf(square[own])
        return len(np.unique(numbers[own][new])), float(np.max(square[own][~new], initial=0.0))

    for frame in known:
        cover(frame)
    left = list(range(len(pool)))
    for _ in range(min(count, len(pool))):
        best = max(left, key=rank)
        left.remove(best)
        cover(pool[best])
    return np.setdiff1d(np.arange(len(pool)), left)


def spread(latent: Float[np.ndarray, "atoms n"], least: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Compute the standard deviation of each component, at least ``least``; 1 where both are zero."""
    out = np.maximum(latent.std(axis=0), least)
    out[out == 0] = 1
    return out
