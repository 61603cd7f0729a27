"""Prepare a fine-tuning, stage by stage: extend the base potential, choose parameters, mix data, find E0."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

import equipot
from equipot.data.closest import closest_distances
from equipot.data.compositions import compositions
from equipot.finetune.atomic_energies import short
from equipot.finetune.baseline import Baseline, recalled
from equipot.finetune.data import Mixture, TuningData, mix, read_data, relabelled, with_replay
from equipot.finetune.elements import choose_parents, extend, species_axes
from equipot.finetune.measurement import check_energies, key_of, measure
from equipot.finetune.origin import Origin, load_origin
from equipot.finetune.scale import check_scale, scaled
from equipot.finetune.trainable import trainable
from equipot.metadata import Head
from equipot.models.heads import in_heads, join
from equipot.physics.guard import is_guarded, lowered
from equipot.potential import Potential
from equipot.training import checkpoint
from equipot.training.beginning import Base, Beginning, Trained, energy_table, hash_sets, prepare_sets
from equipot.training.choices import begun_with, choose
from equipot.training.config import FineTune, TrainConfig
from equipot.training.console import errors_text
from equipot.training.errors import predicted_quantities


def from_base(config: TrainConfig, out: Path, resume: bool) -> Beginning:
    """Prepare a run in the folder ``out`` that starts from the potential that ``model.from`` names.

    Raises:
        ValueError: potential, data and config do not fit.
        FileNotFoundError: no such potential or data.
    """
    origin = load_origin(config)
    data = read_data(config, origin, out)
    potential = extended(config, origin, data)
    trained = chosen(config, potential)
    check_energies(config, origin, data)
    if config.model.scale == "refit":
        check_scale(potential, config.model.from_)
    baseline = recalled(out, key_of(config, origin, data), resume, lambda: measure(config, origin, potential, data))
    data = relabelled(with_replay(data, baseline.replayed), baseline.labels, predicted_quantities(potential))
    mixture = mix(config, origin, data, baseline)
    found = checkpoint.newest(out / "checkpoints") if resume else None
    config, choices = choose(config, mixture.dataset, tuning=True, replay=mixture.replay, begun=begun_with(found))
    frames = prepare_sets(mixture.dataset, potential.term)
    digests = hash_sets(frames)
    potential = with_metadata(scaled(potential, baseline.scale), config, origin, baseline, digests["train"])
    notes = (*notes_of(config, origin, mixture, baseline), *baseline.notes, *choices)
    base = Base(config.model.from_, origin.sha256, baseline.before, mixture.compared)
    dataset = mixture.dataset
    return Beginning(config, dataset, potential, trained, frames, digests, mixture.replay, base, notes, checkpoint=found)


def extended(config: TrainConfig, origin: Origin, data: TuningData) -> Potential:
    """Add the heads, the elements, the charges and the spins of the data to the base, and keep its wall, if any, below the
    distances in the data.

    A base whose charges are not recorded counts as trained on neutral singlets.

    Raises:
        ValueError: new elements without a choice in the config, or a term that cannot be extended.
    """
    present = sorted({z for part in data.sets.values() for z in compositions(part.train).elements})
    parents = choose_parents(origin.base.elements, present, config.model.elements, config.model.from_)
    potential = extend(join(origin.heads) if config.data.heads else origin.base, parents)
    states = {(s.charge, s.spin) for part in data.sets.values() for s in part.train if s.geometry_weight}
    charges, spins = ({state[k] for state in states} for k in range(2))
    old = potential.metadata if potential.metadata.charges else potential.metadata.trained_on([0.0], [0.0])
    potential = potential.replace(metadata=old.trained_on(charges, spins))
    if not is_guarded(potential.term):
        return potential
    frames = [*(part.train for part in data.sets.values()), data.replay]
    found = [closest_distances(some, potential.cutoff) for some in frames]
    return lowered(potential, np.min(found, axis=0))


def chosen(config: TrainConfig, potential: Potential) -> Trained:
    """Choose the parameters to train, see ``trainable``."""
    assert isinstance(config.model, FineTune)
    found = species_axes(potential.term) if config.model.adapters else {}
    if config.model.adapters and potential.heads:
        found |= {path: 0 for path in flatten_dict(potential.variables, sep="/") if in_heads(path)}
    axes = {path.removeprefix("params/"): axis for path, axis in found.items() if axis is not None}
    return trainable(potential.params, config.model, axes, jax.random.key(config.seed))


def with_metadata(
    potential: Potential, config: TrainConfig, origin: Origin, baseline: Baseline, training_data: str
) -> Potential:
    """Write E0, origin and the SHA-256 ``training_data`` into the metadata; licence and citation stay those of the base."""
    old, refit = potential.metadata, config.model.atomic_energies == "refit"
    heads = []
    for name, start in origin.heads.items():
        trained = name in baseline.energies
        energies = baseline.energies[name].energies if trained else origin.isolated_atom_energies(name)
        level = config.data.by_head[name].level_of_theory if name in config.data.by_head else ""
        level = level or ("" if trained and refit else start.metadata.level_of_theory)
        heads.append(Head(name, energy_table(energies), level))
    metadata = dataclasses.replace(
        old,
        training_data=training_data,
        version=equipot.__version__,
        dtype="",
        subtracted=origin.subtracted,
        extra=(*old.extra, ("fine-tuned from", f"{config.model.from_} (SHA-256 {origin.sha256})")),
    )
    if potential.heads:
        return potential.replace(metadata=dataclasses.replace(metadata, heads=tuple(heads)))
    (only,) = heads
    return potential.replace(
        metadata=dataclasses.replace(metadata, atomic_energies=only.atomic_energies, level_of_theory=only.level_of_theory)
    )


def notes_of(config: TrainConfig, origin: Origin, mixture: Mixture, baseline: Baseline) -> tuple[str, ...]:
    """Describe the base for the user: elements, heads, errors, frames that are replayed."""
    base = origin.base
    lines = [f"base {config.model.from_}: {type(base.term).__name__} for {short(base.elements)}"]
    if config.data.heads:
        old = base.heads or ((config.model.head,) if config.model.head else ())
        lines.append("heads: " + ", ".join(f"{name} ({'of the base' if name in old else 'new'})" for name in origin.heads))
    if origin.subtracted is not None:
        lines.append(f"{config.model.from_} is a correction to {origin.subtracted.name}, which is subtracted from the data")
    lines += [f"base on {name}: {errors_text(table, predicted_quantities(base))}" for name, table in baseline.before.items()]
    if mixture.replay is not None:
        lines.append(f"replay: {mixture.replay.drawn} of {mixture.replay.pool} frames in every epoch")
    return tuple(lines)
