"""Refit of the constants of each element after fine-tuning. A network that is tuned to a few frames of one composition moves
the energies of other elements as a whole, by far more than their differences; the replayed frames say by how much, and one
number for each element puts it right. Forces and differences of energies at fixed composition do not change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.graph import HEADS
from equipot.models.network import Network
from equipot.potential import Potential
from equipot.quantities import ENERGY
from equipot.structure import Structure, symbols
from equipot.training.refit import LEAST_ERROR, LEAST_LABELS, MARGIN, Rows, energy_error, solve, with_label

PASSES = 3
"""Number of solutions, each of which counts as outliers what is far off beside the errors that the one before leaves."""
MOST_TOLD = 10
"""Largest number of constants of which each change is told."""


def refit_shifts(
    potential: Potential,
    structures: Sequence[Structure],
    held_out: Sequence[Structure],
    batch_size: int | None = None,
    devices: int | None = None,
) -> tuple[Potential, str]:
    """Solve for the change of the constant of each element, and of each head, by robust least squares of energies per atom.

    Elements with fewer than ``LEAST_LABELS`` frames with an energy keep their constants, and so do all where the validation
    frames say that it harms.

    Args:
        potential: Tuned network, see ``has_shifts``.
        structures: Training frames, with those that were replayed; energies in eV.
        held_out: Validation frames.
        batch_size: Number of structures that are evaluated together; None for one that suits the machine.
        devices: Largest number of devices to use; None for all.

    Returns:
        The potential with other constants, or the same one, and what was done.

    Raises:
        ValueError: fewer than ``LEAST_LABELS`` energies for each constant.
    """
    rows = composition_rows(potential, structures, batch_size, devices)
    seen = np.count_nonzero(rows.rows, axis=0) >= LEAST_LABELS
    if not seen.any() or len(rows.error) < LEAST_LABELS * seen.sum():
        raise ValueError(f"{len(rows.error)} energies are too few for the constants of {max(1, seen.sum())} elements")
    if not rows.error.any():
        return potential, "left as trained: energies have no errors"
    change = np.zeros(rows.rows.shape[1])
    for _ in range(PASSES):
        left = rows.error - rows.rows @ change
        change[seen] += solve([rows._replace(rows=rows.rows[:, seen], error=left)])
    if not np.isfinite(change).all():
        raise ValueError("no finite solution")
    check = composition_rows(potential, held_out, batch_size, devices)
    before, after = (mean_error(check, each) for each in (np.zeros_like(change), change))
    if not after <= max(MARGIN * before, check.least):
        return potential, f"left as trained: validation says energy {before:.3g} -> {after:.3g} eV/atom"
    trained, refitted = mean_error(rows, np.zeros_like(change)), mean_error(rows, change)
    errors = f"mean absolute error of {len(rows.error)} energies {trained:.3g} -> {refitted:.3g} eV/atom"
    return shifted(potential, change), f"{told(potential, change)}; {errors}"


def told(potential: Potential, change: np.ndarray) -> str:
    """Describe the change of the constants; that of more than ``MOST_TOLD`` by their root mean square."""
    names = names_of(potential)
    moved = [k for k in range(len(names)) if change[k]]
    if len(moved) > MOST_TOLD:
        return f"{len(moved)} changed by {np.sqrt(np.mean(change[moved] ** 2)):.3g} eV (RMS)"
    return ", ".join(f"{names[k]} {change[k]:+.3g} eV" for k in moved)


def has_shifts(potential: Potential) -> bool:
    """Whether this is one network that stands alone."""
    return isinstance(potential.term, Network) and "shift" in scope_of(potential)


def scope_of(potential: Potential) -> dict[str, np.ndarray]:
    """Return the constants of the readout, or those of the readouts of all heads."""
    constants = potential.variables["constants"]
    return dict(constants[HEADS] if potential.heads else constants)


def names_of(potential: Potential) -> list[str]:
    """Name the constants by element and head, in the order of the columns of ``composition_rows``."""
    elements = [symbols([z]) for z in potential.term.elements]
    return [f"{element} ({head})" for head in potential.heads for element in elements] or elements


def shifted(potential: Potential, change: np.ndarray) -> Potential:
    """Add to the constants, in the order of ``names_of``, eV."""
    constants, scope = potential.variables["constants"], scope_of(potential)
    old = np.asarray(scope["shift"])
    new = {**scope, "shift": (old + change.reshape(old.shape)).astype(old.dtype)}
    whole = {**constants, HEADS: new} if potential.heads else new
    return potential.replace(variables={**potential.variables, "constants": whole})


def composition_rows(
    potential: Potential, structures: Sequence[Structure], batch_size: int | None, devices: int | None
) -> Rows:
    """Evaluate structures with a label of the energy; their rows are the shares of their atoms that each constant acts on."""
    frames = with_label(structures, ENERGY)
    energies = dict(potential.metadata.atomic_energies)
    error, elements = np.zeros(len(frames)), np.array(potential.term.elements)
    for k, out in evaluate_in_batches(Job(potential, (ENERGY.name,)), frames, batch_size, devices) if frames else ():
        error[k] = energy_error(frames[k], float(np.asarray(out.interaction)), energies)
    heads = max(1, len(potential.heads))
    rows = np.zeros((len(frames), heads, len(elements)))
    for k, frame in enumerate(frames):
        rows[k, frame.head or 0] = np.mean(frame.numbers[:, None] == elements, axis=0)
    weight = np.array([s.weight_of(ENERGY) for s in frames])
    return Rows(rows.reshape(len(frames), heads * len(elements)), error, weight, LEAST_ERROR * ENERGY.scale)


def mean_error(rows: Rows, change: np.ndarray) -> float:
    """Compute the weighted mean absolute error (eV/atom) that a change of the constants leaves; 0 without energies."""
    left = np.abs(rows.error - rows.rows @ change)
    return float(np.average(left, weights=rows.weight)) if len(left) else 0.0
