"""Learning-rate schedules: the learning rate at each step of a run, as a share of the highest learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import optax


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the schedules. A subclass in any package can be used in a config as ``kind: package.module:Class``."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Cosine": "equipot.training.schedule:Cosine",
        "Exponential": "equipot.training.schedule:Exponential",
        "Plateau": "equipot.training.schedule:Plateau",
        "Flat": "equipot.training.schedule:Flat",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""
    follows_validation: ClassVar[bool] = False
    """Whether ``after_validation`` changes the learning rate, which needs validation frames."""

    @abstractmethod
    def __call__(self, step: Any, steps: int) -> Any:
        """Compute the share of the highest learning rate for a step.

        Args:
            step: Number of steps before this step; may be traced.
            steps: Number of steps of the run.
        """

    def after_validation(self, factor: float, wait: int) -> tuple[float, int]:
        """Change the factor on the learning rate after a validation without improvement.

        Args:
            factor: Factor on the scheduled learning rate.
            wait: Number of validations since the last improvement or the last change of ``factor``, this validation included.

        Returns:
            New values of ``factor`` and ``wait``.
        """
        return factor, wait


@dataclass(frozen=True)
class Warmup(Schedule):
    """Base of the schedules that start with a linear rise from zero and continue with the curve of a subclass."""

    warmup: float = 0.01
    """Share of the run in which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup {self.warmup} must lie between 0 and 1: it is a share of the run")

    @abstractmethod
    def curve(self, steps: int) -> optax.Schedule:
        """Return the share of the highest learning rate as a function of the steps since the warm-up, of ``steps`` in all."""

    def __call__(self, step: Any, steps: int) -> Any:
        warm = round(self.warmup * steps)
        # The first step is taken at 1/warm of the rate, not at zero.
        rise = lambda step: (step + 1) / max(1, warm)
        return optax.join_schedules([rise, self.curve(steps - warm)], [warm])(step)


def check_final(final: float) -> None:
    """Check the last learning rate, as a share of the highest.

    Raises:
        ValueError: the share is not from 0 to 1.
    """
    if not 0 <= final <= 1:
        raise ValueError(f"final {final} must lie between 0 and 1: it is a share of the learning rate")


@dataclass(frozen=True)
class Flat(Warmup):
    """Constant learning rate after the warm-up."""

    def curve(self, steps: int) -> optax.Schedule:
        return optax.constant_schedule(1.0)


@dataclass(frozen=True)
class Cosine(Warmup):
    """Half a cosine from the highest to the last learning rate, Loshchilov & Hutter, arXiv:1608.03983."""

    final: float = 0.01
    """Last learning rate, as a share of the highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_final(self.final)

    def curve(self, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, max(1, steps), self.final)


@dataclass(frozen=True)
class Exponential(Warmup):
    """Exponential decay from the highest to the last learning rate."""

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
    """Learning rate that is multiplied by ``factor`` when the validation loss has not improved for ``patience`` validations."""

    follows_validation: ClassVar[bool] = True
    factor: float = 0.8
    """Factor of each reduction of the learning rate."""
    patience: int = 10
    """Number of validations without improvement before the learning rate is reduced."""
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

    def after_validation(self, factor: float, wait: int) -> tuple[float, int]:
        if wait <= self.patience:
            return factor, wait
        return max(self.final, factor * self.factor), 0
