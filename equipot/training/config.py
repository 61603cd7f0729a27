"""What a training run can be told: the section that ``equipot train`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from equipot.data.config import DataConfig
from equipot.potential import Term
from equipot.training.loop import TrainingConfig


@dataclass(frozen=True)
class Adapters:
    """Low-rank changes of weight matrices instead of free ones: W + A B / sqrt(rank), Hu et al., arXiv:2106.09685.

    The factor is that of Kalajdzievski, arXiv:2312.03732: it keeps the size of a change apart from the rank. A has random
    entries, B is zero at first. Every irrep, and every species where each has its own, is a matrix. Whatever is no larger than
    its adapter would be is trained in full.
    """

    rank: int = 8
    parts: tuple[str, ...] = ("*",)
    """Patterns over the paths of parameters, as in ``model.train``."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} must be at least 1")


@dataclass(frozen=True)
class FineTune:
    """A potential to begin with, instead of random parameters; it brings its term and all constants.

    Patterns are globs over paths of parameters such as ``interaction0/up/w0e``, and stand for all that is below: ``readout*``,
    ``interaction1/skip``.
    """

    from_: str
    """The file of the potential, or the name of a published one, such as sevennet-0."""
    train: Literal["all"] | tuple[str, ...] = "all"
    """Patterns of the parameters to train; the others keep their values."""
    adapters: Adapters | None = None
    """Train matrices among them through low-rank changes."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate, by pattern; of several that fit, the last counts. What has 0 is not trained."""
    atomic_energies: Literal["keep", "refit"] = "keep"
    """E0 of the base, or new ones for data of another level of theory: by data.atomic_energies, where a fit is one to what the
    base's interaction energies leave of the new energies."""
    head: str | None = None
    """With data.heads: the head of the base that new heads begin as, and that replay and forget belong to. A base that has none
    gets its own level of theory as a head of this name beside them; without it, only the heads of the data are kept."""
    elements: Literal["known", "extend"] | dict[str, str] = "known"
    """What to do with elements that the base lacks: an error; begin as the mean of the known ones; or as one of them, by symbol
    (Br: Cl)."""

    def __post_init__(self) -> None:
        if self.train == ():
            raise ValueError("train is an empty list: nothing would be trained")
        for pattern, factor in self.rates.items():
            if not 0 <= factor < float("inf"):
                raise ValueError(f"rates: {pattern} has {factor:g}; a factor must be 0 or a positive number")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: DataConfig
    model: Term | FineTune
    """A term to train from random parameters, or a potential to fine-tune."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Of the first parameters, the split and the order of the data."""
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed} must be from 0 to {2**32 - 1}")
        if isinstance(self.model, FineTune):
            if self.model.head and not self.data.heads:
                raise ValueError(
                    "model.head is for data.heads, but there are none: leave it out; FILE@HEAD in model.from chooses a head"
                )
            if self.data.heads and not self.model.head and (self.data.replay or self.data.forget):
                raise ValueError("data.heads: set model.head to the head that replay and forget belong to")
        if isinstance(self.model, Term):
            for name in ("replay", "forget"):
                if getattr(self.data, name):
                    raise ValueError(f"data.{name} is for fine-tuning: give model.from, or leave {name} out")
