"""What is wrong with reference data, found before any training: each problem with file, frame and remedy."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from equipot.data.diagnose import diagnose
from equipot.data.stats import fit_energies, is_free_atom
from equipot.neighbors import neighbor_list
from equipot.structure import Structure

ERROR, WARNING = "error", "warning"
SHOWN = 3
"""Frames named for each kind of problem; the others are counted."""
LISTED = 10
"""Problems in the message of a DataError."""
TOO_CLOSE = 0.5
"""Pairs below this share of the sum of their covalent radii are worth a warning."""
BOHR_RATIO = (1.6, 2.2)
"""Typical nearest neighbour over sum of covalent radii when bohr are taken for Å; near 1 in bonded matter."""
NOBLE = (2, 10, 18, 36, 54, 86)
OUTLIER = (30.0, 0.3)
"""Robust standard deviations and eV/atom beyond which an energy is an outlier."""
SAME_ENERGY = 1e-3
"""eV/atom; the same geometry may differ by this."""


class DataError(ValueError):
    """The data have errors; the message lists the first of them."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    severity: str
    kind: str
    where: str
    """File and frame."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Report:
    """What the checks found, and what they looked at."""

    problems: tuple[Problem, ...]
    summary: tuple[str, ...]
    """A line for each set."""
    notes: tuple[str, ...] = ()
    """Further warnings, about E0."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == ERROR)

    @property
    def warnings(self) -> tuple[str, ...]:
        """As text, notes included; what repeats is counted."""
        return (*_brief([p for p in self.problems if p.severity == WARNING]), *self.notes)

    def with_warnings(self, notes: Iterable[str]) -> Report:
        return replace(self, notes=(*self.notes, *notes))

    def raise_errors(self) -> None:
        """
        Raises:
            DataError: there are errors; up to ten are listed.
        """
        lines = _brief(self.errors)
        if len(lines) == 1:
            raise DataError(lines[0])
        if lines:
            more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
            raise DataError("the data have errors:\n  " + "\n  ".join(lines[:LISTED]) + more)

    def __str__(self) -> str:
        errors = [f"error: {line}" for line in _brief(self.errors)]
        return "\n".join([*self.summary, *errors, *(f"warning: {line}" for line in self.warnings)])


def _brief(problems: Sequence[Problem]) -> list[str]:
    """One line for each problem, but only the first few of a kind in a file."""
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for p in problems:
        groups[p.kind, _file(p.where)].append(p)
    lines = []
    for members in groups.values():
        lines += [str(p) for p in members[:SHOWN]]
        if len(members) > SHOWN:
            lines[-1] += f" (and the same in {len(members) - SHOWN} more frames)"
    return list(dict.fromkeys(lines))


def _file(where: str) -> str:
    return where.rpartition(", frame ")[0] or where


def check(
    sets: Mapping[str, Sequence[Structure]], cutoff: float = 5.0, max_force: float = 200.0, min_distance: float = 0.3
) -> Report:
    """Looks at every frame of the sets once, and at a sample for the agreement of the labels.

    ``cutoff`` (Å) is for atoms without neighbours, ``max_force`` in eV/Å, ``min_distance`` in Å. The set ``train`` says which
    elements there may be.
    """
    problems: list[Problem] = []
    seen: dict[bytes, tuple[str, str, float | None]] = {}
    summary, known, judged = [], set(), set()
    for name, structures in sets.items():
        facts = Facts()
        for s in structures:
            problems += _frame(s, facts, cutoff, max_force, min_distance)
            problems += _duplicate(s, name, seen)
        problems += _labels(facts)
        problems += _outliers(facts)
        fresh = {file: rows for file, rows in facts.files().items() if file not in judged}
        problems += [Problem(*found) for found in diagnose(structures, fresh)]
        judged |= fresh.keys()
        if name == "train":
            known = facts.elements
        elif known:
            problems += _strangers(facts, known)
        summary.append(f"{name}: {facts.describe()}")
    return Report(tuple(problems), tuple(summary))


