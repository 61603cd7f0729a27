"""Test whether energy, forces and stress of a file agree in sign and unit.

Pairs of similar frames give a proof (``work``). Without such pairs, a crude force field is fitted to the forces (``pair_fit``):
disagreement with the fit is an error only if the fit predicts held-out forces almost completely, else a warning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice, permutations

import numpy as np

from equipot.data.checks.pair_fit import CUTOFF, fit
from equipot.data.checks.report import ERROR, WARNING, Problem
from equipot.data.checks.work import NEAR_ONE, SAME_CELL, Factor, work
from equipot.neighbors import neighbor_list
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure
from equipot.units import GPa, bohr, hartree, kcal_per_mol, kJ_per_mol

FRAMES, ATOMS, EDGES, ELEMENTS = 40, 4000, 400_000, 6
"""Largest sample that is fitted."""
LEAST = 4
"""Smallest number of frames for a result."""
CLOSEST = 0.3
"""Shortest distance (Å) in frames that are used; the check of distances reports closer pairs."""
NO_FORCE = 1e-4
"""Force component (eV/Å) below which forces count as zero in a fit."""
EXPLAINED = 0.5
"""Smallest correlation of the fit with held-out forces for a result."""
TRUSTED, SUSPECTED, SHUFFLED = 0.8, 0.6, 0.5
"""Smallest correlation for an error, smallest for a warning, and largest of a wrong order of components."""
FACTOR = 6.0
"""Slopes between 1/FACTOR and FACTOR are within the error of the fit for right labels."""
MATCH = 2.0
"""A known mistake is reported if the slope differs from the mistake's by less than this factor."""
STRAIN = 0.03
"""Largest strain between two frames whose energies and stresses are compared; the trapezoid rule errs by about 0.1 GPa."""
PRESSURE = 0.2 * GPa
"""Smallest difference (eV/Å^3) of the pressures from stress and energy for a warning."""
MANY, PAIRS = 500, 20_000
"""Largest number of frames that are searched for strained ones, and of pairs of these."""
PROVEN = 0.97
"""Smallest correlation of the fit with held-out forces for an error."""
TELLING = 3.0
"""Smallest ratio of predicted stresses to their standard error for a result."""
REVERSED = "it looks like a pressure tensor: stress is positive under tension, so reverse its sign"

ENERGY_MISTAKES = {
    1 / hartree: "the energies may be in Hartree while the forces are in eV/Å",
    hartree: "the forces may be in Hartree/Å while the energies are in eV",
    hartree / bohr: "the forces may be in Hartree/bohr while the energies are in eV",
    1 / kcal_per_mol: "the energies may be in kcal/mol while the forces are in eV/Å",
    kcal_per_mol: "the forces may be in kcal/mol/Å while the energies are in eV",
    1 / kJ_per_mol: "the energies may be in kJ/mol while the forces are in eV/Å",
    kJ_per_mol: "the forces may be in kJ/mol/Å while the energies are in eV",
}
"""Mistakes by the ratio of labelled energy differences to those that the forces imply."""
STRESS_MISTAKES = {
    1 / GPa: "it looks like GPa: set data.units.stress to GPa",
    10 / GPa: "it looks like kbar: set data.units.stress to kbar",
    1e4 / GPa: "it looks like bar: set data.units.stress to bar",
    GPa: "it may have been divided by 160.2 once too often",
    bohr**3 / hartree: "it looks like Hartree/bohr^3: set data.units.stress to that",
}
"""Mistakes by the ratio of labelled stresses to those that the forces imply."""


def consistency(structures: Sequence[Structure], files: Mapping[str, Sequence[int]]) -> Iterator[Problem]:
    """Find labels that contradict each other in a sample of the frames of each file.

    Args:
        structures: a set of frames.
        files: indices of the frames of each file.
    """
    for file, rows in files.items():
        yield from _pressures(file, structures, rows)
        proof = work(structures, rows)
        proven = [*_proven_forces(file, proof.forces), *_proven_stress(file, proof.stress)]
        yield from proven
        sample = _sample(structures, rows)
        if len(sample) < LEAST:
            continue
        prediction = fit(sample)
        if prediction is None or prediction.held_out < EXPLAINED:
            continue
        certain = prediction.held_out >= PROVEN
        wrong = [] if proof.forces is not None else list(_energies(file, sample, prediction.energies))
        yield from (_softened(found, certain, prediction.held_out) for found in wrong)
        if any(found.kind == "force_sign" for found in (*proven, *wrong)):
            # Forces of the wrong sign would put the blame on the stress.
            continue
        told = list(_stresses(file, sample, prediction.virials, prediction.errors))
        told = [found for found in told if found.kind == "stress_order" or proof.stress is None]
        yield from (_softened(found, certain, prediction.held_out) for found in told)


