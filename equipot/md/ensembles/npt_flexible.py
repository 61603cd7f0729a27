"""Constant pressure with a fully flexible cell: Langevin dynamics of the atoms and of the cell.

Equations of motion (Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177, 1994, with the Langevin thermostat and barostat of
Quigley and Probert, J. Chem. Phys. 120, 11432, 2004), with h the cell (columns), p_g the momentum of the cell, a symmetric
matrix, v = p_g / W its rate of strain, and N_f = 3 N:

    dr/dt   = p / m + v r
    dp/dt   = F - (v + tr(v) / N_f) p - gamma p + noise
    dh/dt   = v h
    dp_g/dt = sum p (x) p / m - dE/d(strain) - P V + 1/N_f sum p^2 / m - gamma_g p_g + noise

These equations leave the isothermal-isobaric distribution exp(-(K + E + P V) / kT) dr dp dV d(shape) invariant. Since p_g is
symmetric, no torque turns the cell. The mass of the cell is W = (N + 1) kT tau^2. Without noise K + E + P V + tr(p_g^2) / 2W is
conserved; with noise, that sum less the heat.

The step is symmetric: kick of the cell, kick of the atoms, half a drift, the noise, half a drift, and the kicks in reverse
order (BAOAB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.steps import mass_of, ornstein_uhlenbeck, volume_of
from equipot.md.ensembles.strained import strained_drift, strained_kick
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList
from equipot.units import fs


@dataclass(frozen=True)
class NPTFlexible(Ensemble):
    """Constant temperature and pressure, all six strains of the cell free: Langevin dynamics of atoms and cell."""

    conserves_momentum: ClassVar[bool] = False
    is_stochastic: ClassVar[bool] = True
    has_pressure: ClassVar[bool] = True
    friction_per_ps: float = 10.0
    """Friction of the atoms, 1/ps."""
    barostat_fs: float = 1000.0
    """Period of the cell, fs."""
    barostat_friction_per_ps: float = 2.0
    """Friction of the cell, 1/ps."""

    def __post_init__(self) -> None:
        self.check_positive("friction_per_ps", "barostat_fs", "barostat_friction_per_ps")

    def start(self, setup: Setup, state: State) -> State:
        return state.replace(extra={"momentum": jnp.zeros_like(state.virial)})

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        n, half, weight, mass = len(setup.numbers), setup.dt / 2, self._weight(setup), mass_of(setup, state)
        friction, cell_friction = (x / (1000 * fs) for x in (self.friction_per_ps, self.barostat_friction_per_ps))
        first = _kick_cell(setup, state)
        rate = first / weight
        momentum = strained_kick(state.momentum, state.force, rate, half, n)
        position, cell = strained_drift(state.position, state.cell, momentum / mass, rate, half)
        key, atoms_key, cell_key = jax.random.split(state.key, 3)
        momentum, heat = ornstein_uhlenbeck(atoms_key, momentum, mass, setup.kT, friction * setup.dt)
        second, cell_heat = cell_noise(cell_key, first, weight, setup.kT, cell_friction * setup.dt)
        rate = second / weight
        position, cell = strained_drift(position, cell, momentum / mass, rate, half)
        moved = state.replace(position=position, cell=cell, key=key, heat=state.heat + heat + cell_heat)
        new, neighbor = forces.update(moved, neighbor)
        new = new.replace(momentum=strained_kick(momentum, new.force, rate, half, n), extra={"momentum": second})
        return new.replace(extra={"momentum": _kick_cell(setup, new)}), neighbor

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        cell_energy = jnp.sum(state.extra["momentum"] ** 2) / (2 * self._weight(setup))
        return cell_energy + setup.pressure * volume_of(state) - state.heat

    def _weight(self, setup: Setup) -> float:
        """Compute the mass W of the cell, amu Å^2."""
        return (len(setup.numbers) + 1) * setup.kT * (self.barostat_fs * fs) ** 2


def _kick_cell(setup: Setup, state: State) -> Float[Array, "3 3"]:
    """Advance the momentum p_g of the cell (3, 3) by half a time step of the force on the cell."""
    pressure_volume = setup.pressure * volume_of(state)
    flow = jnp.sum(state.momentum[:, :, None] * state.momentum[:, None, :] / mass_of(setup, state)[..., None], axis=0)
    eye = jnp.eye(3, dtype=flow.dtype)
    force = flow - state.virial - pressure_volume * eye + jnp.trace(flow) / (3 * len(setup.numbers)) * eye
    return state.extra["momentum"] + setup.dt / 2 * force


def cell_noise(
    key: Array, momentum: Float[Array, "3 3"], weight: float, kT: float, exponent: float
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """Apply friction and noise to the symmetric momentum of the cell for ``exponent`` = friction x time.

    The kinetic energy tr(p_g^2) / 2W counts each off-diagonal element twice, so that these have half the variance.

    Returns:
        The momentum (3, 3) and the energy added (eV).
    """
    draw = jax.random.normal(key, (3, 3), momentum.dtype)
    # (a + a^T) / 2 has variance 1 on the diagonal and 1/2 beside it.
    symmetric = (draw + draw.T) / 2
    size = jnp.sqrt(-jnp.expm1(-2 * exponent) * kT * weight).astype(momentum.dtype)
    new = jnp.exp(-exponent).astype(momentum.dtype) * momentum + size * symmetric
    return new, 0.5 * jnp.sum((new - momentum) * (new + momentum)) / weight
