"""Errors of a potential on labelled structures, for methods that learn deviations from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equipot.data.loader import sha256_of
from equipot.data.method import Runner
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.evaluation.method import with_method
from equipot.isolated_atoms import isolated_atom_energy
from equipot.observables import Observables
from equipot.potential import Potential
from equipot.quantities import ENERGY, FEATURE_FORCES, FEATURES, FORCES, LATENT
from equipot.structure import Structure
from equipot.uncertainty.calibration import require_finite

MOST_ROWS = 30_000
"""Number of components of forces beyond which a random selection is kept, as many of every atom."""
MOST_ATOMS = 30_000
"""Number of atoms beyond which the descriptors of a random selection are kept."""


class Equations(NamedTuple):
    """Errors as linear functions of a change w of the weights of the last layer: error = row . w would put each right."""

    rows: Float[np.ndarray, "n features"]
    """Energies: sums of the features over a system. Forces: components of ``feature_forces``."""
    error: Float[np.ndarray, " n"]
    """Label less prediction, eV or eV/Å."""
    scale: Float[np.ndarray, " n"]
    """Error that counts as one in the loss, in the unit of the error; that of an energy grows with the root of the atoms."""
    frame: Int[np.ndarray, " n"]
    """Index of the structure."""
    of_energy: Bool[np.ndarray, " n"]
    """Whether the label is an energy, and no component of a force."""

    def of(self, chosen: np.ndarray) -> Equations:
        """Select equations."""
        return Equations(*(x[chosen] for x in self))


class Environments(NamedTuple):
    """Descriptors and errors of the forces of atoms."""

    latent: Float[np.ndarray, "atoms features"]
    numbers: Int[np.ndarray, " atoms"]
    error: Float[np.ndarray, "atoms 3"]
    """Label less prediction, eV/Å."""
    frame: Int[np.ndarray, " atoms"]


class Lesson(NamedTuple):
    """What deviations are learned from."""

    equations: Equations
    environments: Environments


def lesson(
    potential: Potential, structures: Sequence[Structure], batch_size: int | None = None, runner: Runner | None = None
) -> Lesson:
    """Evaluate labelled structures, and compare.

    Raises:
        ValueError: no structure with a label of energy or forces, a label that is not a number, or an element that the
            potential does not know.
    """
    labelled = [s for s in structures if ENERGY in s.labels or FORCES in s.labels]
    if not labelled:
        raise ValueError("there are no structures with labels of energy or forces, from which this method learns")
    potential.correction.check(labelled)
    energies = dict(potential.metadata.atomic_energies)
    bare = potential.correction.replace(posterior=None)
    want = (FEATURES.name, FEATURE_FORCES.name, LATENT.name, ENERGY.name, FORCES.name)
    components = 3 * sum(len(s) for s in labelled if FORCES in s.labels)
    thinning = Thinning(
        int(sha256_of(labelled)[:16], 16),
        min(1.0, MOST_ROWS / max(components, 1)),
        min(1.0, 3 * MOST_ATOMS / max(components, 1)),
    )
    parts: list[tuple[int, Lesson]] = []
    # Thinned one by one: derivatives of every feature by every position of a large set would fill the memory.
    for k, out in evaluate_in_batches(Job(bare, want), labelled, batch_size):
        structure = labelled[k]
        free = isolated_atom_energy(structure.numbers, energies).sum()
        out = with_method(out.replace(energy=np.float64(np.asarray(out.interaction)) + free), structure, runner)
        parts.append((k, lesson_of(structure, k, out, thinning)))
    found = [part for _, part in sorted(parts, key=lambda part: part[0])]
    joined = lambda pieces: (np.concatenate(x) for x in zip(*pieces, strict=True))
    return Lesson(
        Equations(*joined([part.equations for part in found])), Environments(*joined([part.environments for part in found]))
    )


class Thinning(NamedTuple):
    """Random selection of labels, the same in every order of the structures."""

    seed: int
    components: float
    """Share of the components of forces that are kept."""
    atoms: float
    """Share of the atoms whose descriptors are kept."""


def lesson_of(structure: Structure, k: int, out: Observables, thinning: Thinning) -> Lesson:
    """Compare the results of structure number ``k`` with its labels.

    Raises:
        ValueError: a label that is not a number.
    """
    features, slopes = (np.asarray(out.others[row.name], np.float64) for row in (FEATURES, FEATURE_FORCES))
    rows, errors, scales = [np.zeros((0, features.shape[1]))], [np.zeros(0)], [np.zeros(0)]
    some, force_errors = np.zeros(len(structure), bool), np.zeros((len(structure), 3))
    if ENERGY in structure.labels:
        error = np.array([structure.labels[ENERGY] - float(np.asarray(out.energy))])
        require_finite(error, structure, ENERGY)
        rows.append(features.sum(axis=0)[None])
        errors.append(error)
        scales.append(np.array([ENERGY.scale * np.sqrt(len(structure))]))
    energies = len(rows) - 1
    if FORCES in structure.labels:
        force_errors = structure.labels[FORCES] - np.asarray(out.forces, np.float64)
        require_finite(force_errors, structure, FORCES)
        random = np.random.default_rng([thinning.seed, k])
        kept = random.random(force_errors.size) < thinning.components
        some = random.random(len(structure)) < thinning.atoms
        rows.append(slopes.reshape(-1, slopes.shape[-1])[kept])
        errors.append(force_errors.ravel()[kept])
        scales.append(np.full(kept.sum(), FORCES.scale))
    error = np.concatenate(errors)
    equations = Equations(
        np.concatenate(rows), error, np.concatenate(scales), np.full(len(error), k), np.arange(len(error)) < energies
    )
    latent = np.asarray(out.latent, np.float64)[some]
    return Lesson(equations, Environments(latent, structure.numbers[some], force_errors[some], np.full(len(latent), k)))
