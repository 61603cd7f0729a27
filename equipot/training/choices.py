"""Settings that a config leaves to the data: the size of the model, of a batch and of the run, and labels that are not sound.

Each choice is described in a line for the user. A resumed run keeps the choices with which it began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from equipot import config as configs
from equipot.data.draw import Replayed
from equipot.data.read import Dataset
from equipot.data.split import Subset, evenly
from equipot.data.stats import LONGEST, NEIGHBORS, typical_cutoff
from equipot.models.from_data import FromData
from equipot.models.mace import MACE
from equipot.nn.interaction import Residual
from equipot.nn.normalize import MeanNeighbors, UnitVariance
from equipot.nn.radial import Bessel, PolynomialEnvelope, PowerEnvelope, Radial
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure
from equipot.training.affordable import affordable_steps
from equipot.training.checkpoint import Checkpoint
from equipot.training.config import TrainConfig, TrainingConfig
from equipot.training.loss import Huber, Loss, Penalty, Switch

BATCH_ATOMS = 128
"""Number of atoms that a batch holds, about: fewer leave cores idle, more make fewer steps in the same time."""
MOST_FRAMES = 5
"""Largest number of frames in a batch that is chosen: small sets need many steps."""
STEPS = 800.0
TUNING_STEPS = 100.0
"""Number of steps of a run, from random parameters and in fine-tuning, over the cube root of the number of labels (energies and
components of forces). From 50 frames of uracil and toluene, errors with 360 are a seventh larger than with 1,070; with 2,140
those of uracil are hardly smaller."""
TUNING_ENERGY, LATE = 0.1, 10.0
"""Weight of the energy in fine-tuning, and the factor on it in the last quarter. Tuned to 18 frames of copper with a weight of
1 all along, forces of other frames (of one fold) were 13 % further off, and those of lithium, which was replayed, 20 %."""
PATIENT = 1.5
"""Factor on that number where ``max_minutes`` limits the run."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is chosen of a MACE for one kind of data."""

    what: str
    """Kind of data, for the user."""
    neighbors: float
    """Mean number of neighbours within the cutoff, which is at most ``stats.LONGEST``."""
    channels: int
    hidden_l: int
    envelope: PowerEnvelope | PolynomialEnvelope
    """Of the radial functions."""
    normalization: UnitVariance | MeanNeighbors
    """Of the messages: the smaller one, ``MeanNeighbors``, learns crystals of one element too slowly, and is better for few
    molecules."""


RECIPES = {
    # A wider network describes its training frames better, and no others. Beside a power of 3, the polynomial has the better
    # energies of copper on each of three folds, by a quarter, and the worse ones of silicon on two, by a quarter; powers of 6
    # are worse for copper and lithium.
    "crystal": Recipe("one element", NEIGHBORS, 16, 2, PolynomialEnvelope(2), UnitVariance()),
    # From 50 frames, 64 channels learn the others better than 32.
    "molecule": Recipe("several elements", NEIGHBORS, 64, 2, PowerEnvelope(), MeanNeighbors(exponent=0.75)),
    # Steps are dear, as each frame has many pairs, and its many labels leave little to over-fit. With the envelope of
    # molecules, which hardly sees the neighbours of other molecules, errors of the forces of water are half as large again.
    "liquid": Recipe(
        "several elements, many of them close together", 52, 32, 1, PolynomialEnvelope(2), MeanNeighbors(exponent=0.75)
    ),
}
SHORT = 0.12
"""Share of the steps of a run without a time limit below which molecules get the smaller network ``BRIEF``. With 6 % of the
steps for dipeptides, errors of 64 channels are two to three times those of 32; with 15 %, no larger, and so with carbonates."""
BRIEF = {"channels": 32, "hidden_l": 1}
"""Network of molecules for which time is short: its steps take a quarter of the time."""
LIQUID_ATOMS = 100
"""Mean number of atoms of a frame from which densely packed systems of several elements are liquids."""
EXAMPLES = 200
"""Number of frames from which sizes are estimated."""
UNSOUND = ("stress_pressure", "stress_sign", "stress_order", "stress_unit", "stress_zero", "stress_size")
"""Checks of data by which stresses are not the derivatives of the energies."""


class Choice(NamedTuple):
    """A config without open settings, and a line for the user on each of these."""

    config: TrainConfig
    notes: tuple[str, ...]


