"""Read structures with labels from arrays of NumPy (.npz), as sGDML and others publish them.

Arrays with a leading axis of frames hold values of frames; of the other arrays only numbers, cell, pbc and units are read. All
frames have the same number of atoms. Object arrays, which are pickles, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipot.data.keys import Keys, Units
from equipot.data.labels import choose, frame, structure
from equipot.data.selection import frame_slice, no_frames
from equipot.data.spins import with_meaning
from equipot.structure import Structure

NUMBERS = ("z", "numbers", "atomic_numbers", "nuclear_charges", "charges_nuclear")
"""Names of atomic numbers, in lower case."""
POSITIONS = ("r", "positions", "coords", "coordinates", "pos")
"""Names of positions, in lower case."""
CELLS = ("cell", "cells", "lattice", "lattices")
"""Names of cells, rows are lattice vectors, in lower case."""
LENGTH_UNIT = "r_unit"
"""Name of the unit of positions in files of sGDML."""


def is_npz(path: Path) -> bool:
    """Whether the suffix of a path is .npz."""
    return path.suffix.lower() == ".npz"


def read_npz(path: Path, keys: Keys, units: Units, index: str) -> list[Structure]:
    """Read frames of a file of arrays.

    Args:
        path: File.
        keys: Names of the labels.
        units: Units of the file; without any, those that it states, else eV and Å.
        index: Frames to read, such as ``:`` or ``0:100``.

    Raises:
        ValueError: no such arrays as numbers and positions, arrays of objects, other shapes, or no frames.
    """
    from ase import Atoms

    held = _arrays(path)
    numbers, positions = (_named(held, names, what, path) for names, what in ((NUMBERS, "numbers"), (POSITIONS, "positions")))
    positions = positions[None] if positions.ndim == 2 else positions
    count, atoms = positions.shape[:2]
    fits = lambda value, *shape: np.shape(value) in (shape, (count, *shape))
    if positions.shape[2:] != (3,) or not fits(numbers, atoms) or not np.all(numbers > 0):
        raise ValueError(
            f"{path}: positions {positions.shape} (frames, atoms, 3) do not fit atomic numbers, (atoms,) or (frames, atoms) "
            "without zeros; write frames of different sizes as extended XYZ"
        )
    given = [held.pop(name) for name in list(held) if name.lower() in CELLS]
    cell, pbc = given[0] if given else np.zeros((3, 3)), held.pop("pbc", np.full(3, bool(given)))
    if not fits(cell, 3, 3) or not fits(pbc, 3):
        raise ValueError(f"{path}: a cell is (3, 3) or (frames, 3, 3), pbc (3,) or (frames, 3)")
    numbers, cell = np.broadcast_to(numbers, (count, atoms)), np.broadcast_to(cell, (count, 3, 3))
    pbc = np.broadcast_to(pbc, (count, 3))
    stated = [("length", str(held.pop(LENGTH_UNIT)))] if LENGTH_UNIT in held else []
    frames = []
    for k in range(count)[frame_slice(index, str(path))]:
        info = {name: value[k] if np.shape(value)[:1] == (count,) else value for name, value in held.items()}
        own = {name: value for name, value in info.items() if value is not held[name] or isinstance(value, str)}
        image = Atoms(numbers[k], positions[k], cell=cell[k], pbc=pbc[k], info=own)
        frames.append(frame(image, f"{path}, frame {k}", keys, stated))
    if not frames:
        raise ValueError(no_frames(str(path), index, count))
    chosen, units = choose(frames, keys, str(path)), with_meaning(units, frames, str(path))
    return [structure(f, chosen, keys, units) for f in frames]


def _arrays(path: Path) -> dict[str, Any]:
    """Read all arrays of a file by name; texts of no dimension become strings, an axis of one behind the frames' is dropped.

    Raises:
        ValueError: not a file of arrays, or one of objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as arrays without objects ({first}); write it again, or as HDF5") from None
    except Exception as error:
        # zipfile has errors of its own for a file that is cut short.
        raise ValueError(f"{path}: not a whole file of arrays ({error}); fetch or write it again") from None
    out: dict[str, Any] = {}
    for name, value in held.items():
        if value.dtype.kind in "SU":
            if value.ndim == 0:
                out[name] = value.item().decode() if value.dtype.kind == "S" else value.item()
            continue
        # sGDML writes energies as (frames, 1).
        out[name] = value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value
    return out


def _named(held: dict[str, Any], names: Sequence[str], what: str, path: Path) -> np.ndarray:
    """Take the array with one of some names out of a file.

    Raises:
        ValueError: there is none, or several.
    """
    found = [name for name in held if name.lower() in names]
    if len(found) != 1:
        there = f"there is {', '.join(_shapes(held))}"
        raise ValueError(f"{path}: {'no' if not found else 'several'} array(s) of {what}, called {', '.join(names)}; {there}")
    return np.asarray(held.pop(found[0]))


def _shapes(held: Mapping[str, Any]) -> list[str]:
    return [f"{name} {np.shape(value)}" for name, value in held.items()]
