"""The intrinsic reaction coordinate: the steepest way down from a saddle point, in coordinates weighted by masses.

K. Fukui, Acc. Chem. Res. 14, 363 (1981): dq/ds = -g / |g| with q = sqrt(m) x and g the gradient by q. The way is integrated by
Runge-Kutta steps of adapted length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipot.workflows.neb.band import largest
from equipot.workflows.neb.saddle import lowest_mode
from equipot.workflows.neb.surface import Surface

NEAR = 0.3
"""Share of the largest gradient on the way below which a small gradient is that of a minimum."""


SHORTEST = 2e-3
"""Length of a step, sqrt(amu) Å, at which the energy no longer falls because a minimum is reached."""


@dataclass(frozen=True)
class Way:
    """A way down on one side of a saddle point."""

    points: np.ndarray
    """(steps, n) coordinates, the saddle point first."""
    energies: np.ndarray
    """(steps,)"""
    lengths: np.ndarray
    """(steps,) length of the way in weighted coordinates, sqrt(amu) Å."""
    reached: bool
    """Whether the gradient vanishes at its end; otherwise the way is as long as was allowed."""


def descend(
    surface: Surface,
    saddle: np.ndarray,
    mode: np.ndarray,
    masses: np.ndarray,
    longest: float = 20.0,
    fmax: float = 0.02,
    first: float = 0.02,
) -> tuple[Way, Way]:
    """Follow the intrinsic reaction coordinate to both sides of a saddle point.

    Args:
        surface: Energy.
        saddle: (n,) saddle point.
        mode: (n,) eigenvector of the negative curvature, in plain coordinates.
        masses: (n,) mass of each coordinate, amu.
        longest: Length at which a way is given up, sqrt(amu) Å.
        fmax: Gradient (eV/Å) below which an end is a minimum.
        first: Length of the first step along the mode, sqrt(amu) Å.

    Returns:
        The way against the mode, and the way along it.
    """
    root = np.sqrt(masses)
    _, along, _ = lowest_mode(lambda v: surface.product(saddle, v / root) / root, mode * root)
    along = along / np.linalg.norm(along)
    back, ahead = (_side(surface, saddle, sign * first * along, root, longest, fmax) for sign in (-1, 1))
    return back, ahead


def _side(surface: Surface, saddle: np.ndarray, push: np.ndarray, root: np.ndarray, longest: float, fmax: float) -> Way:
    from scipy.integrate import RK45

    def slope(length: float, q: np.ndarray) -> np.ndarray:
        _, (gradient,) = surface.evaluate((q / root)[None])
        weighted = gradient / root
        norm = float(np.linalg.norm(weighted))
        return -weighted / max(norm, 1e-12)

    start = saddle * root + push
    points, lengths = [saddle, start / root], [0.0, float(np.linalg.norm(push))]
    energies = surface.evaluate(np.array(points))[0].tolist()
    begin = lambda longest_step: RK45(
        slope, lengths[-1], points[-1] * root, longest, max_step=longest_step, rtol=1e-3, atol=1e-3,
        first_step=min(0.02, longest_step),
    )  # fmt: skip
    step, reached, peak, last = 0.2, False, 0.0, np.inf
    solver = begin(step)
    while solver.status == "running" and not reached:
        solver.step()
        point = solver.y / root
        (energy,), (gradient,) = surface.evaluate(point[None])
        force = largest(gradient[None])
        if energy > energies[-1]:
            # Past the minimum, or across a narrow valley: shorter steps tell which.
            if step < SHORTEST:
                reached = last < 5 * fmax
                break
            step /= 4
            solver = begin(step)
            continue
        # The gradient is small at the saddle point, too, and what the search for it left dies out first.
        left = np.linalg.norm(solver.y - start) > 10 * np.linalg.norm(push)
        peak, last = max(peak, force) if left else 0.0, force
        reached = bool(left and force < min(fmax, NEAR * peak))
        points.append(point)
        energies.append(float(energy))
        lengths.append(float(solver.t))
    return Way(np.array(points), np.array(energies), np.array(lengths), reached)