def _softened(found: Problem, certain: bool, correlation: float) -> Problem:
    """Turn an error into a warning if the fit does not predict the forces well enough for a proof."""
    if certain or found.severity == WARNING:
        return found
    doubt = f"{found.what}; judged by a pair potential that describes the forces with a correlation of {correlation:.2f}"
    return replace(found, severity=WARNING, what=doubt)


def _proven_forces(file: str, factor: Factor | None) -> Iterator[Problem]:
    """Find forces that are not minus the slope of the energy between similar frames."""
    if factor is None or 1 / NEAR_ONE < factor.value < NEAR_ONE:
        return
    seen = f"{factor.value:.3g} +- {factor.error:.2g} times the work of the forces in {factor.pairs} pairs of near frames"
    what = f"energies and forces disagree (energy differences are {seen})"
    texts = what, "the forces look like gradients, dE/dr: write -dE/dr", "state data.units.energy and data.units.forces"
    yield from _verdict(file, ("force_sign", "energy_unit"), factor.value, ENERGY_MISTAKES, texts)


def _proven_stress(file: str, factor: Factor | None) -> Iterator[Problem]:
    """Find stresses that are not the slope of the energy under strain between similar frames."""
    if factor is None or 1 / NEAR_ONE < factor.value < NEAR_ONE:
        return
    seen = f"energy differences are {factor.value:.3g} +- {factor.error:.2g} times the work of the stress"
    what = f"energies and stresses disagree ({seen} in {factor.pairs} pairs of near frames)"
    texts = what, REVERSED, "state data.units.stress, or set data.keys.stress to none"
    yield from _verdict(file, ("stress_sign", "stress_unit"), 1 / factor.value, STRESS_MISTAKES, texts)


def _verdict(
    file: str, kinds: tuple[str, str], value: float, mistakes: Mapping[float, str], texts: tuple[str, str, str]
) -> Iterator[Problem]:
    """Report a factor that is not near one: an error if negative or that of a known mistake, else a warning.

    Args:
        kinds: names of the checks of sign and of unit.
        value: the factor.
        mistakes: known mistakes by their factor.
        texts: observation, remedy of the sign, remedy of the unit.
    """
    what, reverse, remedy = texts
    known = [] if 1 / NEAR_ONE < abs(value) < NEAR_ONE else mistakes.items()
    guesses = [text for factor, text in known if 1 / MATCH < abs(value) / factor < MATCH]
    advice = "; or ".join(guesses[:2]) or remedy
    if value < 0:
        yield Problem(ERROR, kinds[0], file, what, f"{reverse}; and {advice}" if guesses else reverse)
    else:
        yield Problem(ERROR if guesses else WARNING, kinds[1], file, what, advice)


def _sample(structures: Sequence[Structure], rows: Sequence[int]) -> list[Structure]:
    """Select frames for a quick fit to forces, at random with a fixed seed; frames whose forces vanish tell a fit nothing."""
    chosen: list[Structure] = []
    elements: set[int] = set()
    atoms, edges = 0, 0
    for k in np.random.Generator(np.random.PCG64(0)).permutation(rows):
        s = structures[int(k)]
        if not _usable(s) or np.abs(s.labels[FORCES]).max() < NO_FORCE or len(elements | set(s.numbers.tolist())) > ELEMENTS:
            continue
        found = neighbor_list(s.positions, s.cell, s.pbc, CUTOFF)
        atoms, edges = atoms + len(s), edges + len(found.centers)
        if chosen and (atoms > ATOMS or edges > EDGES):
            break
        chosen.append(s)
        elements |= set(s.numbers.tolist())
        if len(chosen) == FRAMES:
            break
    return chosen


def _usable(s: Structure) -> bool:
    """Whether a frame has forces, finite labels, and a geometry without overlapping atoms or a flat cell."""
    if s.forces is None or len(s) < 2:
        return False
    values = (s.positions, s.cell, s.forces, s.energy, s.stress)
    if not all(np.all(np.isfinite(value)) for value in values if value is not None):
        return False
    if _size(s) <= 1e-3 * np.prod(np.linalg.norm(s.cell[s.pbc], axis=1)):
        return False
    return len(neighbor_list(s.positions, s.cell, s.pbc, CLOSEST).centers) == 0


