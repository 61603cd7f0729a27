"""Files that grow by a chunk at a time and can be cut back to the last checkpoint.

Every file has ``mark()``, which returns the length, and ``cut(mark)``, which shortens the file to a length. Content beyond the
mark of the last checkpoint, left by a kill, is cut off when the run is resumed.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from equipot.files import write_atomically
from equipot.quantities import FORCES_STD, NOVELTY
from equipot.units import fs, kJ_per_mol


class Frame(NamedTuple):
    """One frame on the host; units are eV, Å, amu and sqrt(eV amu), time in fs."""

    step: int
    time_fs: float
    position: Float[np.ndarray, "atoms 3"]
    momentum: Float[np.ndarray, "atoms 3"]
    force: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    energy: float
    estimates: Mapping[str, Float[np.ndarray, " atoms"]] = MappingProxyType({})
    """Estimates of uncertainty of each atom by the names of ``ESTIMATES``; without those that were not made for this frame."""


class Writer(Protocol):
    """A file to which frames are appended."""

    def append(self, frames: Sequence[Frame]) -> None:
        """Append frames."""

    def mark(self) -> int:
        """Return the length of the file."""

    def cut(self, mark: int) -> None:
        """Shorten the file to a length of ``mark``."""


class System(NamedTuple):
    """Properties that all frames share."""

    numbers: Int[np.ndarray, " atoms"]
    mass: Float[np.ndarray, "atoms 1"]
    pbc: tuple[bool, bool, bool]
    own_masses: bool = False
    """Whether the structure has masses of its own, which text files then store."""
    conditions: Mapping[str, Any] = MappingProxyType({})
    """Charge (e), spin and electric field (V/Å) by name; empty for a neutral singlet without a field."""
    has_estimates: bool = False
    """Whether some of the frames have estimates of uncertainty."""


@dataclass(frozen=True)
class ExtXYZ:
    """Frames as extended XYZ text: for small systems and short runs; every tool reads it."""

    every: int = 100
    """Steps between frames."""

    def writer(self, out: Path, system: System) -> Writer:
        """Make the writer of ``trajectory.xyz`` in the folder ``out``."""
        return ExtXYZWriter(out / "trajectory.xyz", system)


@dataclass(frozen=True)
class H5MD:
    """Frames as H5MD (HDF5): compact, for long runs; MDAnalysis reads it. Needs h5py."""

    every: int = 100
    """Steps between frames."""

    def writer(self, out: Path, system: System) -> Writer:
        """Make the writer of ``trajectory.h5`` in the folder ``out``."""
        return H5MDWriter(out / "trajectory.h5", system)


class TextFile:
    """Growing text file, flushed to disk when ``append`` returns."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, text: str) -> None:
        """Append text.

        Raises:
            OSError: the disk is full, or the file cannot be written; a part may have been appended.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            # Writing to an open file fails without its name.
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def mark(self) -> int:
        """Return the length in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, mark: int) -> None:
        """Shorten the file to ``mark`` bytes.

        Raises:
            ValueError: the file is shorter.
        """
        if self.mark() < mark:
            raise ValueError(f"{self.path} is shorter than when the checkpoint was written; it was changed: cannot resume")
        if self.path.exists():
            os.truncate(self.path, mark)


