"""Compare the neighbour lists of host and device with a brute-force search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from equipot.data.split import evenly
from equipot.neighbors import allocate, complete_cell, grow, neighbor_list, plan
from equipot.structure import Structure
from equipot.workflows.doctor.findings import Finding, Measure

MOST_CENTRES = 500
"""Largest number of atoms whose neighbours are compared, spread evenly over the structure."""
MARGIN = 1e-9
"""Relative distance from the cutoff within which a pair may be in a list or not, by rounding."""

_allocate = jax.jit(allocate, static_argnums=0)
Pairs = set[tuple[int, ...]]


def neighbour_lists(structures: Sequence[Structure], cutoff: float) -> Finding:
    """Count missing and surplus pairs in the lists of host and device, over all structures."""
    wrong = {"host": 0, "device": 0}
    searched = 0
    for structure in structures:
        centres = evenly(len(structure), MOST_CENTRES)
        sure, doubtful = brute_force(structure, cutoff, centres)
        searched += len(sure)
        for name, search in (("host", host), ("device", device)):
            wrong[name] += len((search(structure, cutoff, centres) ^ sure) - doubtful)
    measures = tuple(Measure(f"{name} wrong", count, f"of {searched} pairs", 0, 0) for name, count in wrong.items())
    note = "a neighbour list is wrong here: please report it with this structure" if any(wrong.values()) else ""
    return Finding("neighbour list", measures, note)


def brute_force(structure: Structure, cutoff: float, centres: Int[np.ndarray, " centres"]) -> tuple[Pairs, Pairs]:
    """Search all pairs (centre, neighbour, shift) within the cutoff (Å); return certain pairs, and pairs that rounding decides.

    The search covers every image that can be within reach: along each lattice vector as many as the distance between the faces
    of the cell requires, and more for atoms outside the cell.
    """
    pbc: list[bool] = structure.pbc.tolist()
    cell = complete_cell(structure.cell, pbc)
    inverse = np.linalg.inv(cell)
    spread = np.ptp(structure.positions @ inverse, axis=0)
    most = np.where(pbc, np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + spread), 0).astype(int)
    shifts = np.array(list(itertools.product(*(range(-m, m + 1) for m in most))))
    images = structure.positions + (shifts @ cell)[:, None]
    sure: Pairs = set()
    doubtful: Pairs = set()
    for i in centres:
        distance = np.linalg.norm(images - structure.positions[i], axis=-1)
        for image, j in np.argwhere(distance < cutoff * (1 + MARGIN)):
            if j == i and not shifts[image].any():
                continue
            pair = (int(i), int(j), *map(int, shifts[image]))
            near = abs(distance[image, j] - cutoff) <= cutoff * MARGIN
            (doubtful if near else sure).add(pair)
    return sure, doubtful


def host(structure: Structure, cutoff: float, centres: Int[np.ndarray, " centres"]) -> Pairs:
    """Return the pairs of the host's list, which training and evaluation use."""
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff)
    return _pairs(edges.centers, edges.neighbors, edges.shifts, centres)


def device(structure: Structure, cutoff: float, centres: Int[np.ndarray, " centres"]) -> Pairs:
    """Return the pairs of the device's list, which dynamics uses, without a skin."""
    spec = plan(structure.positions, structure.cell, structure.pbc, cutoff, skin=0.0)
    found = _allocate(spec, structure.positions, structure.cell)
    while bool(found.overflow):
        spec = grow(spec, structure.positions, structure.cell)
        found = _allocate(spec, structure.positions, structure.cell)
    atom, slot = np.nonzero(np.asarray(found.slot_mask))
    return _pairs(atom, np.asarray(found.neighbors)[atom, slot], np.asarray(found.shifts)[atom, slot], centres)


def _pairs(i: np.ndarray, j: np.ndarray, shifts: np.ndarray, centres: np.ndarray) -> Pairs:
    rows = np.column_stack([i, j, shifts])
    return set(map(tuple, rows[np.isin(rows[:, 0], centres)].tolist()))
