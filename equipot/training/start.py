"""What a run begins with: its data, and a potential with random parameters. ``finetune`` begins with an existing one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

import equipot
from equipot.data.batch import pad
from equipot.data.heads import joined
from equipot.data.loader import Frames, Replayed, prepare
from equipot.data.read import Dataset, Sets, load_data
from equipot.data.stats import LONGEST, statistics, typical_cutoff
from equipot.models import fresh
from equipot.models.heads import can_have_heads
from equipot.potential import Head, Metadata, Potential
from equipot.structure import Structure
from equipot.training.adapt import Trained
from equipot.training.config import TrainConfig
from equipot.training.evaluate import Table
from equipot.training.extend import has_elements
from equipot.training.loop import TrainingConfig
from equipot.training.optimizer import Plateau

EXAMPLES = 8
"""Training frames, spread over the set, on which a fresh network is brought to order one."""


@dataclass(frozen=True)
class Base:
    """What fine-tuning knows of the potential that it began with."""

    name: str
    sha256: str
    """Of its term, its metadata and every number in it."""
    before: Mapping[str, Table]
    """Its errors on each set that the report compares."""
    sets: Mapping[str, Sequence[Structure]]
    """These sets, besides validation and test."""
    notes: tuple[str, ...]
    """What to tell before the first step."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """All that a run needs before its first step."""

    config: TrainConfig
    """With everything that it leaves to the data filled in."""
    dataset: Dataset
    potential: Potential
    trained: Trained
    frames: Mapping[str, Frames]
    """``train`` and ``valid``."""
    replay: Replayed | None = None
    base: Base | None = None

    @property
    def count(self) -> int:
        """Training frames, without those that are replayed."""
        return len(self.dataset.train) - (self.replay.pool if self.replay else 0)


def from_scratch(config: TrainConfig) -> Beginning:
    """Random parameters, and the constants that the training set sets.

    Raises:
        ValueError: data and config do not fit.
    """
    config = with_heads(config)
    dataset = load_levels(config)
    config = with_elements(with_cutoff(config, dataset), dataset)
    need_frames(config, dataset)
    frames = prepare_sets(dataset, config.model.cutoff)
    potential = first_potential(config, dataset, frames["train"])
    return Beginning(config, dataset, potential, Trained(potential.variables["params"]), frames)


def load_levels(config: TrainConfig) -> Dataset:
    """The data of a run, of one level of theory or of several."""
    cutoff, needs = config.model.cutoff or LONGEST, config.model.needs
    found = {name: load_data(data, config.seed, cutoff, needs) for name, data in config.data.levels.items()}
    return joined(found, tuple(found)) if config.data.heads else found[""]


def with_heads(config: TrainConfig) -> TrainConfig:
    """The config with the model's heads, which are those of the data.

    Raises:
        ValueError: the model cannot have heads, or names others.
    """
    heads, kind = tuple(config.data.heads), type(config.model).__name__
    if not can_have_heads(config.model):
        if heads:
            raise ValueError(f"data.heads: {kind} has no heads; use one of equipot's networks, or data of one level of theory")
        return config
    if config.model.heads not in ((), heads):
        given = list(config.model.heads)
        raise ValueError(f"model.heads {given} are not those of data.heads, {list(heads)}; leave model.heads out")
    return dataclasses.replace(config, model=config.model.clone(heads=heads))


def need_frames(config: TrainConfig, sets: Sets | Dataset) -> None:
    """Does nothing where a run has the frames that it needs.

    Raises:
        ValueError: nothing to train on, or no validation frames where the config waits for them.
    """
    if not len(sets.train):
        raise ValueError("the training set is empty; look at data.train, data.valid and data.limit")
    if not len(sets.valid) and (config.training.patience is not None or isinstance(config.training.schedule, Plateau)):
        reader = "training.patience" if config.training.patience is not None else "the schedule Plateau"
        raise ValueError(f"{reader} waits for the validation loss, but there are no validation frames; set data.valid")


def prepare_sets(dataset: Dataset, cutoff: float) -> dict[str, Frames]:
    """Training and validation frames with their neighbours within ``cutoff`` (Å)."""
    return {"train": prepare(dataset.train, cutoff), "valid": prepare(dataset.valid, cutoff)}


def with_cutoff(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's cutoff chosen for the data where it leaves it out."""
    if config.model.cutoff is not None:
        return config
    return dataclasses.replace(config, model=config.model.clone(cutoff=typical_cutoff(dataset.train)))


def with_elements(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's elements filled in from the data where it leaves them out."""
    if not has_elements(config.model):
        return config
    present = tuple(sorted(int(z) for z in dataset.atomic_energies))
    elements = tuple(config.model.elements) or present
    missing = sorted(set(present) - set(elements))
    if missing:
        raise ValueError(f"model.elements {list(elements)} lacks Z = {missing[0]}, which the data contain; leave elements out")
    return dataclasses.replace(config, model=config.model.clone(elements=elements))


def first_potential(config: TrainConfig, dataset: Dataset, frames: Frames) -> Potential:
    """Random parameters, and the constants that the training set sets."""
    stats = statistics(frames.structures, frames.found, config.model.cutoff, dataset.atomic_energies)
    some = np.unique(np.linspace(0, len(frames) - 1, EXAMPLES).astype(int))
    graph = pad([frames.structures[int(k)] for k in some], config.model.cutoff)
    metadata = Metadata(
        atomic_energies=pairs(dataset.atomic_energies),
        training_data=frames.sha256,
        version=equipot.__version__,
        heads=tuple(Head(name, pairs(energies)) for name, energies in dataset.levels.items()),
    )
    # A model may be made for more elements than the data have; those are never asked for.
    elements = config.model.elements if has_elements(config.model) else stats.elements
    place = {z: k for k, z in enumerate(stats.elements)}
    per_element = lambda values, other: np.array([values[place[z]] if z in place else other for z in elements])
    potential = fresh(
        config.model,
        graph,
        jax.random.key(config.seed),
        metadata,
        scale=per_element(stats.scale, 1.0),
        shift=per_element(stats.shift, 0.0),
        avg_num_neighbors=stats.avg_num_neighbors,
    )
    return potential.astype(config.dtype)


def pairs(energies: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """E0 as metadata hold them."""
    return tuple(sorted((int(z), float(energy)) for z, energy in energies.items()))


def device_count(settings: TrainingConfig, frames: int) -> int:
    """Local devices that a batch is spread over.

    Raises:
        ValueError: more are asked for than there are.
    """
    there = jax.local_device_count()
    if settings.devices is not None and settings.devices > there:
        raise ValueError(f"training.devices {settings.devices}: JAX has only {there} here; leave it out to use all")
    return min(settings.devices or there, settings.batch_size, frames)
