"""Refuse files that do not name their elements, or not one for each site, where ASE's readers would guess."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

PDB = "proteindatabank"
"""ASE's name of the format PDB."""
CIF = "cif"
"""ASE's name of the format CIF."""
DL_POLY = ("dlp4", "dlp-history")
"""ASE's names of the formats of DL_POLY."""
FULL = 1e-3
"""Largest difference between one and the occupancy of a site that is occupied always."""


def check_elements(path: Path, kind: str, images: Sequence[Any]) -> None:
    """Check that a file in ASE's format ``kind`` names the element of each atom.

    Args:
        images: ``ase.Atoms`` of all frames of the file.

    Raises:
        ValueError: a PDB file without elements, whose atoms ASE names by their labels (CA, an alpha carbon, would be calcium),
            a DL_POLY file with such labels (CL would be carbon), or a CIF file with a site that is occupied partially, for
            which ASE takes one of the elements.
    """
    if kind == PDB:
        _check_pdb(path)
    for atoms in images if kind in DL_POLY else ():
        # ASE takes the first letter, and a small letter behind it, for the element.
        for symbol, further in sorted(
            set(zip(atoms.get_chemical_symbols(), atoms.arrays["dlp4_labels"].tolist(), strict=True))
        ):
            if further[:1].isalpha():
                raise ValueError(
                    f"{path}: the name {symbol + further!r} of atoms does not say which element they are; write the symbol of "
                    "the element, alone or before a digit or `_`, such as Cl or O_w, or convert the file to extended XYZ"
                )
    for frame, atoms in enumerate(images if kind == CIF else ()):
        for occupancy in atoms.info.get("occupancy", {}).values():
            if len(occupancy) > 1 or any(abs(share - 1) > FULL for share in occupancy.values()):
                site = ", ".join(f"{name} {share:g}" for name, share in occupancy.items())
                raise ValueError(
                    f"{path}, frame {frame}: has a site that is occupied partially ({site}), not by one atom; write a cell "
                    "(a supercell, say) in which each site holds one atom or none"
                )


def _check_pdb(path: Path) -> None:
    """Check that each atom of a PDB file has an element in columns 77 and 78.

    Raises:
        ValueError: one has none.
    """
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rt") as stream:
        for number, line in enumerate(stream, 1):
            if line.startswith(("ATOM", "HETATM")) and line[76:78].strip().capitalize() not in atomic_numbers:
                raise ValueError(
                    f"{path}, line {number}: the atom {line[12:16].strip()!r} has no element in columns 77 and 78, and its "
                    "name does not say which it is (CA is carbon or calcium); write these columns, or extended XYZ"
                )
