"""The nudged elastic band: a path of least energy between two minima, all of whose images move at once.

Tangents are those of Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000), the climbing image that of Henkelman, Uberuaga
and Jónsson, J. Chem. Phys. 113, 9901 (2000), and the band moves by L-BFGS over all images (Sheppard, Terrell and Henkelman,
J. Chem. Phys. 128, 134106 (2008)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from equipot.workflows.neb.surface import Surface

KEPT = 10
"""Evaluations between two states of a band that are kept."""
STRIDE = 1 / 3
"""Share of the mean distance of neighbouring images that an atom may go in a step: images that overtake each other make the
tangents of the path worthless, and a climbing image climbs without end then."""


@dataclass(frozen=True)
class BandConfig:
    """How a band is relaxed."""

    fmax: float = 0.02
    """Largest force on an atom of any image perpendicular to the path at the end, eV/Å."""
    spring: float = 1.0
    """Stiffness of the springs between images, eV/Å^2."""
    climb: bool = True
    """Whether the highest image climbs to the saddle point, once the band is nearly relaxed."""
    climb_below: float = 0.5
    """Force (eV/Å) below which it begins to climb."""
    max_steps: int = 500
    """Largest number of evaluations of the band."""
    max_step: float = 0.1
    """Longest way of an atom in a step, Å; never more than a third of the distance between neighbouring images."""
    memory: int = 20
    """Steps that L-BFGS remembers."""

    def __post_init__(self) -> None:
        positive = {"fmax": self.fmax, "spring": self.spring, "climb_below": self.climb_below, "max_step": self.max_step}
        for name, value in positive.items():
            if not 0 < value < np.inf:
                raise ValueError(f"{name} {value} must be positive")
        if self.max_steps < 1 or self.memory < 1:
            raise ValueError(f"max_steps {self.max_steps} and memory {self.memory} must be at least 1")


@dataclass(frozen=True)
class Band:
    """Images of a path."""

    points: np.ndarray
    """(images, n) coordinates, both ends included."""
    energies: np.ndarray
    """(images,)"""
    gradients: np.ndarray
    """(images, n)"""
    converged: bool
    force: float
    """Largest perpendicular force on an atom."""
    evaluations: int
    """Evaluations of the inner images."""
    climbing: int | None
    """Image that climbs; None where none did."""

    @property
    def lengths(self) -> np.ndarray:
        """(images,) length of the path up to each image."""
        return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1))])

    @property
    def highest(self) -> int:
        """Image of the highest energy."""
        return int(np.argmax(self.energies))


@dataclass(frozen=True)
class BandState:
    """A band between two evaluations: all that its relaxation goes on from."""

    points: np.ndarray
    """(images, n)"""
    energies: np.ndarray
    """(images,)"""
    gradients: np.ndarray
    """(images, n)"""
    evaluations: int
    climbing: int | None
    steps: np.ndarray
    """(remembered, 2, (images - 2) n) changes of points and of gradients that L-BFGS remembers."""
    last: np.ndarray | None
    """(2, (images - 2) n) points and forces of the last step; None before the first."""


def relax_band(
    surface: Surface,
    points: np.ndarray,
    settings: BandConfig | None = None,
    say: Callable[[int, float], None] | None = None,
    keep: Callable[[BandState], None] | None = None,
    state: BandState | None = None,
) -> Band:
    """Relax a path between its two ends, which stay.

    Args:
        surface: Energy.
        points: (images, n) first path, at least three images.
        settings: How.
        say: Called with the number of evaluations and the largest force.
        keep: Called with the state every ``KEPT`` evaluations and at the end.
        state: State to go on from, instead of ``points``.

    Raises:
        ValueError: fewer than three images, or two neighbouring images at one place.
    """
    settings = settings or BandConfig()
    state = first_state(surface, points) if state is None else state
    points, energies, gradients = state.points.copy(), state.energies.copy(), state.gradients.copy()
    history = History(settings.memory, pairs=state.steps, last=state.last)
    climbing, count = state.climbing, state.evaluations
    while True:
        top = climbing_image(energies, climbing) if settings.climb else None
        forces, across = band_forces(points, energies, gradients, settings.spring, climbing)
        if top != climbing and (climbing is not None or largest(across) < settings.climb_below):
            climbing = top
            history.clear()
            forces, across = band_forces(points, energies, gradients, settings.spring, climbing)
        force = largest(across)
        if say is not None:
            say(count, force)
        done = force < settings.fmax or not np.isfinite(force) or count >= settings.max_steps
        if keep is not None and (done or count % KEPT == 0):
            keep(BandState(points, energies, gradients, count, climbing, history.pairs, history.last))
        if done:
            break
        most = min(settings.max_step, STRIDE * float(np.mean([largest(way) for way in np.diff(points, axis=0)])))
        step = limited(history.step(points[1:-1].ravel(), forces.ravel()).reshape(forces.shape), most)
        points[1:-1] += step
        inner, slopes = surface.evaluate(points[1:-1])
        energies[1:-1], gradients[1:-1], count = inner, slopes, count + 1
    return Band(points, energies, gradients, force < settings.fmax, float(force), count, climbing)


def first_state(surface: Surface, points: np.ndarray) -> BandState:
    """Evaluate a first path (images, n).

    Raises:
        ValueError: fewer than three images, or two neighbouring images at one place.
    """
    points = np.array(points, np.float64)
    if len(points) < 3:
        raise ValueError(f"a path of {len(points)} images has none between its ends; give at least 3")
    if np.linalg.norm(np.diff(points, axis=0), axis=1).min() < 1e-10:
        raise ValueError("two neighbouring images of the path are the same; begin with a path whose images differ")
    energies, gradients = surface.evaluate(points)
    return BandState(points, energies, gradients, 1, None, np.zeros((0, 2, points[1:-1].size)), None)


def climbing_image(energies: np.ndarray, climbing: int | None) -> int | None:
    """Return the image that should climb: the highest inner one, if it is above both ends; None if there is none.

    An image that climbs goes on until another one has passed it.
    """
    top = int(np.argmax(energies[1:-1])) + 1
    if climbing is not None:
        return top if energies[top] > energies[climbing] + 1e-6 else climbing
    return top if energies[top] > max(energies[0], energies[-1]) else None


def band_forces(
    points: np.ndarray, energies: np.ndarray, gradients: np.ndarray, spring: float, climbing: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the forces on the inner images (images - 2, n), and what of them must vanish at the end.

    What must vanish is the true force across the path, and for the climbing image all of its force.
    """
    tangents = path_tangents(points, energies)
    inner = gradients[1:-1]
    along = np.sum(inner * tangents, axis=1, keepdims=True)
    across = along * tangents - inner
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    springs = spring * (lengths[1:] - lengths[:-1])[:, None] * tangents
    forces = across + springs
    if climbing is not None:
        k = climbing - 1
        across[k] = forces[k] = 2 * along[k] * tangents[k] - inner[k]
    return forces, across


