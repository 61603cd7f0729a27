"""What a fine-tuning begins with: an existing potential made ready for its data, and data beside its own against forgetting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

import equipot
from equipot import artifact, published
from equipot import config as configs
from equipot.data.config import KINDS
from equipot.data.heads import by_level, joined, label, of_level
from equipot.data.loader import Replayed, sha256_of
from equipot.data.read import Dataset, Sets, load_sets, load_source, with_energies
from equipot.data.split import Chain, Headed, Rezeroed, Scaled, Subset, split
from equipot.data.stats import AtomicEnergies, compositions
from equipot.models.heads import in_heads, join
from equipot.potential import Head, Potential
from equipot.structure import Structure
from equipot.training.adapt import Trained, trainable
from equipot.training.config import TrainConfig
from equipot.training.console import errors_text
from equipot.training.evaluate import Table, error_table, evaluate_sets
from equipot.training.extend import choose_parents, extend, species_axes
from equipot.training.level import Level, energies_of_level, short
from equipot.training.measured import Measured, pack, remembered, unpack
from equipot.training.start import Base, Beginning, device_count, need_frames, pairs, prepare_sets


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
    base = published.load(model.from_, config.dtype)
    sha256, bases = fingerprint(base), bases_of(config, base)
    sets = {name: load_sets(data, config.seed, base.cutoff, base.term.needs) for name, data in config.data.levels.items()}
    for part in sets.values():
        need_frames(config, part)
    present = sorted({z for part in sets.values() for z in compositions(part.train).elements})
    parents = choose_parents(base.elements, present, model.elements, model.from_)
    potential = extend(join(bases) if config.data.heads else base, parents)
    trained = adapted(config, potential)
    others = load_others(config, bases.get(model.head or "", base))
    # With nothing explained, for its errors: what the config lacks shows before the base is asked.
    for name, part in sets.items():
        level(config, name, part, bases[name], np.zeros(len(part.train)))
    asked = [model.atomic_energies, model.elements, [d.atomic_energies for d in config.data.levels.values()], list(bases)]
    key = json.dumps([sha256, *asked, model.head, labels_itself(config), hashes(sets, others)])
    measured = remembered(out, key, resume, lambda: measure(config, bases, potential, sets, others))
    others = with_labels(others, measured.labels)
    dataset, replay, watched = mixed(config, bases, sets, others, measured)
    frames = prepare_sets(dataset, potential.cutoff)
    potential = with_metadata(potential, config, bases, measured, frames["train"].sha256, sha256)
    notes = (*describe(config, base, bases, replay, measured.before), *measured.notes)
    origin = Base(model.from_, sha256, measured.before, watched, notes)
    return Beginning(config, dataset, potential, trained, frames, replay, origin)


def bases_of(config: TrainConfig, base: Potential) -> dict[str, Potential]:
    """What each head begins as, by its name, which is empty where there is only one level of theory.

    The heads of the base come first, then new ones in the order of ``data.heads``.

    Raises:
        ValueError: heads of config and base that do not fit.
    """
    model, wanted = config.model, tuple(config.data.heads)
    if not wanted:
        if base.heads:
            choice = f"{model.from_}@{base.heads[0]}"
            raise ValueError(
                f"{model.from_} has the heads {', '.join(base.heads)}: begin with one of them, model.from: {choice}, or give "
                "data.heads with data of each level of theory"
            )
        return {"": base}
    known = {name: base.head(name) for name in base.heads} or ({model.head: base} if model.head else {})
    if base.heads and model.head is not None and model.head not in known:
        raise ValueError(f"model.head: {model.from_} has no head {model.head!r}; its heads are {', '.join(known)}")
    new = [name for name in wanted if name not in known]
    if base.heads and new and model.head is None:
        raise ValueError(f"data.heads: {new[0]} is new; set model.head to what it begins as, one of {', '.join(known)}")
    return known | {name: known.get(model.head, base) for name in new}


def fingerprint(potential: Potential) -> str:
    """SHA-256 of the term, the metadata and every number of a potential, wherever it was loaded from."""
    text = json.dumps([configs.dump(potential.term), dataclasses.asdict(potential.metadata)], sort_keys=True)
    return artifact.digest(text, artifact.named_leaves(potential.variables))


def adapted(config: TrainConfig, potential: Potential) -> Trained:
    """What is trained of the potential."""
    found = species_axes(potential.term) if config.model.adapters else {}
    if config.model.adapters and potential.heads:
        found |= {path: 0 for path in flatten_dict(potential.variables, sep="/") if in_heads(path)}
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


def hashes(sets: Mapping[str, Sets], others: Others) -> list[str]:
    """SHA-256 of every set, as it was read."""
    here = [frames for part in sets.values() for frames in (part.train, part.valid, part.test)]
    return [sha256_of(frames) for frames in (*here, others.replay, *others.watched.values())]


def level(config: TrainConfig, name: str, sets: Sets, base: Potential, explained: np.ndarray) -> Level:
    """E0 of the level of theory of the head ``name``, see ``energies_of_level``."""
    refit = config.model.atomic_energies == "refit"
    return energies_of_level(config.data.levels[name], sets, free(base), refit, explained)


def free(base: Potential) -> dict[int, float]:
    """E0, eV by Z."""
    return dict(base.metadata.atomic_energies)


def measure(
    config: TrainConfig, bases: Mapping[str, Potential], potential: Potential, sets: Mapping[str, Sets], others: Others
) -> Measured:
    """The base's errors, with E0 of the data's levels of theory for data of those levels.

    ``potential`` is what training begins with: it says what the base says, and knows new elements and heads too.
    """
    head_of = {label(kind, name): name for name in sets for kind in KINDS}
    head_of |= dict.fromkeys([*others.watched, "replayed"], config.model.head or "")
    everything = {label(kind, name): getattr(part, field) for name, part in sets.items() for kind, field in KINDS.items()}
    everything |= {**others.watched, **({"replayed": others.replay} if labels_itself(config) else {})}
    places = {name: k for k, name in enumerate(bases)}
    asked = {n: Headed(f, places[head_of[n]]) if potential.heads else f for n, f in everything.items()}
    devices = device_count(config.training, sum(len(part.train) for part in sets.values()))
    found = evaluate_sets(potential, asked, config.training.valid_batch_size, devices)
    # Energies of a potential with heads are counted from the free atoms.
    added = {name: free(base) if potential.heads else {} for name, base in bases.items()}
    said = {name: list(Rezeroed(predicted, added[head_of[name]])) for name, (_, predicted) in found.items()}
    levels = {
        name: level(config, name, part, bases[name], np.array([s.energy for s in said[label("training", name)]]))
        for name, part in sets.items()
    }
    energies = {name: found.found for name, found in levels.items()}
    moved = {name: list(Rezeroed(said[name], changes_of(energies, bases, head_of[name]))) for name in said}
    watched = [name for name in others.watched if name in said]
    before = {name: error_table(everything[name], said[name] if name in watched else moved[name]) for name in said}
    labels: dict[str, np.ndarray] = {}
    if labels_itself(config):
        held = said.get("replay", [])
        labels = pack([*said["replayed"], *held])
        before |= {"replay": error_table(held, held)} if held else {}
    before.pop("replayed", None)
    notes = [f"{name}: {note}" if name else note for name, found in levels.items() for note in found.notes]
    return Measured(energies, tuple(notes), before, labels)


def labels_itself(config: TrainConfig) -> bool:
    """Whether the base labels the replayed frames."""
    return config.data.replay is not None and config.data.replay.labels == "base"


def changes_of(energies: Mapping[str, AtomicEnergies], bases: Mapping[str, Potential], name: str) -> dict[int, float]:
    """New E0 of a head less those of its base, eV by Z; none for a head whose level of theory has no data here."""
    old = free(bases[name])
    return {z: energy - old.get(z, 0.0) for z, energy in energies[name].energies.items()} if name in energies else {}


def with_labels(others: Others, labels: Mapping[str, np.ndarray]) -> Others:
    """The replayed frames with labels of the base, where it labels them."""
    if not labels:
        return others
    frames = unpack(Chain((others.replay, others.watched["replay"])), labels)
    train, held = frames[: len(others.replay)], frames[len(others.replay) :]
    return Others(train, {**others.watched, "replay": held})


def mixed(
    config: TrainConfig, bases: Mapping[str, Potential], sets: Mapping[str, Sets], others: Others, measured: Measured
) -> tuple[Dataset, Replayed | None, dict[str, Sequence[Structure]]]:
    """The data of the run, with the frames to replay behind those to train on; how many of these; and the sets to report on.

    Energies of all are counted from the same E0, with heads from those of their own.
    """
    energies, heads, theirs = measured.energies, tuple(bases), config.model.head or ""
    parts = {name: with_energies(part, energies[name]) for name, part in sets.items()}
    dataset = joined(parts, heads) if config.data.heads else parts[""]

    def counted(frames: Sequence[Structure]) -> Sequence[Structure]:
        """Frames of the base's level of theory."""
        if not config.data.heads:
            return Rezeroed(frames, changes_of(energies, bases, theirs))
        return of_level(frames, heads.index(theirs), free(bases[theirs]))

    sets_of_report = {label("training", n): frames for n, frames in zip(sets, by_level(dataset, "train"), strict=True)}
    sets_of_report |= {name: counted(frames) for name, frames in others.watched.items()}
    settings = config.data.replay
    if settings is None:
        return dataset, None, sets_of_report
    wanted = round(len(dataset.train) * settings.share / (1 - settings.share))
    behind = Scaled(counted(others.replay), settings.weight)
    both = dataclasses.replace(dataset, train=Chain((dataset.train, behind)))
    return both, Replayed(len(others.replay), min(max(1, wanted), len(others.replay))), sets_of_report


