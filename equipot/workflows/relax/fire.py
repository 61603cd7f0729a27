"""FIRE: dynamics that are stopped whenever they run uphill (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.workflows.relax.coordinates import Coordinates, Landscape, Point, minus, plus
from equipot.workflows.relax.optimizers import Optimizer, Walk

FORGOTTEN = 0.98
"""Factor by which the largest curvature falls in a step."""


class Motion(NamedTuple):
    """Memory of FIRE."""

    momentum: Coordinates
    """With masses of 1."""
    dt: Float[Array, " graphs"]
    alpha: Float[Array, " graphs"]
    downhill: Int[Array, " graphs"]
    """Steps since the last one uphill."""
    stiffness: Float[Array, " graphs"]
    """Largest curvature seen along a step, forgotten slowly, eV/Å^2."""


@dataclass(frozen=True)
class FIRE(Optimizer):
    """FIRE as ``jax_md.minimize.fire_descent`` has it, with steps that are stable.

    The steps are those of jax-md as long as none exceeds ``max_step``, and the time step does not exceed ``stability`` over the
    highest frequency seen, the root of the curvature |dg|/|dx| along a step: a longer one grows until it runs uphill, and loses
    all momentum every time.
    """

    dt_start: float = 0.1
    """First time step, in units of Å sqrt(amu/eV) with masses of 1 amu."""
    dt_max: float = 0.4
    """Longest time step, in the same units."""
    n_min: int = 5
    """Steps downhill before the time step grows."""
    f_inc: float = 1.1
    """Factor by which the time step grows."""
    f_dec: float = 0.5
    """Factor by which the time step falls uphill."""
    alpha_start: float = 0.1
    """First share of the force in the direction of the momentum."""
    f_alpha: float = 0.99
    """Factor by which that share falls."""
    stability: float = 0.7
    """Largest product of time step and highest frequency; those of 2 and more are unstable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dt_start <= self.dt_max:
            raise ValueError(f"dt_start {self.dt_start} must be positive and at most dt_max {self.dt_max}")
        if not 0 < self.stability < 2:
            raise ValueError(f"stability {self.stability} must be between 0 and 2, beyond which motion is unstable")

    def start(self, landscape: Landscape, at: Coordinates) -> Motion:
        zero = Coordinates(jnp.zeros_like(at.positions), jnp.zeros_like(at.strain))
        one = jnp.ones_like(at.strain[:, 0, 0])
        return Motion(zero, self.dt_start * one, self.alpha_start * one, jnp.zeros(one.shape, jnp.int32), 0 * one)

    def propose(self, landscape: Landscape, walk: Walk) -> Walk:
        memory: Motion = walk.memory
        pushed = plus(memory.momentum, landscape.scaled(-memory.dt / 2, walk.point.gradient))
        step = self.shortened(landscape, landscape.scaled(memory.dt, pushed))
        return walk._replace(trial=plus(walk.point.at, step), memory=memory._replace(momentum=pushed))

    def take(self, landscape: Landscape, walk: Walk, found: Point) -> Walk:
        memory: Any = walk.memory
        # A point without an energy is left again, at rest and by shorter steps.
        sound = walk.fresh | (jnp.isfinite(found.energy) & jnp.isfinite(found.force))
        point = landscape.choose(sound, found, walk.point)
        dt, alpha, downhill = memory.dt, memory.alpha, memory.downhill
        momentum = plus(memory.momentum, landscape.scaled(jnp.where(walk.fresh, 0, -dt / 2), point.gradient))
        force = landscape.scaled(-jnp.ones_like(dt), point.gradient)
        # jax-md adds as much to the square of the force, in its units, which are those here.
        norm = jnp.sqrt(landscape.dot(force, force) + 1e-6)
        speed = jnp.sqrt(landscape.dot(momentum, momentum))
        power = jnp.where(sound, landscape.dot(force, momentum), -1)
        along = landscape.scaled(alpha * speed / norm, force)
        momentum = plus(landscape.scaled(1 - alpha, momentum), along)
        momentum = landscape.choose(power >= 0, momentum, landscape.scaled(jnp.zeros_like(dt), force))
        downhill = jnp.where(power >= 0, downhill + 1, 0)
        longer = (power > 0) & (downhill > self.n_min)
        dt = jnp.where(longer, jnp.minimum(dt * self.f_inc, self.dt_max), jnp.where(power < 0, dt * self.f_dec, dt))
        alpha = jnp.where(longer, alpha * self.f_alpha, jnp.where(power < 0, self.alpha_start, alpha))
        stiffness = self.stiffest(landscape, walk, found)
        dt = jnp.minimum(dt, self.stability / jnp.sqrt(jnp.maximum(stiffness, 1e-12)))
        moved = Motion(momentum, dt, alpha, downhill, stiffness)
        kept = lambda new, old: jnp.where(walk.fresh, old, new)
        memory = Motion(momentum, *(kept(new, old) for new, old in zip(moved[1:], walk.memory[1:], strict=True)))
        return walk._replace(point=point, memory=memory)

    def stiffest(self, landscape: Landscape, walk: Walk, found: Point) -> Float[Array, " graphs"]:
        """Return the largest curvature (eV/Å^2) seen so far, that of the last step included."""
        step, turned = minus(found.at, walk.point.at), minus(found.gradient, walk.point.gradient)
        square = landscape.dot(step, step)
        seen = jnp.sqrt(landscape.dot(turned, turned) / jnp.where(square > 0, square, 1))
        seen = jnp.where((square > 0) & jnp.isfinite(seen), seen, 0)
        return jnp.maximum(seen, FORGOTTEN * walk.memory.stiffness)
