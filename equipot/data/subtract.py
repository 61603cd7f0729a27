"""Subtract a method from reference data: run once for each frame, kept by content in the cache and in the folder of the run.

The labels of energy, forces and stress of all frames become those of the data less those of the method, isolated atoms
included, so that E0 are of the difference, too. The file of the run is read first: a resumed run goes on with the same numbers,
though a method may differ in the last digits from run to run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from equipot.artifact import DamagedError, Kind
from equipot.console import Console, duration
from equipot.data.config import CHOICES, DataConfig, Labelled
from equipot.data.method import Runner, method_of, start, unpaired
from equipot.data.packed import pack, unpack
from equipot.data.read import Sets, isolated_frames
from equipot.data.split import Changed
from equipot.data.stats import from_symbols, isolated_energies
from equipot.files import cache_folder
from equipot.metadata import Method
from equipot.quantities import ENERGY, LABELLED, TRAINED, Labels
from equipot.structure import Structure

RESULTS = Kind("results of a method", "file of a method's results", 1, "delete it: they are computed again")
NAME = "subtracted.safetensors"
FLUSH = 30.0
"""Time (s) after which results are written to the cache."""

Results = dict[str, Structure]
"""Structures with the results of a method as their labels, by ``key_of``."""


def key_of(s: Structure) -> str:
    """Compute the SHA-256 of all that a method's results depend on."""
    digest = hashlib.sha256()
    for value in (s.numbers, s.positions, s.pbc, s.cell if s.pbc.any() else (), [s.charge, unpaired(s)]):
        digest.update(np.asarray(value).tobytes() + b"|")
    if s.field.any():
        digest.update(s.field.tobytes())
    return digest.hexdigest()


def subtracted_from(s: Structure) -> bool:
    """Whether a structure has a label that a method is subtracted from."""
    return not s.labels.keys().isdisjoint(TRAINED)


