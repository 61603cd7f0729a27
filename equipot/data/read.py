"""Read reference data: structures from a file of any format, and the training, validation and test sets of a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equipot.data import bundled, extxyz, formats, npz
from equipot.data.checks.frames import CUTOFF, check
from equipot.data.checks.isolated import isolated_atoms
from equipot.data.checks.report import WARNING, Problem, Report
from equipot.data.config import CHOICES, Labelled, Reading, Source
from equipot.data.converged import says_no, states_of
from equipot.data.extxyz_frames import read_extxyz
from equipot.data.hdf5 import HDF5Dataset, is_hdf5, write_hdf5
from equipot.data.keys import KNOWN, SWITCHED_OFF, Keys, Units, setting
from equipot.data.labels import choose, frame, structure
from equipot.data.selection import frame_slice, no_frames, split_index
from equipot.data.spins import with_meaning
from equipot.data.split import Chain, Cleared, Subset, Weighted, split
from equipot.data.stats import AtomicEnergies, Known, atomic_energies, is_isolated_atom, isolated_energies
from equipot.quantities import HESSIAN, TABLE, TRAINED, Quantity
from equipot.structure import Structure

__all__ = ["Dataset", "HDF5Dataset", "Keys", "Units", "load_data", "read", "write_hdf5"]


@dataclass(frozen=True, eq=False)
class Sets:
    """Checked training, validation and test sets of a run."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    atoms: Sequence[Structure]
    """Isolated atoms among the training frames."""
    isolated: Mapping[int, float]
    """Energies (eV) of the isolated atoms, by Z."""
    report: Report
    """Problems that the checks found."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Checked training, validation and test sets of a run, with E0."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    atomic_energies: Mapping[int, float]
    """E0, eV by Z."""
    origin: str
    """Origin of E0: isolated, fit or config."""
    report: Report
    """Problems that the checks found; ``str(report)`` is text for the user."""
    head_energies: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """E0 of each head (eV by Z) if the run has several. Energies are then stored less E0 of their head, and
    ``atomic_energies`` are zero."""


def read(
    source: str | Path,
    keys: Keys | None = None,
    units: Units | None = None,
    types: Sequence[str] = (),
    unconverged: Literal["drop", "keep"] = "drop",
    quantities: Sequence[Quantity] = (),
) -> Sequence[Structure]:
    """Read the structures of one source, with labels in eV and Å.

    Args:
        source: extended XYZ (also .gz, .xz), equipot's HDF5, arrays of NumPy (.npz), ``bundled:NAME``, or a file of any format
            that ASE reads;
            ``FILE@0:100`` selects a slice of the frames.
        keys: names of the labels in extended XYZ and ASE databases; in HDF5 and bundled sets a label can only be switched off.
        units: units of extended XYZ and ASE databases; other formats are in eV and Å already.
        types: elements of numbered atom types, as LAMMPS writes them; not used for files that name their elements.
        unconverged: ``drop`` leaves out, with a warning, frames whose self-consistent field (SCF) did not converge.
        quantities: further quantities to read labels of, beside energy, forces, stress and Hessian.

    Returns:
        A list; for HDF5 a sequence that reads each frame on access.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file or frame that cannot be read, or labels that are missing or contradict each other.
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
    """Read all frames of one source, those without a converged SCF included."""
    if str(source).startswith(bundled.PREFIX):
        name, _, index = str(source).partition("@")
        return _fixed(bundled.load(name)[frame_slice(index or ":", str(source))], name, keys, units)
    path, index = split_index(str(source))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    if is_hdf5(path):
        off = [label for label, name in keys.names().items() if name == SWITCHED_OFF]
        # A reader of geometries has no keys to switch off labels that do not fit the table.
        off += [row.name for row in TABLE] if keys == UNLABELLED else []
        frames = _fixed(HDF5Dataset(path, keys.rows, off), str(path), keys, units)
        return frames if index == ":" else frames[frame_slice(index, str(source))]
    if extxyz.is_extxyz(path):
        return read_extxyz(path, keys, units, index)
    if npz.is_npz(path):
        return npz.read_npz(path, keys, units, index)
    return _read_ase(path, keys, units, types, index)


