"""Constant pressure with a fully flexible cell: Langevin dynamics of the atoms and of the cell.

Equations of motion (Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177, 1994, with the Langevin thermostat and barostat of
Quigley and Probert, J. Chem. Phys. 120, 11432, 2004), with h the cell (columns), p_g the momentum of the cell, a symmetric
matrix, v = p_g / W its rate of strain, and N_f = 3 N:

    dr/dt   = p / m + v r
    dp/dt   = F - (v + tr(v) / N_f) p - gamma p + noise
    dh/dt   = v h
    dp_g/dt = sum p (x) p / m - dE/d(strain) - P V + 1/N_f sum p^2 / m - gamma_g p_g + noise

They leave the isothermal-isobaric distribution exp(-(K + E + P V) / kT) dr dp dV d(shape) invariant. Since p_g is symmetric,
no torque turns the cell. Its mass is W = (N + 1) kT tau^2. Without noise K + E + P V + tr(p_g^2) / 2W is conserved; with noise
it is, less the heat, which is kept account of.

The step is symmetric: kick of the cell, kick of the atoms, half a drift, the noise, half a drift, and the kicks in reverse
order (BAOAB). Kicks and drifts are exact for a constant v, through the eigenvectors of v.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.config import NPTFlexible
from equipot.md.forces import Field
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList
from equipot.units import fs


def flexible(ensemble: NPTFlexible, setup: Setup, field: Field) -> tuple:
    """``start``, ``step`` and ``reservoir`` of the ensemble (see ``integrators``)."""
    n = len(setup.numbers)
    weight = (n + 1) * setup.kT * (ensemble.barostat_fs * fs) ** 2
    friction, cell_friction = (x / (1000 * fs) for x in (ensemble.friction_per_ps, ensemble.barostat_friction_per_ps))
    half = setup.dt / 2
    mass = lambda state: jnp.asarray(setup.mass, state.position.dtype)

    def start(state: State) -> State:
        return state.replace(extra={"momentum": jnp.zeros_like(state.virial)})

    def kick_cell(state: State) -> Array:
        pressure_volume = setup.pressure * jnp.abs(jnp.linalg.det(state.cell))
        flow = jnp.sum(state.momentum[:, :, None] * state.momentum[:, None, :] / mass(state)[..., None], axis=0)
        eye = jnp.eye(3, dtype=flow.dtype)
        force = flow - state.virial - pressure_volume * eye + jnp.trace(flow) / (3 * n) * eye
        return state.extra["momentum"] + half * force

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        first = kick_cell(state)
        rate = first / weight
        momentum = kick(state.momentum, state.force, rate, half, n)
        position, cell = drift(state.position, state.cell, momentum / mass(state), rate, half)
        key, atoms_key, cell_key = jax.random.split(state.key, 3)
        momentum, heat = ornstein_uhlenbeck(atoms_key, momentum, mass(state), setup.kT, friction * setup.dt)
        second, cell_heat = cell_noise(cell_key, first, weight, setup.kT, cell_friction * setup.dt)
        rate = second / weight
        position, cell = drift(position, cell, momentum / mass(state), rate, half)
        moved = state.replace(position=position, cell=cell, key=key, heat=state.heat + heat + cell_heat)
        new, neighbor = field.follow(moved, neighbor)
        new = new.replace(momentum=kick(momentum, new.force, rate, half, n), extra={"momentum": second})
        return new.replace(extra={"momentum": kick_cell(new)}), neighbor

    def reservoir(state: State) -> Array:
        cell_energy = jnp.sum(state.extra["momentum"] ** 2) / (2 * weight)
        return cell_energy + setup.pressure * jnp.abs(jnp.linalg.det(state.cell)) - state.heat

    return start, step, reservoir


def kick(momentum: Array, force: Array, rate: Float[Array, "3 3"], time: float, n: int) -> Array:
    """Solution of dp/dt = F - (v + tr(v) / 3N) p after ``time``, for constant F and v."""
    values, axes = jnp.linalg.eigh(rate)
    x = -(values + jnp.sum(values) / (3 * n)) * time
    return ((momentum @ axes) * jnp.exp(x) + (force @ axes) * time * expm1_over(x)) @ axes.T


def drift(position: Array, cell: Array, velocity: Array, rate: Float[Array, "3 3"], time: float) -> tuple[Array, Array]:
    """Solution of dr/dt = p/m + v r and dh/dt = v h after ``time``, for constant p/m and v."""
    values, axes = jnp.linalg.eigh(rate)
    x = values * time
    grow = lambda rows: rows + ((rows @ axes) * jnp.expm1(x)) @ axes.T
    return grow(position) + ((velocity @ axes) * time * expm1_over(x)) @ axes.T, grow(cell)


def expm1_over(x: Array) -> Array:
    """(exp(x) - 1) / x with its limit at zero."""
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.expm1(safe) / safe)


def ornstein_uhlenbeck(key: Array, momentum: Array, mass: Array, kT: float, exponent: float) -> tuple[Array, Array]:
    """Momenta after friction and noise for ``exponent`` = gamma t, and the heat (eV) that this put in."""
    keep = jnp.exp(-exponent)
    noise = jnp.sqrt(-jnp.expm1(-2 * exponent) * kT * mass) * jax.random.normal(key, momentum.shape, momentum.dtype)
    new = keep.astype(momentum.dtype) * momentum + noise.astype(momentum.dtype)
    return new, 0.5 * jnp.sum((new - momentum) * (new + momentum) / mass)


def cell_noise(key: Array, momentum: Float[Array, "3 3"], weight: float, kT: float, exponent: float) -> tuple[Array, Array]:
    """The same for the symmetric momentum of the cell.

    Its kinetic energy tr(p_g^2) / 2W counts each off-diagonal element twice, so that these have half the variance.
    """
    draw = jax.random.normal(key, (3, 3), momentum.dtype)
    # (a + a^T) / 2 has variance 1 on the diagonal and 1/2 beside it.
    symmetric = (draw + draw.T) / 2
    size = jnp.sqrt(-jnp.expm1(-2 * exponent) * kT * weight).astype(momentum.dtype)
    new = jnp.exp(-exponent).astype(momentum.dtype) * momentum + size * symmetric
    return new, 0.5 * jnp.sum((new - momentum) * (new + momentum)) / weight
