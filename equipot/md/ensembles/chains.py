"""Nosé-Hoover chains of jax-md (Martyna, Klein and Tuckerman, J. Chem. Phys. 97, 2635, 1992)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.state import Setup, State
from equipot.units import fs

SHORTEST_CHAIN = 2
"""Smallest number of links; a single thermostat is not ergodic."""


def check_chain(length: int) -> None:
    """Check the number of links.

    Raises:
        ValueError: fewer than two.
    """
    if length < SHORTEST_CHAIN:
        raise ValueError(f"chain_length is {length}; a chain needs at least {SHORTEST_CHAIN} links to be ergodic")


def chain(length: int, tau: float, setup: Setup) -> Any:
    """Make jax-md's chain (functions ``initialize``, ``half_step``, ``update_mass``) of ``length`` links, period ``tau`` fs."""
    from jax_md import simulate

    return simulate.nose_hoover_chain(setup.dt, length, chain_steps=2, sy_steps=3, tau=tau * fs)


def chain_energy(links: Any, kT: float) -> Float[Array, ""]:
    """Compute the energy (eV) of a chain: sum p^2 / 2Q + kT (N_f x_1 + x_2 + ...)."""
    dof = jnp.ones_like(links.position).at[0].set(links.degrees_of_freedom)
    return jnp.sum(links.momentum**2 / (2 * links.mass) + kT * dof * links.position)


def in_precision(tree: Any, state: State) -> Any:
    """Convert all real arrays of a pytree to the precision of ``state``, since jax-md makes some float32."""
    real = lambda x: jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, state.position.dtype) if real(x) else x, tree)
