"""A training step of the programs that run on JAX. Imported where jax and optax are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def training(model: Callable[[Any, Any], tuple[Any, Any]], params: Any, graph: Any, size: int) -> Callable[[], None]:
    """One step of Adam on the loss of every worker; ``model(params, graph)`` gives energies and forces.

    ``size`` is the number of atoms of each frame.
    """
    optimizer = optax.adam(1e-3)
    state = [params, optimizer.init(params)]

    def loss(params: Any, graph: Any) -> jax.Array:
        energy, forces = model(params, graph)
        return jnp.mean((energy / size) ** 2) + 10 * jnp.mean(forces**2)

    @jax.jit
    def step(params: Any, moments: Any, graph: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, graph)
        update, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, update), moments, value

    def call() -> None:
        state[0], state[1], value = step(*state, graph)
        jax.block_until_ready((state, value))

    return call
