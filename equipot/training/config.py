"""What a training run can be told: the file that ``equipot train`` reads. Nothing here knows how it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from equipot.data.config import DataConfig
from equipot.potential import Term
from equipot.training.loggers import TensorBoard, WandB
from equipot.training.loss import MSE, Huber, Loss
from equipot.training.optimizer import Muon, Optimizer
from equipot.training.schedule import Cosine, Schedule


@dataclass(frozen=True)
class Checkpoints:
    """How often the whole state is written, so that a killed run can go on."""

    seconds: float = 60.0
    """Least time between two checkpoints; 0 writes one after every step."""
    keep: int = 2
    """How many are kept."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep {self.keep} must be at least 1")
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds {self.seconds} must be 0 or a positive number")


@dataclass(frozen=True)
class TrainingConfig:
    """How a potential is fitted."""

    epochs: int = 200
    batch_size: int = 5
    """Frames of a step, over all devices."""
    valid_batch_size: int = 20
    """Frames evaluated at a time, over all devices."""
    loss: Mapping[str, MSE | Huber] = field(default_factory=Loss)
    """Terms by the name of their quantity: energy, forces, stress, and what else the model predicts."""
    optimizer: Optimizer = field(default_factory=Muon)
    schedule: Schedule = field(default_factory=Cosine)
    clip: float | None = 10.0
    """Largest norm of the gradient; a longer one is shortened to it."""
    ema: float | None = 0.999
    """Decay of the moving average of the parameters, which is validated and saved; nothing means the parameters themselves. An
    optimiser with an average of its own does not use it."""
    validate_every: int = 1
    """Epochs."""
    patience: int | None = None
    """Validations without improvement after which the run stops."""
    max_minutes: float | None = None
    """Time after which a run stops; it can be resumed, and then has as much time again."""
    checkpoint: Checkpoints = Checkpoints()
    devices: int | None = None
    """Local devices to use; nothing means all, and on CPU one for each core."""
    logger: TensorBoard | WandB | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", Loss(self.loss))
        for name in ("epochs", "batch_size", "valid_batch_size", "validate_every", "patience", "devices"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(f"max_minutes {self.max_minutes} must be positive; leave it out for no limit")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema {self.ema} must lie between 0 and 1")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip {self.clip} must be positive; leave it empty for no clipping")


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

    def check(self, data: DataConfig) -> None:
        """Check that the heads of the base and those of the data fit.

        Raises:
            ValueError: one that is missing, or that nothing is there for.
        """
        if self.head and not data.heads:
            raise ValueError(
                "model.head is for data.heads, but there are none: leave it out; FILE@HEAD in model.from chooses a head"
            )
        if data.heads and not self.head and (data.replay or data.forget):
            raise ValueError("data.heads: set model.head to the head that replay and forget belong to")


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
            return self.model.check(self.data)
        for name in ("replay", "forget"):
            if getattr(self.data, name):
                raise ValueError(f"data.{name} is for fine-tuning: give model.from, or leave {name} out")
