"""Find E0 of a fine-tuned potential: those of the base, or new ones for data of another level of theory.

A total energy is the sum of E0 of the isolated atoms and the interaction energy. The base predicts interaction energies, so new
E0 are fitted to the residuals, labels - interaction energies of the base, not to the labels. Energies of isolated atoms of the
new level of theory are the right E0 if the base, too, counts its energies from isolated atoms. The residuals tell whether it
does: where they are large, the isolated atoms are used only if the config insists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from equipot.data.compositions import compositions, fit_energies, neutral_where_enough
from equipot.data.config import Labelled
from equipot.data.read import Sets, find_energies
from equipot.data.stats import AtomicEnergies, Known
from equipot.structure import symbols

OTHER_LEVEL = (0.1, 3.0)
"""Improvement of the energies by new E0 (eV/atom, and as a factor) that suggests another level of theory."""
ORIGINS = {"isolated": "from isolated atoms of the data", "config": "as given", "fit": "fitted to what the base leaves"}
"""Origins of E0 in messages."""
OTHER_ZERO = 1.0
"""Excess (eV/atom) of the error with E0 of isolated atoms over that with fitted E0, beyond which the base does not count its
energies from isolated atoms."""


class Refitted(NamedTuple):
    """E0 of the data's level of theory."""

    energies: AtomicEnergies
    """E0 of all elements of the base and of the data."""
    notes: tuple[str, ...]
    """Lines for the user."""


def refit_energies(config: Labelled, sets: Sets, base: Mapping[int, float], refit: bool, explained: np.ndarray) -> Refitted:
    """Find E0 of the elements in the training frames.

    Args:
        base: E0 of the base, eV by Z.
        refit: whether to find E0 of all elements, instead of those that the base lacks.
        explained: (frames,) total energies of the training frames predicted by the base, eV.

    Raises:
        ValueError: an element without E0, or a choice in the config without effect.
    """
    counts, labels, weights, elements, electrons = compositions(sets.train)
    # The energy of an electron that was removed or added says nothing of E0.
    left = np.where(neutral_where_enough(counts, electrons, np.isfinite(labels)), labels - explained, np.nan)
    known = [z for z in elements if z in base]
    if not refit and len(known) == len(elements):
        if config.atomic_energies != "auto":
            raise ValueError(
                "data.atomic_energies would do nothing, because the E0 of the base are kept: "
                "set model.atomic_energies to refit, or leave it out"
            )
        return Refitted(AtomicEnergies(dict(base), "base", other_level(counts, left, elements, weights)), ())
    fixed = Known(explained, base, () if refit else base)
    change = lambda found, z: found.energies[z] - base.get(z, 0.0) if z in found.energies else 0.0
    rest = lambda found: per_atom(left - counts @ [change(found, z) for z in elements], counts, weights)
    found = find_energies(config, sets, fixed)
    warnings = other_zero(config, found, rest(found), best_fit(counts, left, elements, weights)) if refit else ()
    if warnings and config.atomic_energies == "auto":
        found = find_energies(replace(config, atomic_energies="fit"), sets, fixed)
    after = rest(found)
    line = f"E0 of {symbols(found.energies)} ({ORIGINS[found.origin]}): the base is {after:.4g} eV/atom off with them"
    if len(known) == len(elements):
        line += f" (RMS), {per_atom(left, counts, weights):.4g} with its own"
    lines = [line]
    absent = sorted(set(base) - set(elements))
    if refit and absent:
        lines.append(f"E0 of the base stay for {short(absent)}, which no training frame has: do not mix them with the others")
    energies = {**base, **found.energies}
    return Refitted(AtomicEnergies(energies, found.origin, (*found.warnings, *warnings)), tuple(lines))


def short(elements: Sequence[int]) -> str:
    """Write elements by their symbols, or more than ten by their number."""
    return symbols(elements) if len(elements) <= 10 else f"{len(elements)} elements"


def per_atom(left: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> float:
    """Compute the weighted RMS per atom (eV/atom) of the residuals ``left`` (frames,), eV, without NaN; NaN if all are NaN."""
    labelled = np.isfinite(left)
    if not labelled.any():
        return float("nan")
    return float(np.sqrt(np.average((left[labelled] / counts[labelled].sum(1)) ** 2, weights=weights[labelled])))


def best_fit(counts: np.ndarray, left: np.ndarray, elements: Sequence[int], weights: np.ndarray) -> float:
    """Compute the weighted RMS residual (eV/atom) with fitted E0; NaN if an element is in no frame with an energy."""
    labelled = np.isfinite(left)
    seen = counts[labelled].any(axis=0).all()
    return fit_energies(counts[labelled], left[labelled], elements, weights[labelled]).rms if seen else float("nan")


def other_level(counts: np.ndarray, left: np.ndarray, elements: Sequence[int], weights: np.ndarray) -> tuple[str, ...]:
    """Warn if fitted E0 would reduce the residuals of the base much."""
    kept, fitted = per_atom(left, counts, weights), best_fit(counts, left, elements, weights)
    if not (kept - fitted > OTHER_LEVEL[0] and kept > OTHER_LEVEL[1] * fitted):
        return ()
    return (
        f"the base's energies are {kept:.3g} eV/atom off, and other E0 would leave {fitted:.3g}: the data look like another "
        "level of theory than the base's; model.atomic_energies: refit then fits E0 to them",
    )


def other_zero(config: Labelled, found: AtomicEnergies, given: float, fitted: float) -> tuple[str, ...]:
    """Warn if E0 that were not fitted leave a much larger RMS residual (``given``, eV/atom) than fitted ones (``fitted``)."""
    if found.origin == "fit" or not given - fitted > OTHER_ZERO:
        return ()
    origin = ORIGINS[found.origin]
    off = f"{given:.3g} eV/atom off, with fitted ones {fitted:.3g}"
    seen = f"with E0 {origin} the base is {off}: it may not count from isolated atoms"
    if config.atomic_energies == "auto":
        return (f"{seen}. The fitted ones are used; data.atomic_energies: isolated insists on the atoms",)
    return (f"{seen}. data.atomic_energies: fit begins nearer to the data",)
