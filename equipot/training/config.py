"""Settings of a training run, as in the file that ``equipot train`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from equipot.data.config import DataConfig
from equipot.data.method import named
from equipot.models.from_data import FromData
from equipot.nn.electrons import Electrons
from equipot.physics.guard import Wall, is_guarded, with_wall
from equipot.physics.sum import refuse_second_dispersion
from equipot.term import Term, walk
from equipot.training.loggers import TensorBoard, WandB
from equipot.training.loss import Loss, Penalty
from equipot.training.optimizer import Muon, Optimizer
from equipot.training.schedule import Cosine, Schedule
from equipot.uncertainty.config import UncertaintyConfig


@dataclass(frozen=True)
class Checkpoints:
    """Interval and number of checkpoints, from which a killed run can be resumed."""

    seconds: float = 60.0
    """Least time between two checkpoints (s); 0 writes a checkpoint after every step."""
    keep: int = 2
    """Number of checkpoints that are kept."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep {self.keep} must be at least 1")
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds {self.seconds} must be 0 or a positive number")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the fit of a potential."""

    epochs: int | None = None
    """Largest number of passes over the training set; None for a number that grows with the number of labels."""
    batch_size: int | None = None
    """Number of frames in a training step, over all devices; None for some 128 atoms, at most 5 frames."""
    valid_batch_size: int = 20
    """Number of frames in a validation batch, over all devices."""
    loss: Mapping[str, Penalty] = field(default_factory=Loss)
    """Penalties on errors by quantity: energy, forces, stress, hessian, and any other quantity that the model predicts."""
    optimizer: Optimizer = field(default_factory=Muon)
    """Optimiser with its learning rate."""
    schedule: Schedule = field(default_factory=Cosine)
    """Learning rate over the run, as a share of the highest."""
    clip: float | None = 10.0
    """Largest norm of the gradient; a gradient with a larger norm is scaled to this norm. None for no limit."""
    ema: float | None = 0.995
    """Decay of the exponential moving average of the parameters, which is validated and saved; None to validate and save the
    parameters themselves. Optimisers with their own average ignore this setting."""
    validate_every: int = 1
    """Number of epochs between validations."""
    patience: int | None = None
    """Number of validations without improvement after which the run stops; None for no limit."""
    max_minutes: float | None = None
    """Time (min) of the whole run but ``refit`` and the final evaluation, resumed parts included, in which the schedules come
    to their end: the learning rate follows the clock, so that two such runs are not equal. A run of fewer minutes ends with its
    ``epochs``. None for no limit."""
    checkpoint: Checkpoints = Checkpoints()
    """Checkpoints, from which a killed run goes on."""
    devices: int | None = None
    """Number of local devices to use; None for all, on a CPU one device for each core."""
    refit: bool = True
    """Whether the weights of the last linear layer are solved for at the end, by least squares of energies and forces.
    Only of a MACE or NequIP with one head that stands alone (no walls, charges or other terms), not trained on Hessians, with
    validation frames and
    at least twice as many energies (where none count, components of forces) as features; see ``equipot.training.refit``.
    After fine-tuning the constants of the elements are, of a network that stands alone, with one head or several, all of
    whose parameters are trained, with validation frames; see ``equipot.training.shifts``."""
    uncertainty: UncertaintyConfig | None = None
    """Estimate of the uncertainty of the result, from the training frames, calibrated on the validation frames; None for none.
    Those chose the best epoch as well: calibrate on other frames, by ``equipot uncertainty``, where there are any."""
    logger: TensorBoard | WandB | None = None
    """Where the figures of each epoch are written besides metrics.jsonl."""

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
    """Low-rank adapters: weight matrices change as W + A B / sqrt(rank), Hu et al., arXiv:2106.09685.

    The factor 1 / sqrt(rank) of Kalajdzievski, arXiv:2312.03732, makes the size of a change independent of the rank. A starts
    with random entries, B with zeros. The weights of each irrep, and of each species where weights depend on species, are one
    matrix. A matrix with no more numbers than its adapter is trained in full.
    """

    rank: int = 8
    """Number of columns of A."""
    parts: tuple[str, ...] = ("*",)
    """Patterns of the parameters that get adapters, as in ``model.train``."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} must be at least 1")


@dataclass(frozen=True)
class FineTune:
    """Settings of fine-tuning: a base, the potential that gives architecture, constants and first parameters.

    Patterns are globs over paths of parameters such as ``interaction0/up/w0e``, and match all parameters below a path:
    ``readout*``, ``interaction1/skip``.
    """

    from_: str
    """Base: the file of a potential, or the name of a published potential, such as sevennet-0."""
    train: Literal["all"] | tuple[str, ...] = "all"
    """Patterns of the parameters to train; all other parameters keep their values."""
    adapters: Adapters | None = None
    """Low-rank adapters for the matrices among the trained parameters; None to train matrices in full."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate, by pattern; the last pattern that matches counts. Parameters with factor 0 are not
    trained."""
    atomic_energies: Literal["keep", "refit"] = "keep"
    """Keep the isolated-atom energies E0 of the base, or choose new ones for data of another level of theory, according to
    data.atomic_energies; a fit is to the energies of the data less the interaction energies of the base."""
    scale: Literal["keep", "refit"] = "keep"
    """Keep the interaction energies of the base, or multiply them, before the first step, by the factor that fits its forces to
    those of the training frames: universal potentials are too soft, by much the same factor everywhere. Energies are moved by
    the same factor, so that atomic_energies must be refitted, too; replayed frames keep the labels that they have."""
    head: str | None = None
    """With data.heads: the head of the base that initialises new heads, and to which replay and forget belong. If the base has
    no heads, its level of theory becomes a head of this name. With None, only the heads of the data are kept."""
    elements: Literal["known", "extend"] | dict[str, str] = "known"
    """Treatment of elements that the base lacks: raise an error; initialise with the mean over the known elements; or
    initialise with a known element, by symbol (Br: Cl)."""

    electrons: Electrons | None = None
    """Electrons to add to a base that sees neither charge nor spin, see ``Network.electrons``. Before the first step the
    numbers are those of the base; those of neutral singlets stay so where ``train`` is ``[electrons]``."""

    def __post_init__(self) -> None:
        if self.scale == "refit" and self.atomic_energies == "keep":
            raise ValueError(
                "scale: refit multiplies the interaction energy, with it the cohesive energy of every atom; with the E0 of the "
                "base total energies would be off by as much: set atomic_energies: refit, too"
            )
        if self.train == ():
            raise ValueError("train is an empty list: nothing would be trained")
        for pattern, factor in self.rates.items():
            if not 0 <= factor < float("inf"):
                raise ValueError(f"rates: {pattern} has {factor:g}; a factor must be 0 or a positive number")

    def check(self, data: DataConfig) -> None:
        """Check that ``head`` is consistent with the heads of the data.

        Raises:
            ValueError: ``head`` is set but the data have no heads, or ``head`` is missing although replay or forget needs one.
        """
        if self.head and not data.heads:
            raise ValueError(
                "model.head is for data.heads, but there are none: leave it out; FILE@HEAD in model.from chooses a head"
            )
        if data.heads and not self.head and (data.replay or data.forget):
            raise ValueError("data.heads: set model.head to the head that replay and forget belong to")


@dataclass(frozen=True)
class Ensemble:
    """Settings of an ensemble: several runs, each with its own seed, joined to a committee whose spread is an uncertainty.

    Times of ``training``, such as ``max_minutes``, are those of each run.
    """

    members: int = 4
    """Number of runs."""
    bootstrap: bool = False
    """Whether each run draws its own training frames, as many as there are, with replacement."""
    models: tuple[Term, ...] = ()
    """Further models; the runs take the model of the config and these in turn."""

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"members {self.members} must be at least 2: one potential has no spread")
        if len(self.models) >= self.members:
            raise ValueError(f"models: {self.members} members cannot have {len(self.models) + 1} models; raise members")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run."""

    data: DataConfig
    """Reference data."""
    model: Term | FineTune = field(default_factory=FromData)
    """A term to train from random parameters, or a potential to fine-tune; left out, a MACE that suits the data."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Settings of the fit."""
    seed: int = 0
    """Seed of the random parameters, of the split into sets and of the order of the data."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the fit and of the potential that it saves."""
    ensemble: Ensemble | None = None
    """Several runs that are joined to a committee; None for a single one."""
    guard: Wall | bool | None = None
    """Wall around the model (``true`` for one of the default size), whose inner radii stay below the distances in the training
    data; the base of a fine-tuning gets one too, unless it has one already."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed} must be from 0 to {2**32 - 1}")
        wall = Wall() if self.guard is True else self.guard or None
        object.__setattr__(self, "guard", wall)
        if self.training.uncertainty is not None and self.data.heads:
            raise ValueError(
                "training.uncertainty is for one level of theory: leave it out, and choose a head afterwards, `equipot "
                "uncertainty FILE@HEAD`"
            )
        if self.ensemble is not None and self.data.heads:
            raise ValueError("ensemble is for one level of theory: leave it out, or data.heads")
        if self.ensemble is not None and self.ensemble.models and isinstance(self.model, FineTune):
            raise ValueError("ensemble.models: all members of a fine-tuning start from model.from; leave models out")
        self._check_uncertainty()
        if isinstance(self.model, FineTune):
            return self.model.check(self.data)
        for name in ("replay", "forget"):
            if getattr(self.data, name):
                raise ValueError(f"data.{name} is for fine-tuning: give model.from, or leave {name} out")
        if not isinstance(self.model, FromData):
            self._check_model(self.model, wall)

    def _check_model(self, model: Term, wall: Wall | None) -> None:
        """Check a term to train from random parameters, and put the wall around it."""
        if any(term.copies for term in walk(model)):
            raise ValueError(
                "model: the members of a committee are trained apart, and training their mean would leave them no spread; "
                "give the model of one, and ensemble: {members: 4}"
            )
        if wall and not is_guarded(model):
            object.__setattr__(self, "model", with_wall(model, wall))
        _check_heads(model, tuple(self.data.heads))
        if model.has_dispersion:
            for data in self.data.by_head.values():
                refuse_second_dispersion(data.level_of_theory)
            refuse_second_dispersion("", None if self.data.subtract is None else named(self.data.subtract))

    def _check_uncertainty(self) -> None:
        """Check that the estimate of uncertainty is one for what is trained, before it is trained."""
        settings = self.training.uncertainty
        if settings is None:
            return
        if settings.sampler is not None:
            raise ValueError(
                "training.uncertainty.sampler: samples are drawn afterwards, by `equipot uncertainty best.eqp --data FILE "
                "--set sampler=...`; leave it out, or give ensemble: {members: 4}"
            )
        method = settings.method
        if self.ensemble is not None and not method.of_committees and method != UncertaintyConfig().method:
            raise ValueError(
                f"training.uncertainty.method: {type(method).__name__} is for a single network; leave it out for the spread of "
                "the members"
            )
        if self.ensemble is None and method.of_committees:
            raise ValueError(
                f"training.uncertainty.method: {type(method).__name__} is for an ensemble; give one, or leave it out"
            )


def _check_heads(term: Term, heads: tuple[str, ...]) -> None:
    """Check that a term to train from random parameters can have the heads of the data.

    Raises:
        ValueError: it cannot, or has others.
    """
    if term.head_names not in ((), heads):
        given = list(term.head_names)
        raise ValueError(f"model.heads {given} are not those of data.heads, {list(heads)}; leave model.heads out")
    if heads and not term.can_have_heads:
        raise ValueError(
            f"data.heads: {type(term).__name__} has no heads; use one of equipot's networks, or data of one level of theory"
        )
