"""Structures of the elements that a potential knows, where there are no data of its own: prototypes, strained and rattled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from equipot.structure import Structure

STRAINS = (-0.05, 0.0, 0.08)
"""Of the lengths of the cell, for crystals of one element."""
PAIR_STRAINS = (-0.13, -0.04, 0.05)
"""For crystals of two, in which bonds are shorter than the sum of half-bonds by what one element takes from the other."""
LATTICES = {"fcc": (12, math.sqrt(2)), "bcc": (8, 2 / math.sqrt(3)), "diamond": (4, 4 / math.sqrt(3)), "sc": (6, 1.0)}
"""Lattices of elements: the number of neighbours, and the lattice constant over the length of a bond."""
COMPOUNDS = {"rocksalt": (6, 2.0), "zincblende": (4, 4 / math.sqrt(3)), "cesiumchloride": (8, 2 / math.sqrt(3))}
"""Lattices of pairs of elements, likewise."""
FEW = 12
"""Largest number of elements of which every pair stands in all lattices of pairs, and not in one of them."""
OXYGEN = 8
NOBLE = (2, 10, 18, 36, 54, 86)
VALENCES = {1: 1, 5: 3, 7: 3, 8: 2, 9: 1, 15: 3, 16: 2, 17: 1, 33: 3, 34: 2, 35: 1, 51: 3, 52: 2, 53: 1, 83: 3, 85: 1}
"""Number of neighbours of elements whose crystals are not among the simple ones, by the atomic number."""
SHORTEST = 0.6
"""Smallest half of a bond, Å: atoms of hydrogen that touch in a lattice are closer than any that a potential has seen."""
RATTLE = 0.08
"""Standard deviation of displacements, Å."""


def prototypes(elements: Sequence[int], seed: int = 0) -> list[Structure]:
    """Make strained and rattled crystals of each element, and of pairs of elements, and molecules that ASE knows.

    Pure elements stand in fcc, bcc, diamond and simple cubic lattices, at three volumes. Every pair of elements stands in the
    lattice of rock salt, zinc blende or caesium chloride, at one volume of some; pairs with oxygen, and those of few elements,
    in all three at three volumes. Oxygen also bridges two atoms of each other element, as in rhenium trioxide and in ideal
    cristobalite. Bonds are as long as in the crystal of the element, or the sum of covalent radii, and longer in lattices with
    more neighbours: see ``half_bond``.
    """
    from ase.build import bulk
    from ase.data import chemical_symbols

    rng = np.random.default_rng(seed)
    out = []

    def add(atoms: Any, name: str, strain: float) -> None:
        atoms = atoms.copy()
        deformation = np.eye(3) * (1 + strain) + 0.02 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell @ deformation, scale_atoms=True)
        atoms.positions += RATTLE * rng.normal(size=atoms.positions.shape)
        out.append(Structure.from_ase(atoms, source=f"{name} {1 + strain:.2f}"))

    for z, (lattice, (count, ratio)) in itertools.product(elements, LATTICES.items()):
        symbol = chemical_symbols[z]
        for strain in STRAINS:
            add(bulk(symbol, lattice, a=ratio * 2 * half_bond(z, count), cubic=True), f"{symbol} {lattice}", strain)
    for k, (a, b) in enumerate(itertools.combinations(sorted(elements), 2)):
        every = len(elements) <= FEW or OXYGEN in (a, b)
        for lattice in COMPOUNDS if every else [list(COMPOUNDS)[k % len(COMPOUNDS)]]:
            count, ratio = COMPOUNDS[lattice]
            pair, length = f"{chemical_symbols[a]}{chemical_symbols[b]}", half_bond(a, count) + half_bond(b, count)
            crystal = bulk(pair, lattice, a=ratio * length, cubic=True)
            for strain in PAIR_STRAINS if every else [rng.uniform(PAIR_STRAINS[0], PAIR_STRAINS[-1])]:
                add(crystal, f"{pair} {lattice}", strain)
    for z in sorted(set(elements) - {OXYGEN}) if OXYGEN in elements else []:
        for kind, crystal in oxides(z).items():
            for strain in PAIR_STRAINS:
                add(crystal, f"{chemical_symbols[z]}O {kind}", strain)
    return [*out, *molecules(elements, rng)]


def oxides(z: int) -> dict[str, Any]:
    """Make the crystals (``ase.Atoms``) in which oxygen has two neighbours of an element, and the element six or four."""
    from ase import Atoms
    from ase.data import chemical_symbols
    from ase.spacegroup import crystal

    symbol, lengths = chemical_symbols[z], {n: half_bond(z, n) + half_bond(OXYGEN, 2) for n in (6, 4)}
    corners = [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
    trioxide = Atoms(f"{symbol}O3", scaled_positions=corners, cell=[2 * lengths[6]] * 3, pbc=True)
    side = 8 / math.sqrt(3) * lengths[4]
    places = [(0, 0, 0), (0.125, 0.125, 0.125)]
    cristobalite = crystal([symbol, "O"], places, spacegroup=227, cellpar=[side] * 3 + [90] * 3)
    return {"trioxide": trioxide, "cristobalite": cristobalite}


def half_bond(z: int, neighbours: int) -> float:
    """Return half of the length (Å) of a bond of an element with a number of neighbours.

    It is that of the element's crystal, of noble gases the radius of van der Waals, else the covalent radius, with n
    neighbours. With m neighbours a bond is longer by 0.6 Å log10(m / n) (L. Pauling, J. Am. Chem. Soc. 69, 542, 1947).
    """
    from ase.data import covalent_radii, reference_states, vdw_radii

    if z in NOBLE:
        return max(SHORTEST, float(vdw_radii[z]) if np.isfinite(vdw_radii[z]) else 2.0)
    crystal: dict[str, Any] = reference_states[z] or {}
    close_packed = {"hcp": (12, 1.0)} | {name: (count, 1 / ratio) for name, (count, ratio) in LATTICES.items()}
    known, share = close_packed.get(str(crystal.get("symmetry")), (VALENCES.get(z, 12), 0.0))
    own = share * crystal["a"] / 2 if share else float(covalent_radii[z])
    return max(SHORTEST, own + 0.3 * math.log10(neighbours / known))


def molecules(elements: Sequence[int], rng: np.random.Generator) -> list[Structure]:
    """Make rattled molecules of the G2 set that hold no other elements."""
    from ase.build import molecule
    from ase.collections import g2

    out = []
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) > 1 and set(atoms.numbers.tolist()) <= set(elements):
            atoms.positions += RATTLE / 2 * rng.normal(size=atoms.positions.shape)
            out.append(Structure.from_ase(atoms, source=name))
    return out
