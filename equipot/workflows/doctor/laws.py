"""The laws that any potential obeys, in float64: symmetries, and forces and stress as derivatives of the energy.

Exact laws are broken by rounding only, about 1e-14 of a force, or 1e-7 where a model keeps its constants in single precision.
What is above ``SOUND`` of the size of a quantity is worth a look, above ``BROKEN`` a defect; no quantity counts as smaller than
its floor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.doctor.bench import Bench, Seen, Subject
from equipot.workflows.doctor.clearance import clear_of_cutoff, strained
from equipot.workflows.doctor.findings import Finding, Measure, largest

SOUND, BROKEN = 1e-5, 1e-3
"""Share of a quantity's size up to which a law holds, and beyond which it is broken."""
QUANTITIES = {"energy": ("meV/atom", 1e3, 0.1), "forces": ("meV/Å", 1e3, 0.1), "stress": ("GPa", 1 / GPa, 0.01)}
"""Unit for the reader, how many of it are one unit inside, and the floor (eV/atom, eV/Å, eV/Å^3)."""
STEP = 5e-4
"""Of the finite differences by positions, Å."""
STRAIN = 1e-4
"""Of those by strain."""
APART = 100.0
"""Distance of copies of a molecule, in cutoffs."""
DIRECTIONS = 6
"""Random directions in which forces are compared with finite differences."""

Carry = Callable[[Structure, Seen], Seen]


def rotation(subject: Subject, seed: int) -> Finding:
    """Structure and answer turned alike."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    measures = _turned(subject, q * np.sign(np.linalg.det(q)), BROKEN)
    return _finding("rotation", measures, "the energy depends on how the axes lie: look for absolute components of vectors")


def reflection(subject: Subject) -> Finding:
    """Inversion through the origin; a look is the worst verdict, since models without this symmetry exist."""
    return _finding(
        "reflection",
        _turned(subject, -np.eye(3), math.inf),
        "mirror images differ by so much, as in models that are equivariant under rotations only: compare it with the model's "
        "errors; enantiomers do not have the same energy",
    )


def _turned(subject: Subject, q: Float[np.ndarray, "3 3"], broken: float) -> tuple[Measure, ...]:
    turn = lambda s: s.replace(positions=s.positions @ q.T, cell=s.cell @ q.T)
    back = lambda s, seen: Seen(seen.energy, seen.forces @ q, None if seen.stress is None else q.T @ seen.stress @ q)
    return compare(subject, _carried(subject, turn, back), broken)


def translation(subject: Subject, seed: int) -> Finding:
    """Everything shifted, and single atoms by whole lattice vectors besides."""
    rng = np.random.default_rng(seed)

    def move(s: Structure) -> Structure:
        images = rng.integers(-2, 3, (len(s), 3)) * s.pbc
        return s.replace(positions=s.positions + [0.3, -1.7, 2.9] + images @ s.cell)

    measures = compare(subject, _carried(subject, move))
    return _finding("translation", measures, "the energy depends on the origin, or on which image stands for an atom")


def permutation(subject: Subject, seed: int) -> Finding:
    """The same atoms in another order."""
    order = lambda s: np.random.default_rng(seed).permutation(len(s))
    move = lambda s: s.replace(positions=s.positions[order(s)], numbers=s.numbers[order(s)])
    back = lambda s, seen: seen._replace(forces=seen.forces[np.argsort(order(s))])
    measures = compare(subject, _carried(subject, move, back))
    return _finding(
        "permutation", measures, "the energy depends on the order of atoms or of neighbours: do not use slot indices"
    )


def spare_pairs(subject: Subject, skin: float) -> Finding:
    """A neighbour list that reaches farther than the cutoff, as in dynamics, by ``skin`` (Å)."""
    longer = subject.bench.look(subject.structures, subject.bench.potential.cutoff + skin)
    measures = compare(subject, longer)
    return _finding("spare pairs", measures, "pairs beyond the cutoff count where a list holds them: the term has to mask them")


def extensivity(bench: Bench, elements: Sequence[int]) -> Finding:
    """Twice the cell of a chain, and two molecules far apart, against one: of small systems, whose shape is compiled anyway."""
    cutoff = bench.potential.cutoff
    chain = cutoff * np.diag([1.4, 3.0, 3.0])
    places = np.array([[0.0, 0, 0], [0.65 * cutoff, 0, 0]])
    structures = [
        Structure([a, b], places, cell, bool(cell.any()), source="two atoms")
        for a, b in itertools.combinations_with_replacement(elements, 2)
        for cell in (chain, np.zeros((3, 3)))
    ]
    twice = [copied(s, s.cell[0] if s.pbc.any() else np.array([APART * cutoff, 0, 0])) for s in structures]
    subject = Subject(bench, structures, bench.look(structures))
    halves = [Seen(s.energy / 2, s.forces[: len(s.forces) // 2], s.stress) for s in bench.look(twice)]
    remedy = "twice the matter has not twice the energy: look for a dependence on the number of atoms, such as a mean over them"
    return _finding("extensivity", compare(subject, halves), remedy)


def copied(structure: Structure, shift: Float[np.ndarray, "3"]) -> Structure:
    """A structure and its copy at ``shift`` (Å); the first cell vector of a periodic one is doubled."""
    return structure.replace(
        numbers=np.tile(structure.numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + shift]),
        cell=structure.cell * np.array([[2.0], [1.0], [1.0]]),
    )


def _carried(
    subject: Subject, move: Callable[[Structure], Structure], back: Carry = lambda structure, seen: seen
) -> list[Seen]:
    """What is seen of the changed structures, carried back to where the unchanged ones are."""
    return list(map(back, subject.structures, subject.bench.look([move(s) for s in subject.structures])))


def compare(subject: Subject, found: Sequence[Seen], broken: float = BROKEN) -> tuple[Measure, ...]:
    """Largest deviations of energy per atom, forces and, where there is one, stress."""
    return largest_differences(subject, found, lambda name, *pair: deviation(name, *pair, broken))


def largest_differences(
    subject: Subject, found: Sequence[Seen], grade: Callable[[str, np.ndarray, np.ndarray], Measure]
) -> tuple[Measure, ...]:
    """The worst measure of each quantity over the structures; ``grade`` compares what is expected with what is found."""
    quantities = {
        "energy": lambda seen: np.array(seen.energy / len(seen.forces)),
        "forces": lambda seen: seen.forces,
        "stress": lambda seen: seen.stress,
    }
    measures = []
    for name, value in quantities.items():
        pairs = [(value(a), value(b)) for a, b in zip(subject.seen, found, strict=True) if value(a) is not None]
        if pairs:
            measures.append(largest([grade(name, *pair) for pair in pairs]))
    return tuple(measures)


def deviation(name: str, expected: np.ndarray, found: np.ndarray, broken: float = BROKEN) -> Measure:
    """The largest difference of a quantity, with limits from its size."""
    return graded(name, np.abs(found - expected).max(), np.abs(expected).max(), broken)


def graded(name: str, difference: float, size: float, broken: float = BROKEN) -> Measure:
    """A difference (eV/atom, eV/Å or eV/Å^3) of a quantity of this size, in the reader's unit."""
    unit, factor, floor = QUANTITIES[name]
    scale = factor * max(floor, float(np.nan_to_num(size)))
    return Measure(name, factor * float(difference), unit, SOUND * scale, broken * scale)