class ExtXYZWriter:
    """Writer of extended XYZ with positions, momenta and forces of every atom; energy, step and time of every frame."""

    def __init__(self, path: Path, system: System):
        self.file = TextFile(path)
        self.system = system

    def append(self, frames: Sequence[Frame]) -> None:
        from ase.io.extxyz import write_extxyz

        text = io.StringIO()
        write_extxyz(text, [self.atoms(frame) for frame in frames])
        self.file.append(text.getvalue())

    def atoms(self, frame: Frame) -> Any:
        """Convert a frame to ``ase.Atoms`` with energy and forces."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        system = self.system
        cell = frame.cell if any(system.pbc) else None
        atoms = Atoms(numbers=system.numbers, positions=frame.position, cell=cell, pbc=system.pbc, momenta=frame.momentum)
        if system.own_masses:
            atoms.set_masses(system.mass[:, 0])
        atoms.info |= {**system.conditions, "step": frame.step, "time_fs": frame.time_fs}
        atoms.arrays |= frame.estimates
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.force)
        return atoms

    def mark(self) -> int:
        return self.file.mark()

    def cut(self, mark: int) -> None:
        self.file.cut(mark)


ESTIMATES = (FORCES_STD, NOVELTY)
"""Estimates of uncertainty that frames may have; as series in H5MD, NaN in frames without."""


class H5MDWriter:
    """Writer of H5MD 1.1 (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546, 2014), group ``particles/trajectory``.

    The file is open only while a chunk is appended, in HDF5's single-writer mode, so that it stays readable after a kill at any
    moment. Lengths are in Å, times in fs, the energy in eV; forces are in kJ/mol/Å, since
    MDAnalysis knows no eV/Å. Positions, velocities and forces are float32, cell and energy float64.
    """

    GROUP = "particles/trajectory"

    def __init__(self, path: Path, system: System):
        self.path = path
        self.system = system

    def append(self, frames: Sequence[Frame]) -> None:
        """Append frames.

        Raises:
            OSError: the disk is full, or the file cannot be written; earlier frames stay readable.
        """
        try:
            self._append(frames)
        except OSError as error:
            # The library's own message need not say which file.
            raise OSError(error.errno or errno.EIO, f"cannot write {self.path} ({' '.join(str(error).split())})") from error

    def _append(self, frames: Sequence[Frame]) -> None:
        import h5py

        if not frames:
            return
        if not self.path.exists():
            self._create()
        velocity = lambda frame: frame.momentum / self.system.mass * fs
        with h5py.File(self.path, "r+", libver="latest") as file:
            file.swmr_mode = True
            group = file[self.GROUP]
            start = len(group["position/step"])
            rows = {
                "position/value": [frame.position for frame in frames],
                "velocity/value": [velocity(frame) for frame in frames],
                "force/value": [frame.force / kJ_per_mol for frame in frames],
                "box/edges/value": [frame.cell for frame in frames],
                "observables/potential_energy/value": [frame.energy for frame in frames],
            }
            names = ["position", "velocity", "force", "box/edges", "observables/potential_energy"]
            # As the file was begun: a resumed run may have another gate.
            unknown = np.full(len(self.system.numbers), np.nan)
            for name in (row.name for row in ESTIMATES if row.name in group["observables"]):
                names.append(f"observables/{name}")
                rows[f"observables/{name}/value"] = [frame.estimates.get(name, unknown) for frame in frames]
            for name in names:
                rows[f"{name}/time"] = [frame.time_fs for frame in frames]
                # The steps of the positions count the frames, so they come last of all.
                rows[f"{name}/step"] = [frame.step for frame in frames]
            rows["position/step"] = rows.pop("position/step")
            for name, values in rows.items():
                data = group[name]
                data.resize(start + len(frames), axis=0)
                data[start:] = np.asarray(values, data.dtype)
                data.flush()

    def mark(self) -> int:
        """Return the number of frames."""
        import h5py

        if not self.path.exists():
            return 0
        with h5py.File(self.path, "r", libver="latest", swmr=True) as file:
            return len(file[self.GROUP]["position/step"])

    def cut(self, mark: int) -> None:
        """Shorten the file to ``mark`` frames; a file that a kill left open is copied to a closed one.

        Raises:
            ValueError: the file has fewer frames.
        """
        import h5py

        if mark == 0:
            # The species and masses in it may be of another system.
            self.path.unlink(missing_ok=True)
            return
        if self.mark() < mark:
            raise ValueError(f"{self.path} has fewer frames than when the checkpoint was written: cannot resume")
        try:
            with h5py.File(self.path, "r+", libver="latest") as file:
                self._resize(file, mark)
        except OSError:
            fresh = io.BytesIO()
            with h5py.File(self.path, "r", libver="latest", swmr=True) as old, h5py.File(fresh, "w", libver="latest") as new:
                for name in old:
                    old.copy(name, new)
                self._resize(new, mark)
            write_atomically(self.path, fresh.getvalue())

    def _resize(self, file: Any, mark: int) -> None:
        import h5py

        def shorten(name: str, item: Any) -> None:
            # Datasets of fixed size, such as the species, are not a series in time.
            if isinstance(item, h5py.Dataset) and item.maxshape[:1] == (None,):
                item.resize(mark, axis=0)

        file[self.GROUP].visititems(shorten)

    def _create(self) -> None:
        import h5py

        from equipot import __version__

        content = io.BytesIO()
        n = len(self.system.numbers)
        with h5py.File(content, "w", libver="latest") as file:
            head = file.create_group("h5md")
            head.attrs["version"] = np.array([1, 1], np.int32)
            head.create_group("author").attrs["name"] = "unknown"
            head.create_group("creator").attrs.update({"name": "equipot", "version": __version__})
            group = file.create_group(self.GROUP)
            group["species"] = self.system.numbers.astype(np.int32)
            group["mass"] = self.system.mass[:, 0]
            group["mass"].attrs["unit"] = "u"
            box = group.create_group("box")
            box.attrs["dimension"] = 3
            box.attrs["boundary"] = np.array(["periodic" if p else "none" for p in self.system.pbc], dtype="S8")
            self._series(group, "position", (n, 3), np.float32, "Angstrom")
            self._series(group, "velocity", (n, 3), np.float32, "Angstrom fs-1")
            self._series(group, "force", (n, 3), np.float32, "kJ mol-1 Angstrom-1")
            self._series(group, "box/edges", (3, 3), np.float64, "Angstrom")
            self._series(group, "observables/potential_energy", (), np.float64, "eV")
            for row in ESTIMATES if self.system.has_estimates else ():
                self._series(group, f"observables/{row.name}", (n,), np.float32, "eV Angstrom-1" if row.unit else "1")
        write_atomically(self.path, content.getvalue())

    def _series(self, group: Any, name: str, shape: tuple[int, ...], dtype: Any, unit: str) -> None:
        part = group.create_group(name)
        rows = max(1, min(1024, 2**18 // max(1, int(np.prod(shape)))))
        make = lambda key, shape, dtype, rows: part.create_dataset(
            key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape)
        )
        make("value", shape, dtype, rows).attrs["unit"] = unit
        make("step", (), np.int64, 1024)
        make("time", (), np.float64, 1024).attrs["unit"] = "fs"
