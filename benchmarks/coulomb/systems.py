"""Displaced rock salt with charges of +1 and -1 e, for every program. Needs ASE and NumPy only."""

from __future__ import annotations

import ase
import numpy as np
from ase.build import bulk

LATTICE, RATTLE = 5.64, 0.2
"""Å: lattice constant, and standard deviation of a displacement."""


def salt(atoms: int) -> ase.Atoms:
    """Make a cube of cubic cells, wrapped into the cell, with the charges (e) as initial charges.

    Raises:
        ValueError: no cube has this number of atoms.
    """
    copies = round((atoms / 8) ** (1 / 3))
    if 8 * copies**3 != atoms:
        raise ValueError(f"{atoms} atoms are no cube of cells of 8; take 1000, 4096, 13824 or 32768")
    crystal = bulk("NaCl", "rocksalt", a=LATTICE, cubic=True).repeat(copies)
    crystal.positions += np.random.default_rng(0).normal(0, RATTLE, crystal.positions.shape)
    crystal.set_initial_charges(np.where(crystal.numbers == 11, 1.0, -1.0))
    crystal.wrap()
    return crystal
