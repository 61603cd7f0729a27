"""Crystals, polymorphs and vacancies that the benchmark computes, before any relaxation."""

from __future__ import annotations

from typing import NamedTuple

import ase
import numpy as np
from ase.build import bulk
from ase.spacegroup import crystal

from equipot.structure import Structure

CUBIC = {"Si": "diamond", "Cu": "fcc", "Al": "fcc", "NaCl": "rocksalt", "MgO": "rocksalt"}
"""Crystals and their structures, as ``ase.build.bulk`` names them."""
CONSTANTS = {"Si": 5.46, "Cu": 3.63, "Al": 4.04, "NaCl": 5.69, "MgO": 4.25}
"""Lattice constants to begin with, Å."""
ATOMS = {"diamond": 8, "fcc": 4, "rocksalt": 8}
"""Atoms of the cubic cell."""

SUBJECTS = {
    "elastic": tuple(CUBIC), "phonons": tuple(CUBIC), "vacancies": ("Cu", "Al", "Si"), "barriers": ("Cu", "Al"),
    "polymorphs": ("Si", "C", "TiO2"),
}  # fmt: skip
"""Parts of the benchmark, and the crystals or compositions of each."""


def primitive(name: str) -> Structure:
    """Return the primitive cell of one of the cubic crystals."""
    return Structure.from_ase(bulk(name, CUBIC[name], CONSTANTS[name]), name)


def supercell(name: str, constant: float, repeats: int) -> Structure:
    """Return a cube of ``repeats`` cubic cells along each side, with a lattice constant in Å."""
    atoms = bulk(name, CUBIC[name], constant, cubic=True) * (repeats, repeats, repeats)
    return Structure.from_ase(atoms, f"{name}{len(atoms)}")


class Hole(NamedTuple):
    """A supercell without one atom, before and after a neighbour has moved into its place."""

    before: Structure
    after: Structure


def vacancy(perfect: Structure) -> Hole:
    """Take the first atom out of a supercell; its nearest neighbour takes its place in ``after``."""
    from ase.geometry import find_mic

    vectors, lengths = find_mic(perfect.positions[1:] - perfect.positions[0], perfect.cell, perfect.pbc)
    mover = int(np.argmin(lengths))
    positions = perfect.positions[1:]
    moved = positions.copy()
    moved[mover] -= vectors[mover]
    atoms = ase.Atoms(perfect.numbers[1:], positions, cell=perfect.cell, pbc=True)
    before = Structure.from_ase(atoms, f"{perfect.source}, vacancy")
    return Hole(before, before.replace(positions=moved, source=f"{perfect.source}, vacancy moved"))


def shaken(structure: Structure, size: float, seed: int = 0) -> Structure:
    """Displace all atoms at random by ``size`` (Å, standard deviation), so that no symmetry holds them at a saddle point."""
    noise = np.random.default_rng(seed).normal(0, size, structure.positions.shape)
    return structure.replace(positions=structure.positions + noise - noise.mean(axis=0))


class Family(NamedTuple):
    """Polymorphs of one composition."""

    reference: str
    """Polymorph that energies are relative to."""
    atoms: int
    """Atoms that energies and volumes are given for."""
    cells: dict[str, ase.Atoms]
    """Primitive cells by name."""


def families() -> dict[str, Family]:
    """Return the polymorphs by composition; lattices and coordinates are near those of PBE, from which they relax."""
    return {"Si": silicon(), "C": carbon(), "TiO2": titania()}


def silicon() -> Family:
    """Silicon in the structures it takes up to 80 GPa, and lonsdaleite."""
    beta_tin = crystal("Si", [(0, 0, 0)], spacegroup=141, cellpar=[4.81, 4.81, 2.65, 90, 90, 90], primitive_cell=True)
    bc8 = crystal("Si", [(0.1003, 0.1003, 0.1003)], spacegroup=206, cellpar=[6.64] * 3 + [90] * 3, primitive_cell=True)
    hexagonal = crystal("Si", [(0, 0, 0)], spacegroup=191, cellpar=[2.64, 2.64, 2.48, 90, 90, 120])
    lonsdaleite = crystal("Si", [(1 / 3, 2 / 3, 0.0625)], spacegroup=194, cellpar=[3.85, 3.85, 6.36, 90, 90, 120])
    return Family("diamond", 1, {
        "diamond": bulk("Si", "diamond", 5.47), "lonsdaleite": lonsdaleite, "bc8": bc8, "beta-tin": beta_tin,
        "simple hexagonal": hexagonal, "hcp": bulk("Si", "hcp", a=2.737, c=4.47), "bcc": bulk("Si", "bcc", 3.09),
        "fcc": bulk("Si", "fcc", 3.88),
    })  # fmt: skip


def carbon() -> Family:
    """Diamond, lonsdaleite and graphite (AB)."""
    graphite = crystal(
        ["C", "C"], [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)], spacegroup=194, cellpar=[2.467, 2.467, 6.8, 90, 90, 120]
    )
    lonsdaleite = crystal("C", [(1 / 3, 2 / 3, 0.0625)], spacegroup=194, cellpar=[2.51, 2.51, 4.18, 90, 90, 120])
    return Family("diamond", 1, {"diamond": bulk("C", "diamond", 3.57), "lonsdaleite": lonsdaleite, "graphite": graphite})


def titania() -> Family:
    """Rutile, anatase and brookite."""
    rutile = crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.65, 4.65, 2.97, 90, 90, 90])
    anatase = crystal(
        ["Ti", "O"], [(0, 0, 0), (0, 0, 0.208)], spacegroup=141, cellpar=[3.80, 3.80, 9.70, 90, 90, 90], primitive_cell=True
    )
    sites = [(0.1289, 0.0972, 0.8628), (0.0095, 0.1491, 0.1835), (0.2314, 0.1110, 0.5366)]
    brookite = crystal(["Ti", "O", "O"], sites, spacegroup=61, cellpar=[9.25, 5.50, 5.18, 90, 90, 90])
    return Family("rutile", 3, {"rutile": rutile, "anatase": anatase, "brookite": brookite})
