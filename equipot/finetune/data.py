"""Data of a fine-tuning: new training frames, replayed frames of the base's level of theory, and their mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equipot.data.config import Labelled, Source
from equipot.data.draw import Replayed
from equipot.data.heads import frames_by_head, joined, label, with_head
from equipot.data.loader import sha256_of
from equipot.data.method import CALCULATORS, start
from equipot.data.packed import unpack
from equipot.data.read import Dataset, Sets, load_sets, load_source, with_energies
from equipot.data.split import Chain, Rezeroed, Scaled, Subset, split
from equipot.data.stats import AtomicEnergies
from equipot.data.subtract import Subtraction, subtraction_of
from equipot.finetune.baseline import Baseline
from equipot.finetune.origin import Origin
from equipot.metadata import Method
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.training.beginning import require_frames
from equipot.training.config import TrainConfig

REPLAY = "replayed frames"
"""Name of the frames to replay beside watched sets, none of which can have it."""


class TuningData(NamedTuple):
    """Frames of a fine-tuning with the energies of the files, less the method that the base is a correction to."""

    levels: Mapping[str, Labelled]
    """Settings of the data by head, with what is left of E0 in them where a method is subtracted; the name of a single head is
    empty."""
    sets: Mapping[str, Sets]
    """Sets by head."""
    replay: Sequence[Structure]
    """Frames of the base's level of theory to replay in training."""
    watched: Mapping[str, Sequence[Structure]]
    """Frames of the base's level of theory on which result and base are compared: those held out of the replay, and
    ``data.forget``."""


class Mixture(NamedTuple):
    """Frames of a fine-tuning, with energies relative to E0 of the result."""

    dataset: Dataset
    """Sets of the run; in ``train``, replayed frames follow the new ones."""
    replay: Replayed | None
    """Number of replayed frames in all and in an epoch."""
    compared: Mapping[str, Sequence[Structure]]
    """Sets on which the report compares result and base, besides validation and test."""


def read_data(config: TrainConfig, origin: Origin, out: Path) -> TuningData:
    """Read and check all frames of a fine-tuning.

    Args:
        out: folder of the run, for the results of the method that the base is a correction to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, errors in the data, or a method that is not that of the base or that cannot be
            run; the message names the key of the config.
    """
    base, subtraction = origin.base, subtraction_of_base(config, origin.subtracted, out)
    levels = {name: data.also(base.provides, base.term.needs) for name, data in config.data.by_head.items()}
    sets = {name: load_sets(data, config.seed, base.cutoff, base.term.needs) for name, data in levels.items()}
    for part in sets.values():
        require_frames(config, part)
    replay, watched = read_others(config, origin.heads.get(config.model.head or "", base))
    if subtraction is None:
        return TuningData(levels, sets, replay, watched)
    found, others = subtraction.levels({name: (levels[name], sets[name]) for name in sets}, {**watched, REPLAY: replay})
    changed, less = ({name: both[0] for name, both in found.items()}, {name: both[1] for name, both in found.items()})
    return TuningData(changed, less, others.pop(REPLAY), others)


def subtraction_of_base(config: TrainConfig, method: Method | None, out: Path) -> Subtraction | None:
    """Return the subtraction of the method that a base is a correction to; None for a base that is none.

    Raises:
        ValueError: ``data.subtract`` is another method, or is needed to say what may be run.
    """
    given = subtraction_of(config.data, out)
    told = "nothing" if method is None else method.name
    if given is not None:
        if method is None or (given.method.calculator, given.method.options) != (method.calculator, method.options):
            raise ValueError(
                f"data.subtract: {given.method.name} is to be subtracted, but {told} was from what {config.model.from_} was "
                "trained on; leave it out, or train from random parameters"
            )
        return given
    if method is not None and method.calculator not in CALCULATORS:
        raise ValueError(
            f"{config.model.from_} is a correction to {method.name}; set data.subtract to that calculator and its options, "
            "since code that a file names is not run without being asked for"
        )
    return None if method is None else Subtraction(start(method, config.model.from_), out)


def read_others(config: TrainConfig, base: Potential) -> tuple[Sequence[Structure], dict[str, Sequence[Structure]]]:
    """Read the frames of the base's level of theory: those to replay, and by name those on which forgetting is measured.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, errors in the data, or elements that the base does not know.
    """
    settings = config.data.replay
    replay: Sequence[Structure] = ()
    watched: dict[str, Sequence[Structure]] = {}
    if settings is not None:
        frames = load_source(
            settings.also(base.provides, base.term.needs), base.cutoff, "data.replay", settings.labels == "file"
        )
        try:
            train, held = split(len(frames), settings.valid, None, config.seed)
        except ValueError as error:
            raise ValueError(f"data.replay: {error}") from None
        replay, watched["replay"] = Subset(frames, train), Subset(frames, held)
    for name, source in config.data.forget.items():
        reading = source if isinstance(source, Source) else Source(files=source)
        watched[name] = load_source(reading.also(base.provides, base.term.needs), base.cutoff, f"data.forget.{name}")
    for frames in (replay, *watched.values()):
        base.check(frames)
    return replay, watched


def hashes(data: TuningData) -> list[str]:
    """Compute the SHA-256 of every set, with the energies of the files."""
    here = [frames for part in data.sets.values() for frames in (part.train, part.valid, part.test)]
    return [sha256_of(frames) for frames in (*here, data.replay, *data.watched.values())]


def labels_itself(config: TrainConfig) -> bool:
    """Whether the base labels the frames to replay."""
    return config.data.replay is not None and config.data.replay.labels == "base"


def with_replay(data: TuningData, chosen: np.ndarray | None) -> TuningData:
    """Keep the frames to replay at the indices ``chosen``; None keeps all."""
    return data if chosen is None else data._replace(replay=Subset(data.replay, chosen))


def relabelled(data: TuningData, labels: Mapping[str, np.ndarray], rows: Sequence[Quantity]) -> TuningData:
    """Give the replayed and held-out frames the labels of ``baseline.pack``; without labels, return ``data``."""
    if not labels:
        return data
    frames = unpack(Chain((data.replay, data.watched["replay"])), labels, rows)
    train, held = frames[: len(data.replay)], frames[len(data.replay) :]
    return data._replace(replay=train, watched={**data.watched, "replay": held})


def changes_of(energies: Mapping[str, AtomicEnergies], origin: Origin, head: str) -> dict[int, float]:
    """Compute new E0 of a head less those of the potential it starts from, eV by Z; empty for a head without data."""
    old = origin.isolated_atom_energies(head)
    return {z: energy - old.get(z, 0.0) for z, energy in energies[head].energies.items()} if head in energies else {}


def mix(config: TrainConfig, origin: Origin, data: TuningData, baseline: Baseline) -> Mixture:
    """Append the replayed frames to the training set, with all energies relative to E0 of the result."""
    energies, heads, theirs = baseline.energies, tuple(origin.heads), config.model.head or ""
    parts = {name: with_energies(part, energies[name]) for name, part in data.sets.items()}
    dataset = joined(parts, heads) if config.data.heads else parts[""]

    def counted(frames: Sequence[Structure]) -> Sequence[Structure]:
        """Convert energies of the base's level of theory to the convention of the run."""
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
