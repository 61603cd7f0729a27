"""Truncated conjugate gradients: the step of a quadratic model within a trust radius, from products with the Hessian alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.workflows.relax.coordinates import Coordinates, Landscape, plus

Product = Callable[[Coordinates], Coordinates]
"""Multiply the Hessian (eV/Å^2) with a direction, for all systems at once."""


class Answer(NamedTuple):
    """Step that lowers g . p + p . H p / 2."""

    step: Coordinates
    image: Coordinates
    """H p, eV/Å."""
    bounded: Bool[Array, " graphs"]
    """Whether the step ends at the trust radius."""
    negative: Bool[Array, " graphs"]
    """Whether a direction of negative curvature was met."""
    products: Float[Array, " graphs"]
    """Products with the Hessian that the system needed."""


class _Search(NamedTuple):
    answer: Answer
    residual: Coordinates
    direction: Coordinates
    square: Float[Array, " graphs"]
    active: Bool[Array, " graphs"]
    iteration: Array


def steihaug(
    landscape: Landscape,
    product: Product,
    gradient: Coordinates,
    radius: Float[Array, " graphs"],
    tolerance: Float[Array, " graphs"],
    most: int,
    active: Bool[Array, " graphs"],
) -> Answer:
    """Find steps by the method of Steihaug, SIAM J. Numer. Anal. 20, 626 (1983), of all systems at once.

    Args:
        landscape: Batch.
        product: Products with the Hessian.
        gradient: eV/Å.
        radius: Longest step, as the norm over all coordinates, Å.
        tolerance: Norm of the residual g + H p (eV/Å) at which a search ends.
        most: Largest number of products.
        active: Systems whose steps are wanted; the others do not move.
    """
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    square = landscape.dot(gradient, gradient)
    no = jnp.zeros_like(active)
    empty = Answer(nothing, nothing, no, no, jnp.zeros_like(square))
    down = landscape.scaled(-jnp.ones_like(square), gradient)
    start = _Search(empty, gradient, down, square, active & (jnp.sqrt(square) > tolerance), jnp.zeros((), jnp.int32))

    def body(now: _Search) -> _Search:
        answer, direction = now.answer, now.direction
        image = product(direction)
        curvature = landscape.dot(direction, image)
        negative = curvature <= 0
        length = now.square / jnp.where(negative, 1, curvature)
        ahead = plus(answer.step, landscape.scaled(length, direction))
        outside = negative | (landscape.dot(ahead, ahead) >= radius**2)
        length = jnp.where(outside, _to_radius(landscape, answer.step, direction, radius), length)
        length = jnp.where(now.active, length, 0)
        step = plus(answer.step, landscape.scaled(length, direction))
        image_of_step = plus(answer.image, landscape.scaled(length, image))
        residual = plus(gradient, image_of_step)
        square = landscape.dot(residual, residual)
        ratio = square / jnp.where(now.square > 0, now.square, 1)
        turned = plus(landscape.scaled(-jnp.ones_like(square), residual), landscape.scaled(ratio, direction))
        found = Answer(
            step, image_of_step, answer.bounded | (now.active & outside), answer.negative | (now.active & negative),
            answer.products + now.active,
        )  # fmt: skip
        goes_on = now.active & ~outside & (jnp.sqrt(square) > tolerance)
        return _Search(found, residual, turned, square, goes_on, now.iteration + 1)

    return jax.lax.while_loop(lambda now: jnp.any(now.active) & (now.iteration < most), body, start).answer


def _to_radius(
    landscape: Landscape, step: Coordinates, direction: Coordinates, radius: Float[Array, " graphs"]
) -> Float[Array, " graphs"]:
    """Return the positive t with |step + t direction| = radius."""
    a, b, c = (landscape.dot(x, y) for x, y in ((direction, direction), (step, direction), (step, step)))
    root = jnp.sqrt(jnp.maximum(b**2 + a * (radius**2 - c), 0))
    return (root - b) / jnp.where(a > 0, a, 1)
