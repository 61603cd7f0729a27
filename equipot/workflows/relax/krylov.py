"""Truncated conjugate gradients: the step of a quadratic model within a trust radius, from products with the Hessian alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.workflows.relax.coordinates import Coordinates, Landscape, plus

Product = Callable[[Coordinates], Coordinates]
"""Multiply a matrix with coordinates, for all systems at once: the Hessian (eV/Å^2), or a preconditioner."""


class Answer(NamedTuple):
    """Step that lowers g . p + p . H p / 2."""

    step: Coordinates
    image: Coordinates
    """H p, eV/Å."""
    length: Float[Array, " graphs"]
    """Norm of the step in the metric of the preconditioner, sqrt(p . M p)."""
    bounded: Bool[Array, " graphs"]
    """Whether the step ends at the trust radius."""
    products: Float[Array, " graphs"]
    """Products with the Hessian that the system needed."""


class _Search(NamedTuple):
    answer: Answer
    residual: Coordinates
    direction: Coordinates
    falling: Float[Array, " graphs"]
    """r . M^-1 r."""
    overlap: Float[Array, " graphs"]
    """p . M d."""
    size: Float[Array, " graphs"]
    """d . M d."""
    active: Bool[Array, " graphs"]
    iteration: Array


def steihaug(
    landscape: Landscape,
    products: tuple[Product, Product],
    gradient: Coordinates,
    radius: Float[Array, " graphs"],
    tolerance: Float[Array, " graphs"],
    most: int,
    active: Bool[Array, " graphs"],
) -> Answer:
    """Find steps by the method of Steihaug, SIAM J. Numer. Anal. 20, 626 (1983), of all systems at once.

    Norms of steps are those in the metric of the preconditioner M, as Conn, Gould and Toint, Trust-Region Methods, algorithm
    7.5.1, have them by recursion: in that metric the steps of the search grow.

    Args:
        landscape: Batch.
        products: With the Hessian, and with the inverse of the preconditioner M.
        gradient: eV/Å.
        radius: Longest step, sqrt(p . M p).
        tolerance: Norm of the residual g + H p (eV/Å) at which a search ends.
        most: Largest number of products.
        active: Systems whose steps are wanted; the others do not move.
    """
    product, precondition = products
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    steepest = precondition(gradient)
    falling = landscape.dot(gradient, steepest)
    zero, no = jnp.zeros_like(falling), jnp.zeros_like(active)
    empty = Answer(nothing, nothing, zero, no, zero)
    down = landscape.scaled(-jnp.ones_like(falling), steepest)
    wanted = active & (jnp.sqrt(landscape.dot(gradient, gradient)) > tolerance)
    start = _Search(empty, gradient, down, falling, zero, falling, wanted, jnp.zeros((), jnp.int32))

    def body(now: _Search) -> _Search:
        answer, direction = now.answer, now.direction
        image = product(direction)
        curvature = landscape.dot(direction, image)
        negative = curvature <= 0
        length = now.falling / jnp.where(negative, 1, curvature)
        square = lambda t: answer.length**2 + 2 * t * now.overlap + t**2 * now.size
        outside = negative | (square(length) >= radius**2)
        length = jnp.where(outside, _to_radius(answer.length, now.overlap, now.size, radius), length)
        length = jnp.where(now.active, length, 0)
        step = plus(answer.step, landscape.scaled(length, direction))
        image_of_step = plus(answer.image, landscape.scaled(length, image))
        residual = plus(gradient, image_of_step)
        steepest = precondition(residual)
        falling = landscape.dot(residual, steepest)
        ratio = falling / jnp.where(now.falling > 0, now.falling, 1)
        turned = plus(landscape.scaled(-jnp.ones_like(falling), steepest), landscape.scaled(ratio, direction))
        found = Answer(
            step, image_of_step, jnp.sqrt(jnp.maximum(square(length), 0)), answer.bounded | (now.active & outside),
            answer.products + now.active,
        )  # fmt: skip
        goes_on = now.active & ~outside & (jnp.sqrt(landscape.dot(residual, residual)) > tolerance)
        overlap, size = ratio * (now.overlap + length * now.size), falling + ratio**2 * now.size
        return _Search(found, residual, turned, falling, overlap, size, goes_on, now.iteration + 1)

    return jax.lax.while_loop(lambda now: jnp.any(now.active) & (now.iteration < most), body, start).answer


def _to_radius(
    length: Float[Array, " graphs"],
    overlap: Float[Array, " graphs"],
    size: Float[Array, " graphs"],
    radius: Float[Array, " graphs"],
) -> Float[Array, " graphs"]:
    """Return the positive t with |p + t d| = radius, from |p|, p . d and d . d."""
    root = jnp.sqrt(jnp.maximum(overlap**2 + size * (radius**2 - length**2), 0))
    return (root - overlap) / jnp.where(size > 0, size, 1)
