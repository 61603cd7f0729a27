"""Whether energies of isolated atoms belong to the same calculations as the energies of the other frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from ase.data import chemical_symbols

from equipot.data.checks.report import ERROR, Problem
from equipot.data.stats import RANK_TOLERANCE, compositions
from equipot.structure import Structure

BOUND = 15.0
"""eV/atom: nothing is bound by more; tungsten has 8.9."""
OFF = 25.0
"""eV: an element whose atoms are bound by more than this, beyond three errors of the estimate, has a wrong energy."""


def isolated(structures: Iterable[Structure], free: Mapping[int, float]) -> Iterator[Problem]:
    """Compare the frames with their isolated atoms.

    Args:
        structures: the training set.
        free: energies of the isolated atoms, eV by Z.
    """
    counts, energies, _, elements = compositions(structures)
    labelled = np.isfinite(energies)
    if not labelled.any() or any(z not in free for z in elements):
        return
    counts, energies = counts[labelled], energies[labelled]
    binding = energies - counts @ np.array([free[z] for z in elements])
    typical = float(np.median(binding / counts.sum(axis=1)))
    guess = _element(counts, binding)
    if guess is None and abs(typical) < BOUND:
        return
    names = [chemical_symbols[z] for z in elements]
    certain = names[guess[0]] if guess else (names[0] if len(names) == 1 else "")
    blamed = f"the isolated {certain} atom" if certain else f"one of the isolated atoms ({', '.join(names)})"
    seen = (
        f"by {guess[1]:+.4g} eV for each of its atoms"
        if guess
        else f"the frames then lie {typical:+.4g} eV/atom from their atoms"
    )
    what = f"{blamed} does not belong to the energies of the other frames ({seen})"
    remedy = "calculate it with the same method, potentials and units, or set data.atomic_energies to fit"
    yield Problem(ERROR, "isolated_energy", "data.atomic_energies", what, remedy)


def _element(counts: np.ndarray, binding: np.ndarray) -> tuple[int, float] | None:
    """Estimate the element that is off, its column and its energy (eV), where the compositions of the frames tell."""
    rank = np.linalg.matrix_rank(counts / counts.sum(axis=1, keepdims=True), tol=RANK_TOLERANCE * np.sqrt(len(counts)))
    free = len(binding) - counts.shape[1]
    if rank < counts.shape[1] or free < counts.shape[1]:
        return None
    values = np.linalg.lstsq(counts, binding, rcond=None)[0]
    variance = np.sum((binding - counts @ values) ** 2) / free
    errors = np.sqrt(np.diag(np.linalg.inv(counts.T @ counts)) * variance)
    excess = np.abs(values) - 3 * errors
    worst = int(np.argmax(excess))
    return (worst, float(values[worst])) if excess[worst] > OFF else None
