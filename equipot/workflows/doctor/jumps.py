"""Find jumps of energy and force inside the cutoff: ends of envelopes, knots of splines, conditions.

Along a line, E(x + h) - E(x) is compared with the trapezoid rule for the forces, and each force with those at adjacent points.
An interval whose mismatch a local cubic does not explain is a suspect and is divided repeatedly: curvature vanishes, a jump
stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from equipot.neighbors import neighbor_list
from equipot.structure import Structure
from equipot.workflows.doctor.bench import Bench, Prediction
from equipot.workflows.doctor.clearance import distances
from equipot.workflows.doctor.evidence import Curve
from equipot.workflows.doctor.findings import Finding, Measure

KINDS = (("energy", "meV", 1e3, 1e-6, 1e-6), ("force", "meV/Å", 1e3, 1e-4, np.inf))
"""Quantities that may jump: name, unit in the report, factor to that unit, and limits of look and broken in eV and Å."""
KERNEL = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 6
"""Filter that removes a cubic from a sequence and keeps a single peak."""
REACH = len(KERNEL) // 2
STANDS_OUT = 2.0
"""Smallest ratio of a suspect's mismatch to the median of the intervals nearby."""
SUSPECTS = 2
"""Largest number of suspects of each kind on one line."""
PARTS, LEVELS = 8, 5
"""Parts of each division and number of divisions: to some 1e-6 Å, where curvature causes at most 1e-5 eV/Å."""
STAYS = 0.15
"""Smallest share of its size that a jump keeps at each division; a jump of a slope keeps 1/8, curvature far less."""
POINTS = 41
"""Points of the line along which an atom moves."""
FARTHEST = 0.25
"""Largest displacement of the moving atom, over the distance of its nearest neighbour."""
MOVED = 2
"""Largest number of elements of a structure of which an atom is moved."""


class Scan(NamedTuple):
    """Structures as a function of a distance x, with predictions at evenly spaced x."""

    label: str
    at: Callable[[float], Structure]
    force: Callable[[Prediction], float]
    """-dE/dx, eV/Å."""
    x: Float[np.ndarray, " points"]
    """Å."""
    seen: Float[np.ndarray, "2 points"]
    """Energy (eV) and force (eV/Å) at x."""


class Suspect(NamedTuple):
    """An interval of a line on which energy (kind 0) or force (kind 1) seems to jump."""

    line: Scan
    kind: int
    left: float
    width: float
    size: float
    """Mismatch, eV or eV/Å."""


def jumps(
    small: Bench, curves: Sequence[Curve], elements: Sequence[int], bench: Bench, structures: Sequence[Structure]
) -> Finding:
    """Search for jumps between two atoms (``curves`` of all pairs of ``elements``), and while one atom of a structure moves."""
    cutoff = bench.potential.cutoff
    numbers = itertools.combinations_with_replacement(elements, 2)
    alone = [pair_line(*pair, curve) for pair, curve in zip(numbers, curves, strict=True)]
    # One at a time: two copies of a structure may not fit into the shape that is compiled.
    singly = lambda moved: [seen for structure in moved for seen in bench.predict([structure])]
    around = list(moves(singly, structures, cutoff))
    found = [("two atoms", follow(small.predict, alone, cutoff)), ("in the structure", follow(singly, around, cutoff))]
    measures, notes = [], []
    for place, suspects in found:
        for kind, (name, unit, factor, *limits) in enumerate(KINDS):
            worst = max((s for s in suspects if s.kind == kind), key=lambda s: s.size, default=None)
            size = worst.size if worst else 0.0
            measures.append(Measure(f"{place}: {name}", factor * size, unit, *(factor * limit for limit in limits)))
            if worst and measures[-1].verdict != "sound":
                notes.append(f"{name} of {worst.line.label} {worst.left:.3f} Å by {factor * size:.2g} {unit}")
    remedy = "something ends or begins there without a smooth envelope, such as an inner cutoff or a piece of a spline"
    return Finding("jumps", tuple(measures), f"jumps: {'; '.join(notes)}: {remedy}" if notes else "")


def pair_line(a: int, b: int, curve: Curve) -> Scan:
    """Make the line of two atoms from their curve."""
    at = lambda r: Structure(np.array([a, b]), np.array([[0, 0, 0], [r, 0, 0]]), source="two atoms")
    seen = np.array([curve.energy, curve.force])
    return Scan(f"{curve.pair} at", at, lambda seen: seen.forces[1, 0], curve.distance, seen)


