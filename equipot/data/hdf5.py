"""Structures in one HDF5 file, read frame by frame: for sets larger than memory.

Layout (format version 2 or 3; eV, Å, e) with N atoms in F frames; two tables make reading a frame cheap:
    attributes           format = "equipot structures", version = 2, quantities = JSON list of the rows of the labels
    offsets  (F+1,)      atoms of frame k are rows offsets[k]:offsets[k+1]
    atoms    (N, 4+a)    Z, position (3); then, for each quantity of atoms, its components; masses and momenta are such ones
    frames   (F, 15+g)   charge, spin, weight (3); pbc (3); cell by rows (9); then, for each quantity, whether the frame has the
                         label, the weight of the label and, for a quantity of graphs, its components. Missing labels are zero
                         a quantity of pairs (a Hessian) has there the number of its directions, 0 for a whole matrix, and its
                         place in ``matrices``, the number of the first of its values
    matrices (M,)        labels of quantities of pairs, one after the other (format version 3, where there are any)
    info     (F,)        JSON of ``Structure.info``, with ``Structure.constraints`` under a key of their own
A quantity that first occurs in a later block adds columns at the right. A stored row describes the columns; labels are read
under the row of the same name that the reader knows, see ``Stored``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot import electric_field, units
from equipot.data.keys import setting
from equipot.data.split import Subset
from equipot.files import replacing
from equipot.hessian_labels import is_whole
from equipot.quantities import ENERGY, FORCES, LABELLED, STRESS, TABLE, Quantity, ordered
from equipot.structure import Structure

MASSES = Quantity("masses", "atom", unit="amu")
MOMENTA = Quantity("momenta", "atom", (3,), unit="sqrt(eV amu)")
CONSTRAINTS = "equipot constraints"
"""Key of the constraints among the entries of a frame."""

FORMAT, VERSION = "equipot structures", 3
WITHOUT_MATRICES = 2
"""Version of a file without labels of pairs, which older readers can read."""
MATRICES, PLACE = "matrices", 2
"""Data set of the labels of pairs, and the number of columns in ``frames`` that say where a label is."""
SUFFIXES = (".h5", ".hdf5")
BLOCK = 256
"""Frames written at once."""
COLUMNS = {"atoms": 4, "frames": 15}
"""Number of columns of each table before those of the labels."""


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError('HDF5 files need h5py: pip install "equipot[hdf5]"') from None
    return h5py


def is_hdf5(path: Path) -> bool:
    """Whether the suffix of a path is one of HDF5."""
    return path.suffix.lower() in SUFFIXES


def write_hdf5(path: str | Path, structures: Iterable[Structure]) -> Path:
    """Write structures (any iterable) to an HDF5 file, block by block and atomically; return the path.

    Raises:
        ValueError: h5py is not installed.
        OSError: the disk is full or the folder cannot be written.
    """
    h5py, path = _h5py(), Path(path)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"], file.attrs["quantities"] = FORMAT, WITHOUT_MATRICES, "[]"
        frames = iter(structures)
        block = list(islice(frames, BLOCK))
        rows = _present(block)
        for name, width in COLUMNS.items():
            # A chunk is wide enough for whole rows of what the first frames have.
            wide = width + sum((row.size if row.per != "pair" else PLACE) + 2 for row in rows)
            file.create_dataset(name, (0, width), np.float64, maxshape=(None, None), chunks=(BLOCK, wide))
        file.create_dataset("info", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(BLOCK,))
        file.create_dataset("offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(4096,))
        while block:
            _append(file, block)
            block = list(islice(frames, BLOCK))
    return path


def _append(file: Any, block: list[Structure]) -> None:
    rows = _rows(file.attrs["quantities"], file.filename)
    rows += [row for row in _present(block) if row not in rows]
    file.attrs["quantities"] = json.dumps([asdict(row) for row in rows])
    pairs = [row for row in rows if row.per == "pair"]
    if pairs and MATRICES not in file:
        file.attrs["version"] = VERSION
        file.create_dataset(MATRICES, (0,), np.float64, maxshape=(None,), chunks=(4096,))
    matrices = [s.labels[row] for s in block for row in pairs if row in s.labels]
    places = iter((file[MATRICES].shape[0] if pairs else 0) + np.cumsum([0, *(matrix.size for matrix in matrices)]))
    columns = {
        "atoms": np.concatenate([_atoms(s, rows) for s in block]),
        "frames": np.stack([_frame(s, rows, places) for s in block]),
        "info": [json.dumps(_entries(s), default=_plain) for s in block],
        "offsets": file["offsets"][-1] + np.cumsum([len(s) for s in block]),
    } | ({MATRICES: np.concatenate([matrix.ravel() for matrix in matrices])} if matrices else {})
    for name, values in columns.items():
        data = file[name]
        start = data.shape[0]
        data.resize((start + len(values), *np.shape(values)[1:]))
        data[start:] = values


def _values(s: Structure) -> dict[Quantity, Any]:
    """Collect the labels of a structure and, where they are given, its masses and momenta."""
    motion = {MASSES: s.masses, MOMENTA: s.momenta}
    return {**s.labels, **{row: value for row, value in motion.items() if value is not None}}


def _present(block: Sequence[Structure]) -> tuple[Quantity, ...]:
    return ordered(row for s in block for row in _values(s))


def _entries(s: Structure) -> dict[str, Any]:
    field = {electric_field.KEY: s.field} if s.field.any() else {}
    return dict(s.info) | field | ({CONSTRAINTS: s.constraints} if s.constraints else {})


def _rows(text: str, path: str | Path) -> list[Quantity]:
    """Parse the quantities of a file, in the order of their columns.

    Raises:
        ValueError: a row with a field that ``Quantity`` does not have, without one that it needs, or with a wrong value.
    """
    known = {f.name for f in fields(Quantity)}
    try:
        rows: list[dict[str, Any]] = json.loads(text)
        for row in rows:
            row.update({name: tuple(value) for name, value in row.items() if isinstance(value, list)})
            if unknown := sorted(row.keys() - known):
                raise ValueError(f"{row.get('name')} has the unknown field {unknown[0]!r}")
        return [Quantity(**row) for row in rows]
    except (TypeError, ValueError, AttributeError) as error:
        what = f"{path}: the quantities of its labels cannot be read ({error})"
        raise ValueError(
            f"{what}; update equipot if a newer version wrote the file, or write it again from its source"
        ) from None


def _atoms(s: Structure, rows: Sequence[Quantity]) -> np.ndarray:
    """Build the rows of the table ``atoms`` of a structure: (atoms, columns)."""
    found = _values(s)
    values = [found.get(row, np.zeros((len(s), *row.shape))) for row in rows if row.per == "atom"]
    return np.column_stack([s.numbers, s.positions, *(np.reshape(value, (len(s), -1)) for value in values)])


def _frame(s: Structure, rows: Sequence[Quantity], places: Iterator[int]) -> np.ndarray:
    """Build the row of the table ``frames`` of a structure: (columns,); ``places`` are those of the next labels of pairs."""
    parts: list[Any] = [[s.charge, s.spin, s.weight], s.pbc, s.cell.ravel()]
    found = _values(s)
    for row in rows:
        parts.append([row in found, s.label_weights.get(row, 1.0)])
        if row.per == "graph":
            parts.append(np.ravel(found.get(row, np.zeros(row.shape))))
        elif row.per == "pair":
            label = found.get(row)
            parts.append([0, 0] if label is None else [0 if is_whole(label) else len(label), next(places)])
    return np.concatenate(parts).astype(float)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


class Stored(NamedTuple):
    """Quantity of a file."""

    columns: Quantity
    """Row in the file, which describes the columns."""
    row: Quantity
    """Row of the labels that are read."""
    factor: float
    """Unit of ``columns`` in the unit of ``row``."""


def _matched(columns: Quantity, known: Mapping[str, Quantity], path: Path) -> Stored:
    """Find the row of the same name as a row in a file; other fields, such as scale or display, may have changed since.

    Raises:
        ValueError: a row of another shape, dimension or unit.
    """
    row = known.get(columns.name, columns)
    sizes = [units.parsed(one.unit, one.dimension) for one in (columns, row)]
    factor = 1.0 if columns.unit == row.unit else sizes[0] / sizes[1] if sizes[0] and sizes[1] else None
    alike = (columns.per, columns.shape, columns.dimension) == (row.per, row.shape, row.dimension)
    if factor is not None and alike:
        return Stored(columns, row, factor)
    inside, wanted = (f"per {one.per}, shape {one.shape}, unit {one.unit or 'none'}" for one in (columns, row))
    key = setting(f"keys.{row.name}" if row in LABELLED else f"keys.others.{row.name}")
    dimensions = "" if columns.dimension == row.dimension else f" (dimensions {columns.dimension} and {row.dimension})"
    raise ValueError(
        f"{path}: holds {row.name} {inside}, but {wanted} is to be read{dimensions}; write the file again from its source, or "
        f"leave the label out: set {key} to none"
    )


class HDF5Dataset(Sequence):
    """Sequence of the structures in a file of ``write_hdf5``; reads each frame on access.

    Args:
        quantities: rows of further quantities; a label of the same name in the file is read under such a row, else under the
            row of ``TABLE``, else under the row in the file.
        ignored: names of labels that the reader removes; their rows need not fit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, cut short, or written by a newer version; a label whose quantity cannot be read, or
            whose shape or unit is not that of its quantity.
    """

    def __init__(self, path: str | Path, quantities: Sequence[Quantity] = (), ignored: Collection[str] = ()) -> None:
        self.path = Path(path)
        h5py = _h5py()
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        try:
            self._file = h5py.File(self.path, "r")
            attributes = dict(self._file.attrs)
            if attributes.get("format") != FORMAT:
                raise ValueError(f"{self.path}: not written by equipot.data.hdf5.write_hdf5; convert it with that")
            if attributes["version"] > VERSION:
                version = attributes["version"]
                raise ValueError(f"{self.path}: has format version {version}, newer than {VERSION}; update equipot")
            self._version = int(attributes["version"])
            rows = list(LABELLED) if self._version == 1 else _rows(attributes["quantities"], self.path)
            self._offsets = self._file["offsets"][:]
            self._atoms, self._frames, self._info = (self._file[name] for name in ("atoms", "frames", "info"))
        except (OSError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"{self.path}: not a whole HDF5 file ({first}); fetch or write it again") from None
        known = {row.name: row for row in (*TABLE, MASSES, MOMENTA, *quantities) if row.name not in ignored}
        self._stored = [_matched(row, known, self.path) for row in rows]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return Subset(self, np.arange(len(self))[k])
        if not -len(self) <= k < len(self):
            raise IndexError(f"frame {k} of {len(self)} in {self.path}")
        k = int(k) % len(self)
        table = self._atoms[self._offsets[k] : self._offsets[k + 1]]
        info, source = json.loads(self._info[k]), f"{self.path}, frame {k}"
        constraints, field = tuple(info.pop(CONSTRAINTS, ())), np.array(info.pop(electric_field.KEY, np.zeros(3)))
        read = _decode_first if self._version == 1 else partial(_decode, matrices=self._file.get(MATRICES))
        return read(self._stored, table, self._frames[k]).replace(
            info=info, field=field, source=source, constraints=constraints
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> HDF5Dataset:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _decode(stored: Sequence[Stored], table: np.ndarray, frame: np.ndarray, matrices: Any) -> Structure:
    """Rebuild a structure from its rows of the tables ``atoms`` and ``frames``, and the data set ``matrices``, None without."""
    labels: dict[Quantity, Any] = {}
    weights: dict[Quantity, float] = {}
    column, place = COLUMNS["atoms"], COLUMNS["frames"]
    for _, row, factor in stored:
        present, weight = frame[place : place + 2]
        shape, width = row.shape_of(len(table)), {"graph": row.size, "atom": 0, "pair": PLACE}[row.per]
        value = frame[place + 2 : place + 2 + width]
        if row.per == "atom":
            value, column = table[:, column : column + row.size], column + row.size
        elif row.per == "pair" and present:
            count, first = value.astype(int)
            shape = (count, 2, len(table), 3) if count else shape
            value = matrices[first : first + math.prod(shape)]
        place += 2 + width
        weights |= {row: float(weight)} if weight != 1 else {}
        labels |= {row: row.scaled(value.reshape(shape), factor)} if present else {}
    charge, spin, weight = frame[:3].tolist()
    masses, momenta = labels.pop(MASSES, None), labels.pop(MOMENTA, None)
    return Structure(
        table[:, 0].astype(np.int32), table[:, 1:4], frame[6:15].reshape(3, 3), frame[3:6].astype(bool), labels=labels,
        charge=charge, spin=spin, weight=weight, label_weights=weights, masses=masses, momenta=momenta,
    )  # fmt: skip


def _decode_first(stored: Sequence[Stored], table: np.ndarray, frame: np.ndarray) -> Structure:
    """Rebuild a structure from its rows in format version 1, whose columns are fixed.

    Columns of atoms: Z, position (3), force (3). Columns of frames: whether the frame has energy, forces, stress (3); energy;
    charge; spin; weight; weights of energy, forces, stress (3); pbc (3); cell (9); stress (9).
    """
    values = {ENERGY: frame[3], FORCES: table[:, 4:7], STRESS: frame[22:31].reshape(3, 3)}
    charge, spin, weight = frame[4:7].tolist()
    rows = [one.row for one in stored]
    return Structure(
        table[:, 0].astype(np.int32), table[:, 1:4], frame[13:22].reshape(3, 3), frame[10:13].astype(bool),
        labels={row: values[row] for row, present in zip(rows, frame[:3], strict=True) if present},
        charge=charge, spin=spin, weight=weight, label_weights=dict(zip(rows, frame[7:10].tolist(), strict=True)),
    )  # fmt: skip
