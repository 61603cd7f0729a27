"""Check labels of Hessians: symmetry, the sums that are zero by translation, and the size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from equipot.data.checks.report import ERROR, WARNING, Problem
from equipot.hessian_labels import is_whole
from equipot.quantities import HESSIAN
from equipot.structure import Structure

ASYMMETRY = (0.01, 0.1)
"""Ratios of the antisymmetric part of a Hessian to the whole (Frobenius norms) from which there is a warning, and an error.
Differences of forces give some 1e-4, of loosely converged ones 1e-2."""
DRIFT = (0.02, 0.3)
"""Ratios of the sums over atoms, which are zero by translation, to their terms from which there is a warning, and an error."""
SOFT = 0.7
"""Second derivative by the position of an atom (eV/Å^2), the mean over directions and atoms, below which bonded atoms are not
held; in Hartree/bohr^2 those of molecules are some 0.3, in eV/Å^2 some 30."""


def hessian(s: Structure) -> Iterator[Problem]:
    """Find a Hessian that is not symmetric, does not vanish under translations, or is too small for bonded atoms."""
    label = s.labels.get(HESSIAN)
    if label is None or not np.isfinite(label).all() or not label.any():
        return
    yield from _asymmetric(s, label)
    yield from _drifting(s, label)
    if is_whole(label) and len(s) > 1:
        n = 3 * len(s)
        size = float(np.mean(np.abs(np.diag(label.reshape(n, n)))))
        if size < SOFT:
            what = f"the second derivatives of its Hessian by the position of one atom are {size:.2g} eV/Å^2 in the mean"
            remedy = "if they are in Hartree/bohr^2, set data.units.others.hessian to that; if its atoms are loose, all is well"
            yield Problem(WARNING, "hessian_size", s.name, what, remedy)


def asymmetry(label: np.ndarray) -> float:
    """Compute the ratio of the antisymmetric part of a Hessian to the whole, 0 for a single product.

    For products, of the part of the matrix between their directions: d_k . H d_l - d_l . H d_k beside d_k . H d_l.
    """
    if is_whole(label):
        square = label.reshape(3 * len(label), -1)
    else:
        directions, products = (label[:, k].reshape(len(label), -1) for k in (0, 1))
        square = directions @ products.T
    whole = np.linalg.norm(square)
    return float(np.linalg.norm(square - square.T) / 2 / whole) if whole else 0.0


def drift(label: np.ndarray) -> float:
    """Compute the ratio of sums over atoms of the Hessian's rows, or of products, to the root of the sum of their squares."""
    rows = label.reshape(len(label), 3, -1) if is_whole(label) else np.moveaxis(label[:, 1], 0, -1)
    total, terms = np.linalg.norm(rows.sum(axis=0)), np.linalg.norm(rows)
    return float(total / terms) if terms else 0.0


def _asymmetric(s: Structure, label: np.ndarray) -> Iterator[Problem]:
    found = asymmetry(label)
    if found < ASYMMETRY[0]:
        return
    what = f"its Hessian is not symmetric: the antisymmetric part is {found:.1%} of it"
    remedy = "look at the order of its components and at how it was calculated, or set data.keys.others.hessian to none"
    yield Problem(ERROR if found > ASYMMETRY[1] else WARNING, "hessian_symmetry", s.name, what, remedy)


def _drifting(s: Structure, label: np.ndarray) -> Iterator[Problem]:
    found = drift(label)
    # One atom has no Hessian but zero, and what is fixed in an external field may have any.
    if found < DRIFT[0] or s.field.any():
        return
    what = f"a shift of all atoms changes forces by its Hessian: sums over atoms are {found:.0%} of their terms, not zero"
    remedy = (
        "a mass-weighted or projected Hessian, one of fixed atoms, or another order of components is none to train on; give "
        "d^2E/dr dr, or set data.keys.others.hessian to none"
    )
    yield Problem(ERROR if found > DRIFT[1] else WARNING, "hessian_sum", s.name, what, remedy)