class Facts:
    """What is gathered from the frames of one set, for the checks that need them all."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.has: list[tuple[bool, bool, bool]] = []
        self.counts: list[dict[int, int]] = []
        self.per_atom: list[float] = []
        self.ratios: list[float] = []
        self.first: dict[int, str] = {}

    @property
    def elements(self) -> set[int]:
        return set(self.first)

    def add(self, s: Structure) -> None:
        z, n = np.unique(s.numbers, return_counts=True)
        self.names.append(s.name)
        self.has.append((s.energy is not None, s.forces is not None, s.stress is not None))
        self.counts.append(dict(zip(z.tolist(), n.tolist(), strict=True)))
        self.per_atom.append(s.energy / len(s) if s.energy is not None else np.nan)
        for element in z.tolist():
            self.first.setdefault(element, s.name)

    def files(self) -> dict[str, list[int]]:
        """Which frames come from which file."""
        rows: dict[str, list[int]] = defaultdict(list)
        for k, name in enumerate(self.names):
            rows[_file(name)].append(k)
        return rows

    def describe(self) -> str:
        if not self.names:
            return "no frames"
        atoms = [sum(c.values()) for c in self.counts]
        size = f"{min(atoms)} to {max(atoms)} atoms" if min(atoms) < max(atoms) else f"{atoms[0]} atoms"
        labels = [f"{label} in {'all' if n == len(atoms) else n}" for label, n in
                  zip(("energy", "forces", "stress"), np.sum(self.has, axis=0).tolist(), strict=True) if n]  # fmt: skip
        symbols = " ".join(chemical_symbols[z] for z in sorted(self.elements))
        return f"{len(atoms)} frames of {size} ({symbols}), {', '.join(labels) or 'no labels'}"


def _frame(s: Structure, facts: Facts, cutoff: float, max_force: float, min_distance: float) -> Iterator[Problem]:
    """What is wrong with one frame by itself."""
    facts.add(s)
    error = lambda kind, what, remedy: Problem(ERROR, kind, s.name, what, remedy)
    if (s.numbers < 1).any() or (s.numbers > 118).any():
        wrong = int(s.numbers[(s.numbers < 1) | (s.numbers > 118)][0])
        yield error("element", f"has an atom with Z = {wrong}", "give every atom an element")
    for name in ("positions", "cell", "energy", "forces", "stress"):
        value = getattr(s, name)
        if value is not None and not np.all(np.isfinite(value)):
            yield error("finite", f"{name} hold{'s' if name in ('cell', 'energy', 'stress') else ''} NaN or infinity",
                        "calculate the frame again or remove it")  # fmt: skip
    if s.energy is None and s.forces is None and s.stress is None:
        remedy = "label it, remove it, or set data.keys to the names in the file"
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
    elif np.all(np.isfinite(s.positions)) and np.all(np.isfinite(s.cell)):
        yield from _distances(s, facts, cutoff, min_distance)


def _flat(s: Structure) -> bool:
    """Whether the repeating lattice vectors do not span what they should."""
    rows = s.cell[s.pbc]
    if not np.all(np.isfinite(rows)):
        return False
    sizes = np.linalg.norm(rows, axis=1)
    return bool(np.any(sizes < 1e-6)) or np.linalg.svd(rows / sizes[:, None], compute_uv=False)[-1] < 1e-6


def _distances(s: Structure, facts: Facts, cutoff: float, min_distance: float) -> Iterator[Problem]:
    edges = neighbor_list(s.positions, s.cell, s.pbc, cutoff)
    alone = np.bincount(edges.centers, minlength=len(s)) == 0
    if alone.any() and not is_free_atom(s):
        atom = int(np.argmax(alone))
        yield Problem(
            WARNING, "alone", s.name, f"atom {atom} ({chemical_symbols[s.numbers[atom]]}) has no neighbour within {cutoff:g} Å",
            "raise the cutoff, or remove the frame if the atom flew off",
        )  # fmt: skip
    if not len(edges.centers):
        return
    vectors = s.positions[edges.neighbors] + edges.shifts @ s.cell - s.positions[edges.centers]
    r = np.linalg.norm(vectors, axis=1)
    radii = covalent_radii[np.clip(s.numbers, 0, len(covalent_radii) - 1)]
    ratio = r / (radii[edges.centers] + radii[edges.neighbors])
    closest = int(np.argmin(r))
    i, j = int(edges.centers[closest]), int(edges.neighbors[closest])
    pair = f"atoms {i} ({chemical_symbols[s.numbers[i]]}) and {j} ({chemical_symbols[s.numbers[j]]})"
    if r[closest] < 1e-3:
        yield Problem(ERROR, "overlap", s.name, f"{pair} are at the same place", "remove one of them, or the frame")
    elif r[closest] < min_distance:
        yield Problem(ERROR, "overlap", s.name, f"{pair} are {r[closest]:.3f} Å apart, closer than {min_distance:g}",
                      "remove the frame, state data.units.length, or lower data.min_distance if it is meant")  # fmt: skip
    elif ratio.min() < TOO_CLOSE:
        i, j = int(edges.centers[np.argmin(ratio)]), int(edges.neighbors[np.argmin(ratio)])
        yield Problem(
            WARNING, "close", s.name,
            f"atoms {i} and {j} are {r[np.argmin(ratio)]:.2f} Å apart, {ratio.min():.0%} of the sum of their covalent radii",
            "look at the frame, and at data.units.length",
        )  # fmt: skip
    if len(s) > 2 and not np.isin(s.numbers, NOBLE).any():
        nearest = np.full(len(s), np.inf)
        np.minimum.at(nearest, edges.centers, ratio)
        facts.ratios.append(float(np.median(nearest)))


def _duplicate(s: Structure, name: str, seen: dict[bytes, tuple[str, str, float | None]]) -> Iterator[Problem]:
    """The same geometry a second time; across sets it spoils the test."""
    digest = hashlib.sha256()
    for value in (s.numbers, np.round(s.positions, 5) + 0.0, np.round(s.cell, 5) + 0.0, s.pbc, np.array([s.charge, s.spin])):
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


def _labels(facts: Facts) -> Iterator[Problem]:
    """Labels that some frames of a file have and others lack, and a file without forces."""
    for file, rows in facts.files().items():
        has = np.array([facts.has[k] for k in rows])
        for label, column in zip(("energy", "forces", "stress"), has.T, strict=True):
            if column.any() and not column.all():
                first = facts.names[rows[int(np.argmin(column))]]
                what = f"has no {label}, as {np.sum(~column)} of {len(rows)} frames of {file}"
                remedy = "they are trained on what they have; label them if it is not meant"
                yield Problem(WARNING, f"missing {label}", first, what, remedy)
        for label, column in zip(("energy", "forces"), has.T, strict=False):
            if not column.any() and has.any():
                what = f"no frame has {'forces' if label == 'forces' else 'an energy'}"
                yield Problem(WARNING, f"missing {label}", file, what, f"set data.keys.{label} if they have another name")
    ratio = np.median(facts.ratios) if facts.ratios else 1.0
    if BOHR_RATIO[0] < ratio < BOHR_RATIO[1]:
        what = f"nearest atoms are typically {ratio:.2f} times the sum of their covalent radii apart"
        remedy = "set data.units.length to bohr if the positions are in bohr"
        yield Problem(WARNING, "length", _file(facts.names[0]), what, remedy)


def _outliers(facts: Facts) -> Iterator[Problem]:
    """Energies per atom that the composition does not explain, by a robust spread."""
    rows = np.flatnonzero(np.isfinite(facts.per_atom))
    if len(rows) < 20:
        return
    elements = sorted(facts.elements)
    counts = np.array([[facts.counts[k].get(z, 0) for z in elements] for k in rows], float)
    per_atom = np.array(facts.per_atom)[rows]
    fractions = counts / counts.sum(1, keepdims=True)
    keep = np.ones(len(rows), bool)
    for _ in range(3):
        # Outliers pull the fit: fit, leave out what is far, fit again.
        fit = fit_energies(counts[keep], per_atom[keep] * counts[keep].sum(1), elements)
        left = per_atom - fractions @ np.array([fit.energies[z] for z in elements])
        left -= np.median(left)
        sigma = 1.4826 * np.median(np.abs(left))
        keep = np.abs(left) <= max(OUTLIER[0] * sigma, OUTLIER[1])
        if keep.sum() < len(rows) / 2:
            return
    for k in np.flatnonzero(~keep):
        what = f"the energy is {left[k]:+.3g} eV/atom from what its composition suggests (typical spread {sigma:.2g})"
        remedy = "look whether the calculation converged, or remove the frame"
        yield Problem(WARNING, "outlier", facts.names[rows[k]], what, remedy)


def _strangers(facts: Facts, known: set[int]) -> Iterator[Problem]:
    held = Counter(z for c in facts.counts for z in c)
    for z in sorted(facts.elements - known):
        what = f"contains {chemical_symbols[z]} (as {held[z]} frames do), which no training frame has"
        yield Problem(ERROR, "stranger", facts.first[z], what, "train on frames with it, or leave these out")
