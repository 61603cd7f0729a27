"""L-BFGS with a line search that goes back: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.workflows.relax.coordinates import Coordinates, Landscape, Point, minus, plus
from equipot.workflows.relax.optimizers import Optimizer, Walk, noise
from equipot.workflows.relax.preconditioner import Inverse, inverse_of_model
from equipot.workflows.relax.valence import Valence

ARMIJO = 1e-4
"""Share of the expected fall of the energy that a step must bring."""

TRUSTED = 2.0
"""Factor by which the last step can correct the model Hessian."""


class History(NamedTuple):
    """Memory of L-BFGS."""

    steps: Coordinates
    """Last steps, newest first: an axis of ``memory`` behind that of the atoms or graphs."""
    changes: Coordinates
    """Changes of the gradient in these steps."""
    held: Int[Array, " graphs"]
    """Number of them that hold."""
    direction: Coordinates
    """Step that is being tried, in full."""
    slope: Float[Array, " graphs"]
    """Derivative of the energy along ``direction``, eV."""
    share: Float[Array, " graphs"]
    """Share of ``direction`` in the trial: 1, or less after a refusal."""


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS: an inverse Hessian from the last steps, one gradient for each step that is not refused.

    The recursion begins with the inverse of the model Hessian of bonds, angles and torsions at the present geometry
    (``valence.Valence``), times a number that the last step tells; for systems without chemical bonds, with a number alone.
    """

    memory: int = 40
    """Number of steps that are remembered."""
    curvature: float = 70.0
    """Curvature (eV/Å^2) that the first step of a system without a model reckons with."""
    valence: Valence | None = Valence()
    """Model Hessian of bonds, angles and torsions that scales the steps; None for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1 or not self.curvature > 0:
            raise ValueError(f"memory {self.memory} must be at least 1, and curvature {self.curvature} eV/Å^2 positive")

    def start(self, landscape: Landscape, at: Coordinates) -> History:
        room = lambda x: jnp.zeros((x.shape[0], self.memory, *x.shape[1:]), x.dtype)
        empty = Coordinates(room(at.positions), room(at.strain))
        zero = Coordinates(jnp.zeros_like(at.positions), jnp.zeros_like(at.strain))
        nothing = jnp.zeros_like(at.strain[:, 0, 0])
        return History(empty, empty, jnp.zeros(nothing.shape, jnp.int32), zero, nothing, nothing)

    def propose(self, landscape: Landscape, walk: Walk) -> Walk:
        memory: History = walk.memory
        new = memory.share == 0
        model = inverse_of_model(landscape, walk.point.at, self.valence, self.curvature)
        direction = self.newton_like(landscape, memory, walk.point.gradient, model)
        slope = landscape.dot(direction, walk.point.gradient)
        plain = landscape.scaled(jnp.full_like(slope, -1 / self.curvature), walk.point.gradient)
        # Rounding can turn a direction uphill; the gradient itself never is.
        falls = slope < 0
        direction = self.shortened(landscape, landscape.choose(falls, direction, plain))
        direction = landscape.choose(new, direction, memory.direction)
        slope = jnp.where(new, landscape.dot(direction, walk.point.gradient), memory.slope)
        share = jnp.where(new, 1, memory.share)
        trial = plus(walk.point.at, landscape.scaled(share, direction))
        count = jnp.where(new & ~falls, 0, memory.held)
        return walk._replace(trial=trial, memory=memory._replace(direction=direction, slope=slope, share=share, held=count))

    def newton_like(self, landscape: Landscape, memory: History, gradient: Coordinates, model: Inverse) -> Coordinates:
        """Multiply minus the gradient with the inverse Hessian that the history stands for (the recursion of two loops).

        ``model`` knows nothing of the history.
        """
        number = jnp.arange(self.memory)[None] < memory.held[:, None]
        products = landscape.dot(memory.steps, memory.changes)
        rho = jnp.where(number, 1 / jnp.where(number, products, 1), 0)
        pick = lambda history, k: Coordinates(history.positions[:, k], history.strain[:, k])

        def down(q: Coordinates, k: Array) -> tuple[Coordinates, Array]:
            factor = rho[:, k] * landscape.dot(pick(memory.steps, k), q)
            return minus(q, landscape.scaled(factor, pick(memory.changes, k))), factor

        def up(z: Coordinates, inputs: tuple[Array, Array]) -> tuple[Coordinates, None]:
            k, factor = inputs
            other = rho[:, k] * landscape.dot(pick(memory.changes, k), z)
            return plus(z, landscape.scaled(factor - other, pick(memory.steps, k))), None

        order = jnp.arange(self.memory)
        q, factors = jax.lax.scan(down, landscape.scaled(-jnp.ones_like(rho[:, 0]), gradient), order)
        newest = pick(memory.changes, 0)
        square = landscape.dot(newest, model.multiply(newest))
        size = jnp.where(number[:, 0], products[:, 0] / jnp.where(square > 0, square, 1), 1)
        # A step along a soft mode says little of bonds, of which the model knows more.
        size = jnp.where(model.modelled, jnp.clip(size, 1 / TRUSTED, TRUSTED), size)
        z, _ = jax.lax.scan(up, landscape.scaled(size, model.multiply(q)), (order[::-1], factors[::-1]))
        return z

    def take(self, landscape: Landscape, walk: Walk, found: Point) -> Walk:
        memory: History = walk.memory
        change = found.energy - walk.point.energy
        slack = noise(walk.point.energy)
        fits = change <= ARMIJO * memory.share * memory.slope + slack
        taken = walk.fresh | (jnp.isfinite(found.energy) & jnp.isfinite(found.force) & fits)
        step, turned = minus(found.at, walk.point.at), minus(found.gradient, walk.point.gradient)
        product = landscape.dot(step, turned)
        sizes = landscape.dot(step, step) * landscape.dot(turned, turned)
        counts = taken & ~walk.fresh & (product > 1e-8 * jnp.sqrt(sizes))
        steps, changes = (_pushed(landscape, counts, x, h) for x, h in ((step, memory.steps), (turned, memory.changes)))
        # The parabola through the energies and the slope has its minimum here.
        rise = jnp.where(jnp.isfinite(change), change, jnp.inf) - memory.share * memory.slope
        parabola = -memory.slope * memory.share**2 / (2 * jnp.maximum(rise, 1e-30))
        shorter = jnp.clip(parabola, 0.1 * memory.share, 0.5 * memory.share)
        count = jnp.where(counts, jnp.minimum(memory.held + 1, self.memory), memory.held)
        # A history that led nowhere is forgotten, and the next step goes along the gradient.
        lost = ~taken & (shorter < 1e-3)
        share = jnp.where(taken | lost, 0, shorter)
        kept = memory._replace(steps=steps, changes=changes, held=jnp.where(lost, 0, count), share=share)
        return walk._replace(point=landscape.choose(taken, found, walk.point), memory=kept)


def _pushed(landscape: Landscape, which: Array, x: Coordinates, history: Coordinates) -> Coordinates:
    """Put coordinates in front of a history of the systems where ``which``."""
    push = lambda new, old: jnp.concatenate([new[:, None], old[:, :-1]], axis=1)
    pushed = Coordinates(push(x.positions, history.positions), push(x.strain, history.strain))
    return landscape.choose(which, pushed, history)
