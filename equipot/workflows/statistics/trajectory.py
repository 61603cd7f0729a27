"""Trajectories frame by frame, from files of ``equipot md`` and from any that ASE reads; never all frames in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.data.selection import frame_slice, split_index
from equipot.electrons import charge_and_spin
from equipot.units import fs

GROUP = "particles/trajectory"
"""Group of the files of ``equipot.md.H5MD``."""
ROWS = 2**20
"""Number of coordinates that are read from an HDF5 file at a time."""


class Snapshot(NamedTuple):
    """One frame."""

    positions: Float[np.ndarray, "atoms 3"]
    """Å."""
    velocities: Float[np.ndarray, "atoms 3"] | None
    """Å/fs; None for a file without."""
    cell: Float[np.ndarray, "3 3"]
    """Å, rows; zeros where open."""
    time_fs: float | None = None
    """None for a file without times."""
    energy: float | None = None
    """Potential energy, eV."""
    stress: Float[np.ndarray, "3 3"] | None = None
    """Without the kinetic part, eV/Å^3, positive under tension."""
    dipole: Float[np.ndarray, " 3"] | None = None
    """e Å."""
    electrons: tuple[float, float] = (0.0, 0.0)
    """Total charge (e) and number of unpaired electrons."""

    @property
    def volume(self) -> float:
        """|det cell|, Å^3; zero for an open system."""
        return float(abs(np.linalg.det(self.cell)))


@dataclass(frozen=True)
class Trajectory:
    """Frames of one system at equal intervals, which can be read again and again."""

    numbers: Int[np.ndarray, " atoms"]
    masses: Float[np.ndarray, " atoms"]
    """amu."""
    pbc: tuple[bool, bool, bool]
    frames: Callable[[], Iterator[Snapshot]]
    """Begin to read the frames anew."""
    interval_fs: float
    """Time between frames, fs."""
    name: str = "trajectory"
    log: Path | None = None
    """Log of the run of ``equipot md`` that wrote the trajectory."""

    @property
    def elements(self) -> dict[str, np.ndarray]:
        """Indices of the atoms of each element, by symbol."""
        from ase.data import chemical_symbols

        return {chemical_symbols[z]: np.flatnonzero(self.numbers == z) for z in sorted(set(self.numbers.tolist()))}

    def skipping(self, time_fs: float) -> Trajectory:
        """Return the trajectory without its first ``time_fs``."""
        first = round(time_fs / self.interval_fs)

        def frames() -> Iterator[Snapshot]:
            for k, frame in enumerate(self.frames()):
                if k >= first:
                    yield frame

        return replace(self, frames=frames) if first else self

    def checked(self) -> Iterator[Snapshot]:
        """Read the frames, and check each.

        Raises:
            ValueError: a frame of another number of atoms, with values that are not finite, or off the equal intervals.
        """
        start, k = None, -1
        for k, frame in enumerate(self.frames()):
            where = f"{self.name}, frame {k}"
            if frame.positions.shape != (len(self.numbers), 3):
                raise ValueError(f"{where}: has {len(frame.positions)} atoms, the first frame {len(self.numbers)}")
            moving = frame.velocities is None or np.isfinite(frame.velocities).all()
            if not (np.isfinite(frame.positions).all() and moving):
                raise ValueError(f"{where}: a position or velocity is not finite; cut the trajectory before it")
            if frame.time_fs is not None:
                start = frame.time_fs if start is None else start
                expected = start + k * self.interval_fs
                if abs(frame.time_fs - expected) > 0.01 * self.interval_fs:
                    raise ValueError(
                        f"{where}: is at {frame.time_fs:g} fs instead of {expected:g}: frames must be at equal intervals; "
                        "cut the trajectory there"
                    )
            yield frame
        if k < 0:
            raise ValueError(f"{self.name} has no frames, or none is left after those that are skipped")


def open_trajectory(source: str, interval_fs: float | None = None) -> Trajectory:
    """Open a trajectory: the folder of a run of ``equipot md``, a file of such a run, or one that ASE reads, FILE or FILE@A:B.

    Args:
        source: Folder or file.
        interval_fs: Time between frames (fs), for a file that does not say it; a file that does must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: fewer than two frames, no interval or two that differ, or a system without a single moving atom.
    """
    path, index = (Path(source), ":") if Path(source).exists() else split_index(source)
    if path.is_dir():
        path = next((p for p in (path / "trajectory.h5", path / "trajectory.xyz") if p.exists()), path / "trajectory.xyz")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such trajectory")
    if ":" not in index:
        raise ValueError(f"{source}: @{index} is one frame, which tells nothing about time; give FILE or FILE@A:B")
    part = frame_slice(index, source)
    if part.step is not None and part.step < 0:
        raise ValueError(f"{source}: frames backwards in time; leave out the minus before the step")
    found = _of_h5md(path, part) if path.suffix in (".h5", ".h5md") else _of_ase(path, part)
    log = path.parent / "log.csv"
    first = [frame for _, frame in zip(range(2), found.frames(), strict=False)]
    if len(first) < 2:
        raise ValueError(f"{source} has {len(first)} frames, which tell nothing about time; give a trajectory")
    times = [frame.time_fs for frame in first]
    stated = None if times[0] is None or times[1] is None else times[1] - times[0]
    if stated is None and interval_fs is None:
        raise ValueError(f"{source} does not say the time between frames; give it, --set interval_fs=...")
    if stated is not None and interval_fs is not None and abs(stated - interval_fs) > 0.01 * interval_fs:
        raise ValueError(f"interval_fs is {interval_fs:g}, but frames of {source} are {stated:g} fs apart; leave it out")
    interval = stated if stated is not None else interval_fs
    assert interval is not None
    if not interval > 0:
        raise ValueError(f"{source}: frames are {interval:g} fs apart; times must grow")
    # The lines of the log are those of all frames.
    whole = index == ":" and log.exists() and path.stem == "trajectory"
    return replace(found, interval_fs=float(interval), name=source, log=log if whole else None)


def from_frames(frames: Callable[[], Iterator[Any]], interval_fs: float, name: str = "trajectory") -> Trajectory:
    """Make a trajectory of frames that are ``ase.Atoms``, such as those of a generator.

    Raises:
        ValueError: no frames.
    """
    first = next(iter(frames()), None)
    if first is None:
        raise ValueError(f"{name} has no frames")
    a, b, c = (bool(x) for x in first.pbc)
    read = lambda: (snapshot(atoms) for atoms in frames())
    return Trajectory(first.numbers, first.get_masses(), (a, b, c), read, interval_fs, name)


def snapshot(atoms: Any) -> Snapshot:
    """Convert an ``ase.Atoms`` with what its calculator holds; momenta become velocities, ``time_fs`` in its info the time."""
    results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    stress = results.get("stress")
    if stress is not None and np.shape(stress) != (3, 3):
        from ase.stress import voigt_6_to_full_3x3_stress

        stress = voigt_6_to_full_3x3_stress(np.asarray(stress))
    time = atoms.info.get("time_fs")
    return Snapshot(
        positions=atoms.positions,
        velocities=atoms.get_velocities() * fs if atoms.has("momenta") else None,
        cell=np.where(atoms.pbc[:, None], atoms.cell[:], 0),
        time_fs=None if time is None else float(time),
        energy=results.get("energy"),
        stress=stress,
        dipole=results.get("dipole", atoms.info.get("dipole")),
        electrons=electrons_of(atoms),
    )


def electrons_of(atoms: Any) -> tuple[float, float]:
    """Return total charge (e) and number of unpaired electrons that the info of an ``ase.Atoms`` states."""
    charge, spin = charge_and_spin(atoms.info, "trajectory")
    return float(charge), float(spin)


def _of_ase(path: Path, part: slice) -> Trajectory:
    from ase.io import iread

    def frames() -> Iterator[Any]:
        return iread(str(path), index=part)

    return from_frames(frames, 0.0, str(path))


def _of_h5md(path: Path, part: slice) -> Trajectory:
    import h5py

    def opened() -> Any:
        return h5py.File(path, "r", libver="latest", swmr=True)

    with opened() as file:
        group = file[GROUP] if GROUP in file else None
        if group is None:
            raise ValueError(f"{path} has no group {GROUP}; only H5MD files of equipot can be read, convert it for ASE")
        numbers, mass = group["species"][:], group["mass"][:]
        count = len(group["position/step"])
        edge = [bytes(x) == b"periodic" for x in group["box"].attrs["boundary"]]
    chosen: Sequence[int] = range(count)[part]
    rows = max(1, ROWS // (3 * len(numbers)))

    def frames() -> Iterator[Snapshot]:
        with opened() as file:
            group = file[GROUP]
            for first in range(0, len(chosen), rows):
                block = chosen[first : first + rows]
                here = slice(block[0], block[-1] + 1, block[1] - block[0] if len(block) > 1 else 1)
                positions, velocities = group["position/value"][here], group["velocity/value"][here]
                cells, times = group["box/edges/value"][here], group["position/time"][here]
                energies = group["observables/potential_energy/value"][here]
                for k in range(len(block)):
                    cell = np.where(np.array(edge)[:, None], cells[k], 0)
                    yield Snapshot(positions[k], velocities[k], cell, float(times[k]), float(energies[k]))

    return Trajectory(numbers, mass.astype(np.float64), (edge[0], edge[1], edge[2]), frames, 0.0, str(path))
