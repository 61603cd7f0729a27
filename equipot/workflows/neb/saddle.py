"""Saddle points by following the lowest eigenvector of the exact Hessian, of which only products are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from equipot.workflows.neb.band import largest
from equipot.workflows.neb.surface import Surface

FLAT = 1e-3
"""Curvature (eV/Å^2) of a direction that costs no energy but for rounding, as rigid motions of all atoms do."""
FEW = 12
"""Number of coordinates up to which the whole Hessian is cheaper than Lanczos iterations."""
STIFF = 100.0
"""Curvature (eV/Å^2) that is given to the lowest mode while the second one is sought: beyond those of soft modes."""
RESTARTS = 15
"""Restarts of Lanczos iterations, each of some 20 products, after which the second mode is given up."""


@dataclass(frozen=True)
class SaddleConfig:
    """How a saddle point is sought."""

    fmax: float = 1e-4
    """Largest force on an atom at the end, eV/Å."""
    max_steps: int = 200
    """Largest number of steps."""
    radius: float = 0.2
    """First and largest trust radius: norm of a step over all coordinates, Å."""
    tolerance: float = 0.01
    """Share of the gradient to which a step solves Newton's equations across the eigenvector."""

    def __post_init__(self) -> None:
        if not 0 < self.fmax < np.inf or not 0 < self.radius < np.inf:
            raise ValueError(f"fmax {self.fmax} eV/Å and radius {self.radius} Å must be positive")
        if self.max_steps < 1 or not 0 < self.tolerance < 1:
            raise ValueError(f"max_steps {self.max_steps} must be at least 1, tolerance {self.tolerance} between 0 and 1")


@dataclass(frozen=True)
class Saddle:
    """End of a search for a saddle point."""

    point: np.ndarray
    """(n,)"""
    energy: float
    mode: np.ndarray
    """(n,) unit eigenvector of the lowest eigenvalue."""
    curvature: float
    """Lowest eigenvalue of the Hessian (eV/Å^2): negative at a saddle point."""
    second: float
    """Second-lowest eigenvalue (eV/Å^2): not negative at a saddle point of first order. Infinite for a single coordinate, NaN
    where the search did not end at a saddle point or the eigenvalue was not found."""
    converged: bool
    reason: str
    """Why the end is no saddle point; empty where it is one."""
    force: float
    """Largest force on an atom."""
    gradients: int
    products: int
    """Products with the Hessian."""


def find_saddle(
    surface: Surface,
    point: np.ndarray,
    settings: SaddleConfig | None = None,
    mode: np.ndarray | None = None,
    say: Callable[[int, float], None] | None = None,
    free: np.ndarray | None = None,
) -> Saddle:
    """Walk uphill along the lowest eigenvector and downhill across it, by Newton steps within a trust radius.

    At the end the second-lowest eigenvalue is computed, too: a point with two negative ones is no saddle point between two
    minima.

    Args:
        surface: Energy.
        point: (n,) start, such as the highest image of a band.
        settings: How.
        mode: (n,) first guess of the eigenvector, such as the tangent of the band.
        say: Called with the number of the step and the largest force.
        free: (n,) coordinates that may move; None for all.
    """
    settings = settings or SaddleConfig()
    x, radius, products = np.array(point, np.float64), settings.radius, 0
    able = np.arange(len(x)) if free is None else np.flatnonzero(free)
    (energy,), (gradient,) = surface.evaluate(x[None])
    v = (np.random.default_rng(0).normal(size=len(x)) if mode is None else np.array(mode, np.float64))[able]
    gradients, curvature, second, reason = 1, np.nan, np.nan, ""
    for step_number in range(settings.max_steps + 1):
        product = partial(free_product, surface, x.copy(), able)
        curvature, v, used = lowest_mode(product, v)
        products += used
        force = largest(gradient[None])
        if say is not None:
            say(step_number, force)
        if not np.isfinite(energy + force + curvature):
            reason = "the energy is not finite"
            break
        if force < settings.fmax:
            second, used = second_curvature(product, v) if curvature < -FLAT else (np.nan, 0)
            products, reason = products + used, no_saddle(curvature, second)
            break
        if step_number == settings.max_steps:
            reason = f"{settings.max_steps} steps were not enough: the largest force is {force:.3g} eV/Å"
            break
        moved, expected, used = newton_step(product, gradient[able], v, curvature, radius, settings.tolerance)
        step = spread(moved, able, len(x))
        products += used
        (new_energy,), (new_gradient,) = surface.evaluate((x + step)[None])
        gradients += 1
        # At a saddle point energies rise and fall: what a step is judged by is how well the model foresaw the change.
        off = abs(new_energy - energy - expected) / max(abs(expected), 1e-9)
        if not np.isfinite(new_energy) or (off > 2 and np.linalg.norm(step) > 1e-3):
            radius = 0.3 * min(radius, float(np.linalg.norm(step)))
            continue
        radius = min(2 * radius, settings.radius) if off < 0.25 else radius
        x, energy, gradient = x + step, new_energy, new_gradient
    return Saddle(
        x, float(energy), spread(v, able, len(x)), float(curvature), float(second), not reason, reason,
        largest(gradient[None]), gradients, products,
    )  # fmt: skip


