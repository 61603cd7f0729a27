"""Preparation of a run that starts from random parameters: data, constants and first potential."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import equipot
from equipot.data.batch import pad
from equipot.data.closest import closest_distances
from equipot.data.config import Labelled
from equipot.data.heads import joined
from equipot.data.loader import Frames
from equipot.data.read import Dataset, Sets, find_energies, load_sets, with_energies
from equipot.data.split import Chain, evenly
from equipot.data.stats import LONGEST, statistics, typical_cutoff
from equipot.data.subtract import Subtraction, subtraction_of
from equipot.metadata import Head, Metadata, Method
from equipot.models import fresh
from equipot.models.from_data import FromData
from equipot.models.mace import MACE
from equipot.physics.guard import Guarded, fitted, is_guarded
from equipot.potential import Potential
from equipot.quantities import HESSIAN
from equipot.structure import Structure
from equipot.term import Term, cutoff_of
from equipot.training import checkpoint
from equipot.training.apart import Residual, residuals, stands_apart, within, without
from equipot.training.beginning import Beginning, Trained, device_count, energy_table, hash_sets, prepare_sets, require_frames
from equipot.training.choices import begun_with, choose, default_model, model_begun_with
from equipot.training.config import FineTune, TrainConfig, TrainingConfig
from equipot.training.imported import (
    Import,
    known,
    predictions,
    recorded,
    resolve,
    with_origin,
    with_variables,
)


def processors(training: TrainingConfig, dataset: Dataset) -> int | None:
    """Return the number of processors that share a batch; None for accelerators."""
    if jax.devices()[0].platform != "cpu":
        return None
    return device_count(training, max(1, len(dataset.train)))


EXAMPLES = 8
"""Number of training frames, spread over the set, from which the normalisation of a fresh network is computed."""
EXAMPLE_PAIRS = 2**20
"""Number of pairs beyond which fewer frames are taken."""


class Others(NamedTuple):
    """What a new network learns beside."""

    imports: tuple[Import, ...]
    """Potentials among the terms of the model."""
    predicted: Sequence[Structure]
    """Training and validation frames with the predictions of these potentials, see ``imported.predictions``; empty without
    any."""
    subtracted: Method | None
    """Method that is subtracted from the labels."""


def from_scratch(config: TrainConfig, out: Path, resume: bool) -> Beginning:
    """Prepare a run in the folder ``out`` that starts from random parameters.

    Raises:
        ValueError: data and config do not fit, a model without parameters, or a method or a potential that cannot be used.
    """
    open_model = config.model if isinstance(config.model, FromData) else None
    config = with_heads(config if open_model is None else dataclasses.replace(config, model=MACE(**open_model.given)))
    given = term_of(config)
    subtraction = subtraction_of(config.data, out)
    term, imports = resolve(given, config.dtype)
    config = dataclasses.replace(config, model=term)
    levels = load_levels(config, subtraction)
    predicted: Sequence[Structure] = ()
    if imports:
        ((_, sets),) = levels.values()
        devices = device_count(config.training, max(1, len(sets.train)))
        predicted = predictions(imports, Chain((sets.train, sets.valid)), out, resume, devices)
    others = Others(imports, predicted, subtraction.method if subtraction else None)
    dataset = with_levels(config, levels, others)
    found = checkpoint.newest(out / "checkpoints") if resume else None
    config, notes = choose(config, dataset, tuning=False, begun=begun_with(found))
    if open_model is not None:
        model, note = default_model(
            dataset, open_model, config.training, processors(config.training, dataset), model_begun_with(found)
        )
        config, notes = with_heads(dataclasses.replace(config, model=model)), (note, *notes)
        given = term_of(config)
    # Some terms end at a distance that depends on the elements.
    config = with_cutoff(with_elements(config, dataset), dataset)
    require_frames(config, dataset)
    frames = prepare_sets(dataset, term_of(config))
    hashes = hash_sets(frames)
    potential = first_potential(config, dataset, frames["train"], hashes["train"], others)
    if not potential.params:
        raise ValueError(
            f"model: {type(config.model).__name__} has no parameters, so that nothing can be trained; add a network"
        )
    beginning = Beginning(
        config, dataset, potential, Trained(potential.params), frames, hashes,
        notes=(*notes_of(others), *notes), imported={part.name: part.sha256 for part in imports},
        checkpoint=found,
    )  # fmt: skip
    # Labels of a Hessian are not less those of the frozen potentials: with any, the whole sum is evaluated in every step.
    if stands_apart(potential.term, imports) and not any(HESSIAN in part.quantities for part in frames.values()):
        rest = without(potential, imports)
        frames, whole = prepare_sets(residuals(dataset, predicted), rest.term), partial(within, potential, imports)
        beginning = dataclasses.replace(beginning, potential=rest, frames=frames, whole=whole)
    return dataclasses.replace(beginning, config=dataclasses.replace(config, model=recorded(given, term_of(config))))


def notes_of(others: Others) -> tuple[str, ...]:
    """Describe for the user what is learned beside."""
    lines = [f"{part.name} is a part of the model, {'frozen' if part.frozen else 'trained'}" for part in others.imports]
    if others.subtracted is not None:
        lines.append(f"labels are those of the data less {others.subtracted.name}, which is added where the potential is used")
    return tuple(lines)


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


def load_levels(config: TrainConfig, subtraction: Subtraction | None) -> dict[str, tuple[Labelled, Sets]]:
    """Load the data of a run, of one level of theory or of several by head, less a method where one is subtracted."""
    term = term_of(config)
    cutoff, needs = term.cutoff or LONGEST, term.needs
    levels = {name: data.also((*term.provides, *term.responses), needs) for name, data in config.data.by_head.items()}
    found = {name: (data, load_sets(data, config.seed, cutoff, needs)) for name, data in levels.items()}
    return found if subtraction is None else subtraction.levels(found, {})[0]


def with_levels(config: TrainConfig, levels: Mapping[str, tuple[Labelled, Sets]], others: Others) -> Dataset:
    """Find E0 of each level of theory and join the levels."""
    count = sum(len(sets.train) for _, sets in levels.values())
    explained = known(others.imports, others.predicted[:count]) if others.imports else None
    found = {name: with_energies(sets, find_energies(data, sets, explained)) for name, (data, sets) in levels.items()}
    return joined(found, tuple(found)) if config.data.heads else found[""]


def with_heads(config: TrainConfig) -> TrainConfig:
    """Return the config with the heads of the data as the heads of the model."""
    term, heads = term_of(config), tuple(config.data.heads)
    return dataclasses.replace(config, model=term.with_heads(heads)) if heads else config


def with_cutoff(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Return the config with a cutoff (Å) chosen for the data if the model has none."""
    term = term_of(config)
    if term.cutoff is not None:
        return config
    cutoff = typical_cutoff(dataset.train)
    # The cutoff of a wall is that of its base, which may reach farther for a term that has its own.
    guarded = isinstance(term, Guarded)
    filled = term.clone(base=term.base.clone(cutoff=cutoff)) if guarded else term.clone(cutoff=cutoff)
    return dataclasses.replace(config, model=filled)


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


