"""Constant temperature by stochastic velocity rescaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.steps import kinetic_of, velocity_verlet
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList
from equipot.units import fs


@dataclass(frozen=True)
class NVTCSVR(Ensemble):
    """Constant temperature: canonical sampling through velocity rescaling; hardly disturbs dynamics.

    Each step rescales the momenta (Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101, 2007), then makes a step of
    velocity Verlet. ``jax_md.simulate.temp_csvr`` is not used: it draws both of its noises, and all later keys, from one key,
    and counts the degrees of freedom of the centre of mass, which its initial momenta do not have.
    """

    is_stochastic: ClassVar[bool] = True
    needs_motion: ClassVar[bool] = True
    thermostat_fs: float = 100.0
    """Relaxation time of the kinetic energy, fs."""

    def __post_init__(self) -> None:
        self.check_positive("thermostat_fs")

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        key, now = jax.random.split(state.key)
        kinetic = kinetic_of(setup, state)
        scale = rescaling(now, kinetic, setup, setup.dt / (self.thermostat_fs * fs))
        heat = state.heat + (scale**2 - 1) * kinetic
        return velocity_verlet(setup, forces, state.replace(momentum=scale * state.momentum, key=key, heat=heat), neighbor)

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        return -state.heat


def rescaling(key: Array, kinetic: Float[Array, ""], setup: Setup, interval: float) -> Float[Array, ""]:
    """Draw the factor alpha on the momenta, eq. A7 of Bussi et al. 2007, for a step of ``interval`` relaxation times.

    alpha^2 = c + (1 - c) K0 / (Nf K) (R1^2 + S) + 2 R1 sqrt(c (1 - c) K0 / (Nf K)) with c = exp(-interval), K0 = Nf kT / 2,
    R1 normal and S a sum of Nf - 1 squared normals; the sign of alpha is that of R1 + sqrt(c Nf K / ((1 - c) K0)).
    ``kinetic`` is K in eV.
    """
    first, rest = jax.random.split(key)
    dtype = kinetic.dtype
    normal = jax.random.normal(first, (), dtype)
    others = 2 * jax.random.gamma(rest, (setup.dof - 1) / 2, (), dtype) if setup.dof > 1 else jnp.zeros((), dtype)
    keep = jnp.exp(jnp.asarray(-interval, dtype))
    share = (1 - keep) * setup.kT / (2 * kinetic)
    # alpha^2 is written as a square and a rest, so that rounding cannot make it negative.
    first_part = jnp.sqrt(keep) + normal * jnp.sqrt(share)
    return jnp.sqrt(first_part**2 + share * others) * jnp.where(first_part < 0, -1, 1).astype(dtype)
