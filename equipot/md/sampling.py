"""Frames read back from the trajectory of a run, evenly chosen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.md.trajectory import H5MDWriter

BLOCK = 2**20
"""Bytes that are read at a time to count lines."""


class Sample(NamedTuple):
    """Geometry of one frame."""

    step: int
    time_fs: float
    numbers: Int[np.ndarray, " atoms"]
    position: Float[np.ndarray, "atoms 3"]
    """Å"""
    cell: Float[np.ndarray, "3 3"]
    """Å, rows are lattice vectors; zero rows without a cell."""
    pbc: tuple[bool, bool, bool]


def sampled(path: Path, most: int) -> list[Sample]:
    """Read at most ``most`` frames of a trajectory that ``equipot md`` wrote, evenly chosen, the first and the last among them.

    Args:
        path: trajectory.xyz or trajectory.h5.
        most: Largest number of frames, at least 2.

    Raises:
        OSError: the file cannot be read.
        ValueError: text that is not a trajectory of one number of atoms.
    """
    return sampled_h5(path, most) if path.suffix == ".h5" else sampled_xyz(path, most)


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the indices below ``count``, with the first and the last, (chosen,)."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)


def sampled_xyz(path: Path, most: int) -> list[Sample]:
    """Read frames of extended XYZ without parsing the others; see ``sampled``."""
    from ase.io.extxyz import read_xyz

    with open(path, "rb") as file:
        head = file.readline()
        if not head:
            return []
        if not head.strip().isdigit():
            raise ValueError(f"{path} does not begin with a number of atoms; it is no trajectory of this program")
        lines_per_frame = int(head) + 2
        file.seek(0)
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
        file.seek(0)
        chosen = evenly(lines // lines_per_frame, most)
        text = b"".join(lines_of(file, chosen, lines_per_frame)).decode()
    found = []
    for atoms in read_xyz(io.StringIO(text), slice(None)):
        pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
        step, time = int(atoms.info["step"]), float(atoms.info["time_fs"])
        found.append(Sample(step, time, atoms.numbers, atoms.positions, np.array(atoms.cell[:]), pbc))
    return found


def lines_of(file: io.BufferedReader, chosen: np.ndarray, lines_per_frame: int) -> Iterator[bytes]:
    """Yield the lines of the chosen frames."""
    wanted = set(chosen.tolist())
    for number, line in enumerate(file):
        if number // lines_per_frame in wanted:
            yield line


def sampled_h5(path: Path, most: int) -> list[Sample]:
    """Read frames of H5MD; see ``sampled``."""
    import h5py

    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        group = file[H5MDWriter.GROUP]
        steps = group["position/step"]
        chosen = evenly(len(steps), most)
        numbers = group["species"][:]
        repeats = [name == b"periodic" for name in group["box"].attrs["boundary"]]
        pbc = (repeats[0], repeats[1], repeats[2])
        read = lambda name, k: group[name][int(k)]
        return [
            Sample(
                int(read("position/step", k)), float(read("position/time", k)), numbers,
                read("position/value", k), read("box/edges/value", k), pbc,
            )
            for k in chosen
        ]  # fmt: skip