def _fixed(frames: Sequence[Structure], label: str, keys: Keys, units: Units) -> Sequence[Structure]:
    """Remove the labels that are switched off from frames of a format with fixed names and units.

    Raises:
        ValueError: units or names are given, which such a format does not need.
    """
    if units.spin == "multiplicity":
        raise ValueError(f"{label}: holds numbers of unpaired electrons; leave {setting('units.spin')} out, or say unpaired")
    if units.are_given:
        raise ValueError(f"{label}: is in eV and Å already; leave {setting('units')} out, or convert the other files to that")
    named = keys.names()
    for key, name in named.items():
        if name not in (key, SWITCHED_OFF) or (key == "virial" and name != SWITCHED_OFF):
            raise ValueError(
                f"{label}: has no names to choose from; leave {name!r} for {setting(f'keys.{key}')} out, or say none"
            )
    off = [key for key, name in named.items() if name == SWITCHED_OFF and key != "virial"]
    weights = [row for key, row in keys.weights().items() if key in off]
    return Cleared(frames, off, weights, "weight" in off) if off else frames


def _read_ase(path: Path, keys: Keys, units: Units, types: Sequence[str], index: str) -> list[Structure]:
    """Read frames of any other format through ASE."""
    wanted = frame_slice(index, str(path))
    if path.suffix.lower() not in formats.DATABASES and units.are_given:
        raise ValueError(
            f"{path}: ASE gives this format in eV and Å; leave {setting('units')} out, or convert it to extended XYZ"
        )
    images = formats.read_images(path, types)
    numbers = range(len(images.atoms))[wanted]
    frames = [frame(images.atoms[k], f"{path}, frame {k}", keys, images.units.items()) for k in numbers]
    if not frames:
        raise ValueError(no_frames(str(path), index, len(images.atoms)))
    chosen, units = choose(frames, keys, str(path)), with_meaning(units, frames, str(path))
    return [structure(f, chosen, keys, units) for f in frames]


_off: dict[str, Any] = dict.fromkeys(KNOWN, SWITCHED_OFF)
UNLABELLED = Keys(**_off, others={HESSIAN.name: SWITCHED_OFF})
"""Keys that switch off every label."""


def read_one(source: str, default: int = 0, types: Sequence[str] = ()) -> Structure:
    """Read one frame without labels: geometry, masses, momenta, charge and spin.

    Args:
        source: FILE@INDEX or bundled:NAME@INDEX, of any format that ``read`` takes.
        default: frame number without @INDEX; -1 is the last frame.
        types: elements of numbered atom types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, no such frame, or an index that selects several frames.
    """
    path, index = split_index(source)
    if path == Path(source):
        index, source = str(default), f"{source}@{default}"
    if ":" in index:
        raise ValueError(f"{source}: @{index} is not one frame; name one, such as {path}@0")
    return _read(source, UNLABELLED, Units(), types)[0].without_labels()


def read_structures(source: str, types: Sequence[str] = ()) -> list[Structure]:
    """Read frames without labels: geometry, masses, momenta, charge and spin.

    Args:
        source: FILE, FILE@INDEX or bundled:NAME@INDEX, of any format that ``read`` takes; all frames without an index.
        types: elements of numbered atom types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read or has no frames, or no such frame.
    """
    found = [structure.without_labels() for structure in _read(source, UNLABELLED, Units(), types)]
    if not found:
        raise ValueError(f"{source} has no frames")
    return found


def load_data(config: Labelled, seed: int, cutoff: float = CUTOFF, needs: Sequence[str] = ()) -> Dataset:
    """Read, split and check the sets of a run (see ``load_sets``) and find E0.

    Raises:
        ValueError: as ``load_sets``, or an element without E0.
    """
    sets = load_sets(config, seed, cutoff, needs)
    return with_energies(sets, find_energies(config, sets))


def load_sets(config: Labelled, seed: int, cutoff: float = CUTOFF, needs: Sequence[str] = ()) -> Sets:
    """Read, split and check the sets of a run.

    Args:
        seed: seed of the split into training and validation frames, if the config has none.
        cutoff: distance (Å) within which every atom should have a neighbour.
        needs: inputs of the term to train, such as charge, see ``Term.needs``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or (``DataError``) errors that the checks found.
    """
    pool, atoms, dropped = _training_frames(config)
    isolated = isolated_energies(atoms)
    seed = seed if config.split_seed is None else config.split_seed
    train: Sequence[Structure]
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
    if config.bootstrap is not None:
        drawn = np.random.default_rng([seed, config.bootstrap]).integers(len(train), size=len(train))
        train = Subset(train, np.sort(drawn))
    return Sets(train, held, test, atoms, isolated, report)


