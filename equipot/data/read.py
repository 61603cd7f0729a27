"""From files to structures: every format in one call, and the sets of a training run from one config section."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from equipot.data import bundled, extxyz, formats
from equipot.data.checks.frames import CUTOFF, check
from equipot.data.checks.isolated import isolated
from equipot.data.checks.report import WARNING, Problem, Report
from equipot.data.config import CHOICES, Labelled, Reading, Source
from equipot.data.converged import SCF_CONVERGED
from equipot.data.extxyz_frames import read_extxyz
from equipot.data.hdf5 import HDF5Dataset, is_hdf5, write_hdf5
from equipot.data.labels import KNOWN, SWITCHED_OFF, Keys, Units, choose, frame, structure
from equipot.data.selection import frame_slice, no_frames, split_index
from equipot.data.split import Chain, Cleared, Subset, Weighted, split
from equipot.data.stats import AtomicEnergies, Known, atomic_energies, is_isolated_atom, isolated_energies
from equipot.quantities import LABELLED, Quantity
from equipot.structure import Structure

__all__ = ["Dataset", "HDF5Dataset", "Keys", "Units", "load_data", "read", "write_hdf5"]


@dataclass(frozen=True, eq=False)
class Sets:
    """The sets of a run, checked."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    free: Mapping[int, float]
    """Energies (eV) of the isolated atoms among the training frames, by Z."""
    report: Report
    """What the checks found."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The sets of a run, checked, with E0."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    atomic_energies: Mapping[int, float]
    """E0, eV by Z."""
    origin: str
    """Where E0 comes from: isolated, fit or config."""
    report: Report
    """What the checks found; its ``str`` is for the user."""
    levels: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """E0 of each head, where there are several; energies are then counted from them, and those above are zero."""


def read(
    source: str | Path,
    keys: Keys | None = None,
    units: Units | None = None,
    types: Sequence[str] = (),
    unconverged: Literal["drop", "keep"] = "drop",
    quantities: Sequence[Quantity] = (),
) -> Sequence[Structure]:
    """The structures of one source: extended XYZ (also .gz, .xz), our own HDF5, ``bundled:NAME``, or anything that ASE reads.

    ``file@0:100`` reads a slice. The answer is a list, but for HDF5 a sequence that reads frames when they are asked for. Label
    names and units apply to extended XYZ and ASE databases; everything else comes in eV and Å already. Of a source whose labels
    have names of their own, HDF5 or bundled, a label can still be switched off. ``types`` are the elements of numbered atom
    types, as LAMMPS has them. Frames of outputs whose self-consistent field did not converge are left out with a warning,
    unless ``unconverged`` is to keep them. Labels are those of energy, forces and stress, and of further ``quantities``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong, with file and frame.
    """
    frames = _read(source, (keys or Keys()).also(quantities), units or Units(), types)
    if unconverged == "keep" or not isinstance(frames, list):
        return frames
    kept, problems = _converged(frames, str(source))
    for problem in problems[:1]:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        warnings.warn(f"{problem}{more}", stacklevel=2)
    return kept


def _read(source: str | Path, keys: Keys, units: Units, types: Sequence[str]) -> Sequence[Structure]:
    """All frames of one source."""
    if str(source).startswith(bundled.PREFIX):
        name, _, index = str(source).partition("@")
        return _fixed(bundled.load(name)[frame_slice(index or ":", str(source))], name, keys, units)
    path, index = split_index(str(source))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    if is_hdf5(path):
        frames = _fixed(HDF5Dataset(path), str(path), keys, units)
        return frames if index == ":" else frames[frame_slice(index, str(source))]
    if extxyz.is_extxyz(path):
        return read_extxyz(path, keys, units, index)
    return _read_ase(path, keys, units, types, index)


def _fixed(frames: Sequence[Structure], label: str, keys: Keys, units: Units) -> Sequence[Structure]:
    """Frames of a format that has its own names and units, without the labels that are switched off."""
    if units.factors() != Units().factors():
        raise ValueError(f"{label}: is in eV and Å already; leave data.units out, or convert the other files to that")
    named = keys.names()
    for key, name in named.items():
        if name not in (key, SWITCHED_OFF) or (key == "virial" and name != SWITCHED_OFF):
            raise ValueError(f"{label}: has no names to choose from; leave data.keys.{key} = {name!r} out, or set it to none")
    off = [key for key, name in named.items() if name == SWITCHED_OFF and key != "virial"]
    rows = {row.name: row for row in (*LABELLED, *keys.rows)}
    labels = [rows[key] for key in off if key in rows]
    weights = [rows[key.removesuffix("_weight")] for key in off if key.endswith("_weight")]
    return Cleared(frames, labels, weights, "weight" in off) if off else frames


def _read_ase(path: Path, keys: Keys, units: Units, types: Sequence[str], index: str) -> list[Structure]:
    """Frames of any other format, through ASE."""
    wanted = frame_slice(index, str(path))
    if path.suffix.lower() not in formats.DATABASES and units.factors() != Units().factors():
        raise ValueError(f"{path}: ASE gives this format in eV and Å; leave data.units out, or convert it to extended XYZ")
    images = formats.read_images(path, types)
    numbers = range(len(images.atoms))[wanted]
    frames = [frame(images.atoms[k], f"{path}, frame {k}", keys, images.units) for k in numbers]
    if not frames:
        raise ValueError(no_frames(str(path), index, len(images.atoms)))
    chosen = choose(frames, keys, str(path))
    return [structure(f, chosen, keys, units) for f in frames]


UNLABELLED = Keys(**dict.fromkeys(KNOWN, SWITCHED_OFF))
"""No label of any name."""


def read_one(source: str, default: int = 0, types: Sequence[str] = ()) -> Structure:
    """One frame of anything that ``read`` understands, without labels: geometry, masses, momenta, charge and spin.

    ``source`` is FILE@INDEX or bundled:NAME@INDEX; without an index, ``default`` is the frame, -1 for the last. ``types`` are
    the elements of numbered atom types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be understood, no such frame, or an index that names several.
    """
    path, index = split_index(source)
    if path == Path(source):
        index, source = str(default), f"{source}@{default}"
    if ":" in index:
        raise ValueError(f"{source}: @{index} is not one frame; name one, such as {path}@0")
    return read(source, UNLABELLED, types=types, unconverged="keep")[0]


def load_data(config: Labelled, seed: int, cutoff: float = CUTOFF, needs: Sequence[str] = ()) -> Dataset:
    """Everything a run reads, split, checked and with E0; arguments and errors as ``load_sets``, and an element without E0."""
    sets = load_sets(config, seed, cutoff, needs)
    return with_energies(sets, find_energies(config, sets))


def load_sets(config: Labelled, seed: int, cutoff: float = CUTOFF, needs: Sequence[str] = ()) -> Sets:
    """The sets of a run, split and checked.

    ``cutoff`` (Å) is for the search for atoms without neighbours, ``needs`` that of the term that will be trained.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be understood, or (``DataError``) what the checks found.
    """
    pool, free, dropped = _training_frames(config)
    held: Sequence[Structure] = ()
    if isinstance(config.valid, float | int):
        train_index, valid_index = split(len(pool), config.valid, config.limit, seed, config.limit_by == "first")
        train, held = Subset(pool, train_index), Subset(pool, valid_index)
    else:
        train_index, _ = split(len(pool), 0, config.limit, seed, config.limit_by == "first")
        train = Subset(pool, train_index)
        held, more = gather(config.valid, config)
        held, dropped = _without_isolated_atoms(held), (*dropped, *more)
    test: Sequence[Structure] = ()
    if config.test:
        test, more = gather(config.test, config)
        test, dropped = _without_isolated_atoms(test), (*dropped, *more)
    train = _weighted(train, config.weights)
    sets = {"train": train, "valid": held, "test": test}
    report = check(sets, cutoff, config.max_force, config.min_distance, needs)
    report = report.with_problems(dropped).judged(config.checks)
    report.raise_errors()
    return Sets(train, held, test, free, report)


def with_energies(sets: Sets, energies: AtomicEnergies) -> Dataset:
    """The sets with E0."""
    report = sets.report.with_warnings(energies.warnings)
    return Dataset(sets.train, sets.valid, sets.test, energies.energies, energies.origin, report)


def load_source(source: str | tuple[str, ...] | Source, cutoff: float, name: str, labelled: bool = True) -> Sequence[Structure]:
    """Checked frames of one origin, without its isolated atoms; ``name`` is the key of the config, for messages.

    With ``labelled`` False they come without labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be understood, (``DataError``) what the checks found, or no frames.
    """
    settings = source if isinstance(source, Source) else Source(files=source)
    frames = _without_isolated_atoms(gather(settings.files, settings)[0])
    if not len(frames):
        raise ValueError(f"{name}: nothing but isolated atoms; add frames, or leave it out")
    if not labelled:
        frames = Cleared(frames, LABELLED)
    report = check({name: frames}, cutoff, settings.max_force, settings.min_distance).judged(settings.checks)
    if not labelled:
        report = report.without("unlabelled")
    report.raise_errors()
    return frames


def _training_frames(config: Labelled) -> tuple[Sequence[Structure], dict[int, float], tuple[Problem, ...]]:
    """The frames to train on, E0 of the isolated atoms among them, and what was left out."""
    everything, dropped = gather(config.train, config)
    alone = np.array([is_isolated_atom(s) for s in everything], bool)
    free = isolated_energies(Subset(everything, np.flatnonzero(alone)))
    if alone.all():
        raise ValueError(f"{config.train}: nothing but isolated atoms; add frames to train on")
    return Subset(everything, np.flatnonzero(~alone)), free, dropped


def gather(sources: str | Sequence[str], config: Reading) -> tuple[Sequence[Structure], tuple[Problem, ...]]:
    """The frames of one or several sources, and what was left out because its SCF did not converge.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sources, a file that cannot be understood, or one of which no frame converged.
    """
    listed = (sources,) if isinstance(sources, str) else tuple(sources)
    if not listed:
        raise ValueError("data: an empty list of files")
    parts, problems = [], []
    for source in listed:
        frames = _read(source, config.keys, config.units, config.types)
        if config.unconverged == "drop":
            frames, dropped = _converged(frames, source)
            problems += dropped
        parts.append(frames)
    return parts[0] if len(parts) == 1 else Chain(tuple(parts)), tuple(problems)


def _converged(frames: Sequence[Structure], source: str) -> tuple[Sequence[Structure], list[Problem]]:
    """Frames without those whose SCF failed, and a warning for each of these.

    Raises:
        ValueError: all of them failed.
    """
    failed = np.array([s.info.get(SCF_CONVERGED, True) in (False, 0) for s in frames], bool)
    if not failed.any():
        return frames, []
    what, remedy = "the SCF did not converge, so the frame is left out", "calculate it again, or set data.unconverged to keep"
    if failed.all():
        raise ValueError(f"{source}: the SCF converged in none of its {len(frames)} frames; {remedy}")
    problems = [Problem(WARNING, "unconverged", frames[int(k)].name, what, remedy) for k in np.flatnonzero(failed)]
    kept = Subset(frames, np.flatnonzero(~failed))
    return list(kept) if isinstance(frames, list) else kept, problems


def _without_isolated_atoms(structures: Sequence[Structure]) -> Sequence[Structure]:
    return Subset(structures, np.array([k for k, s in enumerate(structures) if not is_isolated_atom(s)], int))


def _weighted(train: Sequence[Structure], factors: Mapping[str, float]) -> Sequence[Structure]:
    if not factors:
        return train
    kinds = {str(s.info.get("config_type")) for s in train}
    for name in factors:
        if name not in kinds:
            raise ValueError(f"data.weights: no training frame has config_type {name!r}; there is {', '.join(sorted(kinds))}")
    return Weighted(train, factors)


def find_energies(config: Labelled, sets: Sets, known: Known | None = None) -> AtomicEnergies:
    """E0 of the training elements; the checks have seen to it that the other sets have no more.

    With ``known``, only what it leaves open, see ``stats.atomic_energies``.

    Raises:
        ValueError: an element without E0, or (``DataError``) isolated atoms that do not belong to the other frames.
    """
    choice, free = config.atomic_energies, sets.free
    if isinstance(choice, str) and choice not in CHOICES:
        try:
            source = gather(choice, config)[0]
        except FileNotFoundError:
            raise ValueError(
                f"data.atomic_energies: {choice!r} is none of {', '.join(CHOICES)}, energies by symbol, "
                "or a file of isolated atoms"
            ) from None
        free, choice = isolated_energies(source), "isolated"
    found = atomic_energies(sets.train, free, choice, known)
    if found.origin != "isolated":
        return found
    judged = Report(tuple(isolated(sets.train, free)), ()).judged(config.checks)
    judged.raise_errors()
    return replace(found, warnings=(*found.warnings, *judged.warnings))
