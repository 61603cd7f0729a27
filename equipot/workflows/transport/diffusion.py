"""Mean squared displacements and self-diffusion coefficients with errors, from overlapping time origins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot.units import joule, kB
from equipot.workflows.statistics.degrees_of_freedom import HeldMotions
from equipot.workflows.statistics.trajectory import Trajectory

LAGS = 10
"""Number of lags of each spacing, and of the points of a fit."""
LEAST_POINTS = 3 * LAGS
"""Smallest number of positions of a spacing from which a fit is made."""
ACCEPTED = 0.05
"""Probability of a worse fit below which displacements do not count as diffusive at a spacing."""
LARGEST_STEP = 0.4
"""Displacement between two frames, in cell heights, above which positions cannot be unwrapped."""
CUBIC = 2.837297
"""Constant of a cubic cell in the correction of Yeh and Hummer."""
PER_ANGSTROM2_FS = 0.1
"""cm^2/s of one Å^2/fs."""


@dataclass(frozen=True)
class Displacements:
    """Mean squared displacements of each element after the centre of mass is put at rest."""

    elements: tuple[str, ...]
    counts: tuple[int, ...]
    """Number of atoms of each element."""
    spacings: tuple[int, ...]
    """Frames between the positions of each row of ``squared``: 1, 2, 4, ..."""
    points: tuple[int, ...]
    """Number of positions of each spacing."""
    squared: Float[np.ndarray, "spacings elements lags"]
    """Mean of |r(t + k spacing) - r(t)|^2 for k = 1 to ``LAGS``, Å^2; NaN beyond the trajectory."""
    interval_fs: float
    temperature_K: float | None
    """None for a trajectory without velocities."""
    length: float | None
    """Mean cube root of the volume, Å; None for a system that is open somewhere."""

    def curve(self, element: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Return times (fs) and mean squared displacements (Å^2) of an element, each time once."""
        known: dict[int, float] = {}
        for spacing, rows in zip(self.spacings, self.squared, strict=True):
            for k, value in enumerate(rows[element], start=1):
                if np.isfinite(value):
                    known.setdefault(k * spacing, float(value))
        steps = sorted(known)
        return np.array(steps) * self.interval_fs, np.array([known[k] for k in steps])


@dataclass(frozen=True)
class SelfDiffusion:
    """Self-diffusion coefficient of an element."""

    element: str
    coefficient: float
    """cm^2/s; NaN where none can be given."""
    error: float
    """Standard error, cm^2/s."""
    spacing_fs: float
    """Spacing of the lags from which displacements are diffusive; the fit is over ``LAGS`` of them."""
    quality: float
    """Probability of a worse fit."""
    correction: float | None = None
    """What was added for the finite cell, cm^2/s; None for nothing."""
    reason: str = ""
    """Why there is no coefficient, or why it is not to be relied on; empty if nothing speaks against it."""


def displacements(trajectory: Trajectory) -> Displacements:
    """Accumulate mean squared displacements of a trajectory, in float64, with few positions in memory.

    Positions are followed across the cell by the shortest displacement from frame to frame, in the cell of the later frame
    (von Bülow, Bullerjahn and Hummer, J. Chem. Phys. 153, 021101 (2020): right at constant pressure, too). For each power of
    two, the last ``LAGS`` positions at this spacing are kept, and each new one is compared with all of them.

    Raises:
        ValueError: positions that move too far between frames to be unwrapped.
    """
    groups, masses = list(trajectory.elements.values()), trajectory.masses
    ladder = _Ladder(groups)
    where = last = None
    kinetic = length = 0.0
    count, moving, held = 0, True, HeldMotions(trajectory)
    for frame in trajectory.checked():
        if where is None or last is None:
            where = np.array(frame.positions, np.float64)
        else:
            where = where + _step(frame.positions, last, frame.cell, trajectory.pbc, f"{trajectory.name}, frame {count}")
        last = np.array(frame.positions, np.float64)
        ladder.add(where - (masses @ where) / masses.sum())
        length += np.cbrt(frame.volume)
        if frame.velocities is None:
            moving = False
        else:
            held.add(frame)
            kinetic += float(np.sum(masses[:, None] * np.square(frame.velocities, dtype=np.float64)))
        count += 1
    from equipot.units import fs

    return Displacements(
        tuple(trajectory.elements), tuple(map(len, groups)), ladder.spacings, ladder.points, ladder.squared,
        trajectory.interval_fs, kinetic / count / fs**2 / (held.free * kB) if moving else None,
        length / count if all(trajectory.pbc) else None,
    )  # fmt: skip


