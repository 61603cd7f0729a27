"""Update of the parameters: optimiser, schedule, clipping, factors on the learning rate, and average of the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from equipot.training.optimizer import Optimizer
from equipot.training.schedule import Schedule

OPTIMIZER = 1
"""Index of the optimiser's state in the state of the chain of transformations that ``Descent`` builds."""


@dataclass(frozen=True, eq=False)
class Descent:
    """The update rule of the parameters, fixed for a run.

    Raises:
        ValueError: ``factors`` with an optimiser that computes its own average of the parameters.
    """

    optimizer: Optimizer
    """With a learning rate: ``choices.choose`` fills in what a config leaves open."""
    schedule: Schedule
    steps: int
    """Length of the schedule: the number of steps of the whole run, unless a time limit decides that."""
    clip: float | None = None
    """Largest norm of the gradient; None for no limit."""
    decay: float = 0.0
    """Decay of the exponential moving average of the parameters; 0 for no average."""
    factors: Any = None
    """Factors on the learning rate, a tree like the parameters; None where all are one."""

    def __post_init__(self) -> None:
        own_average = type(self.optimizer).average is not Optimizer.average
        if self.factors is not None and own_average:
            raise ValueError(
                f"model.rates cannot be used with {type(self.optimizer).__name__}, whose average of the parameters needs its "
                "own steps in full; leave rates out, or choose another optimizer"
            )

    @property
    def top(self) -> float:
        """Highest learning rate."""
        assert self.optimizer.learning_rate is not None, "the learning rate is still open"
        return self.optimizer.learning_rate

    def rate(self, position: Any) -> Any:
        """Compute the scheduled learning rate at a place in the schedule, from 0 to ``steps``."""
        return self.top * self.schedule(position, self.steps)

    def init(self, params: Any) -> Any:
        """Make the state of the optimiser before the first step."""
        return self._chain(self.top).init(params)

    def move(self, gradient: Any, state: Any, params: Any, rate: Any, **loss: Any) -> tuple[Any, Any]:
        """Update the parameters by one step.

        Args:
            gradient: Gradient of the loss with respect to the parameters.
            state: State of the optimiser.
            params: Parameters.
            rate: Learning rate, with the schedule applied.
            loss: ``value``, ``grad`` and ``value_fn``, see ``Optimizer.transformation``.

        Returns:
            Parameters and state of the optimiser after the step.
        """
        updates, state = self._chain(rate).update(gradient, state, params, **loss)
        return optax.apply_updates(params, jax.tree.map(lambda x, p: x.astype(p.dtype), updates, params)), state

    def average(self, average: Any, params: Any, state: Any, step: Any) -> Any:
        """Update the average of the parameters, which is validated and saved.

        Args:
            average: Average after the step before.
            params: Parameters after the step.
            state: State of the optimiser after the step.
            step: Number of steps before this step.
        """
        new = self.optimizer.average(average, params, state[OPTIMIZER], self.decay, step)
        return jax.tree.map(lambda x, old: x.astype(old.dtype), new, average)

    def _chain(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        """Build the optax transformation from gradients to changes of the parameters: clip, optimiser, factors."""
        scaled = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, self.factors))
        chain = optax.chain(
            optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip),
            self.optimizer.transformation(rate),
            optax.identity() if self.factors is None else scaled,
        )
        return optax.with_extra_args_support(chain)
