"""The section of a training run's config that says what it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

import numpy as np
from ase.data import chemical_symbols

from equipot.config import suggest
from equipot.data.checks.frames import MAX_FORCE, MIN_DISTANCE
from equipot.data.checks.report import SWITCHES
from equipot.data.labels import Keys, Units
from equipot.quantities import Quantity

CHOICES = ("auto", "isolated", "fit")
KINDS = {"training": "train", "validation": "valid", "test": "test"}
"""What reports call the sets of a run, and what those are called here."""
SETS = (*KINDS, "replay")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files of reference data are understood."""

    keys: Keys = field(default_factory=Keys)
    """Names of the labels in the files, where they are not the usual ones."""
    units: Units = field(default_factory=Units)
    """Units of the files."""
    types: tuple[str, ...] = ()
    """Element of each atom type, in their order, for files that number them, such as LAMMPS dumps without elements."""
    unconverged: Literal["drop", "keep"] = "drop"
    """What becomes of frames whose self-consistent field did not converge, as outputs of codes (or scf_converged=F) say."""
    checks: dict[str, Literal["warn", "skip"]] = field(default_factory=dict)
    """What becomes of errors of single checks, by the names that their messages end in, such as force_sign: warn."""
    max_force: float = MAX_FORCE
    """A larger force component in the data (eV/Å) is an error."""
    min_distance: float = MIN_DISTANCE
    """A pair of atoms in the data that is closer (Å) is an error."""

    def __post_init__(self) -> None:
        for name in self.types:
            if name not in chemical_symbols[1:]:
                raise ValueError(f"types: {name!r} is not the symbol of an element")
        for name in self.checks:
            if name not in SWITCHES:
                raise ValueError(f"checks: there is no check {name!r}; {suggest(name, list(SWITCHES))}")
        for name in ("max_force", "min_distance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be a number, zero or larger")

    def also(self, quantities: Sequence[Quantity]) -> Self:
        """What is read for a model that predicts further quantities: labels of these too."""
        return replace(self, keys=self.keys.also(quantities))


@dataclass(frozen=True, kw_only=True)
class Source(Reading):
    """Frames of another origin than the training set's, with conventions of their own."""

    files: str | tuple[str, ...]
    """Source or sources."""


@dataclass(frozen=True, kw_only=True)
class Replay(Source):
    """Frames of a base potential's level of theory, mixed into its fine-tuning so that it does not forget."""

    share: float = 0.5
    """Of the frames of an epoch; which frames, is drawn anew for each epoch. At most all of them are taken."""
    weight: float = 1.0
    """Factor on the weight of these frames in the loss."""
    labels: Literal["file", "base"] = "file"
    """Labels of the files, or what the base potential says of their geometries before the first step."""
    valid: float | int = 0.1
    """Share (below 1) or number of the frames to hold out; the report tells what was forgotten on them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share = {self.share:g} must lie between 0 and 1: it is a share of the frames of an epoch")
        if not 0 < self.weight < np.inf:
            raise ValueError(f"weight = {self.weight:g} must be positive and finite; leave replay out for none")


@dataclass(frozen=True)
class Labelled(Reading):
    """Reference data of one level of theory. A source is a file, ``file@0:100`` (ASE's frame slices) or ``bundled:NAME``."""

    train: str | tuple[str, ...]
    """Source or sources to train on; isolated atoms among them give E0 and are not trained on."""
    valid: float | int | str | tuple[str, ...] = 0.1
    """Share (below 1) or number of the training frames to hold out for validation, or sources of its own."""
    test: str | tuple[str, ...] | None = None
    """Source or sources to evaluate on at the end."""
    limit: int | None = None
    """Train on this many frames only; a share in valid is then one of this number."""
    limit_by: Literal["random", "first"] = "random"
    """Which frames a limit keeps: drawn with the seed, or the first in the files."""
    atomic_energies: str | dict[str, float] = "auto"
    """E0: isolated (single-atom frames), fit, auto (isolated where possible), a file of isolated atoms, or eV by symbol."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factor on the weight of training frames, by their config_type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit = {self.limit} leaves nothing to train on; give 1 or more, or leave it out")
        for name, factor in self.weights.items():
            if not 0 <= factor < np.inf:
                raise ValueError(f"weights: {name} has {factor:g}; a weight must be zero or positive, and finite")


@dataclass(frozen=True)
class DataConfig(Labelled):
    """Reference data of a run: of one level of theory, or in ``heads`` of several that are learned together."""

    train: str | tuple[str, ...] = ()
    heads: dict[str, Labelled] = field(default_factory=dict)
    """Data of each level of theory, by a name that chooses it in the end; then nothing of the above stands beside them."""
    replay: Replay | None = None
    """In fine-tuning: frames of the base's level of theory to train on as well, against forgetting."""
    forget: dict[str, str | tuple[str, ...] | Source] = field(default_factory=dict)
    """In fine-tuning: sets of the base's level of theory, by name, on which the report compares the result with the base."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train and not self.heads:
            raise ValueError("nothing to train on: give train, or heads with data of several levels of theory")
        common = Labelled(train=())
        beside = [f.name for f in fields(Labelled) if getattr(self, f.name) != getattr(common, f.name)]
        if self.heads and beside:
            raise ValueError(f"{beside[0]} stands beside heads; give it for each of {', '.join(self.heads)}")
        unwatched = [name for name, data in self.heads.items() if data.valid == 0]
        if unwatched and len(unwatched) < len(self.heads):
            raise ValueError(f"heads: {unwatched[0]} has valid: 0, so that only the others would say which parameters are best")
        for name in self.forget:
            if name in SETS or not re.fullmatch(r"[\w-]+", name):
                taken = "taken" if name in SETS else "no name for a file"
                raise ValueError(f"forget: {name!r} is {taken}; choose a word other than {', '.join(SETS)}")

    @property
    def levels(self) -> Mapping[str, Labelled]:
        """Data of each level of theory by the name of its head, which is empty where there is only one."""
        return self.heads or {"": self}
