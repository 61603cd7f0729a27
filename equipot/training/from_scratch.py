"""Preparation of a run that starts from random parameters: data, constants and first potential."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import equipot
from equipot.data.batch import pad
from equipot.data.closest import closest_distances
from equipot.data.heads import joined
from equipot.data.loader import Frames
from equipot.data.read import Dataset, load_data
from equipot.data.stats import LONGEST, statistics, typical_cutoff
from equipot.metadata import Head, Metadata
from equipot.models import fresh
from equipot.models.network import Network
from equipot.physics.guard import fitted, is_guarded, unguarded
from equipot.potential import Potential
from equipot.term import Term, cutoff_of
from equipot.training.beginning import Beginning, Trained, energy_table, hash_sets, prepare_sets, require_frames
from equipot.training.config import FineTune, TrainConfig

EXAMPLES = 8
"""Number of training frames, spread over the set, from which the normalisation of a fresh network is computed."""
EXAMPLE_PAIRS = 2**20
"""Number of pairs beyond which fewer frames are taken."""


def from_scratch(config: TrainConfig) -> Beginning:
    """Prepare a run that starts from random parameters.

    Raises:
        ValueError: data and config do not fit, or a model without parameters.
    """
    config = with_heads(config)
    dataset = load_levels(config)
    # Some terms end at a distance that depends on the elements.
    config = with_cutoff(with_elements(config, dataset), dataset)
    require_frames(config, dataset)
    frames = prepare_sets(dataset, term_of(config))
    hashes = hash_sets(frames)
    potential = first_potential(config, dataset, frames["train"], hashes["train"])
    if not potential.params:
        raise ValueError(
            f"model: {type(config.model).__name__} has no parameters, so that nothing can be trained; add a network"
        )
    return Beginning(config, dataset, potential, Trained(potential.params), frames, hashes)


def term_of(config: TrainConfig) -> Term:
    """Return the term of a run that starts from random parameters.

    Raises:
        ValueError: the config is one of a fine-tuning.
    """
    if isinstance(config.model, FineTune):
        raise ValueError(
            f"model.from names {config.model.from_} to fine-tune: call equipot.finetune.fine_tune with this config"
        )
    return config.model


def load_levels(config: TrainConfig) -> Dataset:
    """Load the data of a run, of one level of theory or of several."""
    term = term_of(config)
    cutoff, needs = term.cutoff or LONGEST, term.needs
    levels = {name: data.also(term.provides, needs) for name, data in config.data.by_head.items()}
    found = {name: load_data(data, config.seed, cutoff, needs) for name, data in levels.items()}
    return joined(found, tuple(found)) if config.data.heads else found[""]


def with_heads(config: TrainConfig) -> TrainConfig:
    """Return the config with the heads of the data as the heads of the model."""
    term, heads = term_of(config), tuple(config.data.heads)
    return dataclasses.replace(config, model=term.clone(heads=heads)) if isinstance(unguarded(term), Network) else config


def with_cutoff(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Return the config with a cutoff (Å) chosen for the data if the model has none."""
    term = term_of(config)
    if term.cutoff is not None:
        return config
    return dataclasses.replace(config, model=term.clone(cutoff=typical_cutoff(dataset.train)))


def with_elements(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Return the config with the elements of the data if the model names none.

    Raises:
        ValueError: the model's elements lack an element of the data.
    """
    term = term_of(config)
    if not term.has_elements:
        return config
    present = tuple(sorted(int(z) for z in dataset.atomic_energies))
    elements = tuple(term.elements) or present
    missing = sorted(set(present) - set(elements))
    if missing:
        raise ValueError(f"model.elements {list(elements)} lacks Z = {missing[0]}, which the data contain; leave elements out")
    return dataclasses.replace(config, model=term.clone(elements=elements))


def first_potential(config: TrainConfig, dataset: Dataset, frames: Frames, sha256: str) -> Potential:
    """Make a potential with random parameters and with constants computed from the training frames.

    Args:
        config: Config with cutoff, elements and heads filled in.
        dataset: Data with isolated-atom energies.
        frames: Training frames.
        sha256: SHA-256 of the training frames.
    """
    term = term_of(config)
    counted = term.averaging_cutoff or cutoff_of(term)
    found = frames.found if counted == frames.cutoff else None
    stats = statistics(frames.structures, found, counted, dataset.atomic_energies, term.needs)
    examples = [frames.structures[k] for k in example_frames(frames.sizes)]
    graph = pad(examples, cutoff_of(term), extent=frames.extent)
    metadata = Metadata(
        atomic_energies=energy_table(dataset.atomic_energies),
        training_data=sha256,
        version=equipot.__version__,
        charges=stats.charges,
        spins=stats.spins,
        heads=tuple(Head(name, energy_table(energies)) for name, energies in dataset.head_energies.items()),
    )
    # A model may be made for more elements than the data have; their scale and shift are not used.
    elements = term.elements if term.has_elements else stats.elements
    place = {z: k for k, z in enumerate(stats.elements)}
    per_element = lambda values, other: np.array([values[place[z]] if z in place else other for z in elements])
    potential = fresh(
        term,
        graph,
        jax.random.key(config.seed),
        metadata,
        scale=per_element(stats.scale, 1.0),
        shift=per_element(stats.shift, 0.0),
        avg_num_neighbors=stats.avg_num_neighbors,
        electron_shift=stats.electron_shift,
    )
    if is_guarded(term):
        potential = fitted(potential, closest_distances(frames.structures, cutoff_of(term), frames.found))
    return potential.astype(config.dtype)


def example_frames(sizes: np.ndarray) -> list[int]:
    """Choose the frames from which the normalisation of a fresh network is computed: ``EXAMPLES`` spread over the set, fewer
    where they would be padded to more than ``EXAMPLE_PAIRS`` pairs, at least one.

    Args:
        sizes: (frames, 2) atoms and slots of each frame.
    """
    for count in range(EXAMPLES, 0, -1):
        some = np.unique(np.linspace(0, len(sizes) - 1, count).astype(int))
        if sizes[some, 0].sum() * sizes[some, 1].max() <= EXAMPLE_PAIRS:
            break
    return some.tolist()
