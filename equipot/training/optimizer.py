"""Optimisers: optax transformations that update the parameters, and the average of the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from equipot.training.orthogonal import has_matrices, orthogonalized


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of the optimisers. A subclass in any package can be used in a config as ``kind: package.module:Class``."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "AdamW": "equipot.training.optimizer:AdamW",
        "AMSGrad": "equipot.training.optimizer:AMSGrad",
        "Muon": "equipot.training.optimizer:Muon",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""
    usual_rate: ClassVar[float | None] = None
    """Learning rate for training from random parameters; None where the optimiser says none."""
    tuning_rate: ClassVar[float | None] = None
    """Learning rate for fine-tuning: what a base has learned is forgotten at the rate above."""
    stackable: ClassVar[bool] = False
    """Whether the rule acts on each element, or each matrix in the last two axes, alone: nothing else of an array may count,
    neither its name nor its length nor its other axes. Trees are then results of ``stacks.Stacks.stack``, which XLA compiles
    faster. A subclass says so itself."""
    learning_rate: float | None
    """Highest learning rate of the schedule; None for ``usual_rate`` or ``tuning_rate``."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.stackable = vars(cls).get("stackable", False)

    @abstractmethod
    def transformation(self, rate: Any) -> optax.GradientTransformation:
        """Build the optax transformation whose updates are added to the parameters, such as ``optax.adam(rate)``.

        ``rate`` is the learning rate of the step, a scalar that may be traced: the structure of the state must not depend on
        ``rate``. The method ``update`` of the transformation gets the clipped gradient, its state and the parameters. A
        transformation with extra arguments also gets ``value``, the loss; ``grad``, the gradient without clipping; and
        ``value_fn(params)``, the loss of the batch as a function of the parameters, differentiable by ``jax.value_and_grad``.
        """

    def average(self, average: Any, params: Any, state: Any, decay: float, step: Any) -> Any:
        """Compute the parameters that are validated and saved after a step.

        Args:
            average: Result of this method after the step before; a tree like ``params``.
            params: Parameters after the step.
            state: State of ``transformation`` after the step.
            decay: Decay of the moving average, ``training.ema``; 0 for no average.
            step: Number of steps before this step.
        """
        return moving_average(average, params, decay, step)


def moving_average(average: Any, params: Any, decay: float, step: Any) -> Any:
    """Update an exponential moving average with a decay of at most (1 + step) / (10 + step), which forgets the start."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - kept)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, Loshchilov & Hutter, arXiv:1711.05101."""

    usual_rate: ClassVar[float] = 5e-3
    tuning_rate: ClassVar[float] = 3e-4
    stackable: ClassVar[bool] = True
    learning_rate: float | None = None
    """Highest learning rate of the schedule; None for 0.005, in fine-tuning 0.0003."""
    beta1: float = 0.9
    """Decay of the average of the gradient."""
    beta2: float = 0.999
    """Decay of the average of the squared gradient."""
    epsilon: float = 1e-8
    """Constant added to the root of the averaged squared gradient."""
    weight_decay: float = 1e-6
    """Weight decay of matrices; biases and scalars do not decay."""

    def __post_init__(self) -> None:
        check_adam(self)

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        return descend(optax.scale_by_adam(self.beta1, self.beta2, self.epsilon), self.weight_decay, rate)


@dataclass(frozen=True)
class AMSGrad(AdamW):
    """AdamW with a second moment that never decreases, Reddi et al., arXiv:1904.09237."""

    stackable: ClassVar[bool] = True

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        return descend(optax.scale_by_amsgrad(self.beta1, self.beta2, self.epsilon), self.weight_decay, rate)


@dataclass(frozen=True)
class Muon(Optimizer):
    """Orthogonalised momentum: the singular values of the change of a weight matrix are nearly equal.

    Jordan et al., kellerjordan.github.io/posts/muon, 2024; with steps of one size for all shapes, Liu et al., arXiv:2502.16982.
    Arrays whose last two axes are not a matrix (biases, weights of single paths) are updated by Adam with the learning rate.
    """

    usual_rate: ClassVar[float] = 5e-3
    tuning_rate: ClassVar[float] = 1e-4
    stackable: ClassVar[bool] = True
    learning_rate: float | None = None
    """Root mean square of the change of a weight in a step, at the top of the schedule; None for 0.005, in fine-tuning
    0.0001."""
    momentum: float = 0.95
    """Decay of the momentum of matrices."""
    beta1: float = 0.9
    """Decay of Adam's average of the gradient."""
    beta2: float = 0.99
    """Decay of Adam's average of the squared gradient."""
    epsilon: float = 1e-8
    """Constant that avoids a division by zero."""
    weight_decay: float = 1e-6
    """Weight decay of matrices; biases and scalars do not decay."""

    def __post_init__(self) -> None:
        check_adam(self)
        check_share("momentum", self.momentum)

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        rule = optax.contrib.muon(
            learning_rate=1.0,
            beta=self.momentum,
            eps=self.epsilon,
            adam_b1=self.beta1,
            adam_b2=self.beta2,
            muon_weight_dimension_numbers=matrices,
            # Normalised only: XLA takes seconds to compile the library's iterations, those of each array apart.
            ns_steps=0,
            consistent_rms=1.0,
        )

        def direction(updates: Any, _: Any) -> Any:
            # The library's updates point downhill; ``descend`` takes the opposite direction and adds the decay.
            return orthogonalized(jax.tree.map(jnp.negative, updates))

        return descend(optax.chain(rule, optax.stateless(direction)), self.weight_decay, rate)


def matrices(params: Any) -> Any:
    """Return the axes of the matrices in each array, its last two; None for an array without matrices."""
    axes = lambda x: optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)
    return jax.tree.map(lambda x: axes(x) if has_matrices(x) else None, params)


def descend(rule: optax.GradientTransformation, weight_decay: float, rate: Any) -> optax.GradientTransformation:
    """Build the update -rate (u + weight_decay p) from the direction u of ``rule``; only matrices p decay.

    The state of the transformation is the state of ``rule``.
    """
    decay = optax.add_decayed_weights(weight_decay, lambda params: jax.tree.map(lambda x: jnp.ndim(x) >= 2, params))

    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        direction, state = rule.update(gradient, state, params)
        direction, _ = decay.update(direction, decay.init(params), params)
        return jax.tree.map(lambda x: -rate * x, direction), state

    return optax.GradientTransformation(rule.init, update)


def check_adam(optimizer: AdamW | Muon) -> None:
    """Check the hyper-parameters of an optimiser that uses Adam.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """
    check_learning_rate(optimizer.learning_rate)
    if not 0 <= optimizer.weight_decay < float("inf"):
        raise ValueError(f"weight_decay {optimizer.weight_decay} must be 0 or a positive number")
    if not 0 < optimizer.epsilon < float("inf"):
        raise ValueError(f"epsilon {optimizer.epsilon} must be positive")
    check_share("beta1", optimizer.beta1)
    check_share("beta2", optimizer.beta2)


def check_learning_rate(rate: float | None) -> None:
    """Check a highest learning rate.

    Raises:
        ValueError: the learning rate is not positive and finite.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"learning_rate {rate} must be positive")


def check_share(name: str, value: float) -> None:
    """Check the decay of an average, the share that remains from one step to the next.

    Raises:
        ValueError: the share is not at least 0 and below 1.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} {value} must lie between 0 and 1: it is the share of the average that stays")