@dataclasses.dataclass(frozen=True, eq=False)
class Difference(Changed):
    """Structures whose labels of energy, forces and stress are those of the data less those of a method."""

    results: Mapping[str, Labels]
    """Results of the method, by ``key_of``."""

    def change(self, s: Structure) -> Structure:
        if not subtracted_from(s):
            return s
        own = self.results[key_of(s)]
        return s.replace(labels={row: v - own[row] if row in LABELLED else v for row, v in s.labels.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Subtraction:
    """A method to subtract from the data of a run."""

    runner: Runner
    out: Path
    """Folder of the run."""

    @property
    def method(self) -> Method:
        return self.runner.method

    def levels(
        self, levels: Mapping[str, tuple[Labelled, Sets]], others: Mapping[str, Sequence[Structure]]
    ) -> tuple[dict[str, tuple[Labelled, Sets]], dict[str, Sequence[Structure]]]:
        """Subtract the method from all frames of a run, and from E0 in its config.

        Args:
            levels: settings and sets of each level of theory.
            others: further sets by name.

        Raises:
            ValueError: a frame that the method does not apply to, or on which it failed.
        """
        atoms = {name: atoms_of(config, sets) for name, (config, sets) in levels.items()}
        parts = [(sets.train, sets.valid, sets.test, atoms[name]) for name, (_, sets) in levels.items()]
        found = run(self.runner, [*(frames for part in parts for frames in part), *others.values()], self.out)
        less = lambda frames: Difference(frames, found)
        out = {}
        for name, (config, sets) in levels.items():
            isolated = isolated_energies(less(atoms[name]))
            changed = dataclasses.replace(
                sets, train=less(sets.train), valid=less(sets.valid), test=less(sets.test), isolated=isolated
            )
            out[name] = (with_isolated(config, isolated), changed)
        return out, {name: less(frames) for name, frames in others.items()}


def subtraction_of(config: DataConfig, out: Path) -> Subtraction | None:
    """Return the subtraction that a config asks for, ready to be run; None for none.

    Raises:
        ValueError: the package of the method is missing, or the method has no such option.
    """
    return None if config.subtract is None else Subtraction(start(method_of(config.subtract), "data.subtract"), out)


def atoms_of(config: Labelled, sets: Sets) -> Sequence[Structure]:
    """Return isolated atoms with the energies that are to be E0: frames of the training data or of a file, or E0 by symbol."""
    choice = config.atomic_energies
    if not isinstance(choice, str):
        where = "data.atomic_energies"
        return [
            Structure(np.array([z]), np.zeros((1, 3)), labels={ENERGY: energy}, source=f"{where}, {chemical_symbols[z]}")
            for z, energy in from_symbols(choice).items()
        ]
    if choice == "fit":
        return []
    return sets.atoms if choice in CHOICES else isolated_frames(config)


def with_isolated(config: Labelled, isolated: Mapping[int, float]) -> Labelled:
    """Return settings in which E0 from the config or from a file are ``isolated``, eV by Z."""
    choice = config.atomic_energies
    if isinstance(choice, str):
        return config if choice in CHOICES else dataclasses.replace(config, atomic_energies="isolated")
    return dataclasses.replace(config, atomic_energies={chemical_symbols[z]: energy for z, energy in isolated.items()})


def run(runner: Runner, sets: Sequence[Sequence[Structure]], out: Path) -> dict[str, Labels]:
    """Run a method for all frames that it was not run for before, with progress on stderr; return its results by ``key_of``.

    Raises:
        ValueError: a frame that the method does not apply to, before it is run for any; or the method failed.
        OSError: the results cannot be written.
    """
    wanted: dict[str, tuple[int, int]] = {}
    for k, frames in enumerate(sets):
        for i in range(len(frames)):
            s = frames[i]
            if subtracted_from(s):
                runner.check(s)
                runner.check_labels(s)
                wanted.setdefault(key_of(s), (k, i))
    text = json.dumps(dataclasses.asdict(runner.method), sort_keys=True)
    cache = cache_folder("methods", hashlib.sha256(text.encode()).hexdigest()[:16])
    whole = read_results([out / NAME], runner.method)
    if wanted.keys() - whole.keys():
        known = read_results(sorted(cache.glob("*.safetensors")) if cache else [], runner.method)
        missing = {key: place for key, place in wanted.items() if key not in whole and key not in known}
        whole = {**known, **whole, **run_missing(runner, sets, missing, cache)}
        whole = {key: whole[key] for key in wanted}
        out.mkdir(parents=True, exist_ok=True)
        write_results(out / NAME, runner.method, whole)
    return {key: s.labels for key, s in whole.items()}


def run_missing(
    runner: Runner, sets: Sequence[Sequence[Structure]], missing: Mapping[str, tuple[int, int]], cache: Path | None
) -> Results:
    """Run a method for the frames at the places (set, frame) of ``missing``, by key; the cache keeps them, even on an error."""
    found: Results = {}
    if not missing:
        return found
    console, began, written = Console(sys.stderr), time.monotonic(), time.monotonic()
    console.last_line = began
    console.say(f"equipot: {runner.method.name} is run for {len(missing)} frames; this is done once")
    fresh: Results = {}

    def keep() -> None:
        if cache is not None and fresh:
            write_results(cache / f"{uuid.uuid4().hex}.safetensors", runner.method, fresh)
        fresh.clear()

    try:
        for count, (key, (k, i)) in enumerate(missing.items(), start=1):
            s = sets[k][i]
            found[key] = fresh[key] = s.replace(labels=runner.run(s))
            left = (time.monotonic() - began) / count * (len(missing) - count)
            console.progress(f"{count} of {len(missing)} frames, {duration(left)} left", before="equipot:")
            if time.monotonic() - written > FLUSH:
                keep()
                written = time.monotonic()
    finally:
        keep()
    return found


def write_results(path: Path, method: Method, found: Results) -> None:
    """Write results of a method to one file."""
    record = {"method": dataclasses.asdict(method), "atoms": {key: len(s) for key, s in found.items()}}
    RESULTS.write(path, record, pack(list(found.values())))


def read_results(paths: Iterable[Path], method: Method) -> Results:
    """Read results of a method from files, without those that are missing, damaged, or of another method."""
    found: Results = {}
    for path in paths:
        try:
            _, record, arrays = RESULTS.read(path)
        except (FileNotFoundError, DamagedError):
            continue
        # Versions are texts, which JSON holds in lists.
        if record["method"] != json.loads(json.dumps(dataclasses.asdict(method))):
            continue
        bare = [Structure(np.zeros(n, int), np.zeros((n, 3))) for n in record["atoms"].values()]
        found |= dict(zip(record["atoms"], unpack(bare, arrays, LABELLED), strict=True))
    return found
