"""The optimiser: optax transformations, learning-rate schedules as functions of the step, and the average of the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, Loshchilov & Hutter, arXiv:1711.05101."""

    learning_rate: float = 5e-3
    """At the top of the schedule."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-6
    """Pull towards zero of every weight that is a matrix; biases and scalars are left alone."""

    def __post_init__(self) -> None:
        check_rates(self)

    def scale(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)


@dataclass(frozen=True)
class AMSGrad(AdamW):
    """AdamW whose second moment never falls, Reddi et al., arXiv:1904.09237."""

    def scale(self) -> optax.GradientTransformation:
        return optax.scale_by_amsgrad(self.beta1, self.beta2, self.epsilon)


@dataclass(frozen=True)
class Muon:
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
        check_rates(self)

    def scale(self) -> optax.GradientTransformation:
        rule = optax.contrib.muon(
            learning_rate=1.0,
            beta=self.momentum,
            eps=self.epsilon,
            adam_b1=self.beta1,
            adam_b2=self.beta2,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=1.0,
        )
        return optax.chain(rule, optax.scale(-1.0))  # The library descends; here the sign belongs to the learning rate.


def matrices(params: Any) -> Any:
    """For each array the axes of the matrices that it stacks; None where it has none."""
    axes = lambda x: optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)
    return jax.tree.map(lambda x: axes(x) if x.ndim >= 2 and min(x.shape[-2:]) > 1 else None, params)


def check_rates(optimizer: Any) -> None:
    """ValueError for a rate that cannot train."""
    if not 0 < optimizer.learning_rate < float("inf"):
        raise ValueError(f"learning_rate {optimizer.learning_rate} must be positive")
    if not 0 <= optimizer.weight_decay < float("inf"):
        raise ValueError(f"weight_decay {optimizer.weight_decay} must be 0 or a positive number")
    if not 0 < optimizer.epsilon < float("inf"):
        raise ValueError(f"epsilon {optimizer.epsilon} must be positive")
    for name, value in vars(optimizer).items():
        if name in ("beta1", "beta2", "momentum") and not 0 <= value < 1:
            raise ValueError(f"{name} {value} must lie between 0 and 1: it is the share of the average that stays")


@dataclass(frozen=True)
class Warmup:
    """How every schedule begins."""

    warmup: float = 0.01
    """Share of the run in which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup {self.warmup} must lie between 0 and 1: it is a share of the run")


def check_final(final: float) -> None:
    """ValueError for a last learning rate that is no share of the highest."""
    if not 0 <= final <= 1:
        raise ValueError(f"final {final} must lie between 0 and 1: it is a share of the learning rate")


@dataclass(frozen=True)
class Flat(Warmup):
    """The learning rate stays where it is after the warm-up."""

    def curve(self, steps: int) -> optax.Schedule:
        return optax.constant_schedule(1.0)


@dataclass(frozen=True)
class Cosine(Warmup):
    """Half a cosine from the learning rate to a share ``final`` of it, Loshchilov & Hutter, arXiv:1608.03983."""

    final: float = 0.01
    """Last learning rate, as a share of the highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_final(self.final)

    def curve(self, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, max(1, steps), self.final)


@dataclass(frozen=True)
class Exponential(Warmup):
    """A geometric fall from the learning rate to a share ``final`` of it."""

    final: float = 0.01
    """Last learning rate, as a share of the highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_final(self.final)
        if not self.final > 0:
            raise ValueError(f"final {self.final} must be positive: a geometric fall never reaches 0; use Cosine")

    def curve(self, steps: int) -> optax.Schedule:
        return optax.exponential_decay(1.0, max(1, steps), self.final)


@dataclass(frozen=True)
class Plateau(Warmup):
    """The learning rate is multiplied by ``factor`` when the validation loss has not improved for ``patience`` validations."""

    factor: float = 0.8
    patience: int = 10
    """Validations."""
    final: float = 0.01
    """Lowest learning rate, as a share of the highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_final(self.final)
        if self.patience < 1:
            raise ValueError(f"patience {self.patience} must be at least 1")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor {self.factor} must lie between 0 and 1")

    def curve(self, steps: int) -> optax.Schedule:
        return optax.constant_schedule(1.0)


Schedule = Cosine | Exponential | Plateau | Flat


def shape(schedule: Schedule, steps: int) -> optax.Schedule:
    """Learning rate as a share of the highest, after ``step`` of ``steps`` steps: a linear warm-up, then the curve."""
    warm = round(schedule.warmup * steps)
    # The first step is taken at 1/warm of the rate, not at zero.
    rise = lambda step: (step + 1) / max(1, warm)
    return optax.join_schedules([rise, schedule.curve(steps - warm)], [warm])


Optimizer = AdamW | AMSGrad | Muon


def transformation(optimizer: Optimizer, clip: float | None, rates: Any = None) -> optax.GradientTransformation:
    """Descent direction for a learning rate of one: clip by the global norm, scale, decay the matrices.

    ``rates`` are factors on the learning rate, a tree like the parameters.
    """
    decayed = lambda params: jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        optimizer.scale(),
        optax.add_decayed_weights(optimizer.weight_decay, decayed),
        optax.identity() if rates is None else optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates)),
    )


def average(ema: Any, params: Any, decay: float, step: Any) -> Any:
    """Exponential moving average of the parameters; early on it forgets faster, so that the start leaves no trace."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1.0 - kept)