def _step(
    new: np.ndarray, old: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool], where: str
) -> Float[np.ndarray, "atoms 3"]:
    """Return the shortest displacements (Å) from ``old`` to ``new`` positions."""
    moved = np.asarray(new, np.float64) - old
    if not any(pbc):
        return moved
    from equipot.neighbors.cells import complete_cell

    full = complete_cell(cell, list(pbc))
    fraction = moved @ np.linalg.inv(full)
    fraction -= np.where(np.array(pbc), np.round(fraction), 0)
    largest = np.abs(fraction[:, np.array(pbc)]).max(initial=0)
    if largest > LARGEST_STEP:
        raise ValueError(
            f"{where}: an atom has moved by {largest:.2f} of the cell since the frame before, so that positions cannot be "
            "followed across the cell; write frames more often"
        )
    return fraction @ full


class _Ladder:
    """Sums of squared displacements for lags at spacings of powers of two."""

    def __init__(self, groups: list[np.ndarray]) -> None:
        self.groups = groups
        self.rings: list[np.ndarray] = []
        """Last ``LAGS`` positions of each spacing, in places that are used in turn."""
        self.sums: list[np.ndarray] = []
        self.seen: list[int] = []
        self.frames = 0
        self.first = np.zeros((0, 3))

    def add(self, positions: Float[np.ndarray, "atoms 3"]) -> None:
        """Compare positions with earlier ones, at all spacings that are due."""
        if not self.frames:
            self.first = positions
        level = 0
        while self.frames % 2**level == 0 and level <= len(self.rings):
            if level == len(self.rings):
                self._new_spacing(positions.shape)
            ring, seen = self.rings[level], self.seen[level]
            order = (seen - 1 - np.arange(min(seen, LAGS))) % LAGS
            moved = positions - ring
            squared = np.einsum("kni,kni->kn", moved, moved)[order]
            self.sums[level][:, : len(order)] += [squared[:, group].mean(axis=1) for group in self.groups]
            ring[seen % LAGS] = positions
            self.seen[level] += 1
            if not self.frames:
                break
            level += 1
        self.frames += 1

    def _new_spacing(self, shape: tuple[int, ...]) -> None:
        """Begin a spacing; the first position of all belongs to every one."""
        self.rings.append(np.zeros((LAGS, *shape)))
        self.sums.append(np.zeros((len(self.groups), LAGS)))
        self.rings[-1][0] = self.first
        self.seen.append(1 if self.frames else 0)

    @property
    def spacings(self) -> tuple[int, ...]:
        return tuple(2**level for level in range(len(self.rings)))

    @property
    def points(self) -> tuple[int, ...]:
        return tuple(self.seen)

    @property
    def squared(self) -> Float[np.ndarray, "spacings elements lags"]:
        pairs = np.array(self.seen)[:, None] - np.arange(1, LAGS + 1)
        found = np.stack(self.sums) / np.maximum(pairs, 1)[:, None]
        return np.where(pairs[:, None] > 0, found, np.nan)


def self_diffusion(found: Displacements) -> list[SelfDiffusion]:
    """Fit a diffusion coefficient to the displacements of each element.

    The mean squared displacements at ``LAGS`` multiples k of a spacing s are fitted by a^2 + 6 D s k, by generalised least
    squares with the covariance of overlapping origins of such a walk, and the smallest spacing is taken at which chi-squared
    says that the straight line holds (Bullerjahn, von Bülow and Hummer, J. Chem. Phys. 153, 024116 (2020)). Atoms count as
    independent.
    """
    return [_of_element(found, k) for k in range(len(found.elements))]


