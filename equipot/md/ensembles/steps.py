"""Building blocks of the steps of several ensembles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.forces import Forces
from equipot.md.state import Setup, State, kinetic_energy
from equipot.neighbors import DeviceList


def velocity_verlet(setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
    """Make one step of velocity Verlet, as ``jax_md.simulate.velocity_verlet``."""
    state, neighbor = forces.update(drift(setup, kick(setup, state), setup.dt), neighbor)
    return kick(setup, state), neighbor


def kick(setup: Setup, state: State) -> State:
    """Advance momenta by half a time step of constant forces."""
    return state.replace(momentum=state.momentum + setup.dt / 2 * state.force)


def drift(setup: Setup, state: State, time: float) -> State:
    """Advance positions by ``time`` (Å sqrt(amu/eV)) at constant momenta."""
    return state.replace(position=state.position + time * state.momentum / mass_of(setup, state))


def ornstein_uhlenbeck(
    key: Array, momentum: Float[Array, "atoms 3"], mass: Float[Array, "atoms 1"], kT: float, exponent: float
) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
    """Apply friction and noise for ``exponent`` = friction x time; return the momenta and the energy added (eV)."""
    keep = jnp.exp(-exponent)
    noise = jnp.sqrt(-jnp.expm1(-2 * exponent) * kT * mass) * jax.random.normal(key, momentum.shape, momentum.dtype)
    new = keep.astype(momentum.dtype) * momentum + noise.astype(momentum.dtype)
    return new, 0.5 * jnp.sum((new - momentum) * (new + momentum) / mass)


def mass_of(setup: Setup, state: State) -> Float[Array, "atoms 1"]:
    """Return the masses (amu) in the precision of the state."""
    return jnp.asarray(setup.mass, state.position.dtype)


def kinetic_of(setup: Setup, state: State) -> Float[Array, ""]:
    """Compute the kinetic energy of the atoms, eV."""
    return kinetic_energy(state.momentum, mass_of(setup, state))


def volume_of(state: State) -> Float[Array, ""]:
    """Compute the volume of the cell, Å^3."""
    return jnp.abs(jnp.linalg.det(state.cell))
