"""Check the laws of any potential in float64: symmetries, and forces and stress as derivatives of the energy.

Rounding breaks exact laws by about 1e-14 of a force, or 1e-7 if a model has constants in single precision. Deviations above
``SOUND`` times the size of a quantity deserve a look, above ``BROKEN`` they are defects; the size is at least the floor of the
quantity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.doctor.bench import Bench, Prediction, Subject
from equipot.workflows.doctor.clearance import clear_of_cutoff, strained
from equipot.workflows.doctor.findings import Finding, Measure, largest

SOUND, BROKEN = 1e-5, 1e-3
"""Deviations, relative to a quantity's size, up to which a law holds, and beyond which the law is broken."""
QUANTITIES = {"energy": ("meV/atom", 1e3, 0.1), "forces": ("meV/Å", 1e3, 0.1), "stress": ("GPa", 1 / GPa, 0.01)}
"""Unit in the report, factor to that unit, and smallest size (eV/atom, eV/Å, eV/Å^3)."""
STEP = 5e-4
"""Step of finite differences by positions, Å."""
STRAIN = 1e-4
"""Step of finite differences by strain."""
APART = 100.0
"""Distance between copies of a molecule, in cutoffs."""
DIRECTIONS = 6
"""Random directions in which forces are compared with finite differences."""

Carry = Callable[[Structure, Prediction], Prediction]
"""Transformation of the prediction for a transformed structure back to the original structure."""


