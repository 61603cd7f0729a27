"""Examine a potential: run all checks in order and collect a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from equipot.console import Console, stream_of
from equipot.data.batch import Shape
from equipot.evaluation import as_structures
from equipot.potential import Potential
from equipot.structure import Structure, symbols
from equipot.workflows.doctor import laws
from equipot.workflows.doctor.bench import Bench, Prediction, Subject, bench_for, precision
from equipot.workflows.doctor.dimers import dimers
from equipot.workflows.doctor.dynamics import check_can_move, constant_energy, settled
from equipot.workflows.doctor.evidence import Evidence
from equipot.workflows.doctor.findings import Finding, Measure, Report
from equipot.workflows.doctor.jumps import jumps
from equipot.workflows.doctor.lists import neighbour_lists
from equipot.workflows.doctor.single import single_precision
from equipot.workflows.doctor.smoothness import through_the_cutoff
from equipot.workflows.doctor.specimens import rattled, specimens
from equipot.workflows.doctor.walls import wall

FEW_ELEMENTS = 6
"""Largest number of elements of a potential of which all pairs are examined; else pairs of the structure's elements."""
SKIN = 0.5
"""Reach of the longer neighbour list beyond the cutoff, Å."""
SMALL = Shape(atoms=384, slots=2, graphs=128)
"""Shape of batches of systems of two and three atoms."""
STEPS = 200
"""Steps of the dynamics."""
FAR = (10.0, 1000.0)
"""Forces on an atom (eV/Å) of a structure that is far from equilibrium, and of an impossible structure."""
FAR_RATTLED = (100.0, 1000.0)
"""As ``FAR``, after each coordinate was moved by 0.05 Å: the stiffest bonds have some 50 eV/Å^2."""


def examine(
    potential: Potential,
    structure: Any = None,
    *,
    elements: Sequence[int] | None = None,
    dtype: str | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: TextIO | bool | None = True,
) -> Report:
    """Examine a potential on a structure, or on a crystal and a molecule of known elements; JAX is set to float64 meanwhile.

    Args:
        structure: an ``ase.Atoms`` or a ``Structure``; None to make a crystal and a molecule.
        elements: atomic numbers of the elements whose pairs are examined; None for all of a potential with few elements, else
            those of the structure.
        dtype: precision in which the potential will run, None for its own; float64 skips the check of single precision.
        steps: steps of the dynamics.
        seed: seed of all random choices.
        progress: stream for findings; True for standard output, None or False for silence.

    Raises:
        ValueError: an unknown element, or an invalid structure: no atoms, coordinates that are not finite, a cell without a
            volume, or two atoms at one place.
    """
    begun = time.perf_counter()
    dtype = dtype or str(potential.dtype)
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype {dtype} is not supported; use float32 or float64")
    if steps < 50:
        raise ValueError(f"steps is {steps}; dynamics says nothing with fewer than 50")
    structures = _structures(potential, structure, elements)
    console = Console(stream_of(progress))
    pairs = _pairs_of(potential, structures, elements)
    findings: list[Finding] = []
    evidence: dict[str, Any] = {}
    with precision("float64"):
        for finding, shown in _checks(potential, structures, pairs, structure is not None, dtype, steps, seed):
            findings.append(finding)
            evidence |= shown
            console.say(f"{finding.verdict:>6}  {finding.name:<14}  {finding.measured}")
    systems = tuple(f"{s.name}: {len(s)} atoms ({symbols(np.unique(s.numbers).tolist())})" for s in structures)
    name = f"{type(potential.term).__name__}, cutoff {potential.cutoff:g} Å"
    return Report(name, systems, tuple(findings), time.perf_counter() - begun, Evidence(**evidence))


