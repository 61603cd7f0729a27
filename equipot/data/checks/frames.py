"""Check reference data before training; each problem names file, frame and remedy."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from equipot.data.checks.consistency import consistency
from equipot.data.checks.hessians import hessian
from equipot.data.checks.magnitudes import magnitudes
from equipot.data.checks.report import ERROR, WARNING, Problem, Report, file_of
from equipot.data.compositions import fit_energies
from equipot.data.split import Counted
from equipot.data.stats import is_isolated_atom
from equipot.electrons import CORRECT
from equipot.neighbors import Edges, neighbor_list
from equipot.quantities import ENERGY, FORCES, STRESS, Quantity, ordered
from equipot.structure import Structure

CUTOFF, MAX_FORCE, MIN_DISTANCE = 5.0, 200.0, 0.3
"""Defaults: cutoff of the model (Å), largest force component (eV/Å), shortest distance (Å)."""
SAME_PLACE = 1e-3
"""Distance (Å) below which two atoms are at one place."""
TOO_CLOSE = 0.5
"""Ratio of distance to sum of covalent radii below which a pair gets a warning."""
BOHR_RATIO = (1.6, 2.2)
"""Range of the ratio of nearest-neighbour distance to sum of covalent radii if bohr are taken for Å; near 1 if Å."""
NOBLE = (2, 10, 18, 36, 54, 86)
OUTLIER = (30.0, 0.3)
"""Robust standard deviations and eV/atom beyond which an energy is an outlier."""
ENOUGH_FRAMES = 20
"""Smallest number of frames for a search for outliers."""
SAME_ENERGY = 1e-3
"""Largest difference (eV/atom) between energies of one geometry."""
LEAST_ZEROS = 4
"""Smallest number of frames whose stresses of zero are an error."""
ZERO_STRESS = 1e-12
"""Largest stress component (eV/Å^3) that counts as zero."""
BALANCED = 0.01
"""Largest ratio of the sum of vectors to the neighbours of an atom to the sum of their lengths where forces may be zero by
symmetry; a random displacement by 0.01 Å gives about as much."""


def check(
    sets: Mapping[str, Sequence[Structure]],
    cutoff: float = CUTOFF,
    max_force: float = MAX_FORCE,
    min_distance: float = MIN_DISTANCE,
    needs: Sequence[str] = (),
) -> Report:
    """Check every frame of the sets, and the agreement of labels on a sample.

    Args:
        sets: frames by the name of the set; the elements of ``train`` are those that other sets may hold.
        cutoff: distance (Å) within which every atom should have a neighbour.
        max_force: largest force component, eV/Å.
        min_distance: shortest distance, Å.
        needs: inputs of the term to train, such as charge, see ``Term.needs``.
    """
    problems: list[Problem] = []
    seen: dict[bytes, tuple[str, str, float | None]] = {}
    summary = []
    known: set[int] = set()
    charges: set[float] = set()
    judged: set[str] = set()
    for name, structures in sets.items():
        rows, counted = [], Counted(structures)
        for s in structures:
            problems += [*_frame(s, max_force), *_electrons(s, needs), *hessian(s)]
            found, nearest = _distances(s, cutoff, min_distance)
            problems += [*found, *_duplicate(counted.change(s), name, seen)]
            rows.append(_row(s, nearest, cutoff))
        problems += [*_labels(rows), *_lengths(rows), *_outliers(rows), *_states(rows, needs)]
        fresh = {file: places for file, places in _files(rows).items() if file not in judged}
        problems += [*_zeros(rows, fresh), *_single_zeros(rows), *magnitudes(counted, fresh), *consistency(counted, fresh)]
        judged |= fresh.keys()
        if name == "train":
            known = _elements(rows)
            problems += _weightless(rows)
            charges = {row.state["charge"] for row in rows}
        elif known:
            problems += [*_strangers(rows, known), *_other_charges(rows, charges)]
        summary.append(f"{name}: {_describe(rows)}")
    return Report(tuple(problems), tuple(summary))


def _weightless(rows: Sequence[Row]) -> Iterator[Problem]:
    """Find a training set whose frames all have weight zero."""
    if rows and not any(row.weight for row in rows):
        remedy = "give some of them a weight above zero, in the files or in data.weights"
        yield Problem(ERROR, "weight", file_of(rows[0].name), "every training frame has weight zero", remedy)


class Row(NamedTuple):
    """Summary of one frame, for the checks of a whole set."""

    name: str
    has: frozenset[Quantity]
    """Quantities with labels."""
    counts: dict[int, int]
    """Atoms of each Z."""
    energy: float
    """Total energy, eV; NaN if missing or of weight zero."""
    nearest: float
    """Median over atoms of nearest-neighbour distance / sum of covalent radii; NaN with noble gases or below three atoms."""
    state: dict[str, float]
    """Charge and spin."""
    weight: float
    """Frame weight, or 0 if all labels have weight zero."""
    zero: Mapping[Quantity, bool]
    """Whether all forces and all stress components are zero, where these labels can be anything else and have a weight."""
    balanced: bool
    """Whether forces that are all zero may be so by symmetry, see ``_balanced``; True for other forces."""


def _row(s: Structure, nearest: float, cutoff: float) -> Row:
    z, n = np.unique(s.numbers, return_counts=True)
    counts = dict(zip(z.tolist(), n.tolist(), strict=True))
    energy, state = s.labels[ENERGY] if s.weight_of(ENERGY) else np.nan, {"charge": s.charge, "spin": s.spin}
    zero = {}
    # The force on an atom that is alone in its cell is zero by symmetry.
    if s.weight_of(FORCES) and len(s) > 1:
        zero[FORCES] = not np.any(s.labels[FORCES])
    if s.weight_of(STRESS):
        zero[STRESS] = bool(np.all(np.abs(s.labels[STRESS]) <= ZERO_STRESS))
    balanced = not zero.get(FORCES) or _balanced(s, cutoff)
    return Row(s.name, frozenset(s.labels), counts, energy, nearest, state, s.geometry_weight, zero, balanced)


def _balanced(s: Structure, cutoff: float) -> bool:
    """Whether the vectors to the neighbours of each atom add up to zero, with weights (1 - r/cutoff)^2 / r^8.

    They do so where forces vanish by symmetry. The weights count the nearest neighbours most. True for frames with invalid
    positions or cell.
    """
    if not (np.all(np.isfinite(s.positions)) and np.all(np.isfinite(s.cell))) or (s.pbc.any() and _flat(s)):
        return True
    edges = neighbor_list(s.positions, s.cell, s.pbc, cutoff)
    vectors = s.positions[edges.neighbors] + edges.shifts @ s.cell - s.positions[edges.centers]
    r = np.linalg.norm(vectors, axis=1)
    weights = (1 - r / cutoff) ** 2 / np.maximum(r, SAME_PLACE) ** 8
    total, most = np.zeros((len(s), 3)), np.bincount(edges.centers, weights * r, len(s))
    np.add.at(total, edges.centers, weights[:, None] * vectors)
    return bool(np.all(np.linalg.norm(total, axis=1) <= BALANCED * most))


def _elements(rows: Sequence[Row]) -> set[int]:
    return {z for row in rows for z in row.counts}


def _files(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return the indices of the frames of each file."""
    found: dict[str, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        found[file_of(row.name)].append(k)
    return found


def _describe(rows: Sequence[Row]) -> str:
    """Summarise a set in a line."""
    if not rows:
        return "no frames"
    atoms = [sum(row.counts.values()) for row in rows]
    size = f"{min(atoms)} to {max(atoms)} atoms" if min(atoms) < max(atoms) else f"{atoms[0]} atoms"
    held = Counter(label for row in rows for label in row.has)
    labels = [f"{label.name} in {'all' if held[label] == len(rows) else held[label]}" for label in ordered(held)]
    symbols = " ".join(chemical_symbols[z] for z in sorted(_elements(rows)))
    return f"{len(rows)} frames of {size} ({symbols}), {', '.join(labels) or 'no labels'}"


def _frame(s: Structure, max_force: float) -> Iterator[Problem]:
    """Find invalid values in one frame: elements, NaN, missing labels, large forces, a flat cell."""
    error = lambda kind, what, remedy: Problem(ERROR, kind, s.name, what, remedy)
    if (s.numbers < 1).any() or (s.numbers > 118).any():
        wrong = int(s.numbers[(s.numbers < 1) | (s.numbers > 118)][0])
        yield error("element", f"has an atom with Z = {wrong}", "give every atom an element")
    held = {"positions": s.positions, "cell": s.cell, **{row.name: value for row, value in s.labels.items()}}
    for name, value in held.items():
        if not np.all(np.isfinite(value)):
            yield error("finite", f"{name} hold{'' if name.endswith('s') and name != 'stress' else 's'} NaN or infinity",
                        "calculate the frame again or remove it")  # fmt: skip
    if not s.labels:
        remedy = "label it, remove it, or set data.keys to the names in the file"
        if words := s.info.get("comment"):
            remedy += f"; words in the comment ({str(words)[:40]!r}) are no labels: write energy=..."
        yield error("unlabelled", "has no energy, forces or stress", remedy)
    if s.forces is not None and np.abs(s.forces).max(initial=0) > max_force:
        atom = int(np.argmax(np.abs(s.forces).max(axis=1)))
        yield error(
            "force",
            f"the force on atom {atom} has a component of {np.abs(s.forces[atom]).max():.4g} eV/Å, beyond {max_force:g}",
            "remove the frame, state data.units, or raise data.max_force if it is meant",
        )
    if s.pbc.any() and _flat(s):
        yield error("cell", f"is periodic, but its cell has no volume ({np.round(s.cell, 3).tolist()})",
                    "give the cell, or pbc=\"F F F\" if it is open")  # fmt: skip


def _flat(s: Structure) -> bool:
    """Whether the periodic lattice vectors are linearly dependent."""
    rows = s.cell[s.pbc]
    if not np.all(np.isfinite(rows)):
        return False
    sizes = np.linalg.norm(rows, axis=1)
    return bool(np.any(sizes < 1e-6)) or np.linalg.svd(rows / sizes[:, None], compute_uv=False)[-1] < 1e-6


def _distances(s: Structure, cutoff: float, min_distance: float) -> tuple[list[Problem], float]:
    """Find atoms without neighbours or too close to each other; also return ``Row.nearest``."""
    if not (np.all(np.isfinite(s.positions)) and np.all(np.isfinite(s.cell))) or (s.pbc.any() and _flat(s)):
        return [], np.nan
    edges = neighbor_list(s.positions, s.cell, s.pbc, cutoff)
    alone = np.bincount(edges.centers, minlength=len(s)) == 0
    problems = []
    if alone.any() and not is_isolated_atom(s):
        atom = int(np.argmax(alone))
        what = f"atom {atom} ({chemical_symbols[s.numbers[atom]]}) has no neighbour within {cutoff:g} Å"
        problems.append(Problem(WARNING, "alone", s.name, what, "raise the cutoff, or remove the frame if the atom flew off"))
    if not len(edges.centers):
        return problems, np.nan
    vectors = s.positions[edges.neighbors] + edges.shifts @ s.cell - s.positions[edges.centers]
    r = np.linalg.norm(vectors, axis=1)
    radii = covalent_radii[np.clip(s.numbers, 0, len(covalent_radii) - 1)]
    ratio = r / (radii[edges.centers] + radii[edges.neighbors])
    problems += _close(s, edges, r, ratio, min_distance)
    nearest = np.full(len(s), np.inf)
    np.minimum.at(nearest, edges.centers, ratio)
    telling = len(s) > 2 and not np.isin(s.numbers, NOBLE).any()
    return problems, float(np.median(nearest)) if telling else np.nan


def _close(s: Structure, edges: Edges, r: np.ndarray, ratio: np.ndarray, min_distance: float) -> Iterator[Problem]:
    """Report the closest pair if too close.

    Args:
        r: (pairs,) distances, Å.
        ratio: (pairs,) distances / sums of covalent radii.
    """
    k = int(np.argmin(r if r.min() < min_distance else ratio))
    i, j = int(edges.centers[k]), int(edges.neighbors[k])
    pair = f"atoms {i} ({chemical_symbols[s.numbers[i]]}) and {j} ({chemical_symbols[s.numbers[j]]})"
    if r[k] < SAME_PLACE:
        yield Problem(ERROR, "overlap", s.name, f"{pair} are at the same place", "remove one of them, or the frame")
    elif r[k] < min_distance:
        remedy = "remove the frame, state data.units.length, or lower data.min_distance if it is meant"
        yield Problem(ERROR, "overlap", s.name, f"{pair} are {r[k]:.3f} Å apart, closer than {min_distance:g}", remedy)
    elif ratio[k] < TOO_CLOSE:
        what = f"{pair} are {r[k]:.2f} Å apart, {ratio[k]:.0%} of the sum of their covalent radii"
        yield Problem(WARNING, "close", s.name, what, "look at the frame, and at data.units.length")


def _duplicate(s: Structure, name: str, seen: dict[bytes, tuple[str, str, float | None]]) -> Iterator[Problem]:
    """Find a geometry that occurs twice, in one set or in two; ``seen`` collects digests of geometries."""
    digest = hashlib.sha256()
    for value in (
        s.numbers,
        np.round(s.positions, 5) + 0.0,
        np.round(s.cell, 5) + 0.0,
        s.pbc,
        np.array([s.charge, s.spin, *s.field]),
    ):
        digest.update(value.tobytes())
    key = digest.digest()[:16]
    if key not in seen:
        seen[key] = (name, s.name, s.energy)
        return
    where, other, energy = seen[key]
    if energy is not None and s.energy is not None and abs(energy - s.energy) > SAME_ENERGY * len(s):
        what = f"has the geometry of {other}, but another energy ({s.energy:.4f} and {energy:.4f} eV)"
        yield Problem(ERROR, "contradiction", s.name, what, "keep the right one; do not mix levels of theory")
    elif where != name:
        yield Problem(WARNING, "leak", s.name, f"is in the {name} set, and in the {where} set as {other}", "remove one of them")
    else:
        yield Problem(WARNING, "duplicate", s.name, f"is the same as {other}", "remove one of them, or it counts twice")


def _labels(rows: Sequence[Row]) -> Iterator[Problem]:
    """Find labels that some frames of a file lack, and files without energies or forces."""
    for file, places in _files(rows).items():
        labels = ordered(label for k in places for label in rows[k].has)
        for label in labels:
            column = np.array([label in rows[k].has for k in places])
            if not column.all():
                first = rows[places[int(np.argmin(column))]].name
                what = f"has no {label.name}, as {np.sum(~column)} of {len(places)} frames of {file}"
                remedy = "they are trained on what they have; label them if it is not meant"
                yield Problem(WARNING, f"missing {label.name}", first, what, remedy)
        for label, what in ((ENERGY, "no frame has an energy"), (FORCES, "no frame has forces")):
            if label not in labels and labels:
                remedy = f"set data.keys.{label.name} if they have another name"
                yield Problem(WARNING, f"missing {label.name}", file, what, remedy)


def _zeros(rows: Sequence[Row], files: Mapping[str, Sequence[int]]) -> Iterator[Problem]:
    """Find files whose forces or stresses are all zero, because they were not calculated.

    Zero forces are a warning only: those of perfect crystals vanish by symmetry.
    """
    for file, places in files.items():
        forces, stresses = ([rows[k].zero[label] for k in places if label in rows[k].zero] for label in (FORCES, STRESS))
        if forces and all(forces):
            remedy = "if they were not calculated, set data.keys.forces to none; if they vanish by symmetry, all is well"
            switch = "data.checks.force_zero: skip then ends this warning"
            yield Problem(WARNING, "force_zero", file, "every force is zero", f"{remedy} ({switch})")
        if len(stresses) >= LEAST_ZEROS and all(stresses):
            remedy = "it was not calculated: set data.keys.stress to none, or state stress_weight=0 if other files have stress"
            yield Problem(ERROR, "stress_zero", file, "every stress is zero", remedy)


def _single_zeros(rows: Sequence[Row]) -> Iterator[Problem]:
    """Find frames among others of a file whose forces or stresses are all zero, although they cannot be so by symmetry."""
    what = "every {} is exactly zero, unlike in other frames of the file{}"
    remedy = "look whether it was calculated; if it was not, remove the label, or state {}_weight=0"
    for places in _files(rows).values():
        labelled = {label: [k for k in places if label in rows[k].zero] for label in (FORCES, STRESS)}
        zero = {label: [k for k in held if rows[k].zero[label]] for label, held in labelled.items()}
        if len(zero[FORCES]) < len(labelled[FORCES]):
            why = ", though its atoms do not lie symmetrically"
            for k in zero[FORCES]:
                if not rows[k].balanced:
                    yield Problem(WARNING, "force_zero", rows[k].name, what.format("force", why), remedy.format("forces"))
        if len(labelled[STRESS]) - len(zero[STRESS]) >= LEAST_ZEROS:
            for k in zero[STRESS]:
                yield Problem(
                    WARNING, "stress_zero", rows[k].name, what.format("stress component", ""), remedy.format("stress")
                )


def _electrons(s: Structure, needs: Sequence[str]) -> Iterator[Problem]:
    """Find a charge and a spin that contradict the number of electrons, for a model that sees the spin."""
    if "spin" in needs and (what := s.impossible_electrons):
        yield Problem(ERROR, "electrons", s.name, what, f"state both in the file, or {CORRECT}")


def _other_charges(rows: Sequence[Row], known: set[float]) -> Iterator[Problem]:
    """Find frames of another charge than all training frames: the potential will refuse them."""
    for row in rows:
        if row.state["charge"] not in known:
            listed = ", ".join(f"{charge:g}" for charge in sorted(known))
            what = f"has charge {row.state['charge']:g}, but the training frames have {listed}"
            yield Problem(ERROR, "charge", row.name, what, "train on frames of this charge too, or leave the frame out")


def _states(rows: Sequence[Row], needs: Sequence[str]) -> Iterator[Problem]:
    """Find different charges or spins if the model has no such input."""
    for name in ("charge", "spin"):
        values = [row.state[name] for row in rows]
        if name not in needs and len(set(values)) > 1:
            odd = next(row for row in rows if row.state[name] != values[0])
            what = f"has {name} {odd.state[name]:g} and {rows[0].name} {values[0]:g}, but the model does not see the {name}"
            yield Problem(WARNING, name, odd.name, what, f"train on frames of one {name}")


def _lengths(rows: Sequence[Row]) -> Iterator[Problem]:
    """Find positions in bohr, from distances of nearest neighbours."""
    ratios = [row.nearest for row in rows if np.isfinite(row.nearest)]
    ratio = np.median(ratios) if ratios else 1.0
    if BOHR_RATIO[0] < ratio < BOHR_RATIO[1]:
        what = f"nearest atoms are typically {ratio:.2f} times the sum of their covalent radii apart"
        remedy = "set data.units.length to bohr if the positions are in bohr"
        yield Problem(WARNING, "length", file_of(rows[0].name), what, remedy)


def _outliers(rows: Sequence[Row]) -> Iterator[Problem]:
    """Find outliers among the energies per atom after a fit to compositions."""
    rows = [row for row in rows if np.isfinite(row.energy)]
    if len(rows) < ENOUGH_FRAMES:
        return
    elements = sorted(_elements(rows))
    counts = np.array([[row.counts.get(z, 0) for z in elements] for row in rows], float)
    energies, atoms = np.array([row.energy for row in rows]), counts.sum(1)
    charges = np.array([[max(row.state["charge"], 0.0), max(-row.state["charge"], 0.0)] for row in rows])
    keep = np.ones(len(rows), bool)
    for _ in range(3):
        # Outliers pull the fit: fit, leave out what is far, fit again.
        fit = fit_energies(counts[keep], energies[keep], elements, electrons=charges[keep])
        left = energies - counts @ np.array([fit.energies[z] for z in elements]) - charges @ fit.of_electrons
        left /= atoms
        left -= np.median(left)
        sigma = 1.4826 * np.median(np.abs(left))
        keep = np.abs(left) <= max(OUTLIER[0] * sigma, OUTLIER[1])
        if keep.sum() < len(rows) / 2:
            return
    for k in np.flatnonzero(~keep):
        what = f"the energy is {left[k]:+.3g} eV/atom from what its composition suggests (typical spread {sigma:.2g})"
        remedy = "look whether the calculation converged, or remove the frame"
        yield Problem(WARNING, "outlier", rows[k].name, what, remedy)


def _strangers(rows: Sequence[Row], known: set[int]) -> Iterator[Problem]:
    """Find elements that no training frame holds."""
    for z in sorted(_elements(rows) - known):
        holders = [row.name for row in rows if z in row.counts]
        what = f"contains {chemical_symbols[z]} (as {len(holders)} frames do), which no training frame has"
        yield Problem(ERROR, "stranger", holders[0], what, "train on frames with it, or leave these out")
