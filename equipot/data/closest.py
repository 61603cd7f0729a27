"""Find the closest distance of each pair of elements in reference data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from equipot.neighbors import Slots, neighbor_list
from equipot.structure import Structure

ROWS = 119
"""Number of rows of a table by atomic number."""


def closest_distances(
    structures: Sequence[Structure], cutoff: float, found: Sequence[Slots | None] | None = None
) -> Float[np.ndarray, "119 119"]:
    """Find the closest distance (Å) of each pair of elements, by atomic numbers; infinite for a pair not within the cutoff.

    Frames of weight zero have no influence.

    Args:
        cutoff: Å.
        found: neighbour slots of each structure within ``cutoff``, if known.
    """
    table = np.full(ROWS * ROWS, np.inf)
    for k in range(len(structures)):
        s, slots = structures[k], None if found is None else found[k]
        if not s.geometry_weight:
            continue
        if slots is None:
            centers, neighbors, shifts = neighbor_list(s.positions, s.cell, s.pbc, cutoff)
        else:
            centers, places = np.nonzero(slots.mask)
            neighbors, shifts = slots.neighbors[centers, places], slots.shifts[centers, places]
        vectors = s.positions[neighbors] + shifts @ s.cell - s.positions[centers]
        numbers = s.numbers.astype(np.int64)
        np.minimum.at(table, numbers[centers] * ROWS + numbers[neighbors], np.linalg.norm(vectors, axis=1))
    return table.reshape(ROWS, ROWS)
