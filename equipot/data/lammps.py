"""Elements, styles and units of LAMMPS dumps and data files, which ASE's readers guess.

LAMMPS numbers its atom types; ASE takes these numbers for atomic numbers, and any mass for that of the nearest element. Here a
mass names an element only if it is the standard mass of one, and types are named by the user otherwise.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from equipot.data.keys import setting
from equipot.data.masses import check_types, elements_of_types, named_by_mass

DUMP = "lammps-dump-text"
"""ASE's name of the format of a dump."""
DATA = "lammps-data"
"""ASE's name of the format of a data file."""
BINARY_DUMP = "lammps-dump-binary"
"""ASE's name of the format of a binary dump."""
HEAD = 50_000
"""Bytes at the beginning of a file that are searched for the header of a data file."""
STYLES = ("atomic", "charge", "full", "molecular", "bond", "angle")
"""Styles of the section Atoms that ASE reads."""
UNITS = ("metal", "real", "electron", "si", "cgs", "micro", "nano")
"""Styles of units that have a size; lj has none."""
IN_AMU = ("metal", "real", "electron")
"""Styles of units whose masses are in amu."""
_MOST_TYPES = 1000


def kind_of(path: Path) -> str | None:
    """Return ASE's name of the format of a data file or a binary dump, which ASE does not know by its content; else None."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as stream:
        # The mark stands behind a whole number of 64 bits.
        if stream.read(12)[8:] == b"DUMP":
            return BINARY_DUMP
    return DATA if _is_data(path) else None


def _is_data(path: Path) -> bool:
    """Whether a file of any name has the header and the section Atoms of a data file."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as stream:
        head = stream.read(HEAD) + stream.readline()
        found = all(
            re.search(rb"^\s*\d+\s+" + name + rb"\s*(#.*)?$", head, re.MULTILINE) for name in (rb"atoms", rb"atom\s+types")
        )
        atoms = re.compile(rb"Atoms\s*(#.*)?$")
        return found and (any(map(atoms.match, head.splitlines())) or any(map(atoms.match, stream)))


