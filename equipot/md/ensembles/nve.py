"""Constant energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.steps import velocity_verlet
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList


@dataclass(frozen=True)
class NVE(Ensemble):
    """Constant energy: velocity Verlet, as in ``jax_md.simulate.nve``."""

    has_thermostat: ClassVar[bool] = False

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        return velocity_verlet(setup, forces, state, neighbor)

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        return jnp.zeros_like(state.heat)
