"""What a fine-tuning begins with: an existing potential made ready for its data, and data beside its own against forgetting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import equipot
from equipot import config as configs
from equipot import library
from equipot.data.loader import Replayed, sha256_of
from equipot.data.read import Dataset, Sets, load_sets, load_source, with_energies
from equipot.data.split import Chain, Rezeroed, Scaled, Subset, split
from equipot.data.stats import AtomicEnergies, compositions
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.training import checkpoint
from equipot.training.adapt import Trained, trainable
from equipot.training.config import TrainConfig
from equipot.training.console import errors_text
from equipot.training.evaluate import Table, error_table, evaluate_sets
from equipot.training.extend import choose_parents, extend, species_axes
from equipot.training.level import Level, energies_of_level, short
from equipot.training.measured import Measured, pack, remembered, unpack
from equipot.training.start import Base, Beginning, device_count, need_frames, prepare_sets


class Others(NamedTuple):
    """Frames of the base's level of theory."""

    replay: Sequence[Structure]
    """To train on."""
    watched: Mapping[str, Sequence[Structure]]
    """To compare the result with the base on: what is held out of the replay, and data.forget."""


def from_base(config: TrainConfig, out: Path, resume: bool) -> Beginning:
    """The potential that the config names, for its data.

    Raises:
        ValueError: potential, data and config do not fit.
        FileNotFoundError: no such potential or data.
    """
    model = config.model
    base = library.load(model.from_, config.dtype)
    sha256 = fingerprint(base)
    sets = load_sets(config.data, config.seed, base.cutoff, base.term.depends_on)
    need_frames(config, sets)
    parents = choose_parents(base.elements, compositions(sets.train)[2], model.elements, model.from_)
    potential = extend(base, parents)
    trained = adapted(config, potential)
    others = load_others(config, base)
    # With nothing explained, for its errors: what the config lacks shows before the base is asked.
    level(config, sets, base, np.zeros(len(sets.train)))
    asked = [model.atomic_energies, model.elements, config.data.atomic_energies, labels_itself(config)]
    key = json.dumps([sha256, asked, hashes(sets, others)])
    measured = remembered(out, key, resume, lambda: measure(config, base, potential, sets, others))
    others, found = with_labels(others, measured.labels), measured.energies
    changes = changes_of(found, base)
    dataset, replay = mixed(config, with_energies(sets, found), others.replay, changes)
    frames = prepare_sets(dataset, potential.cutoff)
    potential = with_metadata(potential, config, found.energies, frames["train"].sha256, sha256)
    watched = {name: Rezeroed(held, changes) for name, held in others.watched.items()}
    notes = (*describe(config, base, replay, measured.before), *measured.notes)
    origin = Base(model.from_, sha256, measured.before, {"training": sets.train, **watched}, notes)
    return Beginning(config, dataset, potential, trained, frames, replay, origin)


def fingerprint(potential: Potential) -> str:
    """SHA-256 of the term, the metadata and every number of a potential, wherever it was loaded from."""
    text = json.dumps([configs.dump(potential.term), dataclasses.asdict(potential.metadata)], sort_keys=True)
    return checkpoint.digest({k: np.asarray(v) for k, v in checkpoint.named_leaves(potential.variables).items()}, text)


def adapted(config: TrainConfig, potential: Potential) -> Trained:
    """What is trained of the potential."""
    found = species_axes(potential.term) if config.model.adapters else {}
    axes = {path.removeprefix("params/"): axis for path, axis in found.items() if axis is not None}
    return trainable(potential.variables["params"], config.model, axes, jax.random.key(config.seed))


def load_others(config: TrainConfig, base: Potential) -> Others:
    """Replayed and watched frames.

    Raises:
        ValueError: what is wrong with them, with the key of the config.
    """
    settings, replay, watched = config.data.replay, (), {}
    if settings is not None:
        frames = load_source(settings, base.cutoff, "data.replay", settings.labels == "file")
        try:
            train, held = split(len(frames), settings.valid, None, config.seed)
        except ValueError as error:
            raise ValueError(f"data.replay: {error}") from None
        replay, watched["replay"] = Subset(frames, train), Subset(frames, held)
    for name, source in config.data.forget.items():
        watched[name] = load_source(source, base.cutoff, f"data.forget.{name}")
    for frames in (replay, *watched.values()):
        base.check(frames)
    return Others(replay, watched)