def moves(predict: Callable, structures: Sequence[Structure], cutoff: float) -> Iterator[Scan]:
    """Iterate over lines along which one atom, with its images, moves in a fixed direction."""
    way = np.array([2.0, 3.0, 6.0]) / 7
    for s in structures:
        edges = neighbor_list(s.positions, s.cell, s.pbc, cutoff)
        length = distances(s, edges)
        own = edges.centers == edges.neighbors
        for k in np.sort(np.unique(s.numbers, return_index=True)[1])[:MOVED]:
            near = length[(edges.centers == k) & ~own]
            if not len(near):
                continue
            x = FARTHEST * near.min() * np.linspace(-1, 1, POINTS)
            at = lambda x, s=s, k=k: s.replace(positions=s.positions + x * way * (np.arange(len(s)) == k)[:, None])
            force = lambda seen, k=k: float(seen.forces[k] @ way)
            answers = predict([at(shift) for shift in x])
            seen = np.array([[answer.energy, force(answer)] for answer in answers]).T
            label = f"{s.name} where its {chemical_symbols[s.numbers[k]]} (atom {k}) moves by"
            yield Scan(label, at, force, x, seen)


def follow(predict: Callable[[list[Structure]], list[Prediction]], lines: Sequence[Scan], cutoff: float) -> list[Suspect]:
    """Return the suspects that stay when their intervals shrink, without those at the cutoff (Å)."""
    found = [suspect for line in lines for suspect in suspects(line)]
    for level in range(LEVELS):
        # Several jumps side by side add up in the kernel, perhaps in an interval that has none: first, all around is divided.
        beside = REACH + REACH * PARTS * (level == 0)
        points = [s.left + s.width / PARTS * np.arange(-beside, PARTS + beside + 1) for s in found]
        answers = iter(predict([s.line.at(x) for s, column in zip(found, points, strict=True) for x in column]))
        closer = []
        for s, column in zip(found, points, strict=True):
            seen = np.array([(a.energy, s.line.force(a)) for a in itertools.islice(answers, len(column))]).T
            step = s.width / PARTS
            sizes = sharp(step, seen)[s.kind]
            k = int(np.argmax(sizes))
            # Not finite is a verdict of another check.
            if np.isfinite(sizes).all() and sizes[k] > STAYS * s.size:
                closer.append(s._replace(left=column[REACH + k], width=step, size=float(sizes[k])))
        found = closer
    return [s for s in found if not crosses(s, cutoff)]


def crosses(suspect: Suspect, cutoff: float) -> bool:
    """Whether a pair crosses the cutoff (Å) in the interval; the check of the cutoff examines such jumps."""
    ends = [suspect.line.at(x) for x in (suspect.left, suspect.left + suspect.width)]
    within = [neighbor_list(s.positions, s.cell, s.pbc, cutoff) for s in ends]
    return not all(np.array_equal(a, b) for a, b in zip(*within, strict=True))


def suspects(line: Scan) -> Iterator[Suspect]:
    """Iterate over the intervals whose mismatch stands out most from those nearby, for energy and force."""
    step = line.x[1] - line.x[0]
    for kind, sizes in enumerate(sharp(step, line.seen)):
        sizes = np.where(np.isfinite(sizes), sizes, np.inf)
        floor = KINDS[kind][3]
        scores = {}
        for k in range(1, len(sizes) - 1):
            # The kernel smears a jump over the two intervals on either side.
            sides = sizes[max(k - 5, 0) : max(k - 2, 0)], sizes[k + 3 : k + 6]
            usual = max([floor, *(float(np.median(side)) for side in sides if len(side))])
            if sizes[k] >= max(sizes[k - 1], sizes[k + 1]) and sizes[k] > STANDS_OUT * usual:
                scores[k] = sizes[k] / usual
        for k in sorted(scores, key=scores.__getitem__)[-SUSPECTS:]:
            yield Suspect(line, kind, float(line.x[k + REACH]), float(step), float(sizes[k]))


def sharp(step: float, seen: Float[np.ndarray, "2 points"]) -> Float[np.ndarray, "2 inner"]:
    """Compute the mismatch of energy (eV) and force (eV/Å) in each interval, without two intervals at either end."""
    energy, force = seen
    with np.errstate(invalid="ignore", over="ignore"):
        work = np.diff(energy) + step / 2 * (force[1:] + force[:-1])
        return np.abs([np.convolve(column, KERNEL, "valid") for column in (work, np.diff(force))])
