"""Structures of the elements that a potential knows, where there are no data of its own: prototypes, strained and rattled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipot.structure import Structure

STRAINS = (-0.06, 0.0, 0.08)
"""Of the lengths of the cell."""
NOBLE = (2, 10, 18, 36, 54, 86)
SHORTEST = 0.6
"""Smallest radius, Å: atoms of hydrogen that touch in a lattice are closer than any that a potential has seen."""
RATTLE = 0.12
"""Standard deviation of displacements, Å."""


def prototypes(elements: Sequence[int], seed: int = 0) -> list[Structure]:
    """Make strained and rattled crystals of each element, and of pairs of elements, and molecules that ASE knows.

    Pure elements stand in fcc, bcc, diamond and simple cubic lattices, pairs in those of rock salt and zinc blende: each
    element with one that follows it, and with oxygen where that is known. In all lattices the radii touch: covalent radii, of
    noble gases those of van der Waals.
    """
    from ase.build import bulk
    from ase.data import chemical_symbols

    rng = np.random.default_rng(seed)
    out = []

    def add(atoms: object, name: str) -> None:
        for strain in STRAINS:
            bent = atoms.copy()  # type: ignore[attr-defined]
            deformation = np.eye(3) * (1 + strain) + 0.02 * rng.normal(size=(3, 3))
            bent.set_cell(bent.cell @ deformation, scale_atoms=True)
            bent.positions += RATTLE * rng.normal(size=bent.positions.shape)
            out.append(Structure.from_ase(bent, source=f"{name} {1 + strain:.2f}"))

    for k, z in enumerate(elements):
        symbol, bond = chemical_symbols[z], 2 * radius(z)
        lattices = {"fcc": np.sqrt(2), "bcc": 2 / np.sqrt(3), "diamond": 4 / np.sqrt(3), "sc": 1.0}
        for lattice, ratio in lattices.items():
            add(bulk(symbol, lattice, a=ratio * bond, cubic=True), f"{symbol} {lattice}")
        partners = {elements[(k + 1) % len(elements)], *({8} & set(elements))} - {z}
        for other in sorted(partners):
            pair, bond = f"{symbol}{chemical_symbols[other]}", radius(z) + radius(other)
            add(bulk(pair, "rocksalt", a=2 * bond, cubic=True), f"{pair} rock salt")
            add(bulk(pair, "zincblende", a=4 / np.sqrt(3) * bond, cubic=True), f"{pair} zinc blende")
    return [*out, *molecules(elements, rng)]


def radius(z: int) -> float:
    """Return half of the length (Å) of a bond of an element, by its atomic number."""
    from ase.data import covalent_radii, vdw_radii

    own = vdw_radii[z] if z in NOBLE else covalent_radii[z]
    return max(SHORTEST, float(own) if np.isfinite(own) else 2.0)


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
