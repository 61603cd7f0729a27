"""Check the energies of two atoms at all distances: repulsive wall, wiggles, bond length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float
from scipy.signal import find_peaks

from equipot.physics.guard import is_guarded
from equipot.structure import Structure
from equipot.workflows.doctor.bench import Bench
from equipot.workflows.doctor.evidence import Curve
from equipot.workflows.doctor.findings import Finding, Measure

POINTS = 96
"""Number of distances of a curve."""
NEAREST = (0.2, 0.3)
"""Shortest distance: the larger of a distance (Å) and a share of the sum of covalent radii."""
WALL = 0.55
"""Share of the sum of covalent radii within which any pair repels; even the shortest bonds, of Cr2 and Mo2, are longer."""
PULL = 0.05
"""Attraction (eV/Å) inside the wall that counts as a hole."""
BARRIERS = (2.0, 0.25)
"""Energy (eV) to fuse two atoms below which the wall deserves a look, and is a defect; every run at 300 K crosses 0.25 eV,
10 kT."""
BINDS = 0.1
"""Smallest depth (eV) of a minimum that counts as a bond."""
WIGGLE = 0.1
"""Prominence (eV) of a hump or a second minimum that deserves a look."""
LONGEST = 1.7
"""Bond length over sum of covalent radii beyond which a bond deserves a look; shorter than the wall is a hole."""


def dimers(bench: Bench, elements: Sequence[int]) -> tuple[tuple[Finding, ...], tuple[Curve, ...]]:
    """Compute the curves of all pairs of elements, and check walls, tails and bond lengths."""
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    distances = [_distances(a, b, bench.potential.cutoff) for a, b in pairs]
    scenes = [
        Structure(np.array([a, b]), np.array([[0, 0, 0], [r, 0, 0]]), source="two atoms")
        for (a, b), column in zip(pairs, distances, strict=True)
        for r in column
    ]
    seen = bench.predict(scenes)
    energy = np.array([s.energy for s in seen]).reshape(len(pairs), POINTS)
    force = np.array([s.forces[1, 0] for s in seen]).reshape(len(pairs), POINTS)
    curves = tuple(describe(*pair, r, e, f) for pair, r, e, f in zip(pairs, distances, energy, force, strict=True))
    return findings(curves, is_guarded(bench.potential.term)), curves


def _distances(a: int, b: int, cutoff: float) -> Float[np.ndarray, " points"]:
    nearest, share = NEAREST
    shortest = min(max(nearest, share * (covalent_radii[a] + covalent_radii[b])), cutoff / 2)
    return np.linspace(shortest, cutoff, POINTS)


def describe(
    a: int, b: int, r: Float[np.ndarray, " points"], energy: Float[np.ndarray, " points"], force: Float[np.ndarray, " points"]
) -> Curve:
    """Make a curve from energies (eV) and forces -dE/dr (eV/Å) at ascending distances (Å)."""
    radii = float(covalent_radii[a] + covalent_radii[b])
    nan = float("nan")
    if not (np.isfinite(energy).all() and np.isfinite(force).all()):
        return Curve(_name(a, b), r, energy, force, radii, nan, nan, nan, nan, nan, nan)
    energy = energy - energy[-1]
    edge = hole_edge(r, force, WALL * radii)
    top = 0 if edge is None else edge
    outside = energy[top:]
    well = top + int(np.argmin(outside))
    depth = float(-energy[well])
    return Curve(
        pair=_name(a, b),
        distance=r,
        energy=energy,
        force=force,
        radii=radii,
        minimum=float(r[well]) if depth > BINDS else nan,
        depth=max(depth, 0.0),
        hole=0.0 if edge is None else float(r[top]),
        barrier=float(energy[top : well + 1].max() - energy[well]),
        bottom=nan if edge is None else float(energy[: top + 1].min() - energy[well]),
        wiggle=wiggle(energy[top + 1 :]),
    )


def hole_edge(r: Float[np.ndarray, " points"], force: Float[np.ndarray, " points"], wall: float) -> int | None:
    """Find the index of the outer edge of a hole, a region of attraction inside ``wall`` (Å); None without a hole."""
    inside = np.flatnonzero((force < -PULL) & (r < wall))
    if not len(inside):
        return None
    rest = np.flatnonzero(force[inside[-1] :] >= 0)
    return int(inside[-1] + rest[0] - 1) if len(rest) else len(r) - 1


def wiggle(energy: Float[np.ndarray, " points"]) -> float:
    """Compute the prominence (eV) of the largest hump or of the second minimum; zero for a good curve."""
    prominences = lambda values: np.sort(find_peaks(values, prominence=0)[1]["prominences"])[::-1]
    humps, wells = prominences(energy), prominences(-energy)
    return float(max([*humps[:1], *wells[1:2], 0.0]))


def _name(a: int, b: int) -> str:
    return f"{chemical_symbols[a]}-{chemical_symbols[b]}"


def findings(curves: Sequence[Curve], guarded: bool = False) -> tuple[Finding, ...]:
    """Check walls, tails and bond lengths of all pairs, of a potential with ``Guarded`` or without."""
    undefined = [curve for curve in curves if not np.isfinite(curve.barrier)]
    if undefined:
        measure = Measure("pairs that are not finite", len(undefined), f"of {len(curves)}", 0, 0)
        note = f"energy or force of {undefined[0].pair} is not a number at some distance: mask divisions by zero"
        return (Finding("dimer wall", (measure,), note),)
    return _wall(curves, guarded), _tail(curves), *_bonds(curves)


def _wall(curves: Sequence[Curve], guarded: bool) -> Finding:
    lowest = lowest_of(curves)
    measures = [Measure(f"{lowest.pair} barrier", lowest.barrier, "eV", *BARRIERS)]
    holes = [curve for curve in curves if curve.hole]
    if holes:
        widest = max(holes, key=lambda curve: curve.hole)
        measures.append(Measure(f"{widest.pair} hole below", widest.hole, "Å", 0.0))
    note, remedy = "", "a larger share of the wall reaches farther" if guarded else "`equipot guard MODEL` adds a wall"
    if lowest.barrier < BARRIERS[1]:
        note = f"two atoms ({lowest.pair}) can fuse across {lowest.barrier:.2g} eV: {remedy}"
    elif holes:
        note = (
            f"{len(holes)} of {len(curves)} pairs attract at short range, behind {lowest_of(holes).barrier:.2g} eV or more: "
            f"harmless in ordinary dynamics, not in random structure search or collisions; {remedy}"
        )
    elif lowest.barrier < BARRIERS[0]:
        height = f"{lowest.barrier:.2g} eV at {lowest.distance[0]:.2f} Å"
        note = f"the wall of {lowest.pair} is soft, {height}: mind hot dynamics; {remedy}"
    return Finding("dimer wall", tuple(measures), note)


def lowest_of(curves: Sequence[Curve]) -> Curve:
    """Return the curve with the lowest barrier."""
    return min(curves, key=lambda curve: curve.barrier)


def _tail(curves: Sequence[Curve]) -> Finding:
    curve = max(curves, key=lambda c: c.wiggle)
    note = ""
    if curve.wiggle > WIGGLE:
        note = f"the curve of {curve.pair} has more than one minimum or a hump: no such pairs in the training data, perhaps"
    return Finding("dimer tail", (Measure(f"{curve.pair} wiggle", curve.wiggle, "eV", WIGGLE),), note)


def _bonds(curves: Sequence[Curve]) -> tuple[Finding, ...]:
    bonds = [curve for curve in curves if np.isfinite(curve.minimum)]
    if not bonds:
        return ()
    longest = max(bonds, key=lambda curve: curve.minimum / curve.radii)
    measure = Measure(longest.pair, longest.minimum / longest.radii, "covalent radii", LONGEST)
    unusual = f"two atoms of {longest.pair} bind at an unusual distance: the model may not have seen such pairs"
    return (Finding("bond length", (measure,), "" if measure.verdict == "sound" else unusual),)
