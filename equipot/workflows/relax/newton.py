"""Newton's method in a trust region, with exact products of the Hessian and no matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.workflows.relax.coordinates import Coordinates, Landscape, Point, plus
from equipot.workflows.relax.krylov import steihaug
from equipot.workflows.relax.optimizers import Optimizer, Walk, noise
from equipot.workflows.relax.preconditioner import inverse_of_model
from equipot.workflows.relax.valence import Valence


class Region(NamedTuple):
    """Memory of Newton's method."""

    radius: Float[Array, " graphs"]
    """Longest step, as the norm over all coordinates (Å), those along which the model Hessian is stiff counted more."""
    length: Float[Array, " graphs"]
    """That norm of the trial step, Å."""
    expected: Float[Array, " graphs"]
    """Change of the energy that the quadratic model expects of the trial, eV."""
    bounded: Bool[Array, " graphs"]
    """Whether the trial ends at the radius."""


@dataclass(frozen=True)
class Newton(Optimizer):
    """Newton's method in a trust region (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 4.1).

    The steps are those of truncated conjugate gradients (``krylov.steihaug``): few gradients, and some products with the
    Hessian, each about as costly as two or three gradients, for every one of them. The model Hessian of bonds, angles and
    torsions (``valence.Valence``) preconditions the search, so that molecules need fewer products. With a cheaper potential in
    ``RelaxConfig.cheaper`` the products are those of the cheaper one.
    """

    uses_hessian = True
    products: int = 60
    """Largest number of products with the Hessian in a step."""
    tolerance: float = 0.1
    """Share of the gradient to which a step solves the equations; less close to the minimum."""
    max_step: float = 0.5
    """Longest displacement of an atom in a step, Å."""
    valence: Valence | None = Valence()
    """Model Hessian of bonds, angles and torsions that scales the steps; None for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.products < 1 or not 0 < self.tolerance < 1:
            raise ValueError(f"products {self.products} must be at least 1, and tolerance {self.tolerance} between 0 and 1")

    def start(self, landscape: Landscape, at: Coordinates) -> Region:
        zero = jnp.zeros_like(at.strain[:, 0, 0])
        return Region(self.max_step / 2 * landscape.lengths.astype(zero.dtype), zero, zero, zero > 0)

    def propose(self, landscape: Landscape, walk: Walk) -> Walk:
        gradient, radius = walk.point.gradient, walk.memory.radius
        norm = jnp.sqrt(landscape.dot(gradient, gradient))
        tolerance = jnp.minimum(self.tolerance, norm) * norm
        product = lambda v: landscape.model_product(walk.point.at, v)
        model = inverse_of_model(landscape, walk.point.at, self.valence, 1.0)
        precondition = lambda x: landscape.scaled(model.curvature, model.multiply(x))
        active = jnp.isfinite(walk.point.energy) & ~walk.fresh
        answer = steihaug(landscape, (product, precondition), gradient, radius, tolerance, self.products, active)
        share = jnp.minimum(1, self.max_step / jnp.maximum(landscape.longest(answer.step), 1e-30))
        step = landscape.scaled(share, answer.step)
        slope, curvature = landscape.dot(gradient, answer.step), landscape.dot(answer.step, answer.image)
        expected = share * slope + share**2 * curvature / 2
        region = Region(radius, share * answer.length, expected, answer.bounded | (share < 1))
        return walk._replace(trial=plus(walk.point.at, step), memory=region, products=walk.products + answer.products)

    def take(self, landscape: Landscape, walk: Walk, found: Point) -> Walk:
        memory: Region = walk.memory
        change = found.energy - walk.point.energy
        slack = noise(walk.point.energy)
        sound = jnp.isfinite(found.energy) & jnp.isfinite(found.force)
        ratio = jnp.where(sound, (change - slack) / jnp.minimum(memory.expected - slack, -1e-30), -1)
        taken = walk.fresh | (sound & (ratio > 1e-4))
        most = 4 * self.max_step * landscape.lengths
        longer = jnp.where((ratio > 0.75) & memory.bounded, jnp.minimum(2 * memory.radius, most), memory.radius)
        radius = jnp.where(ratio < 0.25, 0.25 * memory.length, longer)
        radius = jnp.where(walk.fresh, memory.radius, radius)
        return walk._replace(
            point=landscape.choose(taken, found, walk.point), memory=memory._replace(radius=radius.astype(memory.radius.dtype))
        )