def rotation(subject: Subject, seed: int) -> Finding:
    """Check equivariance under a random rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    measures = _turned(subject, q * np.sign(np.linalg.det(q)), BROKEN)
    return _finding("rotation", measures, "the energy depends on how the axes lie: look for absolute components of vectors")


def reflection(subject: Subject) -> Finding:
    """Check equivariance under inversion; the worst verdict is look, since models without this symmetry exist."""
    return _finding(
        "reflection",
        _turned(subject, -np.eye(3), math.inf),
        "mirror images differ by so much, as in models that are equivariant under rotations only: compare it with the model's "
        "errors; enantiomers do not have the same energy",
    )


def _turned(subject: Subject, q: Float[np.ndarray, "3 3"], broken: float) -> tuple[Measure, ...]:
    """Measure deviations after an orthogonal transformation q."""
    turn = lambda s: s.replace(positions=s.positions @ q.T, cell=s.cell @ q.T)
    back = lambda s, seen: Prediction(seen.energy, seen.forces @ q, None if seen.stress is None else q.T @ seen.stress @ q)
    return compare(subject, _carried(subject, turn, back), broken)


def translation(subject: Subject, seed: int) -> Finding:
    """Check invariance under a translation, and under shifts of single atoms by whole lattice vectors."""
    rng = np.random.default_rng(seed)

    def move(s: Structure) -> Structure:
        images = rng.integers(-2, 3, (len(s), 3)) * s.pbc
        return s.replace(positions=s.positions + [0.3, -1.7, 2.9] + images @ s.cell)

    measures = compare(subject, _carried(subject, move))
    return _finding("translation", measures, "the energy depends on the origin, or on which image stands for an atom")


def permutation(subject: Subject, seed: int) -> Finding:
    """Check equivariance under a random permutation of the atoms."""
    order = lambda s: np.random.default_rng(seed).permutation(len(s))
    move = lambda s: s.replace(positions=s.positions[order(s)], numbers=s.numbers[order(s)])
    back = lambda s, seen: seen._replace(forces=seen.forces[np.argsort(order(s))])
    measures = compare(subject, _carried(subject, move, back))
    return _finding(
        "permutation", measures, "the energy depends on the order of atoms or of neighbours: do not use slot indices"
    )


def spare_pairs(subject: Subject, skin: float) -> Finding:
    """Check that pairs beyond the cutoff, up to ``skin`` (Å) as in dynamics, have no influence."""
    longer = subject.bench.predict(subject.structures, subject.bench.potential.cutoff + skin)
    measures = compare(subject, longer)
    return _finding("spare pairs", measures, "pairs beyond the cutoff count where a list holds them: the term has to mask them")


def extensivity(bench: Bench, elements: Sequence[int]) -> Finding:
    """Check that a doubled cell of a chain, and two distant molecules, have twice the energy of one; systems of two atoms."""
    cutoff = bench.potential.cutoff
    chain = cutoff * np.diag([1.4, 3.0, 3.0])
    places = np.array([[0.0, 0, 0], [0.65 * cutoff, 0, 0]])
    structures = [
        Structure(np.array([a, b]), places, cell, np.full(3, cell.any()), source="two atoms")
        for a, b in itertools.combinations_with_replacement(elements, 2)
        for cell in (chain, np.zeros((3, 3)))
    ]
    twice = [copied(s, s.cell[0] if s.pbc.any() else np.array([APART * cutoff, 0, 0])) for s in structures]
    subject = Subject(bench, structures, bench.predict(structures))
    halves = [Prediction(s.energy / 2, s.forces[: len(s.forces) // 2], s.stress) for s in bench.predict(twice)]
    remedy = "twice the matter has not twice the energy: look for a dependence on the number of atoms, such as a mean over them"
    return _finding("extensivity", compare(subject, halves), remedy)


def copied(structure: Structure, shift: Float[np.ndarray, "3"]) -> Structure:
    """Join a structure and its copy at ``shift`` (Å); the first cell vector is doubled."""
    return structure.replace(
        numbers=np.tile(structure.numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + shift]),
        cell=structure.cell * np.array([[2.0], [1.0], [1.0]]),
    )


def _carried(
    subject: Subject, move: Callable[[Structure], Structure], back: Carry = lambda structure, seen: seen
) -> list[Prediction]:
    """Predict transformed structures and transform the predictions back."""
    return list(map(back, subject.structures, subject.bench.predict([move(s) for s in subject.structures])))


def compare(subject: Subject, found: Sequence[Prediction], broken: float = BROKEN) -> tuple[Measure, ...]:
    """Measure the largest deviations of energy per atom, forces and, if defined, stress."""
    return largest_differences(subject, found, lambda name, expected, found: deviation(name, expected, found, broken))


def largest_differences(
    subject: Subject, found: Sequence[Prediction], grade: Callable[[str, np.ndarray, np.ndarray], Measure]
) -> tuple[Measure, ...]:
    """Return the worst measure of each quantity over the structures; ``grade`` compares expected and found values."""
    quantities = {
        "energy": lambda seen: np.array(seen.energy / len(seen.forces)),
        "forces": lambda seen: seen.forces,
        "stress": lambda seen: seen.stress,
    }
    measures = []
    for name, value in quantities.items():
        pairs = [(value(a), value(b)) for a, b in zip(subject.predictions, found, strict=True) if value(a) is not None]
        if pairs:
            measures.append(largest([grade(name, *pair) for pair in pairs]))
    return tuple(measures)


def deviation(name: str, expected: np.ndarray, found: np.ndarray, broken: float = BROKEN) -> Measure:
    """Measure the largest difference of a quantity, with limits from its size."""
    return graded(name, np.abs(found - expected).max(), np.abs(expected).max(), broken)


def graded(name: str, difference: float, size: float, broken: float = BROKEN) -> Measure:
    """Make a measure of a difference (eV/atom, eV/Å or eV/Å^3) of a quantity of a given size, in the unit of the report."""
    unit, factor, floor = QUANTITIES[name]
    scale = factor * max(floor, float(np.nan_to_num(size)))
    return Measure(name, factor * float(difference), unit, SOUND * scale, broken * scale)


def _finding(name: str, measures: tuple[Measure, ...], remedy: str) -> Finding:
    """Make a finding, with a remedy unless the verdict is sound."""
    finding = Finding(name, measures)
    return finding if finding.verdict == "sound" else Finding(name, measures, remedy)


def forces(subject: Subject, seed: int) -> tuple[Finding, np.ndarray, np.ndarray]:
    """Check forces against fourth-order central differences along random directions of all atoms at once, +-1 in each
    component.

    In such a direction a single wrong component shows with its whole size.

    Returns:
        The finding; forces along each direction and finite differences, both (directions x structures,), eV/Å.
    """
    rng = np.random.default_rng(seed)
    subject, crossing = clear_of_cutoff(subject, 4 * math.sqrt(3) * STEP)
    slopes, differences = [], []
    for _ in range(DIRECTIONS):
        ways = [rng.choice([-1.0, 1.0], (len(s), 3)) for s in subject.structures]
        at = lambda x, ways=ways: [
            s.replace(positions=s.positions + x * way) for s, way in zip(subject.structures, ways, strict=True)
        ]
        differences.append(-_derivative(subject.bench, at, STEP))
        slopes.append([np.sum(s.forces * way) for s, way in zip(subject.predictions, ways, strict=True)])
    forces, numeric = np.array(slopes), np.array(differences)
    errors = np.abs(forces - numeric).max(axis=0)
    # The limit follows from the size of the forces, not from that of their sum along a direction.
    measures = [graded("forces", error, np.abs(s.forces).max()) for error, s in zip(errors, subject.predictions, strict=True)]
    remedy = "forces are not the slope of the energy: dynamics will heat or cool; look for a stopped gradient or a jump"
    return _finding("forces", (largest(measures),), remedy + crossing), forces.ravel(), numeric.ravel()


def stress(subject: Subject) -> Finding | None:
    """Check the stress against fourth-order central differences by the six strains; None if no structure has a volume."""
    kept = [k for k, seen in enumerate(subject.predictions) if seen.stress is not None]
    if not kept:
        return None
    subject = Subject(subject.bench, [subject.structures[k] for k in kept], [subject.predictions[k] for k in kept])
    # Half as far again as a step of the five-point formula stretches the longest pair.
    subject, crossing = clear_of_cutoff(subject, 3 * STRAIN * subject.bench.potential.cutoff)
    structures = subject.structures
    numeric = np.zeros((len(kept), 3, 3))
    volumes = np.array([s.volume for s in structures])
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        unit = np.zeros((3, 3))
        unit[i, j] += 0.5
        unit[j, i] += 0.5
        at = lambda x, unit=unit: [strained(s, x * unit) for s in structures]
        numeric[:, i, j] = numeric[:, j, i] = _derivative(subject.bench, at, STRAIN) / volumes
    said = [s.stress for s in subject.predictions if s.stress is not None]
    measures = [deviation("stress", stress, found) for stress, found in zip(said, numeric, strict=True)]
    remedy = "the stress is not the slope of the energy by strain: no constant-pressure dynamics, no relaxed cells with it"
    return _finding("stress", (largest(measures),), remedy + crossing)


def _derivative(bench: Bench, at: Callable[[float], list[Structure]], step: float) -> Float[np.ndarray, " structures"]:
    """Compute dE/dx of each structure at x = 0 by the five-point formula."""
    energy = lambda k: np.array([seen.energy for seen in bench.predict(at(k * step))])
    return (8 * (energy(1) - energy(-1)) - (energy(2) - energy(-2))) / (12 * step)
