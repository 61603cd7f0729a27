"""A run that begins with random parameters: its data, its constants and its first potential."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import equipot
from equipot.data.batch import pad
from equipot.data.heads import joined
from equipot.data.loader import Frames
from equipot.data.read import Dataset, load_data
from equipot.data.stats import LONGEST, statistics, typical_cutoff
from equipot.models import fresh
from equipot.models.network import Network
from equipot.potential import Head, Metadata, Potential
from equipot.training.beginning import Beginning, Trained, energy_table, hash_sets, prepare_sets, require_frames
from equipot.training.config import FineTune, TrainConfig

EXAMPLES = 8
"""Training frames, spread over the set, on which a fresh network is brought to order one."""


def from_scratch(config: TrainConfig) -> Beginning:
    """Prepare a run that begins with random parameters.

    Raises:
        ValueError: data and config do not fit.
    """
    if isinstance(config.model, FineTune):
        raise ValueError(
            f"model.from names {config.model.from_} to fine-tune: call equipot.finetune.fine_tune with this config"
        )
    config = with_heads(config)
    dataset = load_levels(config)
    config = with_elements(with_cutoff(config, dataset), dataset)
    require_frames(config, dataset)
    frames = prepare_sets(dataset, config.model.cutoff)
    hashes = hash_sets(frames)
    potential = first_potential(config, dataset, frames["train"], hashes["train"])
    return Beginning(config, dataset, potential, Trained(potential.variables["params"]), frames, hashes)


def load_levels(config: TrainConfig) -> Dataset:
    """The data of a run, of one level of theory or of several."""
    cutoff, needs = config.model.cutoff or LONGEST, config.model.needs
    levels = {name: data.also(config.model.provides) for name, data in config.data.by_head.items()}
    found = {name: load_data(data, config.seed, cutoff, needs) for name, data in levels.items()}
    return joined(found, tuple(found)) if config.data.heads else found[""]


def with_heads(config: TrainConfig) -> TrainConfig:
    """The config with the model's heads, which are those of the data.

    Raises:
        ValueError: the model cannot have heads, or names others.
    """
    heads, kind = tuple(config.data.heads), type(config.model).__name__
    if not isinstance(config.model, Network):
        if heads:
            raise ValueError(f"data.heads: {kind} has no heads; use one of equipot's networks, or data of one level of theory")
        return config
    if config.model.heads not in ((), heads):
        given = list(config.model.heads)
        raise ValueError(f"model.heads {given} are not those of data.heads, {list(heads)}; leave model.heads out")
    return dataclasses.replace(config, model=config.model.clone(heads=heads))


def with_cutoff(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's cutoff chosen for the data where it leaves it out."""
    if config.model.cutoff is not None:
        return config
    return dataclasses.replace(config, model=config.model.clone(cutoff=typical_cutoff(dataset.train)))


def with_elements(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's elements filled in from the data where it leaves them out."""
    if not config.model.has_elements:
        return config
    present = tuple(sorted(int(z) for z in dataset.atomic_energies))
    elements = tuple(config.model.elements) or present
    missing = sorted(set(present) - set(elements))
    if missing:
        raise ValueError(f"model.elements {list(elements)} lacks Z = {missing[0]}, which the data contain; leave elements out")
    return dataclasses.replace(config, model=config.model.clone(elements=elements))


def first_potential(config: TrainConfig, dataset: Dataset, frames: Frames, sha256: str) -> Potential:
    """Make a potential of random parameters and the constants that the training ``frames`` set; ``sha256`` is theirs."""
    stats = statistics(frames.structures, frames.found, config.model.cutoff, dataset.atomic_energies)
    some = np.unique(np.linspace(0, len(frames) - 1, EXAMPLES).astype(int))
    graph = pad([frames.structures[int(k)] for k in some], config.model.cutoff)
    metadata = Metadata(
        atomic_energies=energy_table(dataset.atomic_energies),
        training_data=sha256,
        version=equipot.__version__,
        heads=tuple(Head(name, energy_table(energies)) for name, energies in dataset.head_energies.items()),
    )
    # A model may be made for more elements than the data have; those are never asked for.
    elements = config.model.elements if config.model.has_elements else stats.elements
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