def path_tangents(points: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Compute unit tangents of the inner images (images - 2, n): towards the higher neighbour, or between both at a turn."""
    ahead, behind = points[2:] - points[1:-1], points[1:-1] - points[:-2]
    up, down = energies[2:] - energies[1:-1], energies[:-2] - energies[1:-1]
    large, small = np.maximum(np.abs(up), np.abs(down)), np.minimum(np.abs(up), np.abs(down))
    to_next = energies[2:] > energies[:-2]
    mixed = np.where(to_next[:, None], ahead * large[:, None] + behind * small[:, None],
                     ahead * small[:, None] + behind * large[:, None])  # fmt: skip
    rising, falling = (up > 0) & (down < 0), (up < 0) & (down > 0)
    tangents = np.where(rising[:, None], ahead, np.where(falling[:, None], behind, mixed))
    norms = np.linalg.norm(tangents, axis=1, keepdims=True)
    plain = points[2:] - points[:-2]
    # On a flat path all energies are alike, and weights by differences of energies are zero.
    tangents = np.where(
        norms > 1e-12, tangents / np.maximum(norms, 1e-300), plain / np.linalg.norm(plain, axis=1, keepdims=True)
    )
    return tangents


def largest(forces: np.ndarray) -> float:
    """Return the largest force on an atom, of components in threes; for other coordinates the largest force of an image."""
    n = forces.shape[-1]
    atoms = forces.reshape(-1, 3) if n % 3 == 0 else forces.reshape(-1, n)
    return float(np.linalg.norm(atoms, axis=-1).max(initial=0))


def limited(step: np.ndarray, most: float) -> np.ndarray:
    """Shorten a step of all images so that no atom goes farther than ``most``."""
    longest = largest(step)
    return step if longest <= most else step * (most / longest)


class History:
    """Inverse Hessian of L-BFGS for forces that need not be a gradient.

    Args:
        memory: Number of steps that are remembered.
        curvature: Curvature that the first step reckons with.
        pairs: (steps, 2, n) changes of point and gradient to begin with.
        last: (2, n) last point and force; None for none.
    """

    def __init__(
        self, memory: int, curvature: float = 25.0, pairs: np.ndarray | None = None, last: np.ndarray | None = None
    ) -> None:
        self.memory, self.curvature = memory, curvature
        self._pairs = [] if pairs is None else [(s, y) for s, y in pairs]
        self._last = None if last is None else (last[0], last[1])

    def clear(self) -> None:
        """Forget all steps."""
        self._pairs, self._last = [], None

    @property
    def pairs(self) -> np.ndarray:
        """(steps, 2, n) changes of point and gradient that are remembered."""
        return np.array(self._pairs)

    @property
    def last(self) -> np.ndarray | None:
        """(2, n) last point and force; None before the first step."""
        return None if self._last is None else np.array(self._last)

    def step(self, point: np.ndarray, force: np.ndarray) -> np.ndarray:
        """Return the next step (n,) from a point (n,) with a force (n,), whose changes are remembered."""
        if self._last is not None:
            moved, changed = point - self._last[0], self._last[1] - force
            if moved @ changed > 1e-8 * np.linalg.norm(moved) * np.linalg.norm(changed):
                self._pairs = [*self._pairs, (moved, changed)][-self.memory :]
            else:
                self._pairs = []
        self._last = point.copy(), force.copy()
        q, factors = force.copy(), []
        for s, y in reversed(self._pairs):
            a = (s @ q) / (s @ y)
            q -= a * y
            factors.append(a)
        if self._pairs:
            s, y = self._pairs[-1]
            q *= (s @ y) / (y @ y)
        else:
            q /= self.curvature
        for (s, y), a in zip(self._pairs, reversed(factors), strict=True):
            q += (a - (y @ q) / (s @ y)) * s
        # A step against the force comes from a history that no longer fits.
        if q @ force <= 0:
            self._pairs = []
            return force / self.curvature
        return q