def with_metadata(
    potential: Potential, config: TrainConfig, bases: Mapping[str, Potential], measured: Measured, data: str, base: str
) -> Potential:
    """The potential with E0 and origin of what it will be; licence and citation stay those of the base."""
    old, refit = potential.metadata, config.model.atomic_energies == "refit"
    heads = []
    for name, origin in bases.items():
        trained = name in measured.energies
        energies = measured.energies[name].energies if trained else free(origin)
        heads.append(Head(name, pairs(energies), "" if trained and refit else origin.metadata.level_of_theory))
    metadata = dataclasses.replace(
        old,
        training_data=data,
        version=equipot.__version__,
        dtype="",
        extra=(*old.extra, ("fine-tuned from", f"{config.model.from_} (SHA-256 {base})")),
    )
    if potential.heads:
        return potential.replace(metadata=dataclasses.replace(metadata, heads=tuple(heads)))
    (only,) = heads
    told = {"atomic_energies": only.atomic_energies, "level_of_theory": only.level_of_theory}
    return potential.replace(metadata=dataclasses.replace(metadata, **told))


def describe(
    config: TrainConfig, base: Potential, bases: Mapping[str, Potential], replay: Replayed | None, before: Mapping[str, Table]
) -> tuple[str, ...]:
    """What there is to say of the base: its elements, its heads, its errors, the frames that are replayed."""
    lines = [f"base {config.model.from_}: {type(base.term).__name__} for {short(base.elements)}"]
    if config.data.heads:
        old = base.heads or ((config.model.head,) if config.model.head else ())
        lines.append("heads: " + ", ".join(f"{name} ({'of the base' if name in old else 'new'})" for name in bases))
    lines += [f"base on {name}: {errors_text(table, '')}" for name, table in before.items()]
    if replay is not None:
        lines.append(f"replay: {replay.drawn} of {replay.pool} frames in every epoch")
    return tuple(lines)
