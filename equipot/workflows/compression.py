"""Compare energies, forces and stress of a potential and of its compressed form."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from equipot.evaluation import evaluate_each
from equipot.observables import Observables
from equipot.potential import Potential
from equipot.structure import Structure

UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å^3"}


def deviations(original: Potential, compressed: Potential, structures: Sequence[Structure]) -> dict[str, float]:
    """Compute the largest differences in energy (eV/atom), forces (eV/Å) and stress (eV/Å^3), in double precision, over all
    heads.

    Raises:
        ValueError: a result that is not finite.
    """
    heads = range(len(original.heads))
    each = [s.replace(head=k) for k in heads for s in structures] if original.heads else list(structures)
    with jax.enable_x64(True):
        # A method that both correct would cancel.
        pair = [evaluate_each(potential.correction.astype("float64"), each) for potential in (original, compressed)]
    found = [_differences(structure, *both) for structure, *both in zip(each, *pair, strict=True)]
    return {name: max(one[name] for one in found if name in one) for name in UNITS if any(name in one for one in found)}


def _differences(structure: Structure, a: Observables, b: Observables) -> dict[str, float]:
    largest = lambda x, y: float(np.max(np.abs(x - y)))
    out = {"energy": largest(a.interaction, b.interaction) / len(structure.numbers), "forces": largest(a.forces, b.forces)}
    return out if a.stress is None else out | {"stress": largest(a.stress, b.stress)}
