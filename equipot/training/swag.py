"""Samples of all parameters around the end of a training: SWAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from equipot.console import Console
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.training.parameter_posterior import ParameterPosterior, finite, parameter_posterior
from equipot.uncertainty.sampler import Sampler


@dataclass(frozen=True)
class SWAG(Sampler):
    """Normal distribution of the parameters that an optimiser of constant rate visits (W. J. Maddox, T. Garipov, P. Izmailov,
    D. Vetrov and A. G. Wilson, NeurIPS 2019, arXiv:1902.02476).

    From the trained parameters on, Adam goes on at a constant rate. With the mean and the variance of all visited parameters,
    and the differences d_j of the last ``rank`` ends of epochs from the mean up to then, a sample is
    mean + sqrt(variance / 2) z + sum_j d_j y_j / sqrt(2 (rank - 1)), z and y standard normal.
    """

    samples: int = 8
    epochs: int = 20
    """Passes over the structures; each adds a difference."""
    rank: int = 10
    """Number of differences that are kept."""
    learning_rate: float = 1e-3
    batch_size: int = 5
    """Structures in a step."""
    prior: float = 10.0
    """Standard deviation of the parameters before any data."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "epochs", "rank"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 2")
        for name in ("learning_rate", "prior"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")

    def members(self, potential: Potential, structures: Sequence[Structure], console: Console) -> list[Potential]:
        target, made = parameter_posterior(potential, structures, self.batch_size, self.prior, self.seed)
        return [made(vector) for vector in self.draw(target, console)]

    def draw(self, target: ParameterPosterior, console: Console) -> list[Float[Array, " parameters"]]:
        """Draw samples of the parameters."""
        adam = optax.adam(self.learning_rate)

        @jax.jit
        def step(vector: Array, state: optax.OptState, batch: object) -> tuple[Array, optax.OptState]:
            change, state = adam.update(target.gradient(vector, batch), state)
            return vector + change, state

        vector, state = target.start, adam.init(target.start)
        first, second, count = jnp.zeros_like(vector), jnp.zeros_like(vector), 0
        differences: list[Array] = []
        console.open(self.epochs, 0)
        for epoch in range(self.epochs):
            for batch in target.batches(epoch):
                vector, state = step(vector, state, batch)
                away = vector - target.start
                first, second, count = first + away, second + away**2, count + 1
            differences = [*differences, vector - target.start - first / count][-self.rank :]
            console.progress(f"SWAG: epoch {epoch + 1} of {self.epochs}")
        console.close()
        away = first / count
        variance = jnp.maximum(second / count - away**2, 0)
        columns = jnp.stack(differences)
        samples = []
        for key in jax.random.split(jax.random.key(self.seed), self.samples):
            one, other = jax.random.split(key)
            own = jnp.sqrt(variance / 2) * jax.random.normal(one, vector.shape, vector.dtype)
            y = jax.random.normal(other, (len(columns),), vector.dtype) / jnp.sqrt(2 * (len(columns) - 1))
            samples.append(target.start + away + own + y @ columns)
        finite(samples, "SWAG")
        return samples
