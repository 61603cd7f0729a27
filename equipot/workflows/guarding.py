"""Describe the wall of a guarded potential: its inner radii, and what it changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from equipot.neighbors import neighbor_list
from equipot.nn.radial import covalent_radii
from equipot.physics.guard import outer_radii, wall_of
from equipot.potential import Potential
from equipot.structure import Structure

FEW = 21
"""Largest number of pairs of elements whose inner radii are listed one by one."""


def radii_text(potential: Potential) -> str:
    """Write the inner radii (Å) of a guarded potential: of each pair, or of many elements as summands and exceptions."""
    wall, elements = wall_of(potential.term), potential.elements
    inner = outer_radii(potential) / (1 + wall.width)
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    name = lambda pair: "-".join(chemical_symbols[z] for z in pair)
    each = lambda some: ", ".join(f"{name(pair)} {inner[pair]:.2f}" for pair in some)
    if len(pairs) <= FEW:
        return f"inner radii (Å): {each(pairs)}"
    own = dict(zip(elements, wall.share * covalent_radii(elements), strict=True))
    lower = [(a, b) for a, b in pairs if inner[a, b] < (1 - 1e-5) * (own[a] + own[b])]
    summands = ", ".join(f"{chemical_symbols[z]} {radius:.3f}" for z, radius in own.items())
    text = f"inner radii (Å) of {len(pairs)} pairs, the sums of {summands}"
    return f"{text}; but for {len(lower)} pairs: {each(lower)}" if lower else text


def pairs_inside(potential: Potential, structures: Sequence[Structure]) -> int:
    """Count the pairs of atoms in some structures that are closer than the outer radii of a guarded potential."""
    outer, count = outer_radii(potential), 0
    for s in structures:
        edges = neighbor_list(s.positions, s.cell, s.pbc, potential.cutoff)
        r = np.linalg.norm(s.positions[edges.neighbors] + edges.shifts @ s.cell - s.positions[edges.centers], axis=1)
        count += int(np.sum(r < outer[s.numbers[edges.centers], s.numbers[edges.neighbors]])) // 2
    return count