def _energies(file: str, sample: Sequence[Structure], predicted: np.ndarray) -> Iterator[Problem]:
    """Compare energy differences between frames of one cell with those of the fit, ``predicted`` (frames,) in eV.

    Disagreement is an error only if no group of comparable frames contradicts it.
    """
    rows = _comparable(sample)
    if sum(map(len, rows)) < 2 * LEAST:
        return
    energies = np.array([np.nan if s.energy is None else s.energy for s in sample])
    x = [predicted[g] - predicted[g].mean() for g in rows]
    y = [energies[g] - energies[g].mean() for g in rows]
    if np.abs(np.concatenate(y)).max() < 1e-3:
        return
    correlation, slope = _regress(np.concatenate(x), np.concatenate(y))
    what = f"energies and forces disagree (energy differences are {slope:.3g} times what the forces imply)"
    remedy = "state data.units.energy and data.units.forces"
    if correlation < 0:
        remedy = "the forces look like gradients, dE/dr: write -dE/dr"
    kind = "force_sign" if correlation < 0 else "energy_unit"
    groups = [_regress(a, b) for a, b in zip(x, y, strict=True)]
    contradicted = any(abs(c) >= SUSPECTED and (s * slope < 0 or _right(s)) for c, s in groups)
    for found in _judge(kind, file, what, correlation, slope, ENERGY_MISTAKES, remedy):
        yield replace(found, severity=WARNING) if contradicted else found


def _comparable(sample: Sequence[Structure]) -> list[np.ndarray]:
    """Group frames of one composition and one cell; returns the indices of each group of at least ``LEAST``.

    Forces do not determine energy differences between cells, or between a cluster and a crystal.
    """
    alike: dict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for k, s in enumerate(sample):
        if s.energy is not None:
            cell = np.round(s.cell[s.pbc] / (10 * SAME_CELL)).astype(np.int64)
            alike[np.sort(s.numbers).tobytes(), s.pbc.tobytes(), cell.tobytes()].append(k)
    return [np.array(group) for group in alike.values() if len(group) >= LEAST]


def _size(s: Structure) -> float:
    """Compute the length, area or volume (Å, Å^2, Å^3) that the periodic lattice vectors span; 1 without any."""
    rows = s.cell[s.pbc]
    return float(np.sqrt(max(np.linalg.det(rows @ rows.T), 0.0)))


def _stresses(file: str, sample: Sequence[Structure], virials: np.ndarray, errors: np.ndarray) -> Iterator[Problem]:
    """Compare the stress without its trace with the virial of the fit.

    The trace is left out, because a two-body fit to forces does not determine the pressure of a solid.

    Args:
        virials: (frames, 3, 3) eV.
        errors: (frames,) standard errors of the virials, eV.
    """
    rows = [k for k, s in enumerate(sample) if s.stress is not None and s.volume > 0]
    if len(rows) < LEAST:
        return
    volumes = np.array([sample[k].volume for k in rows])
    labels = _traceless(np.array([sample[k].stress for k in rows]))
    predicted = _traceless(virials[rows]) / volumes[:, None, None]
    uncertain = np.linalg.norm(errors[rows] / volumes)
    if np.abs(labels).max() < 1e-12 or np.linalg.norm(predicted) < TELLING * uncertain:
        return
    correlation, slope = _regress(predicted.ravel(), labels.ravel())
    volume = float(np.median(volumes))
    extensive = "it looks like a virial, the stress times the volume: name it in data.keys.virial if it is -dE/d(strain)"
    mistakes = STRESS_MISTAKES | {volume: extensive, 1 / volume: "it may have been divided by the volume once too often"}
    what = f"the stress is {slope:.3g} times what the forces imply"
    remedy = "state data.units.stress, or set data.keys.stress to none"
    if correlation < 0:
        remedy = REVERSED
    yield from _judge("stress_sign" if correlation < 0 else "stress_unit", file, what, correlation, slope, mistakes, remedy)
    yield from _order(file, predicted, labels)


def _pressures(file: str, structures: Sequence[Structure], rows: Sequence[int]) -> Iterator[Problem]:
    """Find a difference between the pressures from stress and energy, from frames that differ by a strain only.

    Along the straight line from cell h_a to cell h_b, with row vectors, dE = V sigma : (h^-1 dh); the trapezoid rule between
    the ends gives the energy difference. A residual proportional to the change of volume is a pressure.
    """
    pairs = islice((pair for group in _strained(structures, rows) for pair in combinations(group, 2)), PAIRS)
    changes, left = np.array([part for a, b in pairs if (part := _work(a, b)) is not None]).reshape(-1, 2).T
    if len(left) < LEAST or not changes.any():
        return
    pressure = float(changes @ left / (changes @ changes))
    if abs(_regress(changes, left)[0]) < TRUSTED or abs(pressure) < PRESSURE:
        return
    seen = f"{len(left)} pairs of frames that differ by a strain"
    what = f"the stress is off the derivative of the energy by {pressure / GPa:.2g} GPa on its diagonal ({seen})"
    cause = "a plane-wave basis that is cut too low does this (Pulay stress)"
    remedy = f"no potential can have both: leave the stress out (training.loss.stress.weight: 0) or correct it; {cause}"
    yield Problem(WARNING, "stress_pressure", file, what, remedy)


