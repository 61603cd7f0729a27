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
    random = np.random.default_rng(int(sha256_of(labelled)[:16], 16))
    components = 3 * sum(len(s) for s in labelled if FORCES in s.labels)
    share = min(1.0, MOST_ROWS / max(components, 1))
    atoms_share = min(1.0, 3 * MOST_ATOMS / max(components, 1))
    found = dict(evaluate_in_batches(Job(bare, want), labelled, batch_size))
    equations: list[tuple[np.ndarray, ...]] = []
    environments: list[tuple[np.ndarray, ...]] = []
    for k, structure in enumerate(labelled):
        out = found.pop(k)
        features, slopes = (np.asarray(out.others[row.name], np.float64) for row in (FEATURES, FEATURE_FORCES))
        free = isolated_atom_energy(structure.numbers, energies).sum()
        out = with_method(out.replace(energy=np.float64(np.asarray(out.interaction)) + free), structure, runner)
        if ENERGY in structure.labels:
            error = np.array([structure.labels[ENERGY] - float(np.asarray(out.energy))])
            require_finite(error, structure, ENERGY)
            scale = np.array([ENERGY.scale * np.sqrt(len(structure))])
            equations.append((features.sum(axis=0)[None], error, scale, np.array([k]), np.array([True])))
        if FORCES in structure.labels:
            errors = structure.labels[FORCES] - np.asarray(out.forces, np.float64)
            require_finite(errors, structure, FORCES)
            kept = random.random(errors.size) < share
            rows, error = slopes.reshape(-1, slopes.shape[-1])[kept], errors.ravel()[kept]
            scale, of_energy = np.full(len(error), FORCES.scale), np.zeros(len(error), bool)
            equations.append((rows, error, scale, np.full(len(error), k), of_energy))
            some = random.random(len(structure)) < atoms_share
            latent = np.asarray(out.latent, np.float64)[some]
            environments.append((latent, structure.numbers[some], errors[some], np.full(len(latent), k)))
    joined = lambda parts: (np.concatenate(x) for x in zip(*parts, strict=True))
    if not environments:
        empty = np.zeros((0, np.asarray(out.latent).shape[1]))
        environments.append((empty, np.zeros(0, int), np.zeros((0, 3)), np.zeros(0, int)))
    return Lesson(Equations(*joined(equations)), Environments(*joined(environments)))
