"""Contents of a training run before its first step: config, data, potential and the parameters to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from equipot.data.draw import Replayed
from equipot.data.loader import Frames, prepare, sha256_of
from equipot.data.read import Dataset, Sets
from equipot.extent import extent_of
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Term, cutoff_of
from equipot.training.checkpoint import Checkpoint
from equipot.training.config import TrainConfig, TrainingConfig
from equipot.uncertainty.calibration import FEWEST


class Trained(NamedTuple):
    """The parameters that the optimiser changes."""

    params: Mapping[str, Any]
    """Trained part of the potential's parameters, with adapters in place of some matrices: see ``merge.merge``."""
    rates: Mapping[str, Any] | None = None
    """Factor on the learning rate for each array of ``params``; None where all factors are one."""
    adapted: int = 0
    """Number of arrays that are trained through adapters."""


@dataclass(frozen=True)
class Base:
    """The potential that a fine-tuning started from."""

    name: str
    """File or published name."""
    sha256: str
    """SHA-256 of the term, the metadata and every variable of the potential."""
    before: Mapping[str, dict[str, float]]
    """Error table of the base for each set in the report, by the name of the set."""
    sets: Mapping[str, Sequence[Structure]]
    """Sets in the report besides the validation and test sets, by name."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """A training run before its first step."""

    config: TrainConfig
    """Config with all settings that are left to the data filled in."""
    dataset: Dataset
    potential: Potential
    trained: Trained
    frames: Mapping[str, Frames]
    """Frames of the sets ``train`` and ``valid``."""
    hashes: Mapping[str, str]
    """SHA-256 of the frames of each set."""
    replay: Replayed | None = None
    base: Base | None = None
    notes: tuple[str, ...] = ()
    """Messages printed before the first step."""
    imported: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the potentials among the terms of the model, by name."""
    checkpoint: Checkpoint | None = None
    """Newest checkpoint of a run that is resumed; None for a run that begins."""
    whole: Callable[[Potential], Potential] | None = None
    """Function from the trained potential to the one to be saved, where they differ: ``frames`` are then residuals."""

    @property
    def count(self) -> int:
        """Number of training frames, without the replayed frames."""
        return len(self.dataset.train) - (self.replay.pool if self.replay else 0)


def require_frames(config: TrainConfig, sets: Sets | Dataset) -> None:
    """Check that a run has the frames that its config needs.

    Raises:
        ValueError: there are no training frames, or no validation frames although patience or schedule depends on these.
    """
    if not len(sets.train):
        raise ValueError("the training set is empty; look at data.train, data.valid and data.limit")
    training = config.training
    if training.uncertainty is not None and len(sets.valid) < FEWEST:
        raise ValueError(
            f"training.uncertainty is calibrated on the validation frames, and there are {len(sets.valid)}: give at least "
            f"{FEWEST} by data.valid, 100 for intervals of 90% that hold to 3 points"
        )
    if not len(sets.valid) and (training.patience is not None or training.schedule.follows_validation):
        schedule = f"the schedule {type(training.schedule).__name__}"
        reader = "training.patience" if training.patience is not None else schedule
        raise ValueError(f"{reader} waits for the validation loss, but there are no validation frames; set data.valid")


def prepare_sets(dataset: Dataset, term: Term) -> dict[str, Frames]:
    """Find the neighbours within the cutoff of the training and validation frames, and check that the term applies to them.

    Raises:
        ValueError: a frame that the term does not apply to, or training data without labels that the term is learned from.
    """
    sets = {"train": dataset.train, "valid": dataset.valid}
    for structures in (*sets.values(), dataset.test):
        for k in range(len(structures)):
            term.check(structures[k])
            if structures[k].field.any() and "field" not in term.needs:
                raise ValueError(
                    f"{structures[k].name}: is in an electric field, which the model does not see; take a model with "
                    "Electrostatics, or leave the frame out"
                )
    extent = lambda structures: extent_of(structures, term.longest_wave)
    make = lambda structures: prepare(structures, cutoff_of(term), term.inner_cutoffs, extent=extent(structures))
    found = {name: make(structures) for name, structures in sets.items()}
    wanted = term.learns_from
    if wanted and not set(wanted) & set(found["train"].quantities):
        names = " or ".join(row.name for row in wanted)
        raise ValueError(
            f"model: {type(term).__name__} learns from labels of {names}, and the training data have none; name them by "
            f"data.keys.others ({wanted[0].name}: NAME), or choose charges that flow (Flows) or equilibrate (Equilibrated)"
        )
    return found


def hash_sets(frames: Mapping[str, Frames]) -> dict[str, str]:
    """Compute the SHA-256 of every set, by which a resumed run recognises its data."""
    return {name: sha256_of(part.structures) for name, part in frames.items()}


def energy_table(energies: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """Write E0 (eV by Z) in the form of the metadata: sorted (Z, eV)."""
    return tuple(sorted((int(z), float(energy)) for z, energy in energies.items()))


def device_count(settings: TrainingConfig, frames: int) -> int:
    """Choose the number of local devices that a batch of a set with ``frames`` frames is spread over.

    Raises:
        ValueError: ``settings.devices`` exceeds the number of local devices.
    """
    there = jax.local_device_count()
    if settings.devices is not None and settings.devices > there:
        raise ValueError(f"training.devices {settings.devices}: JAX has only {there} here; leave it out to use all")
    return min(settings.devices or there, settings.batch_size or frames, frames)