def _strained(structures: Sequence[Structure], rows: Sequence[int]) -> list[list[Structure]]:
    """Group frames with the same atoms at the same fractional coordinates, relative to the first atom."""
    groups: dict[tuple[bytes, ...], list[Structure]] = defaultdict(list)
    for k in np.random.Generator(np.random.PCG64(0)).permutation(rows)[:MANY]:
        s = structures[int(k)]
        if s.energy is None or s.stress is None or not s.pbc.all() or s.volume < 1e-3:
            continue
        if all(np.isfinite(value).all() for value in (s.positions, s.cell, s.energy, s.stress)):
            scaled = (s.positions - s.positions[0]) @ np.linalg.inv(s.cell)
            # Lattice sites are simple fractions: none of them is on the border between two boxes.
            boxes = np.floor(scaled * 500 + 0.3183).astype(np.int64) % 500
            groups[s.numbers.tobytes(), boxes.tobytes()].append(s)
    return list(groups.values())


def _work(a: Structure, b: Structure) -> tuple[float, float] | None:
    """Compute the change of volume (Å^3), and work of the stress less energy difference (eV); None if strained too far."""
    change = b.cell - a.cell
    strains = [np.linalg.solve(s.cell, change) for s in (a, b)]
    if np.abs(strains).max() > STRAIN:
        return None
    volumes = [s.volume * np.trace(u) for s, u in zip((a, b), strains, strict=True)]
    works = [s.volume * np.sum(s.labels[STRESS] * u) for s, u in zip((a, b), strains, strict=True)]
    return sum(volumes) / 2, sum(works) / 2 - (b.labels[ENERGY] - a.labels[ENERGY])


def _order(file: str, predicted: np.ndarray, labels: np.ndarray) -> Iterator[Problem]:
    """Find shear components that are not in the order yz, xz, xy; tensors are (frames, 3, 3)."""
    shear = lambda tensors: np.stack([tensors[:, 1, 2], tensors[:, 0, 2], tensors[:, 0, 1]])
    x, y = shear(predicted), shear(labels)
    if np.linalg.norm(y) < 0.05 * np.linalg.norm(labels):
        return
    as_is = abs(_regress(x.ravel(), y.ravel())[0])
    orders = {order: abs(_regress(x[list(order)].ravel(), y.ravel())[0]) for order in permutations(range(3))}
    best = max(orders, key=lambda order: orders[order])
    if as_is < SHUFFLED and orders[best] > TRUSTED:
        names = ", ".join(("yz", "xz", "xy")[k] for k in best)
        seen = f"correlation {orders[best]:.2f}, as read {as_is:.2f}"
        what = f"the shear stresses look as if written in the order {names} ({seen})"
        yield Problem(ERROR, "stress_order", file, what, "write them as yz, xz, xy, or as nine numbers")


def _judge(
    kind: str, file: str, what: str, correlation: float, slope: float, mistakes: Mapping[float, str], remedy: str
) -> Iterator[Problem]:
    """Report a slope that is negative or far from one: an error if the correlation is strong, a warning if it is weaker."""
    size = abs(slope)
    if abs(correlation) < SUSPECTED or _right(slope):
        return
    near = [] if _right(size) else sorted((abs(np.log(size / factor)), text) for factor, text in mistakes.items())
    guesses = [text for distance, text in near[:2] if distance < np.log(MATCH)]
    sure = abs(correlation) >= TRUSTED and (slope < 0 or guesses)
    advice = "; or ".join(guesses) or remedy
    if guesses and slope < 0:
        advice = f"{remedy}; and {advice}"
    yield Problem(ERROR if sure else WARNING, kind, file, f"{what}, correlation {correlation:.2f}", advice)


def _right(slope: float) -> bool:
    """Whether a slope is within the error of the fit for right labels."""
    return 1 / FACTOR < slope < FACTOR


def _traceless(tensors: np.ndarray) -> np.ndarray:
    """Subtract the trace of tensors (n, 3, 3)."""
    return tensors - np.trace(tensors, axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3


def _regress(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Compute the correlation about zero, and |y| / |x| with the sign of the correlation."""
    sizes = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    correlation = float(x @ y / max(sizes[0] * sizes[1], 1e-300))
    return correlation, float(np.copysign(sizes[1] / max(sizes[0], 1e-300), correlation))