def with_energies(sets: Sets, energies: AtomicEnergies) -> Dataset:
    """Combine sets and E0 into a dataset."""
    report = sets.report.with_warnings(energies.warnings)
    return Dataset(sets.train, sets.valid, sets.test, energies.energies, energies.origin, report)


def load_source(source: Source, cutoff: float, name: str, labelled: bool = True) -> Sequence[Structure]:
    """Read and check the frames of a source, without isolated atoms.

    Args:
        cutoff: distance (Å) within which every atom should have a neighbour.
        name: key of the source in the config, for messages.
        labelled: whether to keep the labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, errors that the checks found (``DataError``), or no frames.
    """
    frames = _without_isolated_atoms(gather(source.files, source)[0])
    if not len(frames):
        raise ValueError(f"{name}: nothing but isolated atoms; add frames, or leave it out")
    if not labelled:
        frames = Cleared(frames, [row.name for row in TRAINED])
    report = check({name: frames}, cutoff, source.max_force, source.min_distance).judged(source.checks)
    if not labelled:
        report = report.without("unlabelled")
    report.raise_errors()
    return frames


def _training_frames(config: Labelled) -> tuple[Sequence[Structure], Sequence[Structure], tuple[Problem, ...]]:
    """Read the training source: bound frames, isolated atoms, and a problem for each dropped frame."""
    everything, dropped = gather(config.train, config)
    alone = np.array([is_isolated_atom(s) for s in everything], bool)
    if alone.all():
        raise ValueError(f"{config.train}: nothing but isolated atoms; add frames to train on")
    return Subset(everything, np.flatnonzero(~alone)), Subset(everything, np.flatnonzero(alone)), dropped


def gather(sources: str | Sequence[str], config: Reading) -> tuple[Sequence[Structure], tuple[Problem, ...]]:
    """Read the frames of one or several sources; also return a problem for each frame dropped because its SCF did not converge.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sources, a file that cannot be read, or a file in which no SCF converged.
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
    """Drop the frames whose SCF failed; also return a warning for each of them.

    Raises:
        ValueError: the SCF of every frame failed, or that of a frame that the output does not tell.
    """
    if any(state is None for s in frames for state in states_of(s.info)):
        raise ValueError(
            f"{source}: says that an SCF did not converge, but not in which of its {len(frames)} frames; "
            f"remove those from the file, or set {setting('unconverged')} to keep"
        )
    failed = np.array([any(map(says_no, states_of(s.info))) for s in frames], bool)
    if not failed.any():
        return frames, []
    what, remedy = (
        "the SCF did not converge, so the frame is left out",
        f"calculate it again, or set {setting('unconverged')} to keep",
    )
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
    """Find E0 of the elements in the training set; the checks ensure that the other sets hold no further element.

    Args:
        known: potential whose E0 are kept or refitted, see ``stats.atomic_energies``.

    Raises:
        ValueError: an element without E0, or (``DataError``) isolated atoms whose energies contradict those of the frames.
    """
    choice, isolated = config.atomic_energies, sets.isolated
    if isinstance(choice, str) and choice not in CHOICES:
        isolated, choice = isolated_energies(isolated_frames(config)), "isolated"
    found = atomic_energies(sets.train, isolated, choice, known)
    if found.origin != "isolated":
        return found
    judged = Report(tuple(isolated_atoms(sets.train, isolated)), ()).judged(config.checks)
    judged.raise_errors()
    return replace(found, warnings=(*found.warnings, *judged.warnings))


def isolated_frames(config: Labelled) -> Sequence[Structure]:
    """Read the isolated atoms of the file that ``atomic_energies`` names.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    choice = config.atomic_energies
    assert isinstance(choice, str), "a file has a name"
    try:
        frames = gather(choice, config)[0]
    except FileNotFoundError:
        raise ValueError(
            f"data.atomic_energies: {choice!r} is none of {', '.join(CHOICES)}, energies by symbol, or a file of isolated atoms"
        ) from None
    return [s for s in frames if is_isolated_atom(s)]
