"""Structures in one HDF5 file, read frame by frame: for sets larger than memory.

Layout (format version 1; eV, Å, e), two tables, so that reading a frame costs few calls, with N atoms in F frames:
    attributes           format = "equipot structures", version = 1
    offsets  (F+1,)      atoms of frame k are rows offsets[k]:offsets[k+1]
    atoms    (N, 7)      Z, position (3), force (3)
    frames   (F, 31)     has energy, forces, stress (3); energy, charge, spin, weight, energy_weight, forces_weight,
                         stress_weight (7); pbc (3); cell by rows (9); stress by rows (9). What is not there is zero
    info     (F,)        JSON of everything else
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from equipot.data.split import Subset
from equipot.files import replacing
from equipot.structure import Structure

FORMAT, VERSION = "equipot structures", 1
SUFFIXES = (".h5", ".hdf5")
BLOCK = 256
"""Frames written at once."""
COLUMNS = {"atoms": 7, "frames": 31}
SCALARS = ("charge", "spin", "weight", "energy_weight", "forces_weight", "stress_weight")


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError('HDF5 files need h5py: pip install "equipot[hdf5]"') from None
    return h5py


def is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def write_hdf5(path: str | Path, structures: Iterable[Structure]) -> Path:
    """Writes structures (an iterator will do), block by block, and puts the file in its place when it is whole."""
    h5py, path = _h5py(), Path(path)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        for name, width in COLUMNS.items():
            file.create_dataset(name, (0, width), np.float64, maxshape=(None, width), chunks=(BLOCK, width))
        file.create_dataset("info", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(BLOCK,))
        file.create_dataset("offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(4096,))
        frames = iter(structures)
        while block := list(islice(frames, BLOCK)):
            _append(file, block)
    return path


def _append(file: Any, block: list[Structure]) -> None:
    sizes = np.cumsum([len(s) for s in block])
    zeros = np.zeros((3, 3))
    atoms = [np.column_stack([s.numbers, s.positions, np.zeros((len(s), 3)) if s.forces is None else s.forces]) for s in block]
    frames = [
        [
            *(label is not None for label in (s.energy, s.forces, s.stress)),
            *(s.energy or 0.0, *(getattr(s, name) for name in SCALARS)),
            *(*s.pbc, *s.cell.ravel(), *(zeros if s.stress is None else s.stress).ravel()),
        ]
        for s in block
    ]
    columns = {
        "atoms": np.concatenate(atoms),
        "frames": np.array(frames, float),
        "info": [json.dumps(dict(s.info), default=_plain) for s in block],
        "offsets": file["offsets"][-1] + sizes,
    }
    for name, values in columns.items():
        data = file[name]
        start = data.shape[0]
        data.resize(start + len(values), axis=0)
        data[start:] = values


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


class HDF5Dataset(Sequence):
    """The structures of a file written by ``write_hdf5``: a sequence that reads a frame when it is asked for.

    Raises:
        ValueError: not such a file, or cut short.
    """

    def __init__(self, path: str | Path) -> None:
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
            self._offsets = self._file["offsets"][:]
            self._atoms, self._frames, self._info = (self._file[name] for name in ("atoms", "frames", "info"))
        except (OSError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"{self.path}: not a whole HDF5 file ({first}); fetch or write it again") from None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return Subset(self, np.arange(len(self))[k])
        if not -len(self) <= k < len(self):
            raise IndexError(f"frame {k} of {len(self)} in {self.path}")
        k = int(k) % len(self)
        table = self._atoms[self._offsets[k] : self._offsets[k + 1]]
        row = self._frames[k]
        energy, forces, stress = row[:3].astype(bool)
        return Structure(
            numbers=table[:, 0].astype(np.int32),
            positions=table[:, 1:4],
            cell=row[13:22].reshape(3, 3),
            pbc=row[10:13].astype(bool),
            energy=float(row[3]) if energy else None,
            forces=table[:, 4:7] if forces else None,
            stress=row[22:31].reshape(3, 3) if stress else None,
            info=json.loads(self._info[k]),
            source=f"{self.path}, frame {k}",
            **dict(zip(SCALARS, row[4:10].tolist(), strict=True)),
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> HDF5Dataset:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
