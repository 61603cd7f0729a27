"""Refit of the last linear layer of a trained network: energies and forces are linear in its weights, so that least squares
find the best ones at once, which steps of a noisy gradient only approach. What the network computes before stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.data.split import evenly
from equipot.data.stats import is_isolated_atom
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.isolated_atoms import isolated_atom_energy
from equipot.models.network import Network
from equipot.potential import Potential
from equipot.quantities import ENERGY, FEATURE_FORCES, FEATURES, FORCES, Quantity
from equipot.structure import Structure

MOST_READ = 20_000
"""Largest number of frames of which the labels are looked at."""
MOST_ENERGIES = 3000
"""Largest number of energies that are used."""
MOST_FORCES = 20_000
"""Number of components of forces that are used, about: far more than there are features."""
LEAST_FRAMES = 8
"""Least number of frames whose forces are used, however large they are."""
LEAST_LABELS = 2
"""Number of energies, or where there are none of components of forces, for each feature below which nothing is refitted:
fewer would be described, and no others."""
RIDGE = 1e-3
"""Penalty on the change of a weight over the mean of its squared effects. With 0.01 the forces of crystals change less and the
energies gain less, with 1e-4 both more."""
TAIL = 1.5
"""Number of deviations beyond which an error counts by its size, as in a Huber loss, and not by its square."""
LEAST_ERROR = 1e-3
"""Error that no fit improves, over the quantity's usual scale (``equipot.quantities``): 0.03 meV per atom, 0.1 meV/Å. Forces
that are zero by symmetry would otherwise count as much as energies that matter."""
LEAST_SPREAD = 0.05
"""Least deviation over the root mean square of the errors: half of them may be zero by symmetry."""
ROUNDS = 12
"""Number of solutions, each with the weights of the errors of the one before."""
MARGIN, LOSS_MARGIN = 1.25, 1.1
"""Factors on a validation error and on the validation loss above which the refitted layer is not kept. Few frames
decide little: among 16 of lithium the loss rose by 8 %, while on 49 others the error of energies fell by 8 % and that of forces
rose by less than 1 %."""


class Rows(NamedTuple):
    """Errors of one quantity, as linear functions of a change w of the weights: error = row . w would put each right."""

    rows: Float[np.ndarray, "n features"]
    """eV per atom for energies, eV/Å for forces."""
    error: Float[np.ndarray, " n"]
    """Label less prediction, in the same unit."""
    weight: Float[np.ndarray, " n"]
    """Weight of the label in the loss, greater than 0."""
    least: float = 0.0
    """Error below which all errors are alike: noise of the labels or of rounding."""


def can_refit(potential: Potential) -> bool:
    """Whether this is one network with one head, which stands alone."""
    return isinstance(potential.term, Network) and not potential.term.heads


def refit(
    potential: Potential,
    structures: Sequence[Structure],
    quantities: Sequence[Quantity] = (ENERGY, FORCES),
    batch_size: int | None = None,
    devices: int | None = None,
) -> Potential:
    """Solve for the weights of the last linear layer on labelled structures, in double precision.

    Minimises, for the change w of the weights, the mean of the weighted squared errors of energies per atom over their
    variance at w = 0, the same of forces, and a small penalty on w, with errors in the tails weighed down (iteratively
    reweighted least squares with Huber's weights; P. J. Huber, Robust Statistics, 1981; deviations by the median).

    Args:
        potential: Trained network, see ``can_refit``.
        structures: Labels of energy (eV) and forces (eV/Å); at most ``MOST_ENERGIES`` energies and about ``MOST_FORCES``
            components of forces are used, spread evenly over the sequence.
        quantities: Which of energy and forces count.
        batch_size: Number of structures that are evaluated together; None for one that suits the machine.
        devices: Largest number of devices to use; None for all.

    Returns:
        The same potential with other weights.

    Raises:
        ValueError: no labels with errors, fewer than ``LEAST_LABELS`` energies or components of forces for each feature, no
            finite solution, or a network that does not say which parameters the last layer has.
    """
    parts = []
    if ENERGY in quantities and (frames := with_label(structures, ENERGY)):
        parts.append(energy_rows(potential, frames, batch_size, devices))
        check_enough(parts[-1], "energies")
    if FORCES in quantities and (frames := with_label(structures, FORCES)):
        slopes = force_rows(potential, frames, batch_size, devices)
        if not parts:
            check_enough(slopes, "components of forces")
        parts.append(slopes)
    parts = [part for part in parts if part.error.any() and part.rows.any()]
    if not parts:
        raise ValueError("no labels of energy or forces that the last layer could describe better")
    assert isinstance(potential.term, Network), "checked by can_refit"
    change = solve(parts)
    if not np.isfinite(change).all():
        raise ValueError("no finite solution")
    return potential.replace(
        variables={**potential.variables, "params": potential.term.with_last_layer(potential.params, change)}
    )


def check_enough(rows: Rows, what: str) -> None:
    """Check that there are ``LEAST_LABELS`` labels for each feature.

    Raises:
        ValueError: there are fewer.
    """
    count, features = rows.rows.shape
    if count < LEAST_LABELS * features:
        raise ValueError(f"{count} {what} are too few for {features} features")


def with_label(structures: Sequence[Structure], quantity: Quantity) -> list[Structure]:
    """Select up to ``MOST_ENERGIES`` structures with a label that counts, but no isolated atoms, spread evenly."""
    some = [structures[int(k)] for k in evenly(len(structures), MOST_READ)]
    labelled = [s for s in some if s.weight_of(quantity) > 0 and not is_isolated_atom(s)]
    return [labelled[int(k)] for k in evenly(len(labelled), MOST_ENERGIES)]


def energy_rows(potential: Potential, structures: list[Structure], batch_size: int | None, devices: int | None) -> Rows:
    """Evaluate structures with a label of the energy."""
    energies = dict(potential.metadata.atomic_energies)
    rows, error = [np.zeros(0)] * len(structures), np.zeros(len(structures))
    for k, out in evaluate_in_batches(Job(potential, (FEATURES.name, ENERGY.name)), structures, batch_size, devices):
        structure = structures[k]
        rows[k] = np.asarray(out.others[FEATURES.name], np.float64).sum(axis=0) / len(structure)
        error[k] = energy_error(structure, float(np.asarray(out.interaction)), energies)
    return Rows(np.stack(rows), error, np.array([s.weight_of(ENERGY) for s in structures]), LEAST_ERROR * ENERGY.scale)


def energy_error(structure: Structure, interaction: float, energies: Mapping[int, float]) -> float:
    """Compute label less prediction (eV per atom) from the energy without E0 (``interaction``, eV), and E0 (eV by Z).

    The total energy would leave few digits of the difference in single precision.
    """
    free = isolated_atom_energy(structure.numbers, energies).sum()
    return (float(structure.labels[ENERGY]) - free - interaction) / len(structure)


def force_rows(potential: Potential, structures: list[Structure], batch_size: int | None, devices: int | None) -> Rows:
    """Evaluate some of the structures with labels of forces, one backward pass for each feature."""
    each = 3 * np.mean([len(s) for s in structures])
    chosen = evenly(len(structures), max(LEAST_FRAMES, round(MOST_FORCES / each)))
    some = [structures[int(k)] for k in chosen]
    parts: list[Rows | None] = [None] * len(some)
    for k, out in evaluate_in_batches(Job(potential, (FEATURE_FORCES.name, FORCES.name)), some, batch_size, devices):
        slopes = np.asarray(out.others[FEATURE_FORCES.name], np.float64)
        error = (some[k].labels[FORCES] - np.asarray(out.forces, np.float64)).ravel()
        parts[k] = Rows(slopes.reshape(-1, slopes.shape[-1]), error, np.full(len(error), some[k].weight_of(FORCES)))
    found = [part for part in parts if part is not None]
    slopes, errors, weights = (np.concatenate(x) for x in list(zip(*found, strict=True))[:3])
    return Rows(slopes, errors, weights, LEAST_ERROR * FORCES.scale)


def solve(parts: Sequence[Rows]) -> Float[np.ndarray, " features"]:
    """Solve for the change of the weights, see ``refit``.

    Raises:
        LinAlgError: the equations have no unique solution.
    """
    change = np.zeros(parts[0].rows.shape[1])
    spreads = [max(spread_of(part.error), part.least) for part in parts]
    for _ in range(ROUNDS):
        matrix, vector = np.zeros((len(change), len(change))), np.zeros(len(change))
        for part, spread in zip(parts, spreads, strict=True):
            left = part.error - part.rows @ change
            weights = part.weight / np.maximum(1, np.abs(left) / (TAIL * spread))
            scaled = part.rows * (weights / (part.weight.sum() * spread**2))[:, None]
            matrix += scaled.T @ part.rows
            vector += scaled.T @ part.error
        penalty = RIDGE * np.trace(matrix) / len(change)
        change = np.linalg.solve(matrix + penalty * np.eye(len(change)), vector)
    return change


def spread_of(error: Float[np.ndarray, " n"]) -> float:
    """Estimate the standard deviation from the median, 1.4826 of which it is for normal errors."""
    return max(1.4826 * float(np.median(np.abs(error))), LEAST_SPREAD * float(np.sqrt(np.mean(error**2))))
