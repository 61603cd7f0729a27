"""Constant temperature by Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.steps import drift, kick, mass_of, ornstein_uhlenbeck
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList
from equipot.units import fs


@dataclass(frozen=True)
class NVTLangevin(Ensemble):
    """Constant temperature: Langevin dynamics, BAOAB splitting; ergodic, damps diffusion.

    The steps are those of ``jax_md.simulate.nvt_langevin`` (Davidchack, Ouldridge and Tretyakov, J. Chem. Phys. 142, 144114,
    2015).
    """

    conserves_momentum: ClassVar[bool] = False
    is_stochastic: ClassVar[bool] = True
    friction_per_ps: float = 10.0
    """Friction, 1/ps."""

    def __post_init__(self) -> None:
        self.check_positive("friction_per_ps")

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        friction = self.friction_per_ps / (1000 * fs)
        state = drift(setup, kick(setup, state), setup.dt / 2)
        key, now = jax.random.split(state.key)
        momentum, heat = ornstein_uhlenbeck(now, state.momentum, mass_of(setup, state), setup.kT, friction * setup.dt)
        state = drift(setup, state.replace(momentum=momentum, key=key, heat=state.heat + heat), setup.dt / 2)
        state, neighbor = forces.update(state, neighbor)
        return kick(setup, state), neighbor

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        return -state.heat
