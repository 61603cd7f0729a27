"""Widen structures so that no pair crosses the cutoff in finite differences."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot.neighbors import Edges, neighbor_list
from equipot.structure import Structure
from equipot.workflows.doctor.bench import Subject

CLEARANCE = 1e-3
"""Strain of each widening of a structure."""
WIDENINGS = 8
"""Number of widened sizes to try, the original included."""


def clear_of_cutoff(subject: Subject, reach: float) -> tuple[Subject, str]:
    """Widen structures with a pair within ``reach`` (Å) of the cutoff; also return a note on pairs that remain there.

    Across a jump in the slope of the force, which the check of the cutoff reports, a finite difference is not the derivative.
    """
    cutoff = subject.bench.potential.cutoff
    wider = [[strained(s, k * CLEARANCE * np.eye(3)) for k in range(WIDENINGS)] for s in subject.structures]
    counts = [np.array([pairs_within(s, cutoff, reach) for s in row]) for row in wider]
    best = [int(np.argmin(row)) for row in counts]
    left = sum(int(row[k]) for row, k in zip(counts, best, strict=True))
    crossing = f"; {left} pairs cross the cutoff within the step: see cutoff first" if left else ""
    if not any(best):
        return subject, crossing
    structures = [row[k] for row, k in zip(wider, best, strict=True)]
    return Subject(subject.bench, structures, subject.bench.predict(structures)), crossing


def pairs_within(structure: Structure, cutoff: float, reach: float) -> int:
    """Count the pairs whose distance is within ``reach`` (Å) of the cutoff (Å)."""
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff + reach)
    return int(np.sum(distances(structure, edges) > cutoff - reach)) // 2


def distances(structure: Structure, edges: Edges) -> Float[np.ndarray, " edges"]:
    """Compute the distances of the pairs of a neighbour list, Å."""
    shifts = edges.shifts @ structure.cell
    return np.linalg.norm(structure.positions[edges.neighbors] + shifts - structure.positions[edges.centers], axis=1)


def strained(structure: Structure, strain: Float[np.ndarray, "3 3"]) -> Structure:
    """Strain positions and cell by a matrix (3, 3)."""
    deform = np.eye(3) + strain
    return structure.replace(positions=structure.positions @ deform, cell=structure.cell @ deform)