def spread(values: np.ndarray, able: np.ndarray, n: int) -> np.ndarray:
    """Put values of the coordinates that may move among n, of which the others are zero."""
    whole = np.zeros(n)
    whole[able] = values
    return whole


def free_product(surface: Surface, point: np.ndarray, able: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Multiply the block of the Hessian of the coordinates that may move with a direction of these."""
    return surface.product(point, spread(direction, able, len(point)))[able]


def no_saddle(curvature: float, second: float) -> str:
    """Say why a stationary point with two lowest curvatures (eV/Å^2) is no saddle point of first order; empty where it is."""
    if not curvature < -FLAT:
        return f"the lowest curvature is {curvature:.3g} eV/Å^2: it is no saddle point"
    if second < -FLAT:
        return (
            f"the two lowest curvatures are {curvature:.3g} and {second:.3g} eV/Å^2: it is a saddle point of higher order; "
            "take more images, or displace the path so that it has less symmetry"
        )
    return ""


def dense(product: Callable[[np.ndarray], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all eigenvalues (n,), ascending, and eigenvectors in columns (n, n), by a product for each coordinate."""
    matrix = np.stack([product(e) for e in np.eye(n)])
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors


def second_curvature(product: Callable[[np.ndarray], np.ndarray], mode: np.ndarray) -> tuple[float, int]:
    """Find the second-lowest eigenvalue by Lanczos iterations across the lowest eigenvector; returns also the products used.

    The eigenvalue is wrong by ``FLAT`` / 2 at most; NaN where ``RESTARTS`` were not enough.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n, count = len(mode), 0
    if n == 1:
        return np.inf, 0
    if n <= FEW:
        return float(dense(product, n)[0][1]), n
    across = lambda v: v - mode * (mode @ v)

    def shifted(v: np.ndarray) -> np.ndarray:
        # Lanczos iterations stop at a relative error: of an eigenvalue near zero that would never be.
        nonlocal count
        count += 1
        return across(product(across(v))) + across(v) + STIFF * mode * (mode @ v)

    start = across(np.random.default_rng(0).normal(size=n))
    operator = LinearOperator((n, n), matvec=shifted, dtype=np.float64)
    try:
        values = eigsh(
            operator, k=1, which="SA", v0=start, tol=FLAT / 2, ncv=min(n, 20), maxiter=RESTARTS, return_eigenvectors=False
        )
    except ArpackNoConvergence:
        return np.nan, count
    return float(values[0]) - 1.0, count


def lowest_mode(product: Callable[[np.ndarray], np.ndarray], guess: np.ndarray) -> tuple[float, np.ndarray, int]:
    """Find the lowest eigenvalue and its unit eigenvector (n,) by Lanczos iterations; returns also the number of products."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n, count = len(guess), 0

    def counted(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return product(v)

    if n <= FEW:
        values, vectors = dense(product, n)
        return float(values[0]), vectors[:, 0], n
    operator = LinearOperator((n, n), matvec=counted, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, k=1, which="SA", v0=guess, tol=1e-3, ncv=min(n, 20), maxiter=20 * n)
    except ArpackNoConvergence as partly:
        if not len(partly.eigenvalues):
            unit = guess / np.linalg.norm(guess)
            return float(unit @ counted(unit)), unit, count
        values, vectors = partly.eigenvalues, partly.eigenvectors
    return float(values[0]), vectors[:, 0] / np.linalg.norm(vectors[:, 0]), count


def newton_step(
    product: Callable[[np.ndarray], np.ndarray],
    gradient: np.ndarray,
    mode: np.ndarray,
    curvature: float,
    radius: float,
    tolerance: float,
) -> tuple[np.ndarray, float, int]:
    """Return a step (n,) to a saddle point of the quadratic model, the change of the energy it expects, and products used.

    Along the mode the step goes uphill by |gradient / curvature|; across the mode it solves Newton's equations by conjugate
    gradients, which end at the trust radius or at a further direction of negative curvature.
    """
    across = lambda v: v - mode * (mode @ v)
    count, rest = 0, across(gradient)
    step, residual = np.zeros_like(gradient), rest.copy()
    direction, square = -residual, residual @ residual
    limit = tolerance * np.linalg.norm(gradient)
    for _ in range(len(gradient)):
        if np.sqrt(square) <= limit:
            break
        image = across(product(direction))
        count += 1
        bend = direction @ image
        length = square / bend if bend > 0 else np.inf
        if not bend > 0 or np.linalg.norm(step + length * direction) >= radius:
            a, b, c = direction @ direction, step @ direction, step @ step
            step = step + direction * ((np.sqrt(b * b + a * (radius**2 - c)) - b) / a)
            break
        step, residual = step + length * direction, residual + length * image
        square, before = residual @ residual, square
        direction = -residual + (square / before) * direction
    slope = mode @ gradient
    climb = np.clip(slope / max(abs(curvature), 1e-6), -radius, radius)
    # In a valley, where the curvature is positive, the way up is against the force all the same.
    whole = step + climb * mode
    norm = float(np.linalg.norm(whole))
    whole *= min(1.0, radius / max(norm, 1e-300))
    image = product(whole)
    return whole, float(gradient @ whole + whole @ image / 2), count + 1
