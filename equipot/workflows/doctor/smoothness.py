"""Check energy, force and slope of the force for jumps where an atom passes the cutoff."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float

from equipot.structure import Structure
from equipot.workflows.doctor.bench import Bench, Prediction
from equipot.workflows.doctor.evidence import Passage
from equipot.workflows.doctor.findings import Finding, Measure, largest

STEP = 2e-3
"""Distance between the points from which either side is extrapolated to the cutoff, Å."""
POINTS = 5
"""Points on either side, for a polynomial of degree 4."""
SHOWN = np.concatenate([np.linspace(-0.5, -0.02, 12), np.linspace(0.02, 0.1, 3)])
"""Further points for the figure: distance less the cutoff, Å."""
JUMPS = (
    ("energy", "meV", 1e3, 1e-6, 1e-6),
    ("force", "meV/Å", 1e3, 1e-5, 1e-5),
    ("force slope", "eV/Å²", 1.0, 1e-4, np.inf),
)
"""Quantities that may jump: name, unit in the report, factor to that unit, and limits of look and broken in eV and Å."""
OFFSETS = np.sort(np.concatenate([STEP * np.arange(-POINTS, 0), STEP * np.arange(1, POINTS + 1), SHOWN]))


def through_the_cutoff(bench: Bench, elements: Sequence[int]) -> tuple[Finding, tuple[Passage, ...]]:
    """Check for jumps while an atom passes the cutoff of a bonded atom, and of a single one, for all pairs of elements."""
    scenes = scenes_of(elements, bench.potential.cutoff)
    distances = bench.potential.cutoff + OFFSETS
    seen = bench.predict([scene(r) for scene in scenes.values() for r in distances])
    rows = [seen[k : k + len(OFFSETS)] for k in range(0, len(seen), len(OFFSETS))]
    # What is not finite comes out as not finite, and that is a verdict of its own.
    with np.errstate(invalid="ignore"):
        passages = tuple(_passage(label, row) for label, row in zip(scenes, rows, strict=True))
        jumps = [_jumps(row) for row in rows]
    measures = tuple(largest([jump[k] for jump in jumps]) for k in range(len(JUMPS)))
    steepest = max(range(len(jumps)), key=lambda k: np.nan_to_num(jumps[k][-1].value, nan=np.inf))
    note = _note(measures)
    return Finding("cutoff", measures, f"{note} (most for {passages[steepest].label})" if note else ""), passages


def scenes_of(elements: Sequence[int], cutoff: float) -> dict[str, Callable[[float], Structure]]:
    """Make structures as functions of the distance (Å) from the first atom to the last, which lies along -x."""

    def triple(a: int, b: int, r: float) -> Structure:
        bond = min(covalent_radii[a] + covalent_radii[b], 0.7 * cutoff)
        # The last atom is farther from the second than from the first: it meets one cutoff only.
        positions = np.array([[0, 0, 0], [0.6 * bond, 0.8 * bond, 0], [-r, 0, 0]])
        return Structure(np.array([a, b, b]), positions, source="three atoms")

    def pair(a: int, b: int, r: float) -> Structure:
        return Structure(np.array([a, b]), np.array([[0, 0, 0], [-r, 0, 0]]), source="two atoms")

    name = lambda *numbers: "-".join(chemical_symbols[z] for z in numbers)
    scenes: dict[str, Callable[[float], Structure]] = {}
    scenes |= {f"{name(b, a)}···{name(b)}": partial(triple, a, b) for a in elements for b in elements}
    for a, b in itertools.combinations_with_replacement(elements, 2):
        scenes[f"{name(a)}···{name(b)}"] = partial(pair, a, b)
    return scenes


def _passage(label: str, row: Sequence[Prediction]) -> Passage:
    energy, force = _columns(row)
    return Passage(label, OFFSETS, energy - energy[-1], force)


def _columns(row: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (eV) and forces along the distance (eV/Å); the moving atom lies along -x."""
    return np.array([seen.energy for seen in row]), np.array([-seen.forces[-1, 0] for seen in row])


def _jumps(row: Sequence[Prediction]) -> list[Measure]:
    """Measure the differences between the limits from either side of the cutoff."""
    near = np.flatnonzero(np.abs(OFFSETS) < (POINTS + 0.5) * STEP)
    energy, force = (column[near] for column in _columns(row))
    inside, outside = (_limit(sign, energy, force) for sign in (-1, 1))
    gaps = np.abs(outside - inside)
    return [
        Measure(name, float(factor * gap), unit, factor * look, factor * broken)
        for gap, (name, unit, factor, look, broken) in zip(gaps, JUMPS, strict=True)
    ]


def _limit(sign: int, energy: np.ndarray, force: np.ndarray) -> Float[np.ndarray, "3"]:
    """Extrapolate energy, force and slope of the force to the cutoff by polynomials through the points of one side."""
    side = slice(None, POINTS) if sign < 0 else slice(POINTS, None)
    x = sign * np.arange(1, POINTS + 1)
    x = x[::-1] if sign < 0 else x
    inverse = np.linalg.inv(np.vander(x, increasing=True))
    return np.array([inverse[0] @ energy[side], inverse[0] @ force[side], inverse[1] @ force[side] / STEP])


def _note(measures: Sequence[Measure]) -> str:
    energy, force, slope = (measure.verdict for measure in measures)
    if energy != "sound":
        return "the energy jumps when an atom crosses the cutoff, and dynamics does not conserve it: multiply by an envelope"
    if force != "sound":
        return "the force jumps when an atom crosses the cutoff, and dynamics drifts: the envelope's slope must vanish too"
    if slope != "sound":
        return (
            "the slope of the force jumps at the cutoff, as with envelopes of one continuous derivative: dynamics is fine, "
            "phonons and elastic constants may depend on where a shell of atoms lies"
        )
    return ""
