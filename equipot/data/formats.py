"""Read files through ASE, without the values that ASE's readers invent.

Some formats lack values that ASE's ``Atoms`` need, and some readers fill the gap: ASE turns the numbers of atom types of a
LAMMPS dump into atomic numbers, and adds an energy of zero to its forces. Here values that a file does not hold are required
from the user or removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase.data import chemical_symbols

from equipot.data import lammps
from equipot.data.converged import SCF_CONVERGED, unconverged
from equipot.data.elements import check_elements
from equipot.data.keys import setting

DATABASES = (".db", ".json")
"""Suffixes of ASE's databases, whose labels may have any name and unit."""
PROGRAMS = {
    "CP2K|": "CP2K",
    "Psi4: An Open-Source": "Psi4",
    "Welcome to Q-Chem": "Q-Chem",
    "PROGRAM SYSTEM MOLPRO": "Molpro",
    "TURBOMOLE": "TURBOMOLE",
    "x T B": "xtb",
}
"""Programs whose outputs ASE does not read, by a text near the beginning of the output."""
HEAD = 50_000
"""Bytes at the beginning of a file that are searched for such a text."""
REMEDY = (
    "convert it to extended XYZ: number of atoms, a line with Lattice=\"...\" where it is periodic and energy=..., "
    "then element, position and force of each atom, in eV and Å"
)  # fmt: skip
_BINARY = (
    "a binary dump of LAMMPS is not read; let LAMMPS write text, `dump 1 all custom 100 run.lammpstrj id type element x y z "
    "fx fy fz` and `dump_modify 1 element Si O`, or convert the file with binary2txt, which comes with LAMMPS"
)
_NAMED = (
    "names its atoms (CA, MW), not their elements; convert it with its topology (with MDAnalysis, say) to PDB with "
    "elements in columns 77 and 78 or to extended XYZ"
)
REFUSED = {
    "qbox": f"Qbox writes atomic units, which ASE takes for eV and Å; {REMEDY}",
    "cp2k-dcd": f"a DCD file does not say which elements its atoms are; {REMEDY}",
    "netcdftrajectory": "a NetCDF trajectory does not say which elements its atoms are; convert it with its topology (with "
    "cpptraj or MDAnalysis) to PDB or extended XYZ, or let LAMMPS write a text dump with a column `element`",
    "gromacs": f"a .gro file {_NAMED}",
    "gromos": f"a .g96 file {_NAMED}",
    lammps.BINARY_DUMP: _BINARY,
    "bin": _BINARY,
}
"""Formats that ASE reads with wrong units or elements or not at all: the reason and a remedy. ``bin`` is a suffix that ASE does
not know, and that of older binary dumps."""


class Images(NamedTuple):
    """Frames of a file, and the units that the file states."""

    atoms: Sequence[Any]
    """``ase.Atoms``."""
    units: Mapping[str, str]
    """Units that the file states, by the name of the label; ``length`` is the unit of positions and cells."""


def read_images(path: Path, types: Sequence[str] = ()) -> Images:
    """Read all frames of a file with ASE.

    Args:
        path: a file in any format that ASE reads, except extended XYZ.
        types: element of each atom type, in the order of the types, for formats that number them.

    Raises:
        ValueError: ASE cannot read the file, or would invent elements or units; or a type that is no element.
    """
    import ase.io

    for name in types:
        if name not in chemical_symbols[1:]:
            raise ValueError(f"{setting('types')}: {name!r} is not the symbol of an element")
    if path.suffix.lower() == ".db":
        return _database(path)
    try:
        kind = lammps.kind_of(path) or ase.io.formats.filetype(str(path))
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from None
    if kind in REFUSED:
        raise ValueError(f"{path}: {REFUSED[kind]}")
    options = lammps.options(path, kind, types)
    try:
        images: Any = ase.io.read(path, ":", format=kind, **options, do_not_split_by_at_sign=True)
    except Exception as error:
        # Every format has its own exceptions; the user needs the file and the reason.
        raise ValueError(_unreadable(path, error)) from None
    if not images:
        raise ValueError(_unreadable(path, ValueError(f"there are no frames in it, read as {kind}")))
    if kind == lammps.DUMP:
        lammps.name_elements(path, images, types)
    check_elements(path, kind, images)
    for atoms, failed in zip(images, unconverged(path, kind, images), strict=True):
        _remove_inventions(atoms, kind, path)
        if failed is not False:
            atoms.info[SCF_CONVERGED] = None if failed is None else False
    return Images(images, {})


def _database(path: Path) -> Images:
    """Read an SQLite database of ASE, and the units that SchNetPack states in the metadata."""
    from ase.db import connect

    try:
        database = connect(str(path))
        images = [row.toatoms(add_additional_information=True) for row in database.select()]
        metadata = database.metadata
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from None
    units = {str(name): str(unit) for name, unit in (metadata.get("_property_unit_dict") or {}).items()}
    if metadata.get("_distance_unit"):
        units["length"] = str(metadata["_distance_unit"])
    return Images(images, units)


def _unreadable(path: Path, error: Exception) -> str:
    """Write the message for a file that cannot be read: the reason and a remedy."""
    head = path.read_bytes()[:HEAD].decode("utf-8", "replace")
    if not head.strip():
        return f"{path}: is empty; fetch or write it again"
    for mark, program in PROGRAMS.items():
        if mark in head:
            return f"{path}: looks like an output of {program}, which ASE does not read; {REMEDY}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path}: ASE cannot read it ({reason}); if nothing is wrong with the file, {REMEDY}"


def _remove_inventions(atoms: Any, kind: str, path: Path) -> None:
    """Remove the values that ASE's reader adds to a frame.

    Raises:
        ValueError: the energy is an enthalpy under pressure.
    """
    # ASE adds an energy of zero to the forces of a dump.
    if kind == lammps.DUMP and atoms.calc is not None:
        atoms.calc.results.pop("energy", None)
    if kind == "res" and atoms.calc is not None and atoms.info.get("pressure"):
        raise ValueError(
            f"{path}: AIRSS writes the enthalpy under {atoms.info['pressure']:g} GPa where ASE reads an energy; "
            "take the energies from the calculations themselves"
        )
