"""The data of a fine-tuning: frames to learn, frames of the base's level of theory to remember, and how they are mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from equipot.data.heads import frames_by_head, joined, label, with_head
from equipot.data.loader import Replayed, sha256_of
from equipot.data.read import Dataset, Sets, load_sets, load_source, with_energies
from equipot.data.split import Chain, Rezeroed, Scaled, Subset, split
from equipot.data.stats import AtomicEnergies
from equipot.finetune.baseline import Baseline, unpack
from equipot.finetune.origin import Origin
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.training.beginning import require_frames
from equipot.training.config import TrainConfig


class TuningData(NamedTuple):
    """The frames of a fine-tuning as they were read."""

    sets: Mapping[str, Sets]
    """By head, whose name is empty where there is only one level of theory."""
    replay: Sequence[Structure]
    """Frames of the base's level of theory to train on."""
    watched: Mapping[str, Sequence[Structure]]
    """Frames of the base's level of theory to compare the result with the base on: held out of the replay, and data.forget."""


class Mixture(NamedTuple):
    """The frames of a fine-tuning as it trains on them, with energies counted from the E0 of the result or of their head."""

    dataset: Dataset
    """The frames to replay stand behind those to learn."""
    replay: Replayed | None
    compared: Mapping[str, Sequence[Structure]]
    """Sets that the report compares the result with the base on, besides validation and test."""


def read_data(config: TrainConfig, origin: Origin) -> TuningData:
    """Read and check everything that a fine-tuning needs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong with the data, with the key of the config.
    """
    base = origin.base
    levels = {name: data.also(base.provides) for name, data in config.data.by_head.items()}
    sets = {name: load_sets(data, config.seed, base.cutoff, base.term.needs) for name, data in levels.items()}
    for part in sets.values():
        require_frames(config, part)
    replay, watched = read_others(config, origin.heads.get(config.model.head or "", base))
    return TuningData(sets, replay, watched)


def read_others(config: TrainConfig, base: Potential) -> tuple[Sequence[Structure], dict[str, Sequence[Structure]]]:
    """Read the frames of the base's level of theory: those to replay and those to watch.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong with them, with the key of the config, or elements that the base does not know.
    """
    settings, replay, watched = config.data.replay, (), {}
    if settings is not None:
        frames = load_source(settings.also(base.provides), base.cutoff, "data.replay", settings.labels == "file")
        try:
            train, held = split(len(frames), settings.valid, None, config.seed)
        except ValueError as error:
            raise ValueError(f"data.replay: {error}") from None
        replay, watched["replay"] = Subset(frames, train), Subset(frames, held)
    for name, source in config.data.forget.items():
        watched[name] = load_source(source, base.cutoff, f"data.forget.{name}")
    for frames in (replay, *watched.values()):
        base.check(frames)
    return replay, watched


def hashes(data: TuningData) -> list[str]:
    """SHA-256 of every set, as it was read."""
    here = [frames for part in data.sets.values() for frames in (part.train, part.valid, part.test)]
    return [sha256_of(frames) for frames in (*here, data.replay, *data.watched.values())]


def labels_itself(config: TrainConfig) -> bool:
    """Tell whether the base labels the frames to replay."""
    return config.data.replay is not None and config.data.replay.labels == "base"


def relabelled(data: TuningData, labels: Mapping[str, np.ndarray], rows: Sequence[Quantity]) -> TuningData:
    """Give the frames to replay, and those held out of them, the labels of ``baseline.pack``; without any, change nothing."""
    if not labels:
        return data
    frames = unpack(Chain((data.replay, data.watched["replay"])), labels, rows)
    train, held = frames[: len(data.replay)], frames[len(data.replay) :]
    return data._replace(replay=train, watched={**data.watched, "replay": held})


def changes_of(energies: Mapping[str, AtomicEnergies], origin: Origin, head: str) -> dict[int, float]:
    """New E0 of a head less those of what it begins as, eV by Z; none for a head whose level of theory has no data here."""
    old = origin.isolated_atom_energies(head)
    return {z: energy - old.get(z, 0.0) for z, energy in energies[head].energies.items()} if head in energies else {}


def mix(config: TrainConfig, origin: Origin, data: TuningData, baseline: Baseline) -> Mixture:
    """Put the frames to replay behind those to learn, all counted from the E0 that the result will have."""
    energies, heads, theirs = baseline.energies, tuple(origin.heads), config.model.head or ""
    parts = {name: with_energies(part, energies[name]) for name, part in data.sets.items()}
    dataset = joined(parts, heads) if config.data.heads else parts[""]

    def counted(frames: Sequence[Structure]) -> Sequence[Structure]:
        """Count energies of frames of the base's level of theory as those of the run are counted."""
        if not config.data.heads:
            return Rezeroed(frames, changes_of(energies, origin, theirs))
        return with_head(frames, heads.index(theirs), origin.isolated_atom_energies(theirs))

    compared = {label("training", n): frames for n, frames in zip(data.sets, frames_by_head(dataset, "train"), strict=True)}
    compared |= {name: counted(frames) for name, frames in data.watched.items()}
    settings = config.data.replay
    if settings is None:
        return Mixture(dataset, None, compared)
    wanted = round(len(dataset.train) * settings.share / (1 - settings.share))
    behind = Scaled(counted(data.replay), settings.weight)
    both = dataclasses.replace(dataset, train=Chain((dataset.train, behind)))
    replay = Replayed(len(data.replay), min(max(1, wanted), len(data.replay)))
    return Mixture(both, replay, compared)
