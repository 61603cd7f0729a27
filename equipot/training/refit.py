"""Refit of the last linear layer of a trained network: energies and forces are linear in its weights, so that least squares
find the best ones at once, which steps of a noisy gradient only approach. What the network computes before stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
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

MOST_ENERGIES = 3000
"""Largest number of energies that are used."""
MOST_FORCES = 20_000
"""Number of components of forces that are used, about: far more than there are features."""
RIDGE = 1e-3
"""Penalty on the change of a weight over the mean of its squared effects. A hundredth leaves the forces of crystals alone and
gains less of the energies, 1e-4 the other way round."""
TAIL = 1.5
"""Number of deviations beyond which an error counts by its size, as in a Huber loss, and not by its square."""
ROUNDS = 12
"""Number of solutions, each with the weights of the errors of the one before."""


class Rows(NamedTuple):
    """Errors of one quantity, as linear functions of a change w of the weights: error = row . w would put each right."""

    rows: Float[np.ndarray, "n features"]
    """eV per atom for energies, eV/Å for forces."""
    error: Float[np.ndarray, " n"]
    """Label less prediction, in the same unit."""
    weight: Float[np.ndarray, " n"]
    """Weight of the label in the loss."""


def can_refit(potential: Potential) -> bool:
    """Whether the energy is linear in parameters of a last layer: that of a MACE or NequIP with one head is."""
    term = potential.term
    return isinstance(term, Network) and not term.heads and term.with_last_layer(potential.params, None) is not None


def refit(
    potential: Potential,
    structures: Sequence[Structure],
    quantities: Sequence[Quantity] = (ENERGY, FORCES),
    batch_size: int | None = None,
) -> Potential:
    """Solve for the weights of the last linear layer on labelled structures, in double precision.

    Minimises, for the change w of the weights, the mean of the weighted squared errors of energies per atom over their
    variance, the same of forces, and a small penalty on w, with errors in the tails weighed down (iteratively reweighted
    least squares with Huber's weights; P. J. Huber, Robust Statistics, 1981; deviations by the median).

    Args:
        potential: Trained network, see ``can_refit``.
        structures: Labels of energy (eV) and forces (eV/Å); at most ``MOST_ENERGIES`` energies and about ``MOST_FORCES``
            components of forces are used, spread evenly over the sequence.
        quantities: Which of energy and forces count.
        batch_size: Number of structures that are evaluated together; None for one that suits the machine.

    Returns:
        The same potential with other weights; unchanged where there are no labels.
    """
    makers = {ENERGY: energy_rows, FORCES: force_rows}
    found = (makers[row](potential, with_label(structures, row), batch_size) for row in quantities)
    parts = [part for part in found if part is not None]
    if not parts:
        return potential
    assert isinstance(potential.term, Network), "checked by can_refit"
    params = potential.term.with_last_layer(potential.params, solve(parts))
    return potential.replace(variables={**potential.variables, "params": params})


def with_label(structures: Sequence[Structure], quantity: Quantity) -> list[Structure]:
    """Select structures with a label that counts among ``MOST_ENERGIES`` that are spread evenly, but no isolated atoms."""
    some = (structures[int(k)] for k in evenly(len(structures), MOST_ENERGIES))
    return [s for s in some if s.weight_of(quantity) and not is_isolated_atom(s)]


def energy_rows(potential: Potential, structures: Sequence[Structure], batch_size: int | None) -> Rows | None:
    """Evaluate structures with a label of the energy."""
    if not structures:
        return None
    energies = dict(potential.metadata.atomic_energies)
    rows, error = [np.zeros(0)] * len(structures), np.zeros(len(structures))
    for k, out in evaluate_in_batches(Job(potential, (FEATURES.name, ENERGY.name)), structures, batch_size):
        structure = structures[k]
        free = isolated_atom_energy(structure.numbers, energies).sum()
        rows[k] = np.asarray(out.others[FEATURES.name], np.float64).sum(axis=0) / len(structure)
        # The total energy would leave few digits of the difference in single precision.
        error[k] = (float(structure.labels[ENERGY]) - free - float(np.asarray(out.interaction))) / len(structure)
    return Rows(np.stack(rows), error, np.array([s.weight_of(ENERGY) for s in structures]))


def force_rows(potential: Potential, structures: Sequence[Structure], batch_size: int | None) -> Rows | None:
    """Evaluate some of the structures with labels of forces, one backward pass for each feature."""
    if not structures:
        return None
    each = 3 * np.mean([len(s) for s in structures])
    chosen = evenly(len(structures), max(1, round(MOST_FORCES / each)))
    some = [structures[int(k)] for k in chosen]
    parts: list[Rows | None] = [None] * len(some)
    for k, out in evaluate_in_batches(Job(potential, (FEATURE_FORCES.name, FORCES.name)), some, batch_size):
        slopes = np.asarray(out.others[FEATURE_FORCES.name], np.float64)
        error = (some[k].labels[FORCES] - np.asarray(out.forces, np.float64)).ravel()
        parts[k] = Rows(slopes.reshape(-1, slopes.shape[-1]), error, np.full(len(error), some[k].weight_of(FORCES)))
    return Rows(*(np.concatenate(x) for x in zip(*(part for part in parts if part is not None), strict=True)))


def solve(parts: Sequence[Rows]) -> Float[np.ndarray, " features"]:
    """Solve for the change of the weights, see ``refit``."""
    change = np.zeros(parts[0].rows.shape[1])
    for _ in range(ROUNDS):
        matrix, vector = np.zeros((len(change), len(change))), np.zeros(len(change))
        for part in parts:
            left = part.error - part.rows @ change
            # 1.4826 medians are the standard deviation of a normal distribution.
            spread = max(1.4826 * float(np.median(np.abs(left[part.weight > 0]))), np.finfo(np.float64).tiny)
            weights = part.weight / np.maximum(1, np.abs(left) / (TAIL * spread))
            scaled = part.rows * (weights / (part.weight.sum() * spread**2))[:, None]
            matrix += scaled.T @ part.rows
            vector += scaled.T @ part.error
        penalty = RIDGE * np.trace(matrix) / len(change)
        change = np.linalg.solve(matrix + penalty * np.eye(len(change)), vector)
    return change
