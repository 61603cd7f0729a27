"""Find the factor by which the interaction energies of a base have to grow to describe the forces of new data.

Universal potentials are too soft (Deng et al., npj Comput. Mater. 11, 9, 2025, arXiv:2405.07105): forces far from equilibrium
are too small by much the same factor everywhere. One number, which a few frames determine, mends that before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipot.models.network import Network
from equipot.potential import Potential
from equipot.quantities import FORCES
from equipot.structure import Structure
from equipot.term import walk

LIMITS = (0.5, 2.0)
"""Factors outside of which the forces are not those of the base but for a factor: the data are then of another kind."""
SCALED = ("scale", "shift")
"""Constants of a network that its interaction energy is linear in."""


def check_scale(potential: Potential, name: str) -> None:
    """Check that the energy of a potential can be scaled.

    Raises:
        ValueError: parts of the energy do not depend on the constants, or there are several heads.
    """
    term = potential.term
    beside = isinstance(term, Network) and (term.repulsion is not None or term.electrons is not None)
    if beside or len(list(walk(term))) > 1 or potential.heads or not set(SCALED) <= set(potential.variables["constants"]):
        raise ValueError(
            f"model.scale: refit multiplies the whole interaction energy by one factor, and {name} has parts that this does "
            "not hold for (repulsion, charges, walls, heads); leave it out"
        )


def force_scale(labelled: Sequence[Structure], predicted: Sequence[Structure]) -> float:
    """Fit the factor s between forces by weighted least squares: s = sum F_ref . F / sum F . F.

    Args:
        labelled: Structures with labels.
        predicted: The same structures with predictions of the base.

    Returns:
        The factor; 1 if no structure has labels of forces, or if the factor is outside of ``LIMITS``.
    """
    product, square = 0.0, 0.0
    for reference, found in zip(labelled, predicted, strict=True):
        if not (weight := reference.weight_of(FORCES)):
            continue
        product += weight * float(np.sum(reference.labels[FORCES] * found.labels[FORCES]))
        square += weight * float(np.sum(found.labels[FORCES] ** 2))
    factor = product / square if square else 1.0
    return factor if LIMITS[0] <= factor <= LIMITS[1] else 1.0


def scaled(potential: Potential, factor: float) -> Potential:
    """Multiply the interaction energy of a network by a factor."""
    if factor == 1:
        return potential
    constants = potential.variables["constants"]
    larger = {name: factor * constants[name] for name in SCALED}
    return potential.replace(variables={**potential.variables, "constants": {**constants, **larger}})
