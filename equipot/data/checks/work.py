"""Test whether forces and stresses are derivatives of the energy, from pairs of frames with similar geometries.

From frame a to frame b, with displacements d of the atoms beyond the strain e of the cell, the trapezoid rule gives
E_b - E_a = -1/2 (F_a + F_b) . d + 1/2 (V_a s_a + V_b s_b) : e up to third order, for any potential. A regression over pairs
gives the factors in front of the terms, which are 1 for right labels, and their standard errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure

MANY, MEMBERS = 400, 60
"""Largest number of frames, in all and of one composition."""
NEAR, SOFT = 0.3, 0.05
"""Largest RMS displacement of a pair, and RMS displacement below which all pairs have equal weight (Å)."""
STRAIN = 0.12
"""Largest strain of a pair."""
SAME_CELL = 1e-4
"""Largest strain between cells that count as equal."""
LEAST = 6
"""Smallest number of pairs for a result."""
NEAR_ONE = 3.0
"""Factors between 1/NEAR_ONE and NEAR_ONE count as right."""
SURE = 5.0
"""Number of standard errors by which a trusted factor differs from zero."""


class Factor(NamedTuple):
    """Factor in front of a term of the energy difference; 1 for right labels."""

    value: float
    error: float
    """Standard error of the factor."""
    pairs: int
    """Number of pairs of frames."""

    @property
    def sure(self) -> bool:
        """Whether enough pairs determine the factor, ``SURE`` standard errors from zero."""
        return self.pairs >= LEAST and abs(self.value) > SURE * self.error


class Work(NamedTuple):
    """Factors of the work of forces and stress; None if the frames do not determine them."""

    forces: Factor | None
    stress: Factor | None
    """Factor of the work of the stress without its trace."""


class Pair(NamedTuple):
    """Two frames with similar geometries."""

    distance: float
    """RMS displacement, Å."""
    energy: float
    """Energy difference, eV."""
    forces: float
    """Work against the forces, eV."""
    stress: float
    """Work of the stress without its trace, eV."""
    pressure: float
    """Work of the trace of the stress, eV."""
    volume: float
    """Change of volume, Å^3."""


def work(structures: Sequence[Structure], rows: Sequence[int]) -> Work:
    """Compare energy differences between near frames with the work of forces and stresses.

    Args:
        structures: a set of frames.
        rows: indices of the frames of one file.
    """
    chosen = [structures[int(k)] for k in np.random.Generator(np.random.PCG64(0)).permutation(rows)[:MANY]]
    pairs = [pair for group in _alike(chosen) for pair in _nearest(group)]
    rigid = _regress([pair for pair in pairs if pair.volume == pair.stress == 0], ("forces",))
    both = _regress(pairs, ("forces", "stress", "pressure", "volume"))
    known = [one for found in (rigid, both) if (one := found.get("forces")) is not None and one.sure]
    stress = both.get("stress")
    forces = min(known, key=lambda one: one.error / abs(one.value)) if known else None
    return Work(forces, stress if stress is not None and stress.sure else None)


def _alike(structures: Sequence[Structure]) -> list[list[Structure]]:
    """Group frames of the same atoms in the same order, of one charge, spin and electric field."""
    groups: dict[tuple, list[Structure]] = defaultdict(list)
    for s in structures:
        if s.energy is None or s.forces is None or len(s) < 2:
            continue
        values = (s.positions, s.cell, s.energy, s.forces, s.stress)
        if all(np.isfinite(value).all() for value in values if value is not None):
            groups[s.numbers.tobytes(), s.pbc.tobytes(), s.charge, s.spin, s.field.tobytes()].append(s)
    return [group[:MEMBERS] for group in groups.values() if len(group) > 1]


def _nearest(group: Sequence[Structure]) -> list[Pair]:
    """Pair each frame with the nearest later frame of the group, if that is near enough."""
    found = []
    for k, a in enumerate(group):
        pairs = [pair for b in group[k + 1 :] if (pair := _pair(a, b)) is not None]
        if pairs:
            found.append(min(pairs, key=lambda pair: pair.distance))
    return found


def _pair(a: Structure, b: Structure) -> Pair | None:
    """Compute displacement, energy difference and work from one frame to another; None if they are too far apart."""
    if not a.pbc.any():
        moved, rotation = _turned(a.positions, b.positions)
        d, forces, strain = moved - a.positions, b.labels[FORCES] @ rotation, np.zeros((3, 3))
    else:
        if min(a.volume, b.volume) < 1e-3 and not np.array_equal(a.cell, b.cell):
            return None
        mean = (a.cell + b.cell) / 2
        fractional = b.positions @ np.linalg.pinv(b.cell) - a.positions @ np.linalg.pinv(a.cell)
        fractional -= np.round(fractional) * a.pbc
        # Components that no lattice vector spans are what the fractional coordinates miss.
        open_part = [s.positions - s.positions @ np.linalg.pinv(s.cell) @ s.cell for s in (a, b)]
        d, forces = fractional @ mean + open_part[1] - open_part[0], b.labels[FORCES]
        strain = np.linalg.pinv(mean) @ (b.cell - a.cell)
        d -= d.mean(axis=0)
    distance = float(np.sqrt(np.mean(np.sum(d**2, axis=1))))
    if distance > NEAR or np.abs(strain).max() > STRAIN:
        return None
    same = np.abs(strain).max() < SAME_CELL
    if not same and (a.stress is None or b.stress is None or not a.pbc.all()):
        return None
    stress, pressure = (0.0, 0.0) if same else _stress_work(a, b, (strain + strain.T) / 2)
    volume = 0.0 if same else b.volume - a.volume
    of_forces = -0.5 * float(np.sum((a.labels[FORCES] + forces) * d))
    return Pair(distance, b.labels[ENERGY] - a.labels[ENERGY], of_forces, stress, pressure, volume)


def _turned(fixed: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Superpose ``moving`` (n, 3) on ``fixed`` by Kabsch's rotation; also return the rotation (3, 3), which multiplies rows."""
    centre, other = fixed.mean(axis=0), moving.mean(axis=0)
    u, _, vt = np.linalg.svd((moving - other).T @ (fixed - centre))
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return (moving - other) @ rotation + centre, rotation


