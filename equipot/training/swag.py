"""Samples of all parameters around the end of a training: SWAG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from equipot.training.chain import Chain, Walk
from equipot.training.parameter_posterior import ParameterPosterior


@dataclass(frozen=True)
class SWAG(Chain):
    """Normal distribution of the parameters that an optimiser of constant rate visits (W. J. Maddox, T. Garipov, P. Izmailov,
    D. Vetrov and A. G. Wilson, NeurIPS 2019, arXiv:1902.02476).

    From the trained parameters on, Adam goes on at a constant rate. With the mean and the variance of all visited parameters,
    and the differences d_j of the last ``rank`` ends of epochs from the mean up to then, a sample is
    mean + sqrt(variance / 2) z + sum_j d_j y_j / sqrt(2 (rank - 1)), z and y standard normal.
    """

    rank: int = 10
    """Number of differences that are kept, each of an epoch."""
    learning_rate: float = 1e-3
    """Constant learning rate of Adam."""

    several: ClassVar[tuple[str, ...]] = (*Chain.several, "rank")
    positive: ClassVar[tuple[str, ...]] = (*Chain.positive, "learning_rate")

    def walk(self, target: ParameterPosterior) -> Walk:
        adam = optax.adam(self.learning_rate)

        @jax.jit
        def step(state: dict[str, Any], batch: object) -> dict[str, Any]:
            change, optimizer = adam.update(target.gradient(state["vector"], batch), state["optimizer"])
            vector = state["vector"] + change
            away = vector - target.start
            moments = {"first": state["first"] + away, "second": state["second"] + away**2, "count": state["count"] + 1}
            return {**state, **moments, "vector": vector, "optimizer": optimizer}

        def epoch(state: dict[str, Any], number: int) -> dict[str, Any]:
            for batch in target.batches(number):
                state = step(state, batch)
            last = state["vector"] - target.start - state["first"] / state["count"]
            return {**state, "differences": jnp.concatenate([state["differences"][1:], last[None]])}

        zero = jnp.zeros_like(target.start)
        start = {
            "vector": target.start, "optimizer": adam.init(target.start), "first": zero, "second": zero,
            "count": jnp.zeros((), jnp.int32), "differences": jnp.zeros((self.rank, len(zero)), zero.dtype),
        }  # fmt: skip
        return Walk(start, epoch, lambda state: self.drawn(target, state))

    def drawn(self, target: ParameterPosterior, state: dict[str, Any]) -> list[Array]:
        """Draw samples of the normal distribution of the visited parameters."""
        away = state["first"] / state["count"]
        variance = jnp.maximum(state["second"] / state["count"] - away**2, 0)
        columns = state["differences"][-min(self.rank, self.epochs) :]
        samples = []
        for key in jax.random.split(jax.random.key(self.seed), self.samples):
            one, other = jax.random.split(key)
            own = jnp.sqrt(variance / 2) * jax.random.normal(one, away.shape, away.dtype)
            y = jax.random.normal(other, (len(columns),), away.dtype) / jnp.sqrt(2 * (len(columns) - 1))
            samples.append(target.start + away + own + y @ columns)
        return samples