def _of_element(found: Displacements, element: int) -> SelfDiffusion:
    from scipy.stats import chi2

    name, walks = found.elements[element], 3 * found.counts[element]
    last = None
    for spacing, points, rows in zip(found.spacings, found.points, found.squared, strict=True):
        if points < LEAST_POINTS:
            break
        slope, error, misfit = fit_walk(rows[element] / 3, points, walks)
        time = spacing * found.interval_fs
        scale = PER_ANGSTROM2_FS / (2 * time)
        quality = float(chi2.sf(misfit, LAGS - 2))
        last = SelfDiffusion(name, scale * slope, scale * error, time, quality)
        if quality > ACCEPTED:
            if slope < 2 * error:
                bound = scale * (max(slope, 0) + 2 * error)
                return _replaced(last, reason=f"{name} does not diffuse measurably: D is below {bound:.2g} cm^2/s")
            return last
    told = f"{name}: displacements are not diffusive at any time for which there are {LEAST_POINTS} positions; run longer"
    return SelfDiffusion(name, np.nan, np.nan, np.nan, np.nan if last is None else last.quality, reason=told)


def _replaced(found: SelfDiffusion, **changes: float | str) -> SelfDiffusion:
    from dataclasses import replace

    return replace(found, **changes)  # type: ignore[arg-type]


def fit_walk(squared: Float[np.ndarray, " lags"], points: int, walks: int) -> tuple[float, float, float]:
    """Fit mean squared displacements of random walks in one dimension by a^2 + b k, k = 1, 2, ...

    Args:
        squared: Mean over the walks and over all origins, for lags 1, 2, ... of the points.
        points: Number of points of each walk.
        walks: Number of independent walks.

    Returns:
        b, its standard error, and chi-squared of the fit.
    """
    if not squared.any():
        return 0.0, 0.0, 0.0
    lags = np.arange(1, len(squared) + 1)
    design = np.stack([np.ones(len(lags)), lags], axis=1)
    offset, slope = np.polyfit(lags, squared, 1)[::-1]
    for _ in range(20):
        before = slope
        slope, offset = max(slope, 1e-6 * squared[-1] / lags[-1]), max(offset, -0.5 * slope)
        inverse = np.linalg.inv(walk_covariance(float(offset), float(slope), points, len(lags)) / walks)
        spread = np.linalg.inv(design.T @ inverse @ design)
        offset, slope = spread @ (design.T @ inverse @ squared)
        if abs(slope - before) <= 1e-6 * abs(slope):
            break
    rest = squared - design @ np.array([offset, slope])
    return float(slope), float(np.sqrt(spread[1, 1])), float(rest @ inverse @ rest)


def walk_covariance(offset: float, slope: float, points: int, lags: int) -> Float[np.ndarray, "lags lags"]:
    """Compute the covariance of mean squared displacements over overlapping origins, for a Gaussian walk in one dimension.

    For displacements d_i(t) = x(t + i) - x(t) with <d_i^2> = G(i) = offset + slope i, Wick's theorem says
    cov(d_i(s)^2, d_j(t)^2) = 2 <d_i(s) d_j(t)>^2, with
    2 <d_i(s) d_j(t)> = G(|s + i - t|) + G(|s - t - j|) - G(|s + i - t - j|) - G(|s - t|), G(0) = 0.
    """
    # Displacements that share no time are not correlated.
    apart = np.arange(-lags, lags + 1)
    walked = lambda n: np.where(n == 0, 0.0, offset + slope * np.abs(n))
    found = np.empty((lags, lags))
    for i in range(1, lags + 1):
        for j in range(1, i + 1):
            product = (walked(apart + i) + walked(apart - j) - walked(apart + i - j) - walked(apart)) / 2
            # Origins s = 0 .. points - i - 1 and t = 0 .. points - j - 1: how many pairs have s - t = apart.
            low, high = np.maximum(0, apart), np.minimum(points - i, points - j + apart)
            pairs = np.maximum(high - low, 0)
            found[i - 1, j - 1] = found[j - 1, i - 1] = 2 * np.sum(pairs * product**2) / ((points - i) * (points - j))
    return found


def finite_size_correction(temperature_K: float, viscosity_mPa_s: float, length: float) -> float:
    """Compute what a cubic cell of a given length (Å) takes from a diffusion coefficient: 2.837297 kT / (6 pi eta L), cm^2/s.

    Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004).
    """
    kT = kB / joule * temperature_K
    return 1e4 * CUBIC * kT / (6 * np.pi * viscosity_mPa_s * 1e-3 * length * 1e-10)
