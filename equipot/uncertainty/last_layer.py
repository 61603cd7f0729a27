"""Uncertainty of the weights of the last linear layer, and what follows for energies, forces and stresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.graph import sum_graphs
from equipot.posterior import Sensitivity, Statistics, UncertaintyMethod
from equipot.quantities import ENERGY, ENERGY_STD, ENSEMBLE, FORCES, FORCES_STD, NOVELTY, STRESS_STD, Quantity
from equipot.uncertainty.novelty import Mahalanobis, Novelty, novelty_of


@dataclass(frozen=True)
class LastLayer(UncertaintyMethod):
    """Posterior of the weights w of the last linear layer, given the network before (F. Bigi, S. Chong, M. Ceriotti and F.
    Grasselli, Mach. Learn.: Sci. Technol. 5, 045018, 2024, arXiv:2403.02251).

    Its covariance is the inverse of S = sum F F^T / (N e^2) + sum J^T J / f^2 + rho tr(.) / n, over all structures: F is the
    sum of the features over the N atoms, J the derivatives of F by the positions, e and f the scales of errors of energies (by
    the root of N) and forces in the loss. The variance of an energy is F^T S^-1 F, exact. Forces and stresses have that of
    their changes with fixed samples of w, one backward pass each. All of it is calibrated afterwards.
    """

    samples: int = 8
    """Number of samples of the weights: the deviation of a force is known to about 1 / sqrt(6 samples)."""
    regulariser: float = 1e-6
    """rho, a share of the mean diagonal entry."""
    novelty: Novelty = Mahalanobis()
    """Distance of environments."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"samples {self.samples} must be at least 2")
        if not 0 < self.regulariser < 1:
            raise ValueError(f"regulariser {self.regulariser} must lie between 0 and 1")

    @property
    def provides(self) -> tuple[Quantity, ...]:
        return ENERGY_STD, FORCES_STD, STRESS_STD, ENSEMBLE, NOVELTY

    def root(self, statistics: Statistics) -> Float[np.ndarray, "features features"]:
        """Compute R with S^-1 = R R^T."""
        held = statistics.arrays
        precision = held["energy"] / ENERGY.scale**2 + held["forces"] / FORCES.scale**2
        values, vectors = np.linalg.eigh((precision + precision.T) / 2)
        return vectors / np.sqrt(np.maximum(values, 0) + self.regulariser * values.mean())

    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        root = self.root(statistics)
        draws = np.random.default_rng(self.seed).normal(size=(self.samples, root.shape[1]))
        return {"root": root, "samples": draws @ root.T, **self.novelty.arrays(statistics)}

    def deviations(
        self, arrays: Mapping[str, Array], found: Sensitivity, rows: Sequence[Quantity]
    ) -> dict[str, Float[Array, "..."]]:
        out = novelty_of(self.novelty, arrays, found) if NOVELTY in rows else {}
        whole = sum_graphs(found.features, found.graph)
        if ENSEMBLE in rows:
            out[ENSEMBLE.name] = whole @ arrays["samples"].astype(whole.dtype).T
        if ENERGY_STD in rows:
            out[ENERGY_STD.name] = jnp.sqrt(jnp.sum((whole @ arrays["root"].astype(whole.dtype)) ** 2, axis=1))
        if FORCES_STD in rows or STRESS_STD in rows:
            changes = jax.lax.map(found.change, arrays["samples"].astype(found.features.dtype))
            spread = lambda x, axes: jnp.sqrt(jnp.mean(x**2, axis=axes))
            if FORCES_STD in rows:
                out[FORCES_STD.name] = spread(changes.forces, (0, 2))
            if STRESS_STD in rows:
                out[STRESS_STD.name] = spread(changes.stress, (0, 2, 3))
        return out


@dataclass(frozen=True)
class FeatureNorm(LastLayer):
    """Deviations by the norm of the features alone: a covariance of one, the baseline that any other has to beat."""

    def root(self, statistics: Statistics) -> Float[np.ndarray, "features features"]:
        return np.eye(len(statistics.arrays["energy"]))
