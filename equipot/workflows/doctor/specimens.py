"""Make structures of known elements on which a potential is examined if the user gives none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.build import bulk, molecule
from ase.collections import g2
from ase.data import chemical_symbols, covalent_radii

from equipot.structure import Structure

COMPOUNDS = (
    ("NaCl", "rocksalt", 5.64), ("GaAs", "zincblende", 5.65), ("ZnS", "zincblende", 5.41), ("SiC", "zincblende", 4.36),
    ("MgO", "rocksalt", 4.21), ("LiF", "rocksalt", 4.03), ("TiC", "rocksalt", 4.33), ("BN", "zincblende", 3.62),
)  # fmt: skip
"""Formula, structure and lattice constant (Å) of simple compounds, those with the fewest neighbours first."""
ELEMENTS = ("Si", "Cu", "Al", "Fe", "C", "Ge", "Na", "Ni", "W", "Ar")
"""Elements whose crystals are tried first."""
CELLS = {"fcc": (2, 1, 1), "bcc": (2, 2, 1), "diamond": (1, 1, 1), "hcp": (2, 1, 1)}
"""Repeats of the rectangular cell to eight atoms."""
LARGEST = 9
"""Largest number of atoms of a molecule."""
HEAP = 6
"""Number of atoms of a cluster cut from a crystal."""
SPACING = 1.3
"""Distance of neighbours in a made-up crystal, over the sum of covalent radii."""
RATTLE = 0.05
"""Standard deviation of the random displacement of each coordinate, Å."""


def specimens(elements: Sequence[int]) -> list[Structure]:
    """Make a crystal of eight atoms, and a molecule or small cluster, of a few of the elements (Z)."""
    return [crystal(elements), cluster(elements)]


def rattled(structure: Structure, seed: int) -> Structure:
    """Move each coordinate at random by ``RATTLE``: in a perfect crystal forces vanish and many defects do not show."""
    noise = np.random.default_rng(seed).normal(size=structure.positions.shape)
    return structure.replace(positions=structure.positions + RATTLE * noise)


def crystal(elements: Sequence[int]) -> Structure:
    """Make a simple compound, the crystal of an element, or rock salt of any two elements."""
    from ase.data import reference_states
    from ase.symbols import string2symbols

    known = {chemical_symbols[z] for z in elements}
    for formula, kind, a in COMPOUNDS:
        if set(string2symbols(formula)) <= known:
            return _structure(bulk(formula, kind, a=a, cubic=True), f"crystal of {formula}")
    for symbol in sorted(known, key=lambda s: (ELEMENTS.index(s) if s in ELEMENTS else len(ELEMENTS), s)):
        state: dict[str, Any] = reference_states[chemical_symbols.index(symbol)] or {}
        lattice = state.get("symmetry")
        if lattice in CELLS:
            cell = bulk(symbol, orthorhombic=True) if lattice == "hcp" else bulk(symbol, cubic=True)
            return _structure(cell * CELLS[lattice], f"crystal of {symbol}")
    first, last = (chemical_symbols[elements[k]] for k in (0, -1))
    a = 2 * SPACING * sum(covalent_radii[elements[k]] for k in (0, -1))
    return _structure(bulk(first + last, "rocksalt", a=a, cubic=True), f"made-up rock salt of {first} and {last}")


def cluster(elements: Sequence[int]) -> Structure:
    """Return the molecule of the G2 set with most elements, then most atoms; else a piece of the crystal."""
    known = set(elements)
    found = []
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) <= LARGEST and set(atoms.numbers.tolist()) <= known and len(atoms) > 2:
            found.append((len(set(atoms.numbers.tolist())), len(atoms), name, atoms))
    if found:
        *_, name, atoms = max(found, key=lambda entry: entry[:3])
        return _structure(atoms, f"molecule {name}")
    atoms = crystal(elements).to_ase() * (2, 2, 2)
    kept = np.argsort(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1), kind="stable")[:HEAP]
    return Structure(atoms.numbers[kept], atoms.positions[kept], source=f"{HEAP} atoms cut from the {crystal(elements).source}")


def _structure(atoms: Any, source: str) -> Structure:
    return Structure.from_ase(atoms, source=source).replace(info={}, spin=0.0)