def first_potential(config: TrainConfig, dataset: Dataset, frames: Frames, sha256: str, others: Others) -> Potential:
    """Make a potential with random parameters and with constants computed from the training frames.

    Args:
        config: Config with cutoff, elements and heads filled in.
        dataset: Data with isolated-atom energies.
        frames: Training frames.
        sha256: SHA-256 of the training frames.
        others: What the network learns beside: its constants are those of the residuals.
    """
    term = term_of(config)
    counted = term.averaging_cutoff or cutoff_of(term)
    found = frames.found if counted == frames.cutoff else None
    structures = Residual(frames.structures, others.predicted) if others.imports else frames.structures
    stats = statistics(structures, found, counted, dataset.atomic_energies, term.needs)
    examples = [frames.structures[k] for k in example_frames(frames.sizes)]
    graph = pad(examples, cutoff_of(term), extent=frames.extent)
    level = lambda head: config.data.by_head[head].level_of_theory
    metadata = Metadata(
        atomic_energies=energy_table(dataset.atomic_energies),
        level_of_theory="" if dataset.head_energies else level(""),
        training_data=sha256,
        version=equipot.__version__,
        charges=stats.charges,
        spins=stats.spins,
        subtracted=others.subtracted,
        heads=tuple(Head(name, energy_table(energies), level(name)) for name, energies in dataset.head_energies.items()),
    )
    metadata = with_origin(metadata, others.imports) if others.imports else metadata
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
    potential = with_variables(potential, others.imports)
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
        some = evenly(len(sizes), count)
        if sizes[some, 0].sum() * sizes[some, 1].max() <= EXAMPLE_PAIRS:
            break
    return some.tolist()
