"""Rate of a reaction by harmonic transition state theory (Vineyard, J. Phys. Chem. Solids 3, 121 (1957))."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from equipot.units import fs, kB
from equipot.workflows.neb.surface import Surface

TO_THZ = 1e3 * fs / (2 * np.pi)
"""Frequency (THz) of a curvature of 1 eV/Å^2 for a mass of 1 amu."""


SOFT = 0.1
"""Frequency (THz) below which a vibration cannot be told from a rigid motion."""


class Rate(NamedTuple):
    """Prefactor and barrier; the rate is prefactor x exp(-barrier / kT)."""

    prefactor_THz: float
    barrier: float
    """eV."""
    imaginary_THz: float
    """Size of the imaginary frequency at the saddle point."""

    def at(self, temperature: float) -> float:
        """Compute the rate (1/s) at a temperature (K)."""
        return 1e12 * self.prefactor_THz * float(np.exp(-self.barrier / (kB * temperature)))


def frequencies(surface: Surface, point: np.ndarray, masses: np.ndarray, free: np.ndarray | None = None) -> np.ndarray:
    """Compute harmonic frequencies (THz, negative for imaginary ones, ascending) from the exact Hessian, column by column.

    Args:
        surface: Energy, eV and Å.
        point: (n,) stationary point.
        masses: (n,) mass of each coordinate, amu.
        free: (n,) coordinates that may move; None for all.
    """
    moving = np.arange(len(point)) if free is None else np.flatnonzero(free)
    units = np.eye(len(point))[moving]
    matrix = np.stack([surface.product(point, e)[moving] for e in units])
    weight = 1 / np.sqrt(masses[moving])
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2 * weight[:, None] * weight[None])
    return np.sign(values) * np.sqrt(np.abs(values)) * TO_THZ


def vineyard(minimum: np.ndarray, saddle: np.ndarray, barrier: float, zeros: tuple[int, int]) -> Rate:
    """Compute the harmonic rate from the frequencies (THz, ascending) at a minimum and at a saddle point.

    That of a free molecule lacks the ratio of its moments of inertia at both, which its rotations bring.

    Args:
        minimum: (n,) frequencies of the minimum.
        saddle: (n,) frequencies of the saddle point, the first of them imaginary.
        barrier: eV.
        zeros: Number of translations and rotations, whose frequencies are zero, at the minimum and at the saddle point.

    Raises:
        ValueError: a minimum with an imaginary frequency, a saddle point without exactly one, a frequency that is zero beside
            those of rigid motions, or one of these that is not.
    """
    kept = []
    for values, count in ((minimum, zeros[0]), (saddle, zeros[1])):
        order = np.argsort(np.abs(values))
        rigid, rest = np.abs(values[order[:count]]), np.abs(values[order[count:]])
        if (rigid > SOFT).any() or (rest < SOFT).any():
            raise ValueError(
                f"{count} frequencies should be those of rigid motions, but {(np.abs(values) < SOFT).sum()} are below "
                f"{SOFT:g} THz; a molecule in a box must be isolated, and an end or saddle point relaxed well"
            )
        kept.append(np.sort(values[order[count:]]))
    at_minimum, at_saddle = kept
    if (at_minimum <= 0).any():
        raise ValueError(f"the minimum has {(at_minimum <= 0).sum()} imaginary frequencies: it is no minimum")
    if (at_saddle <= 0).sum() != 1:
        raise ValueError(f"the saddle point has {(at_saddle <= 0).sum()} imaginary frequencies instead of one")
    prefactor = np.exp(np.log(at_minimum).sum() - np.log(at_saddle[1:]).sum())
    return Rate(float(prefactor), barrier, float(-at_saddle[0]))
