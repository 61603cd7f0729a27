"""How the parameters move in the course of a run: optimiser, schedule, clipping, factors and average put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from equipot.training.optimizer import Optimizer
from equipot.training.schedule import Schedule

OPTIMIZER = 1
"""Place of the optimiser's state in the state of the chain that ``Descent`` builds."""


@dataclass(frozen=True, eq=False)
class Descent:
    """Everything that says how far and where a step goes, fixed for a run."""

    optimizer: Optimizer
    schedule: Schedule
    steps: int
    """Of the whole run."""
    clip: float | None = None
    """Largest norm of the gradient; None for no limit."""
    decay: float = 0.0
    """Of the moving average of the parameters; 0 means none."""
    factors: Any = None
    """Factors on the learning rate, a tree like the parameters; None where all are one."""

    def __post_init__(self) -> None:
        own_average = type(self.optimizer).average is not Optimizer.average
        if self.factors is not None and own_average:
            raise ValueError(
                f"model.rates cannot be used with {type(self.optimizer).__name__}, whose average of the parameters needs its "
                "own steps in full; leave rates out, or choose another optimizer"
            )

    def rate(self, step: Any) -> Any:
        """Learning rate by schedule for the step that follows ``step``."""
        return self.optimizer.learning_rate * self.schedule(step, self.steps)

    def init(self, params: Any) -> Any:
        """State before the first step."""
        return self._chain(self.optimizer.learning_rate).init(params)

    def move(self, gradient: Any, state: Any, params: Any, rate: Any, **loss: Any) -> tuple[Any, Any]:
        """Move the parameters by one step at a learning rate.

        Args:
            loss: ``value``, ``grad`` and ``value_fn``, see ``Optimizer.transformation``.

        Returns:
            Parameters and state after the step.
        """
        updates, state = self._chain(rate).update(gradient, state, params, **loss)
        return optax.apply_updates(params, jax.tree.map(lambda x, p: x.astype(p.dtype), updates, params)), state

    def average(self, average: Any, params: Any, state: Any, step: Any) -> Any:
        """Parameters to validate and to save, after a step that followed ``step`` others."""
        new = self.optimizer.average(average, params, state[OPTIMIZER], self.decay, step)
        return jax.tree.map(lambda x, old: x.astype(old.dtype), new, average)

    def _chain(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        scaled = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, self.factors))
        chain = optax.chain(
            optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip),
            self.optimizer.transformation(rate),
            optax.identity() if self.factors is None else scaled,
        )
        return optax.with_extra_args_support(chain)