def _stress_work(a: Structure, b: Structure, strain: np.ndarray) -> tuple[float, float]:
    """Compute the work (eV) of the stress without its trace, and of the trace."""
    mean = (a.volume * a.labels[STRESS] + b.volume * b.labels[STRESS]) / 2
    trace = np.trace(mean) * np.trace(strain) / 3
    return float(np.sum(mean * strain) - trace), float(trace)


def _regress(pairs: Sequence[Pair], terms: Sequence[str]) -> dict[str, Factor]:
    """Fit the factors of the terms by weighted least squares.

    Weights fall with distance, because the error of the trapezoid rule grows with the cube of the distance.
    """
    if len(pairs) < LEAST:
        return {}
    x = np.array([[getattr(p, term) for term in terms] for p in pairs])
    y = np.array([p.energy for p in pairs])
    size = np.sqrt(np.sum(x**2, axis=0))
    used = [k for k in range(len(terms)) if size[k] > 1e-6]
    if not used or len(pairs) < len(used) + LEAST - 1:
        return {}
    weights = 1 / (SOFT**3 + np.array([p.distance for p in pairs]) ** 3)
    rows = weights[:, None] * x[:, used] / size[used]
    values, *_ = np.linalg.lstsq(rows, weights * y, rcond=1e-9)
    left = weights * y - rows @ values
    variance = left @ left / (len(pairs) - len(used))
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(rows.T @ rows)) * variance, 0))
    return {
        terms[k]: Factor(float(value / size[k]), float(error / size[k]), len(pairs))
        for k, value, error in zip(used, values, errors, strict=True)
    }