def choose(
    config: TrainConfig,
    dataset: Dataset,
    tuning: bool,
    replay: Replayed | None = None,
    begun: Mapping[str, Any] = MappingProxyType({}),
) -> Choice:
    """Fill in the settings of ``training`` that the config leaves open.

    Args:
        config: Config of the run.
        dataset: Sets of the run; the replayed frames are the last of the training frames.
        tuning: Whether the run starts from a potential.
        replay: How many frames are replayed, and how many of them in an epoch.
        begun: Settings that a run that is resumed began with, which are taken where the config leaves them open: see
            ``begun_with``.
    """
    notes: list[str] = []
    # A check that data.checks turns into a warning is one whose finding the user holds for wrong.
    trusted = {kind for level in config.data.by_head.values() for kind in level.checks}
    training = without_unsound(config.training, dataset, trusted, notes)
    training = sized(training, of_an_epoch(dataset.train, replay), TUNING_STEPS if tuning else STEPS, begun, notes)
    training = paced(training, tuning, begun, notes)
    return Choice(dataclasses.replace(config, training=training), tuple(notes))


def default_model(
    dataset: Dataset,
    model: FromData,
    training: TrainingConfig | None = None,
    devices: int | None = 1,
    begun: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[MACE, str]:
    """Choose what a model leaves open, and say why; elements are left to the data as in any model.

    What counts most for molecules of few frames is an envelope that falls from the nearest neighbours on, so that these count
    more than far ones; crystals of one element do not gain by it, and liquids lose. Then angular resolution, of the harmonics
    (l_max 3) and of the features that are passed between layers (hidden_l 2), and smooth radial functions: see
    benchmarks/README.md. The recipe "liquid" was chosen on water, and is that of crystals of several elements in large cells.

    Args:
        dataset: Sets of the run.
        model: What the config says.
        training: Settings of the run, with batch size and epochs; None for a run without a time limit.
        devices: Number of processors that share a batch; None for accelerators, on which time is never short.
        begun: Hyper-parameters of the network that a run which is resumed began with.
    """
    recipe = RECIPES[kind_of(dataset)]
    radial = Radial(Bessel(6), recipe.envelope, mlp=(32,))
    interaction = Residual(recipe.normalization)
    cutoff = model.given["cutoff"] if "cutoff" in model.given else typical_cutoff(dataset.train, recipe.neighbors)
    wanted = {"channels": recipe.channels, "hidden_l": recipe.hidden_l}
    # What a run began with is what it goes on with: the time limit, or the machine, may be another one now.
    before = {name: begun[name] for name in wanted if name in begun}
    size = {**wanted, **model.given}
    brief = not before and kind_of(dataset) == "molecule" and is_brief(dataset, training, size, cutoff, devices)
    chosen = {**wanted, **(BRIEF if brief else {}), **before, **model.given, "cutoff": cutoff}
    shown = f"{chosen['channels']} channels, hidden_l {chosen['hidden_l']}, cutoff {chosen['cutoff']} Å"
    note = f"model: MACE of {shown}, for {recipe.what}{' and little time' if brief else ''}"
    return MACE(radial=radial, first=interaction, others=interaction, **chosen), note


def is_brief(
    dataset: Dataset, training: TrainingConfig | None, wanted: Mapping[str, Any], cutoff: float, devices: int | None
) -> bool:
    """Whether a time limit leaves a network that is ``wanted`` fewer than ``SHORT`` of the steps of a run without one."""
    if training is None or training.max_minutes is None or devices is None:
        return False
    labels = mean_labels(dataset.train) * len(dataset.train)
    steps = affordable_steps(training, dataset.train, cutoff, wanted["channels"], wanted["hidden_l"], devices)
    return steps < SHORT * STEPS * np.cbrt(labels)


def kind_of(dataset: Dataset) -> str:
    """Return the key of the recipe for a set: one element, or frames that are large, with more than ``NEIGHBORS`` neighbours
    within the longest cutoff, or others."""
    if len(dataset.atomic_energies) == 1:
        return "crystal"
    dense = mean_atoms(dataset.train) >= LIQUID_ATOMS and typical_cutoff(dataset.train) < LONGEST
    return "liquid" if dense else "molecule"


def without_unsound(training: TrainingConfig, dataset: Dataset, trusted: set[str], notes: list[str]) -> TrainingConfig:
    """Leave the stress out of the loss where checks of the data, but those ``trusted``, have found it wrong and the config does
    not name it."""
    found = {problem.kind for problem in dataset.report.problems} if dataset.report else set()
    kinds = sorted((found & set(UNSOUND)) - trusted)
    loss = Loss(training.loss)
    if not kinds or STRESS.name in loss.named:
        return training
    notes.append(f"the stress is left out of the loss ({', '.join(kinds)}, see above); training.loss.stress decides otherwise")
    penalties = {name: loss[name] for name in loss.named}
    without = dataclasses.replace(loss[STRESS.name], weight=0.0)
    return dataclasses.replace(training, loss=Loss({**penalties, STRESS.name: without}))


def paced(training: TrainingConfig, tuning: bool, begun: Mapping[str, Any], notes: list[str]) -> TrainingConfig:
    """Choose the learning rate, and in fine-tuning the weight of the energy.

    Raises:
        ValueError: an optimiser of the user that says no learning rate.
    """
    optimizer = training.optimizer
    if optimizer.learning_rate is None:
        rate = optimizer.tuning_rate if tuning else optimizer.usual_rate
        if rate is None:
            raise ValueError(f"training.optimizer.learning_rate is missing: {type(optimizer).__name__} has no usual one")
        training = dataclasses.replace(training, optimizer=dataclasses.replace(optimizer, learning_rate=rate))
        if tuning:
            notes.append(f"training.optimizer.learning_rate {rate:g}: low, so that the base forgets little")
    loss = Loss(training.loss)
    if tuning and ENERGY.name not in loss.named:
        named, before = {name: loss[name] for name in loss.named}, begun.get("loss", {}).get(ENERGY.name)
        if before is None:
            energy: Penalty = Huber(weight=TUNING_ENERGY, schedule=Switch(factor=LATE))
            late = TUNING_ENERGY * LATE
            notes.append(f"training.loss.energy.weight {TUNING_ENERGY:g}, {late:g} in the last quarter: forces teach more")
        else:
            energy = configs.build(TrainingConfig, {"loss": {ENERGY.name: before}}).loss[ENERGY.name]
        training = dataclasses.replace(training, loss=Loss({**named, ENERGY.name: energy}))
    return training


def begun_with(found: Checkpoint | None) -> Mapping[str, Any]:
    """Return the settings of ``training`` that a run with a checkpoint began with; empty for a run that begins.

    What is chosen may depend on the time limit, which may change when a run is resumed, and on the version of equipot.
    """
    return {} if found is None else found.record["run"]["config"]["training"]


def model_begun_with(found: Checkpoint | None) -> Mapping[str, Any]:
    """Return the hyper-parameters of the network that a run with a checkpoint began with; empty for a run that begins."""
    return {} if found is None else network_in(found.record["run"]["config"].get("model"))


def network_in(model: Any) -> Mapping[str, Any]:
    """Find the section of the network in that of a model, which may be a sum or have a wall; empty where there is none."""
    if isinstance(model, Mapping) and "channels" in model:
        return model
    inner = model.values() if isinstance(model, Mapping) else model if isinstance(model, list | tuple) else ()
    return next((network for part in inner if (network := network_in(part))), {})


def of_an_epoch(structures: Sequence[Structure], replay: Replayed | None) -> Sequence[Structure]:
    """Select as many frames as an epoch has: of those that are replayed, which are the last, some spread over all."""
    if replay is None:
        return structures
    first = len(structures) - replay.pool
    return Subset(structures, np.concatenate([np.arange(first), first + evenly(replay.pool, replay.drawn)]))


def sized(
    training: TrainingConfig, structures: Sequence[Structure], steps: float, begun: Mapping[str, Any], notes: list[str]
) -> TrainingConfig:
    """Choose the number of frames in a batch and the number of epochs."""
    size, epochs = training.batch_size or begun.get("batch_size"), training.epochs or begun.get("epochs")
    if size is None:
        size = int(np.clip(round(BATCH_ATOMS / max(1.0, mean_atoms(structures))), 1, min(MOST_FRAMES, max(1, len(structures)))))
        notes.append(f"training.batch_size {size}: about {BATCH_ATOMS} atoms, and at most {MOST_FRAMES} frames")
    if epochs is None:
        labels = mean_labels(structures) * len(structures)
        wanted = steps * np.cbrt(labels) * (1 if training.max_minutes is None else PATIENT)
        epochs = max(1, round(wanted / -(-len(structures) // size)))
        notes.append(f"training.epochs {epochs}: about {wanted:.0f} steps, for {labels:.0f} energies and components of forces")
    return dataclasses.replace(training, batch_size=size, epochs=epochs)


def mean_labels(structures: Sequence[Structure]) -> float:
    """Estimate the mean number of energies and components of forces of the frames from ``EXAMPLES`` of them."""
    some = [structures[int(k)] for k in evenly(len(structures), EXAMPLES)]
    count = lambda s: (ENERGY in s.labels) + 3 * len(s) * (FORCES in s.labels)
    return max(1.0, float(np.mean([count(s) for s in some]))) if some else 1.0


def mean_atoms(structures: Sequence[Structure]) -> float:
    """Estimate the mean number of atoms of the frames from ``EXAMPLES`` of them; 0 for no frames."""
    some = evenly(len(structures), EXAMPLES)
    return float(np.mean([len(structures[int(k)]) for k in some])) if len(some) else 0.0
