"""Whether energy, forces and stress of a file agree in sign and unit, judged by a crude force field fitted to the forces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from equipot.data.pairfit import CUTOFF, fit
from equipot.neighbors import neighbor_list
from equipot.structure import Structure
from equipot.units import GPa, bohr, hartree, kcal_per_mol, kJ_per_mol

FRAMES, ATOMS, EDGES, ELEMENTS = 40, 4000, 400_000, 6
"""Limits of the sample that is fitted."""
LEAST = 4
"""Frames without which nothing is said."""
TRUSTED, SUSPECTED = 0.8, 0.6
"""Correlations from which a contradiction is an error, or worth a warning."""
FACTOR = 6.0
"""Slopes within this factor of one are what a crude fit gives for right labels."""
MATCH = 2.0
"""A known mistake is named when the slope is within this factor of it."""


def diagnose(structures: Sequence[Structure], problem: Callable[..., Any]) -> Iterator[Any]:
    """Problems with the labels of each file among ``structures``, from a sample of its frames."""
    files: dict[str, list[int]] = defaultdict(list)
    for k in range(len(structures)):
        files[structures[k].source.rpartition(", frame ")[0]].append(k)
    for file, rows in files.items():
        sample = _sample(structures, rows)
        if len(sample) >= LEAST:
            prediction = fit(sample)
            yield from _energies(file, sample, prediction.energies, problem)
            yield from _stresses(file, sample, prediction.virials, problem)


def _sample(structures: Sequence[Structure], rows: Sequence[int]) -> list[Structure]:
    """Frames with usable forces, few enough for a quick fit; the same ones in every run."""
    chosen, elements, atoms, edges = [], set(), 0, 0
    for k in np.random.Generator(np.random.PCG64(0)).permutation(rows):
        s = structures[int(k)]
        if not _usable(s) or len(elements | set(s.numbers.tolist())) > ELEMENTS:
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
    if s.forces is None or len(s) < 2 or np.abs(s.forces).max() < 1e-4:
        return False
    values = (s.positions, s.cell, s.forces, 0.0 if s.energy is None else s.energy, 0.0 if s.stress is None else s.stress)
    if not all(np.all(np.isfinite(value)) for value in values) or (s.pbc.any() and np.linalg.norm(s.cell[s.pbc], axis=1).min() < 1):
        return False
    found = neighbor_list(s.positions, s.cell, s.pbc, 0.3)
    return len(found.centers) == 0


def _energies(file: str, sample: Sequence[Structure], predicted: np.ndarray, problem: Callable[..., Any]) -> Iterator[Any]:
    """Energy differences between frames of one composition against those that the forces imply."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for k, s in enumerate(sample):
        if s.energy is not None:
            groups[np.sort(s.numbers).tobytes()].append(k)
    rows = [np.array(g) for g in groups.values() if len(g) >= LEAST]
    if not rows:
        return
    energies = np.array([np.nan if s.energy is None else s.energy for s in sample])
    x = np.concatenate([predicted[g] - predicted[g].mean() for g in rows])
    y = np.concatenate([energies[g] - energies[g].mean() for g in rows])
    if len(y) < 2 * LEAST or np.abs(y).max() < 1e-3:
        return
    correlation, slope = _regress(x, y)
    known = {
        1 / hartree: "the energies may be in Hartree while the forces are in eV/Å",
        hartree: "the forces may be in Hartree/Å while the energies are in eV",
        hartree / bohr: "the forces may be in Hartree/bohr while the energies are in eV",
        1 / kcal_per_mol: "the energies may be in kcal/mol while the forces are in eV/Å",
        kcal_per_mol: "the forces may be in kcal/mol/Å while the energies are in eV",
        1 / kJ_per_mol: "the energies may be in kJ/mol while the forces are in eV/Å",
        kJ_per_mol: "the forces may be in kJ/mol/Å while the energies are in eV",
    }
    what = f"energies and forces disagree (energy differences are {slope:.3g} times what the forces imply)"
    yield from _judge("energy unit", file, what, correlation, slope, known, "state data.units.energy and data.units.forces",
                      "the forces may be gradients, of the opposite sign", problem)  # fmt: skip


def _stresses(file: str, sample: Sequence[Structure], virials: np.ndarray, problem: Callable[..., Any]) -> Iterator[Any]:
    """Stress without its trace against the virial of the fitted pairs.

    The trace is left out: a two-body fit to forces does not know the pressure that everything else in a solid adds.
    """
    rows = [k for k, s in enumerate(sample) if s.stress is not None and s.volume > 0]
    if len(rows) < LEAST:
        return
    volumes = np.array([sample[k].volume for k in rows])
    labels = _traceless(np.array([sample[k].stress for k in rows]))
    if np.abs(labels).max() < 1e-12:
        yield problem("error", "stress zero", file, "every stress is zero", "set data.keys.stress to none: it was not calculated")
        return
    correlation, slope = _regress((_traceless(virials[rows]) / volumes[:, None, None]).ravel(), labels.ravel())
    volume = float(np.median(volumes))
    known = {
        1 / GPa: "it may be in GPa: set data.units.stress",
        10 / GPa: "it may be in kbar: set data.units.stress",
        1e4 / GPa: "it may be in bar: set data.units.stress",
        GPa: "it may have been divided by 160.2 once too often",
        bohr**3 / hartree: "it may be in Hartree/bohr^3: set data.units.stress",
        volume: "it may be a virial, the stress times the volume: name it in data.keys.virial if it is -dE/d(strain)",
        1 / volume: "it may have been divided by the volume once too often",
    }
    what = f"the stress is {slope:.3g} times what the forces imply"
    yield from _judge("stress unit", file, what, correlation, slope, known, "state data.units.stress, or set data.keys.stress to none",
                      "it may have the opposite sign (positive is tension; many codes print pressure)", problem)  # fmt: skip


def _judge(
    kind: str, file: str, what: str, correlation: float, slope: float, known: Mapping[float, str], remedy: str, sign: str,
    problem: Callable[..., Any],
) -> Iterator[Any]:  # fmt: skip
    """A problem where the slope is negative or far from one, as certain as the correlation is strong."""
    size = abs(slope)
    right_size = 1 / FACTOR < size < FACTOR
    if abs(correlation) < SUSPECTED or (right_size and slope > 0):
        return
    guesses = [] if slope > 0 else [sign]
    if not right_size:
        near = sorted((abs(np.log(size / factor)), text) for factor, text in known.items())
        guesses += [text for distance, text in near[:2] if distance < np.log(MATCH)]
    yield problem(
        "error" if abs(correlation) >= TRUSTED else "warning", kind, file, f"{what}, correlation {correlation:.2f}",
        "; ".join([*guesses] or [remedy]),
    )  # fmt: skip


def _traceless(tensors: np.ndarray) -> np.ndarray:
    return tensors - np.trace(tensors, axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3


def _regress(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Correlation about zero, and the ratio of sizes with its sign."""
    sizes = np.linalg.norm(x), np.linalg.norm(y)
    correlation = float(x @ y / max(sizes[0] * sizes[1], 1e-300))
    return correlation, float(np.copysign(sizes[1] / max(sizes[0], 1e-300), correlation))
