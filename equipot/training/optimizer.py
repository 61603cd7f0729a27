"""Optimisers: what moves the parameters, as optax transformations, and the average of the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class Optimizer(ABC):
    """A rule that moves parameters. A subclass anywhere can be used as ``kind: package.module:Class``."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "AdamW": "equipot.training.optimizer:AdamW",
        "AMSGrad": "equipot.training.optimizer:AMSGrad",
        "Muon": "equipot.training.optimizer:Muon",
    }
    """What ``kind`` may say in a config, besides ``package.module:Class``."""
    learning_rate: float
    """At the top of the schedule."""

    @abstractmethod
    def transformation(self, rate: Any) -> optax.GradientTransformation:
        """Build the optax transformation whose updates are added to the parameters, such as ``optax.adam(rate)``.

        ``rate`` is the learning rate of the step at hand, a scalar that may be traced: the form of the state must not depend on
        it. ``update`` gets the gradient (clipped), its state and the parameters; a transformation that takes more is given
        ``value``, the loss, ``grad``, the gradient (not clipped), and ``value_fn(params)``, the loss of the batch for other
        parameters, of which ``jax.value_and_grad`` can be taken.
        """

    def average(self, average: Any, params: Any, state: Any, decay: float, step: Any) -> Any:
        """Choose the parameters that are validated and saved after a step.

        Args:
            average: the same after the step before; a tree like ``params``.
            params: parameters after the step.
            state: state of ``transformation`` after the step.
            decay: ``training.ema``; 0 where it is switched off.
            step: number of steps before this one.
        """
        return moving_average(average, params, decay, step)


def moving_average(average: Any, params: Any, decay: float, step: Any) -> Any:
    """Update an exponential moving average; in early steps it forgets faster, so that the start leaves no trace."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - kept)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, Loshchilov & Hutter, arXiv:1711.05101."""

    learning_rate: float = 5e-3
    """At the top of the schedule."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-6
    """Pull towards zero of every weight that is a matrix; biases and scalars are left alone."""

    def __post_init__(self) -> None:
        check_adam(self)

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        return descend(optax.scale_by_adam(self.beta1, self.beta2, self.epsilon), self.weight_decay, rate)


@dataclass(frozen=True)
class AMSGrad(AdamW):
    """AdamW whose second moment never falls, Reddi et al., arXiv:1904.09237."""

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        return descend(optax.scale_by_amsgrad(self.beta1, self.beta2, self.epsilon), self.weight_decay, rate)


@dataclass(frozen=True)
class Muon(Optimizer):
    """Momentum made orthogonal, so that every direction of a weight matrix moves alike.

    Jordan et al., kellerjordan.github.io/posts/muon, 2024; with steps of one size for all shapes, Liu et al., arXiv:2502.16982.
    Whatever is no matrix in its last two axes (biases, weights of single paths) is moved by Adam at the same rate.
    """

    learning_rate: float = 1e-2
    """Root mean square of the change of a weight in a step, at the top of the schedule."""
    momentum: float = 0.95
    beta1: float = 0.9
    """Of Adam, as beta2."""
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 1e-6
    """Pull towards zero of every weight that is a matrix; biases and scalars are left alone."""

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
            consistent_rms=1.0,
        )
        # The library descends by itself; the decay is added to the direction of ascent.
        return descend(optax.chain(rule, optax.scale(-1.0)), self.weight_decay, rate)


def matrices(params: Any) -> Any:
    """Name the axes of the matrices that each array stacks; None for an array without a matrix."""
    axes = lambda x: optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)
    return jax.tree.map(lambda x: axes(x) if x.ndim >= 2 and min(x.shape[-2:]) > 1 else None, params)


def descend(rule: optax.GradientTransformation, weight_decay: float, rate: Any) -> optax.GradientTransformation:
    """Move by -rate (u + weight_decay p), u the direction of ``rule``; only matrices p decay. The state is that of ``rule``."""
    decay = optax.add_decayed_weights(weight_decay, lambda params: jax.tree.map(lambda x: jnp.ndim(x) >= 2, params))

    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        direction, state = rule.update(gradient, state, params)
        direction, _ = decay.update(direction, decay.init(params), params)
        return jax.tree.map(lambda x: -rate * x, direction), state

    return optax.GradientTransformation(rule.init, update)


def check_adam(optimizer: AdamW | Muon) -> None:
    """Check the hyper-parameters that rules with Adam in them share.

    Raises:
        ValueError: one that cannot train.
    """
    check_learning_rate(optimizer.learning_rate)
    if not 0 <= optimizer.weight_decay < float("inf"):
        raise ValueError(f"weight_decay {optimizer.weight_decay} must be 0 or a positive number")
    if not 0 < optimizer.epsilon < float("inf"):
        raise ValueError(f"epsilon {optimizer.epsilon} must be positive")
    check_share("beta1", optimizer.beta1)
    check_share("beta2", optimizer.beta2)


def check_learning_rate(rate: float) -> None:
    """Check a highest learning rate.

    Raises:
        ValueError: it cannot train.
    """
    if not 0 < rate < float("inf"):
        raise ValueError(f"learning_rate {rate} must be positive")


def check_share(name: str, value: float) -> None:
    """Check the share of an average that stays from one step to the next.

    Raises:
        ValueError: it is no such share.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} {value} must lie between 0 and 1: it is the share of the average that stays")
