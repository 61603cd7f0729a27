"""Deformation gradients to compute: random ones at a given distance within a range, and named paths for figures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot.workflows.constitutive.kinematics import StrainRange, exponential

PATHS = ("volume", "uniaxial 100", "uniaxial 111", "shear 100/010")
"""Names of the paths that ``path`` knows."""


def random_gradients(
    bounds: StrainRange, count: int, seed: int, low: float = 0.0, high: float = 1.0
) -> Float[np.ndarray, "count 3 3"]:
    """Draw stretches U = exp(H), without rotation, whose distance ``bounds.distance`` is uniform between ``low`` and ``high``.

    The traceless part of H has a uniform direction among traceless symmetric matrices. One of the two parts, traceless or
    volumetric, is as large as the distance allows; the other is uniform below.

    Args:
        bounds: range that distances are measured in.
        count: number of deformations.
        seed: seed of the random numbers.
        low: least distance.
        high: largest distance; above 1 outside of the range.
    """
    rng = np.random.default_rng(seed)
    general = rng.normal(size=(count, 3, 3))
    traceless = general + np.swapaxes(general, 1, 2)
    traceless -= np.trace(traceless, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    traceless /= np.abs(np.linalg.eigvalsh(traceless)).max(axis=1)[:, None, None]
    sheared = rng.random(count) < 2 / 3
    shear = np.where(sheared, 1.0, rng.random(count))
    volume = np.where(sheared, rng.uniform(-1, 1, count), rng.choice([-1.0, 1.0], count))
    size = rng.uniform(low, high, count)
    hencky = (size * shear * bounds.shear)[:, None, None] * traceless
    return exponential(hencky + (size * volume * bounds.volume / 3)[:, None, None] * np.eye(3))


def path(
    name: str, bounds: StrainRange, reach: float, points: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3 3"]]:
    """Return a named path of deformations.

    Args:
        name: one of ``PATHS``: isotropic changes of volume; stretches along [100] or [111] with no change across; simple
            shear.
        bounds: range that distances are measured in.
        reach: distance of the last deformations.
        points: number of deformations.

    Returns:
        Parameter of the path, its name's strain: ln J, logarithmic stretch, or amount of shear; and F.
    """
    axis = np.ones(3) / np.sqrt(3) if name == "uniaxial 111" else np.eye(3)[0]
    if name == "volume":
        strain = np.linspace(-1, 1, points) * reach * bounds.volume
        return strain, np.exp(strain / 3)[:, None, None] * np.eye(3)
    if name == "shear 100/010":
        # Principal Hencky strains of a simple shear g are +-asinh(g / 2).
        strain = np.linspace(0, 1, points) * 2 * np.sinh(reach * bounds.shear)
        return strain, np.eye(3) + strain[:, None, None] * np.outer(np.eye(3)[0], np.eye(3)[1])
    # A stretch of logarithm s has the principal traceless strain 2 s / 3, and ln J = s.
    strain = np.linspace(-1, 1, points) * reach * min(1.5 * bounds.shear, bounds.volume)
    return strain, np.eye(3) + (np.exp(strain) - 1)[:, None, None] * np.outer(axis, axis)
