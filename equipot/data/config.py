"""The ``data`` section of a training run's config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
from ase.data import chemical_symbols

from equipot.config import suggest
from equipot.data.checks.frames import MAX_FORCE, MIN_DISTANCE
from equipot.data.checks.report import SWITCHES
from equipot.data.keys import Keys, Units
from equipot.data.method import check_settings
from equipot.quantities import Quantity

CHOICES = ("auto", "isolated", "fit")
KINDS = {"training": "train", "validation": "valid", "test": "test"}
"""Fields of ``Dataset`` by the names of the sets in reports."""
SETS = (*KINDS, "replay")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings for reading and checking files of reference data."""

    keys: Keys = field(default_factory=Keys)
    """Names of the labels in the files, if they are not common ones."""
    units: Units = field(default_factory=Units)
    """Units of the files."""
    types: tuple[str, ...] = ()
    """Element of each atom type, in the order of the types, for files that number them, such as LAMMPS dumps."""
    level_of_theory: str = ""
    """Level of theory of the labels, such as PBE-D3(BJ), which the potential keeps; a model with a correction for dispersion
    refuses a level that includes dispersion."""
    unconverged: Literal["drop", "keep"] = "drop"
    """Treatment of frames whose self-consistent field did not converge, by the program's output or scf_converged=F."""
    checks: dict[str, Literal["warn", "skip"]] = field(default_factory=dict)
    """Treatment of the problems of single checks, by the names given in their messages, such as force_sign: warn."""
    max_force: float = MAX_FORCE
    """Largest force component (eV/Å) that is not an error."""
    min_distance: float = MIN_DISTANCE
    """Shortest distance between two atoms (Å) that is not an error."""

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

    def also(self, quantities: Sequence[Quantity], needs: Sequence[str]) -> Self:
        """Return settings that also read labels of the further quantities that a model predicts, and what it ``needs``."""
        labels = [row for row in quantities if not row.energy_part]
        return replace(self, keys=self.keys.also(labels), units=self.units.of_model(needs))


@dataclass(frozen=True, kw_only=True)
class Source(Reading):
    """Frames from other files than the training set, with their own settings for reading."""

    files: str | tuple[str, ...]
    """Source or sources."""


@dataclass(frozen=True, kw_only=True)
class Replay(Source):
    """Frames of the base potential's level of theory that are mixed into fine-tuning against forgetting."""

    share: float = 0.5
    """Share of replayed frames in the frames of an epoch, drawn at random for each epoch; at most all replayed frames."""
    weight: float = 1.0
    """Factor on the weight of the replayed frames in the loss."""
    labels: Literal["file", "base"] = "file"
    """Labels to train on: those of the files, or predictions of the base potential."""
    valid: float | int = 0.1
    """Share (below 1) or number of the frames to hold out, on which the report shows forgetting."""
    most: int | None = None
    """Largest number of frames to replay: those whose atoms are farthest from each other's and from those of the new frames, by
    the descriptors of the base; None for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most is not None and self.most < 1:
            raise ValueError(f"most = {self.most} leaves nothing to replay; give 1 or more, or leave it out for all frames")
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
    """Share (below 1) or number of the training frames to hold out for validation, or sources of validation frames."""
    test: str | tuple[str, ...] | None = None
    """Source or sources to evaluate on at the end."""
    limit: int | None = None
    """Number of frames to train on; a share in ``valid`` is then a share of the limit."""
    split_seed: int | None = None
    """Seed of the frames that are held out and of those that a limit keeps; None for the seed of the run."""
    bootstrap: int | None = None
    """Seed by which as many training frames as there are are drawn with replacement, some of them several times and some never;
    None to take each once."""
    limit_by: Literal["random", "first"] = "random"
    """Frames that a limit keeps: drawn at random with the seed, or the first in the files."""
    atomic_energies: str | dict[str, float] = "auto"
    """E0: isolated (single-atom frames), fit, auto (isolated where possible), a file of isolated atoms, or eV by symbol."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factor on the weight of training frames, by their config_type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit = {self.limit} leaves nothing to train on; give 1 or more, or leave it out")
        for name in ("split_seed", "bootstrap"):
            if (seed := getattr(self, name)) is not None and not 0 <= seed < 2**32:
                raise ValueError(f"{name} = {seed} must be from 0 to {2**32 - 1}, or left out")
        for name, factor in self.weights.items():
            if not 0 <= factor < np.inf:
                raise ValueError(f"weights: {name} has {factor:g}; a weight must be zero or positive, and finite")


@dataclass(frozen=True)
class DataConfig(Labelled):
    """Reference data of a run: of one level of theory, or in ``heads`` of several that are learned together."""

    train: str | tuple[str, ...] = ()
    heads: dict[str, Labelled] = field(default_factory=dict)
    """Data of each level of theory, by the name of its head in the potential; the fields above are then not set here."""
    subtract: dict[str, Any] | None = None
    """Method to learn the difference to, an ASE calculator that is run once for each frame: ``calculator``, one of
    ``data.method.CALCULATORS`` or package.module:Class, beside its options, as in {calculator: tblite, method: GFN2-xTB}. Its
    energies, forces and stresses are subtracted from the labels, and added again wherever the potential is used."""
    replay: Replay | None = None
    """Frames of the base's level of theory to replay in fine-tuning, against forgetting."""
    forget: dict[str, str | tuple[str, ...] | Source] = field(default_factory=dict)
    """Sets of the base's level of theory, by name, on which the report of fine-tuning compares the result with the base."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train and not self.heads:
            raise ValueError("nothing to train on: give train, or heads with data of several levels of theory")
        common = Labelled(train=())
        beside = [f.name for f in fields(Labelled) if getattr(self, f.name) != getattr(common, f.name)]
        if self.heads and beside:
            raise ValueError(f"{beside[0]} stands beside heads; give it for each of {', '.join(self.heads)}")
        if self.subtract is not None:
            check_settings(self.subtract)
        unwatched = [name for name, data in self.heads.items() if data.valid == 0]
        if unwatched and len(unwatched) < len(self.heads):
            raise ValueError(f"heads: {unwatched[0]} has valid: 0, so that only the others would say which parameters are best")
        for name in self.forget:
            if name in SETS or not re.fullmatch(r"[\w-]+", name):
                taken = "taken" if name in SETS else "no name for a file"
                raise ValueError(f"forget: {name!r} is {taken}; choose a word other than {', '.join(SETS)}")

    @property
    def by_head(self) -> Mapping[str, Labelled]:
        """Data of each level of theory by the name of its head; the name of a single head is empty."""
        return self.heads or {"": self}
