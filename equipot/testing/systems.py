"""Small systems of every awkward kind, of H, C, O and Cu, for cutoffs of about 4 Å."""

from __future__ import annotations

from typing import Any

import numpy as np

from equipot.structure import Structure

__all__ = ["SYSTEMS"]

ELEMENTS = (1, 6, 8, 29)
"""Atomic numbers in the systems."""


def structure(numbers: Any, positions: Any, cell: Any = None, pbc: Any = False, source: str = "") -> Structure:
    """Make a Structure of lists or arrays: positions and cell in Å."""
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, float)
    return Structure(np.asarray(numbers), np.asarray(positions, float), cell, pbc, source=source)


def random_structure(seed: int, n: int, cell: object, pbc: object, source: str) -> Structure:
    """Put up to eight atoms on a rattled grid in a cell (Å): far enough apart for central differences to be sharp."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] / 2 + 0.05
    positions = (grid + rng.uniform(-0.03, 0.03, (n, 3))) @ np.asarray(cell, float)
    return structure(rng.choice(ELEMENTS, n), positions, cell, pbc, source)


TRICLINIC = random_structure(1, 4, [[5.1, 0.3, 0.0], [1.9, 4.6, 0.4], [-0.8, 1.1, 5.3]], True, "triclinic")
SLAB = random_structure(3, 4, np.diag([4.5, 4.8, 12.0]), (True, True, False), "slab")
MOLECULE = structure(
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [1.17, -0.40, 0.02], [0.0, 0.55, -0.03], [-1.19, -0.21, 0.04], [-1.94, 0.38, 0.11], [2.10, 0.13, 0.07],
        [1.13, -1.05, 0.92], [1.13, -1.04, -0.87], [0.05, 1.22, 0.84], [0.06, 1.15, -0.95],
    ],
    source="molecule",
)  # fmt: skip
DIMER = structure([8, 6], [[0, 0, 0], [0.3, 0.4, 1.1]], source="dimer")
CLUSTER = structure(
    [1, 6, 8, 29, 29], [[0, 0, 0], [1.05, 0.2, 0.1], [0.4, 1.2, -0.3], [-0.5, 0.5, 1.4], [1.0, -0.9, 1.1]], source="cluster"
)
"""All elements, at ten different distances."""

SYSTEMS = (
    structure([29], [[0.1, 0.2, 0.3]], 1.75 * (np.ones((3, 3)) - np.eye(3)), True, "one-atom fcc"),
    TRICLINIC,
    random_structure(2, 5, [[4.9, 0.0, 0.3], [0.2, 0.1, 5.2], [0.4, 5.0, 0.0]], True, "left-handed"),
    SLAB,
    random_structure(4, 4, [[3.1, 0.5, 0.0], [0, 5.0, 0], [0, 0, 5.4]], (True, False, False), "wire"),
    random_structure(5, 3, np.diag([2.6, 7.0, 7.0]), True, "cutoff beyond the cell"),
    MOLECULE,
    DIMER,
    structure([1], [[0.0, 0.0, 0.0]], source="isolated atom"),
    structure([1, 8, 6], [[0, 0, 0], [9.0, 0, 0], [9.6, 1.0, 0.2]], source="empty neighbourhood"),
)
_ROWS = np.array([[5.1, 0.3, 0.8], [1.9, 4.6, 0.4], [-0.8, 1.1, 5.3]])
OPEN = tuple(
    structure(
        [1, 6, 8, 29, 6],
        np.random.default_rng(0).uniform(0, 4, (5, 3)),
        _ROWS * np.isin(range(3), rows)[:, None],
        np.isin(range(3), rows),
        f"lattice vectors {rows}",
    )
    for rows in ((0, 1), (0,), (2,), ())
)
"""Systems in which lattice vectors are missing, skewed so that completed rows turn."""
ALONE = ("isolated atom", "empty neighbourhood")
"""Names of the systems with an atom that has no neighbours, on purpose."""
CRYSTALS = tuple(s for s in SYSTEMS if s.pbc.any())
"""Systems that repeat along one direction at least."""
CLUSTERS = tuple(s for s in SYSTEMS if not s.pbc.any())
