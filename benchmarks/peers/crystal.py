"""The structure that every worker makes: diamond silicon, atoms displaced by 0.05 Å. Needs ASE only."""

from __future__ import annotations

import ase
from ase.build import bulk


def silicon(atoms: int) -> ase.Atoms:
    """``atoms`` is 8 n^3."""
    repeats = round((atoms / 8) ** (1 / 3))
    if 8 * repeats**3 != atoms:
        raise ValueError(f"{atoms} atoms are no cube of cells of 8; take 64, 216, 512 or 1000")
    crystal = bulk("Si", "diamond", 5.43, cubic=True).repeat(repeats)
    crystal.rattle(0.05, seed=0)
    return crystal