def options(path: Path, kind: str, types: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ASE's reader for a dump or a data file; none for another format.

    Warns:
        UserWarning: the file has forces or velocities, and states no units.

    Raises:
        ValueError: a file whose style, units or elements are not known.
    """
    if kind == DUMP:
        style, columns = _dump_header(path)
        _check_units(path, style, bool({"fx", "vx"} & set(columns)), "let LAMMPS write `dump_modify 1 units yes`")
        if "element" in columns:
            _check_element_column(path, types)
        # Room for types without a name, so that ``name_elements`` sees how many there are.
        named = {"specorder": [*types, *["X"] * _MOST_TYPES]} if types and "element" not in columns else {}
        return named | ({"units": style} if style else {})
    return _data_options(path, types) if kind == DATA else {}


def _check_units(path: Path, style: str | None, labelled: bool, remedy: str) -> None:
    """Check the style of units that a file states.

    Args:
        style: None where the file states none.
        labelled: whether the file has forces or velocities, whose numbers depend on the style in LAMMPS's usual units.
        remedy: how the file can state its units.

    Warns:
        UserWarning: no style for forces or velocities.

    Raises:
        ValueError: a style without a size.
    """
    if style is None and labelled:
        warnings.warn(
            f"{path}: states no units; it is read as metal (eV, Å, ps), and forces and velocities are wrong if it is real "
            f"(kcal/mol, Å, fs) or another style: then {remedy}",
            stacklevel=4,
        )
    if style is not None and style not in UNITS:
        raise ValueError(f"{path}: is in the units {style!r}; give it in one of {', '.join(UNITS)}")


def _check_element_column(path: Path, types: Sequence[str]) -> None:
    """Check that the column of elements of a dump, in its first frame, was written on purpose.

    Raises:
        ValueError: a name that is no element, or LAMMPS's C for all of several types.
    """
    columns, rows = next(_dump_rows(path), ([], []))
    remedy = "let LAMMPS write the elements, `dump_modify 1 element Si O`"
    names = {row[columns.index("element")] for row in rows}
    for name in sorted(names - set(chemical_symbols[1:])):
        raise ValueError(f"{path}: has {name!r} in the column `element`, which is no element; {remedy}")
    numbered = {row[columns.index("type")] for row in rows} if "type" in columns else set()
    if names == {"C"} and len(numbered) > 1 and not types:
        raise ValueError(
            f"{path}: calls all of its {len(numbered)} atom types C, as LAMMPS does where no elements are given; {remedy}, "
            f"or name them in {setting('types')} if all are carbon"
        )


def _check_agreement(path: Path, types: Sequence[str], named: Mapping[int, int]) -> None:
    """Check that ``types``, where given, are the elements that a file names itself; ``named`` is Z by type.

    Raises:
        ValueError: they are not.
    """
    for k, z in sorted(named.items()) if types else ():
        given = types[k - 1] if k <= len(types) else "nothing"
        if given != chemical_symbols[z]:
            raise ValueError(
                f"{path}: calls atom type {k} {chemical_symbols[z]}, but {setting('types')} says {given}; correct one of them"
            )


def name_elements(path: Path, images: Sequence[Any], types: Sequence[str]) -> None:
    """Set the elements of the frames of a dump; those of a data file are known from ``options``.

    Args:
        images: ``ase.Atoms`` of all frames, changed in place; frames of a dump with a column of masses get these masses.

    Raises:
        ValueError: numbers of types without names, a mass that names no element, or elements that contradict ``types``.
    """
    style, columns = _dump_header(path)
    if "element" in columns:
        for atoms in images:
            if "type" in atoms.arrays:
                _check_agreement(path, types, dict(zip(atoms.arrays["type"].tolist(), atoms.numbers.tolist(), strict=True)))
        return
    if "mass" not in columns and not types:
        highest = max(int(atoms.numbers.max(initial=0)) for atoms in images)
        example = _example(highest)
        remedy = f"name them in {setting('types')}, such as {example}, or dump a column `element`"
        raise ValueError(f"{path}: has numbers of atom types (up to {highest}), not elements; {remedy}")
    if types:
        if not all("type" in atoms.arrays for atoms in images):
            raise ValueError(f"{path}: has no column `type` to which types could give names; dump a column `type` or `element`")
        _check_number(path, types, max(int(atoms.arrays["type"].max(initial=0)) for atoms in images))
    if "mass" not in columns:
        return
    for atoms, masses in zip(images, _dump_masses(path, style or "metal"), strict=True):
        # ASE converted velocities to momenta with the masses of the elements that it guessed.
        velocities = atoms.get_velocities() if atoms.has("momenta") else None
        numbered = atoms.arrays["type"].tolist() if "type" in atoms.arrays else []
        if types:
            check_types(path, dict(zip(numbered, masses.tolist(), strict=True)), types)
            atoms.numbers = [atomic_numbers[types[k - 1]] for k in numbered]
        else:
            elements = {mass: named_by_mass(path, mass) for mass in set(masses.tolist())}
            atoms.numbers = [elements[mass] for mass in masses.tolist()]
        atoms.set_masses(masses)
        if velocities is not None:
            atoms.set_velocities(velocities)


def _example(count: int) -> str:
    return f"[{', '.join(('Si', 'O', 'H')[:count])}]"


def _check_number(path: Path, types: Sequence[str], count: int) -> None:
    """Check that ``types`` name all of the types.

    Raises:
        ValueError: they do not.
    """
    if len(types) < count:
        raise ValueError(
            f"{path}: has {count} atom types, but {setting('types')} names {len(types)}, {', '.join(types)}; "
            "name the element of each type, in the order of the types"
        )


def _dump_header(path: Path) -> tuple[str | None, list[str]]:
    """Read the style of units of a dump (None if not stated) and the names of the columns."""
    from ase.io.formats import open_with_compression

    style, columns = None, []
    with open_with_compression(str(path), "rt") as stream:
        for line in stream:
            if line.startswith("ITEM: UNITS"):
                style = next(stream, "").strip()
            if line.startswith("ITEM: ATOMS"):
                columns = line.split()[2:]
                break
    return style, columns


def _dump_rows(path: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Iterate over the frames of a dump: the names of the columns, and the words of each atom."""
    from ase.io.formats import open_with_compression

    count = 0
    with open_with_compression(str(path), "rt") as stream:
        for line in stream:
            if line.startswith("ITEM: NUMBER OF ATOMS"):
                count = int(next(stream))
            if line.startswith("ITEM: ATOMS"):
                # A file that is cut short is told by ASE's reader.
                yield line.split()[2:], [row.split() for row in islice(stream, count)]


def _dump_masses(path: Path, style: str) -> Iterator[np.ndarray]:
    """Iterate over the masses (atoms,) in amu of the frames of a dump, in the order of ASE's reader."""
    for columns, rows in _dump_rows(path):
        masses = np.array([row[columns.index("mass")] for row in rows], float)
        if "id" in columns:
            masses = masses[np.argsort([int(row[columns.index("id")]) for row in rows])]
        yield _in_amu(masses, style)


def _in_amu(masses: np.ndarray, style: str) -> np.ndarray:
    """Convert masses in a style of units to amu; ASE's constants would shift masses in amu by a relative 3e-10."""
    from ase.calculators.lammps import convert

    return masses if style in IN_AMU else convert(masses, "mass", style, "ASE")


class _Data(NamedTuple):
    """Content of a data file that says how to read the atoms."""

    units: str | None
    """Style of units; None if not stated."""
    types: int
    """Number of atom types."""
    style: str
    """Style stated after Atoms; empty if not stated."""
    atom: Sequence[str]
    """Words of the first atom in the section Atoms."""
    moving: bool
    """Whether there is a section Velocities."""
    masses: Mapping[int, float]
    """Masses by type, in ``units``."""
    comments: Mapping[int, str]
    """Comments of the masses by type."""
    labels: Mapping[int, str]
    """Labels by type."""


def _data_of(path: Path) -> _Data:
    """Read the header, the masses and the labels of a data file."""
    from ase.io.formats import open_with_compression

    section, style, count = "", "", 0
    rows: dict[str, list[list[str]]] = {"Masses": [], "Atom Type Labels": [], "Atoms": [], "Velocities": []}
    with open_with_compression(str(path), "rb") as stream:
        stated = re.search(r"\bunits\s*=\s*(\w+)", stream.readline().decode("utf-8", "replace"))
        for line in stream:
            content, _, note = line.decode("utf-8", "replace").partition("#")
            words = content.split()
            if not words:
                continue
            if words[0][0].isalpha():
                section = " ".join(words)
                style = note.strip() if section == "Atoms" else style
            elif not section and words[1:] == ["atom", "types"]:
                count = int(words[0])
            elif section in rows and not (section in ("Atoms", "Velocities") and rows[section]):
                rows[section].append([*words, note] if section == "Masses" else words)
    masses = {int(row[0]): float(row[1]) for row in rows["Masses"]}
    comments = {int(row[0]): row[-1] for row in rows["Masses"]}
    labels = {int(row[0]): row[1] for row in rows["Atom Type Labels"]}
    atom = rows["Atoms"][0] if rows["Atoms"] else []
    return _Data(stated[1] if stated else None, count, style, atom, bool(rows["Velocities"]), masses, comments, labels)


def _data_options(path: Path, types: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ASE's reader for a data file.

    Raises:
        ValueError: unknown style, units or elements.
    """
    data = _data_of(path)
    # Only the style atomic has five columns; ASE takes seven for full, which may be sphere.
    style = data.style or ("atomic" if len(data.atom) == 5 else "")
    if style not in STYLES:
        what = f"has the atom style {style!r}, which is not read" if style else "does not state its atom style"
        raise ValueError(f"{path}: {what}; write one of {', '.join(STYLES)} after Atoms, such as 'Atoms # atomic'")
    _check_units(path, data.units, data.moving, "write `units = real`, say, at the end of the first line")
    label = data.atom[1 if style in ("atomic", "charge") else 2] if len(data.atom) > 2 else ""
    if re.match("[A-Za-z]", label):
        raise ValueError(
            f"{path}: has labels of types ({label}) in Atoms, not numbers; let LAMMPS write numbers, "
            "`write_data FILE types numeric`"
        )
    units = data.units or "metal"
    masses = dict(zip(data.masses, _in_amu(np.array(list(data.masses.values())), units).tolist(), strict=True))
    labels = {k: chemical_symbols.index(name) for k, name in data.labels.items() if name in chemical_symbols[1:]}
    if labels and len(labels) == len(data.labels):
        _check_agreement(path, types, labels)
        elements = labels
    elif types:
        _check_number(path, types, data.types)
        check_types(path, masses, types)
        elements = {k: atomic_numbers[name] for k, name in enumerate(types, 1)}
    elif masses:
        elements = elements_of_types(path, masses, data.comments)
    else:
        remedy = f"name them in {setting('types')}, such as {_example(data.types)}"
        raise ValueError(f"{path}: has numbers of atom types (up to {data.types}), not elements; {remedy}")
    return {"Z_of_type": elements, "atom_style": style, "units": units}
