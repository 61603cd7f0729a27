"""Test whether the energies of isolated atoms and of the other frames come from one method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from ase.data import chemical_symbols

from equipot.data.checks.report import ERROR, WARNING, Problem
from equipot.data.compositions import RANK_TOLERANCE, compositions
from equipot.structure import Structure

BOUND = 15.0
"""Largest binding energy, eV/atom; tungsten has 8.9."""
USUAL = (-10.0, 1.0)
"""Energies of frames above those of their isolated atoms that need no warning, eV/atom: negative where atoms bind. Atoms that
were calculated without spin bind by some eV more than real ones."""
OFF = 25.0
"""Largest estimated binding energy of an element (eV) beyond three standard errors; a larger one proves a wrong E0."""


def isolated_atoms(structures: Iterable[Structure], isolated: Mapping[int, float]) -> Iterator[Problem]:
    """Find energies of isolated atoms that contradict the energies of the frames.

    Args:
        structures: the training set; charged frames are left out, since an electron changes the energy by more than bonds.
        isolated: energies of the isolated atoms, eV by Z.
    """
    counts, energies, _, elements, _ = compositions(s for s in structures if not s.charge)
    labelled = np.isfinite(energies)
    if not labelled.any() or any(z not in isolated for z in elements):
        return
    counts, energies = counts[labelled], energies[labelled]
    binding = energies - counts @ np.array([isolated[z] for z in elements])
    typical = float(np.median(binding / counts.sum(axis=1)))
    guess = _element(counts, binding)
    if guess is None and USUAL[0] < typical < USUAL[1]:
        return
    names = [chemical_symbols[z] for z in elements]
    certain = names[guess[0]] if guess else (names[0] if len(names) == 1 else "")
    blamed = f"the isolated {certain} atom" if certain else f"one of the isolated atoms ({', '.join(names)})"
    seen = (
        f"by {guess[1]:+.4g} eV for each of its atoms"
        if guess
        else f"the frames then lie {typical:+.4g} eV/atom from their atoms"
    )
    proven = guess is not None or abs(typical) >= BOUND
    what = f"{blamed} {'does' if proven else 'may'} not belong to the energies of the other frames ({seen})"
    remedy = "calculate it with the same method, potentials and units, or set data.atomic_energies to fit"
    yield Problem(ERROR if proven else WARNING, "isolated_energy", "data.atomic_energies", what, remedy)


def _element(counts: np.ndarray, binding: np.ndarray) -> tuple[int, float] | None:
    """Find the element with a wrong E0 by least squares.

    Args:
        counts: (frames, elements) atoms of each element.
        binding: (frames,) total energies less E0, eV.

    Returns:
        Column of the element and its estimated binding energy (eV); None if no E0 is wrong or compositions do not tell.
    """
    rank = np.linalg.matrix_rank(counts / counts.sum(axis=1, keepdims=True), tol=RANK_TOLERANCE * np.sqrt(len(counts)))
    dof = len(binding) - counts.shape[1]
    if rank < counts.shape[1] or dof < counts.shape[1]:
        return None
    values = np.linalg.lstsq(counts, binding, rcond=None)[0]
    variance = np.sum((binding - counts @ values) ** 2) / dof
    errors = np.sqrt(np.diag(np.linalg.inv(counts.T @ counts)) * variance)
    excess = np.abs(values) - 3 * errors
    worst = int(np.argmax(excess))
    return (worst, float(values[worst])) if excess[worst] > OFF else None