def hashes(sets: Sets, others: Others) -> list[str]:
    """SHA-256 of every set, as it was read."""
    return [sha256_of(frames) for frames in (sets.train, sets.valid, sets.test, others.replay, *others.watched.values())]


def level(config: TrainConfig, sets: Sets, base: Potential, explained: np.ndarray) -> Level:
    """E0 of the data's level of theory, see ``energies_of_level``."""
    old = dict(base.metadata.atomic_energies)
    return energies_of_level(config.data, sets, old, config.model.atomic_energies == "refit", explained)


def measure(config: TrainConfig, base: Potential, potential: Potential, sets: Sets, others: Others) -> Measured:
    """The base's errors, with E0 of the data's level of theory for data of that level; ``potential`` knows new elements too."""
    here = {"training": sets.train, "validation": sets.valid, "test": sets.test}
    everything = {**here, **others.watched, **({"replayed": others.replay} if labels_itself(config) else {})}
    devices = device_count(config.training, len(sets.train))
    found = evaluate_sets(potential, everything, config.training.valid_batch_size, devices)
    energies, notes = level(config, sets, base, np.array([s.energy for s in found["training"][1]]))
    changes = changes_of(energies, base)
    before = {name: table for name, (table, _) in found.items()}
    for name in (name for name in here if name in found):
        before[name] = error_table(here[name], list(Rezeroed(found[name][1], changes)))
    labels: dict[str, np.ndarray] = {}
    if labels_itself(config):
        held = found["replay"][1] if "replay" in found else []
        labels = pack([*found["replayed"][1], *held])
        before |= {"replay": error_table(held, held)} if held else {}
    before.pop("replayed", None)
    return Measured(energies, notes, before, labels)


def labels_itself(config: TrainConfig) -> bool:
    """Whether the base labels the replayed frames."""
    return config.data.replay is not None and config.data.replay.labels == "base"


def changes_of(energies: AtomicEnergies, base: Potential) -> dict[int, float]:
    """New E0 less those of the base, eV by Z."""
    old = dict(base.metadata.atomic_energies)
    return {z: energy - old.get(z, 0.0) for z, energy in energies.energies.items()}


def with_labels(others: Others, labels: Mapping[str, np.ndarray]) -> Others:
    """The replayed frames with labels of the base, where it labels them."""
    if not labels:
        return others
    frames = unpack(Chain((others.replay, others.watched["replay"])), labels)
    train, held = frames[: len(others.replay)], frames[len(others.replay) :]
    return Others(train, {**others.watched, "replay": held})


def mixed(
    config: TrainConfig, dataset: Dataset, replay: Sequence[Structure], changes: Mapping[int, float]
) -> tuple[Dataset, Replayed | None]:
    """The training set with the frames to replay behind it, their energies counted from the same E0 as the others'."""
    settings = config.data.replay
    if settings is None:
        return dataset, None
    wanted = round(len(dataset.train) * settings.share / (1 - settings.share))
    behind = Scaled(Rezeroed(replay, changes), settings.weight)
    both = dataclasses.replace(dataset, train=Chain((dataset.train, behind)))
    return both, Replayed(len(replay), min(max(1, wanted), len(replay)))


def with_metadata(potential: Potential, config: TrainConfig, energies: Mapping[int, float], data: str, base: str) -> Potential:
    """The potential with E0 and origin of what it will be; licence and citation stay those of the base."""
    old = potential.metadata
    refit = config.model.atomic_energies == "refit"
    metadata = dataclasses.replace(
        old,
        atomic_energies=tuple(sorted((int(z), float(energy)) for z, energy in energies.items())),
        level_of_theory="" if refit else old.level_of_theory,
        training_data=data,
        version=equipot.__version__,
        dtype="",
        extra=(*old.extra, ("fine-tuned from", f"{config.model.from_} (SHA-256 {base})")),
    )
    return potential.replace(metadata=metadata)


def describe(config: TrainConfig, base: Potential, replay: Replayed | None, before: Mapping[str, Table]) -> tuple[str, ...]:
    """What there is to say of the base: its elements, its errors, the frames that are replayed."""
    lines = [f"base {config.model.from_}: {type(base.term).__name__} for {short(base.elements)}"]
    lines += [f"base on {name}: {errors_text(table, '')}" for name, table in before.items()]
    if replay is not None:
        lines.append(f"replay: {replay.drawn} of {replay.pool} frames in every epoch")
    return tuple(lines)