def _finding(name: str, measures: tuple[Measure, ...], remedy: str) -> Finding:
    finding = Finding(name, measures)
    return finding if finding.verdict == "sound" else Finding(name, measures, remedy)


def forces(subject: Subject, seed: int) -> tuple[Finding, np.ndarray, np.ndarray]:
    """Forces against central differences of fourth order, all atoms moved at once by ``STEP`` up or down each axis at random.

    A single wrong component shows in every direction with its whole size. Also returns the forces along each direction and the
    finite differences, (directions of all structures,) in eV/Å.
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
        slopes.append([np.sum(s.forces * way) for s, way in zip(subject.seen, ways, strict=True)])
    slopes, differences = np.array(slopes), np.array(differences)
    errors = np.abs(slopes - differences).max(axis=0)
    # The limit follows from the size of the forces, not from that of their sum along a direction.
    measures = [graded("forces", error, np.abs(s.forces).max()) for error, s in zip(errors, subject.seen, strict=True)]
    remedy = "forces are not the slope of the energy: dynamics will heat or cool; look for a stopped gradient or a jump"
    return _finding("forces", (largest(measures),), remedy + crossing), slopes.ravel(), differences.ravel()


def stress(subject: Subject) -> Finding | None:
    """Stress against central differences of fourth order by the six strains; None where nothing has a volume."""
    kept = [k for k, seen in enumerate(subject.seen) if seen.stress is not None]
    if not kept:
        return None
    subject = Subject(subject.bench, [subject.structures[k] for k in kept], [subject.seen[k] for k in kept])
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
    measures = [deviation("stress", s.stress, found) for s, found in zip(subject.seen, numeric, strict=True)]
    remedy = "the stress is not the slope of the energy by strain: no constant-pressure dynamics, no relaxed cells with it"
    return _finding("stress", (largest(measures),), remedy + crossing)


def _derivative(bench: Bench, at: Callable[[float], list[Structure]], step: float) -> Float[np.ndarray, " structures"]:
    """dE/dx of each structure at x = 0, by the five-point formula."""
    energy = lambda k: np.array([seen.energy for seen in bench.look(at(k * step))])
    return (8 * (energy(1) - energy(-1)) - (energy(2) - energy(-2))) / (12 * step)
