"""The structures of the work items, made here and written as files, so that every program reads the same. Needs ASE."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
from ase.build import bulk, molecule
from ase.data import atomic_masses
from ase.io import read, write
from ase.units import kg, m

from benchmarks.peers.items import CUTOFF

RATTLE = 0.05
"""Å, standard deviation of displacements."""


def path_of(folder: Path, name: str) -> Path:
    """The file of a system, made if it is not there."""
    path = folder / f"{name}.xyz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(path, make(name), format="extxyz")
    return path


def make(name: str) -> list[ase.Atoms]:
    """Frames of a system, such as si216, water192 or molecules5; the same every time."""
    kind, number = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :])
    return KINDS[kind](number)


def load(path: str) -> list[ase.Atoms]:
    """Frames of a file; those without a cell get one that is never reached, for programs that need it."""
    frames = read(path, ":")
    for atoms in frames:
        if not atoms.pbc.any():
            atoms.set_cell(50.0 * np.eye(3))
    return frames


def neighbors(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Receivers in ascending order, senders and cell shifts; needs matscipy."""
    from matscipy.neighbours import neighbour_list

    i, j, shift = neighbour_list("ijS", atoms, CUTOFF)
    order = np.argsort(i, kind="stable")
    return i[order], j[order], shift[order]


def silicon(atoms: int) -> list[ase.Atoms]:
    """Diamond, a cube of cubic cells, displaced."""
    copies = round((atoms / 8) ** (1 / 3))
    if 8 * copies**3 != atoms:
        raise ValueError(f"{atoms} atoms are no cube of cells of 8; take 64, 216, 512 or 1000")
    crystal = bulk("Si", "diamond", 5.43, cubic=True).repeat(copies)
    crystal.positions += np.random.default_rng(0).normal(0, RATTLE, crystal.positions.shape)
    return [crystal]


def water(atoms: int) -> list[ase.Atoms]:
    """Molecules turned at random on a slightly disordered grid, at 1 g/cm^3."""
    rng, side = np.random.default_rng(0), round((atoms / 3) ** (1 / 3))
    if 3 * side**3 != atoms:
        raise ValueError(f"{atoms} atoms are no cube of molecules; take 24, 81, 192 or 375")
    one = molecule("H2O")
    one.positions -= one.positions[0]
    box = (side**3 * atomic_masses[one.numbers].sum() / (1e3 * kg / m**3)) ** (1 / 3)
    liquid = ase.Atoms(cell=box * np.eye(3), pbc=True)
    for place in np.ndindex(side, side, side):
        turned = one.copy()
        turned.positions = one.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turned.positions += (np.array(place) + 0.5) * box / side + rng.normal(0, 0.15, 3)
        liquid += turned
    liquid.wrap()
    return [liquid]


def molecules(count: int) -> list[ase.Atoms]:
    """3-(Benzyloxy)pyridin-2-amine, 27 atoms of four elements, drawn by hand, with the phenyl ring turned, and displaced."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = benzyloxypyridinamine()
        atoms.positions += rng.normal(0, RATTLE, atoms.positions.shape)
        frames.append(atoms)
    return frames


def benzyloxypyridinamine() -> ase.Atoms:
    """Ideal rings and bonds, Å; the heavy chain lies in a plane."""
    at = lambda angle, length=1.0: length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0])
    symbols, positions = [], []

    def put(symbol: str, position: np.ndarray) -> None:
        symbols.append(symbol)
        positions.append(position)

    for k, symbol in enumerate("CCNCCC"):
        put(symbol, at(60 * k, 1.38))
        if k > 2:
            put("H", at(60 * k, 2.46))
    oxygen, nitrogen = at(0, 2.75), at(60, 2.75)
    put("O", oxygen)
    put("N", nitrogen)
    for turn in (0, 120):
        put("H", nitrogen + at(turn, 1.01))
    bridge = oxygen + at(-60, 1.43)
    put("C", bridge)
    for side in (-1, 1):
        put("H", bridge + at(-150, 0.63) + np.array([0, 0, 0.89 * side]))
    centre = bridge + at(0, 1.51 + 1.39)
    for k in range(6):
        out = np.array([np.cos(np.pi * k / 3), 0, np.sin(np.pi * k / 3)])
        put("C", centre + 1.39 * out)
        if k != 3:
            put("H", centre + 2.48 * out)
    return ase.Atoms(symbols, positions)


KINDS = {"si": silicon, "water": water, "molecules": molecules}