def _structures(potential: Potential, structure: Any, elements: Sequence[int] | None) -> list[Structure]:
    """Return the structures to examine.

    Raises:
        ValueError: an unknown element or an invalid structure.
    """
    unknown = sorted(set(elements or ()) - set(potential.elements))
    if unknown:
        known = symbols(potential.elements) or "no element"
        raise ValueError(f"elements: the potential does not know {symbols(unknown)}; it was trained on {known}")
    if structure is None:
        if not potential.elements:
            raise ValueError("the potential does not say which elements it knows; its metadata lacks atomic_energies")
        return specimens(tuple(elements or potential.elements))
    (given,) = as_structures(structure)
    check_can_move(potential, given)
    return [given.without_labels()]


def _pairs_of(potential: Potential, structures: Sequence[Structure], elements: Sequence[int] | None) -> list[int]:
    """Return the atomic numbers of the elements whose pairs are examined."""
    if elements:
        return sorted(set(elements))
    if len(potential.elements) <= FEW_ELEMENTS:
        return list(potential.elements)
    return sorted({int(z) for s in structures for z in s.numbers})


Check = tuple[Finding, dict[str, Any]]
"""A finding, and fields of ``Evidence`` for its figures."""


def _checks(
    own: Potential, structures: list[Structure], pairs: list[int], given: bool, dtype: str, steps: int, seed: int
) -> Iterator[Check]:
    """Run all checks in order; stop early if energy or forces are not finite or impossibly large."""
    potential = own.astype("float64")
    # In a perfect crystal every force vanishes, and defects with it.
    moved = [rattled(s, seed) for s in structures]
    bench = bench_for(potential, moved, potential.cutoff + SKIN)
    subject = Subject(bench, moved, bench.predict(moved))
    start = _start(bench.predict(structures), subject.predictions, given)
    yield start, {}
    yield neighbour_lists(structures, potential.cutoff), {}
    if start.verdict == "broken":
        return
    small = Bench(potential, SMALL)
    yield from _laws(subject, small, pairs, seed)
    finding, passages = through_the_cutoff(small, pairs)
    yield finding, {"passages": passages}
    guarded = wall(potential, seed)
    if guarded is not None:
        yield guarded, {}
    found, curves = dimers(small, pairs)
    yield from ((finding, {"dimers": curves}) for finding in found)
    yield jumps(small, curves, pairs, bench, structures), {}
    if dtype == "float32":
        yield single_precision(subject, own), {}
    finding, runs = constant_energy(bench, settled(bench, structures), steps, seed)
    yield finding, {"runs": runs}


def _start(seen: Sequence[Prediction], moved: Sequence[Prediction], given: bool) -> Finding:
    """Check that energy and forces are finite, and measure the largest force on the original and the rattled structures."""
    every = [*seen, *moved]
    wrong = sum(not (np.isfinite(s.energy) and np.isfinite(s.forces).all()) for s in every)
    if wrong:
        measure = Measure("not finite", wrong, f"of {len(every)} structures", 0, 0)
        return Finding("answer", (measure,), "energy or forces are not numbers: look for a division by zero in the term")
    measures = tuple(
        Measure(name, max(s.strongest for s in column), "eV/Å", *limits)
        for name, column, limits in (("largest force", seen, FAR), ("rattled", moved, FAR_RATTLED))
    )
    note = ""
    if Finding("answer", measures).verdict != "sound":
        whose = "the structure is" if given else "the structures made here are"
        note = f"{whose} far from any equilibrium of this potential; give one like those that it is meant for"
    return Finding("answer", measures, note)


def _laws(subject: Subject, small: Bench, pairs: list[int], seed: int) -> Iterator[Check]:
    """Check symmetries, extensivity, and forces and stress as derivatives of the energy."""
    yield laws.rotation(subject, seed), {}
    yield laws.reflection(subject), {}
    yield laws.translation(subject, seed), {}
    yield laws.permutation(subject, seed), {}
    yield laws.extensivity(small, pairs), {}
    yield laws.spare_pairs(subject, SKIN), {}
    finding, slopes, differences = laws.forces(subject, seed)
    yield finding, {"slopes": slopes, "differences": differences}
    of_stress = laws.stress(subject)
    if of_stress is not None:
        yield of_stress, {}
