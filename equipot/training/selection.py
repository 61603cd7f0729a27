"""Choose between the potential with the lowest validation loss and that of the last step.

A schedule brings the learning rate down to its end, where the errors of frames that were not seen are lowest as a rule. The
lowest validation loss of a run that is longer than its data need may lie earlier. Among a few frames it may lie anywhere by
chance, even after the first epoch. The frames themselves say which of the two it is: where the loss of the earlier potential is
below that of the last one on nearly every frame, it is no chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.stats import t

from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.training.loss import Loss

CONFIDENCE = 0.99
"""Level of the test; the earlier potential is the best of many, which is no coincidence either."""
USUAL, WORTH = 0.5, 3
"""Usual deviation of the logarithm of the ratio of two losses among frames, and the number of frames that this knowledge is
worth: by it one frame alone tells apart only what differs by a factor of ten."""


def frame_losses(
    loss: Loss, wants: Sequence[Quantity], references: Sequence[Structure], predictions: Sequence[Structure]
) -> Float[np.ndarray, " frames"]:
    """Compute the share of each frame in the loss, with the weights of the end of the run; their sum is the loss, but for
    Hessians, which are not predicted for this.

    Args:
        loss: Penalties of the quantities.
        wants: Quantities in the loss.
        references: Frames with labels.
        predictions: The same frames with predictions as their labels.
    """
    weights, out = loss.weights(wants, 1.0), np.zeros(len(predictions))
    for row in wants:
        penalty, squares, frames = loss.penalty(row), [], []
        for k, predicted in enumerate(predictions):
            reference = references[k]
            if row not in reference.labels or row not in predicted.labels:
                continue
            error = np.subtract(predicted.labels[row], reference.labels[row]) / (len(reference) if row.extensive else 1)
            rows = np.reshape((error / (penalty.scale or row.scale)) ** 2, (len(reference) if row.per == "atom" else 1, -1))
            squares.append(np.mean(rows, axis=1))
            frames.append(np.full(len(rows), k))
        if frames:
            place = np.concatenate(frames)
            omega = np.array([references[k].weight_of(row) for k in range(len(predictions))])[place]
            rho = omega * np.asarray(penalty.rho(jnp.asarray(np.concatenate(squares))), float)
            out += float(weights[row.name]) * np.bincount(place, rho, len(predictions)) / len(place)
    return out


def is_better(earlier: Float[np.ndarray, " frames"], last: Float[np.ndarray, " frames"]) -> bool:
    """Whether losses of frames are lower by more than chance, by Student's one-sided test of the logarithms of their ratios.

    The variance is the mean of that of the frames and of ``USUAL`` squared, which counts as ``WORTH`` frames. Frames without a
    loss do not count.
    """
    counted = (earlier > 0) & (last > 0)
    ratio, n = np.log(last[counted] / earlier[counted]), int(counted.sum())
    if n == 0:
        return False
    variance = (WORTH * USUAL**2 + float(np.sum((ratio - ratio.mean()) ** 2))) / (WORTH + n - 1)
    return float(np.mean(ratio)) > float(t.ppf(CONFIDENCE, WORTH + n - 1)) * (variance / n) ** 0.5
