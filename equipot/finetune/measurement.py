"""Evaluate the base of a fine-tuning on the data: errors, E0 for the data's levels of theory, labels of the replay."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from equipot.data.config import KINDS
from equipot.data.heads import label
from equipot.data.packed import pack
from equipot.data.split import Chain, Cleared, Headed, Rezeroed, Subset, evenly
from equipot.finetune.atomic_energies import Refitted, refit_energies
from equipot.finetune.baseline import Baseline
from equipot.finetune.data import TuningData, changes_of, hashes, labels_itself, with_replay
from equipot.finetune.farthest import EXAMPLES, environments, farthest
from equipot.finetune.origin import Origin
from equipot.finetune.scale import LIMITS, force_scale
from equipot.potential import Potential
from equipot.quantities import HESSIAN
from equipot.structure import Structure
from equipot.training.beginning import device_count
from equipot.training.config import TrainConfig
from equipot.training.errors import error_table, evaluate_sets


def key_of(config: TrainConfig, origin: Origin, data: TuningData) -> str:
    """Write everything that a baseline depends on as JSON text."""
    model, levels = config.model, config.data.by_head.values()
    asked = [model.atomic_energies, model.elements, [level.atomic_energies for level in levels], list(origin.heads)]
    most = [config.data.replay.most] if config.data.replay and config.data.replay.most else []
    width = None if model.electrons is None else model.electrons.width
    return json.dumps([origin.sha256, *asked, model.scale, model.head, width, labels_itself(config), hashes(data), *most])


def level_energies(config: TrainConfig, origin: Origin, data: TuningData, head: str, explained: np.ndarray) -> Refitted:
    """Find E0 of the level of theory of a head.

    Args:
        explained: (frames,) total energies of the training frames predicted by the base, eV.
    """
    refit = config.model.atomic_energies == "refit"
    return refit_energies(data.levels[head], data.sets[head], origin.isolated_atom_energies(head), refit, explained)


def check_energies(config: TrainConfig, origin: Origin, data: TuningData) -> None:
    """Check that E0 can be found for the data, before the base is evaluated.

    Raises:
        ValueError: an element without E0, or a choice in the config without effect.
    """
    for head, part in data.sets.items():
        level_energies(config, origin, data, head, np.zeros(len(part.train)))


def measure(config: TrainConfig, origin: Origin, potential: Potential, data: TuningData) -> Baseline:
    """Evaluate the base on all data; errors on new data are with E0 of the data's level of theory.

    Args:
        potential: the base, extended by new elements and heads.
    """
    replayed = chosen_replay(config, origin, potential, data)
    data = with_replay(data, replayed)
    head_of = {label(kind, name): name for name in data.sets for kind in KINDS}
    head_of |= dict.fromkeys([*data.watched, "replayed"], config.model.head or "")
    everything = {label(kind, name): getattr(part, field) for name, part in data.sets.items() for kind, field in KINDS.items()}
    everything |= {**data.watched, **({"replayed": data.replay} if labels_itself(config) else {})}
    said = predictions(config, origin, potential, everything, head_of, sum(len(part.train) for part in data.sets.values()))
    explained, factor, notes = explained_by(config, origin, data, said)
    levels = {name: level_energies(config, origin, data, name, explained[name]) for name in data.sets}
    energies = {name: found.energies for name, found in levels.items()}
    moved = {name: list(Rezeroed(said[name], changes_of(energies, origin, head_of[name]))) for name in said}
    before = {name: error_table(everything[name], (said if name in data.watched else moved)[name]) for name in said}
    labels: dict[str, np.ndarray] = {}
    if labels_itself(config):
        held = said.get("replay", [])
        labels = pack([*said["replayed"], *held])
        before |= {"replay": error_table(held, held)} if held else {}
    before.pop("replayed", None)
    notes += [f"{name}: {note}" if name else note for name, found in levels.items() for note in found.notes]
    return Baseline(energies, tuple(notes), before, labels, factor, replayed)


def chosen_replay(config: TrainConfig, origin: Origin, potential: Potential, data: TuningData) -> np.ndarray | None:
    """Choose the indices of the frames to replay; None for all.

    Raises:
        ValueError: frames are to be chosen, and the potential has no descriptors.
    """
    settings, training = config.data.replay, Chain(tuple(part.train for part in data.sets.values()))
    if settings is None or settings.most is None or len(data.replay) <= settings.most:
        return None
    place = list(origin.heads).index(config.model.head or "") if potential.heads else None
    some = Subset(training, evenly(len(training), EXAMPLES))
    sets = [frames if place is None else Headed(frames, place) for frames in (data.replay, some)]
    pool, known = (environments(potential, frames, config.training.valid_batch_size) for frames in sets)
    return farthest(pool, known, settings.most)


def explained_by(
    config: TrainConfig, origin: Origin, data: TuningData, said: dict[str, list[Structure]]
) -> tuple[dict[str, np.ndarray], float, list[str]]:
    """Return the total energies (eV) of the training frames of each head predicted by the base, with the factor on its
    interaction energies, that factor, and lines for the user."""
    of_training = {name: said[label("training", name)] for name in data.sets}
    totals = {name: np.array([s.energy for s in found]) for name, found in of_training.items()}
    if config.model.scale == "keep":
        return totals, 1.0, []
    ((name, part),) = data.sets.items()
    factor = force_scale(part.train, of_training[name])
    e0 = origin.isolated_atom_energies(name)
    free = np.array([sum(e0.get(int(z), 0.0) for z in s.numbers) for s in of_training[name]])
    note = f"interaction energies of the base times {factor:.4g}, which fits its forces best"
    if factor == 1:
        note = f"no factor from {LIMITS[0]:g} to {LIMITS[1]:g} fits the forces of the base better: its scale is kept"
    return {name: free + factor * (totals[name] - free)}, factor, [note]


def predictions(
    config: TrainConfig,
    origin: Origin,
    potential: Potential,
    sets: dict[str, Sequence[Structure]],
    head_of: dict[str, str],
    frames: int,
) -> dict[str, list[Structure]]:
    """Predict each nonempty set with the head ``head_of`` the set; total energies include E0 of the base.

    Hessians are predicted of the sets in the report alone, as these have many passes for each frame.
    """
    places = {name: k for k, name in enumerate(origin.heads)}
    reported = lambda name: name not in ("replayed", *(label("training", head) for head in head_of.values()))
    asked = {name: f if reported(name) else Cleared(f, [HESSIAN.name]) for name, f in sets.items()}
    asked = {name: Headed(f, places[head_of[name]]) if potential.heads else f for name, f in asked.items()}
    devices = device_count(config.training, frames)
    found = evaluate_sets(potential, asked, config.training.valid_batch_size, devices)
    # Energies of a potential with heads are counted from the isolated atoms.
    added = {name: origin.isolated_atom_energies(name) if potential.heads else {} for name in origin.heads}
    return {name: list(Rezeroed(predicted, added[head_of[name]])) for name, (_, predicted) in found.items()}
