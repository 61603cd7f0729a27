"""A second head on the descriptor of each atom, which says the deviation of the force on the atom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.posterior import Sensitivity, Statistics, UncertaintyMethod
from equipot.quantities import FORCES_STD, NOVELTY, Quantity
from equipot.uncertainty.learning import Lesson
from equipot.uncertainty.novelty import Mahalanobis, Novelty, novelty_of

LEAST = 1e-4
"""Smallest error that counts, eV/Å."""


@dataclass(frozen=True)
class MeanVariance(UncertaintyMethod):
    """Deviations of forces as functions of the environment: log s_i = a(Z_i) . x_i + b(Z_i), x the latent descriptor in units
    of its spread among atoms of the element (D. A. Nix and A. S. Weigend, ICNN 1994), fitted by the likelihood of the errors.

    Far from the data it says whatever the line says: it is there to compare with, and no guard.
    """

    decay: float = 1e-2
    """Factor on the mean square of a in the loss."""
    novelty: Novelty = Mahalanobis()
    """Distance of environments."""

    learned_array: ClassVar[str] = "line"

    def __post_init__(self) -> None:
        if not self.decay > 0:
            raise ValueError(f"decay {self.decay} must be positive")

    @property
    def provides(self) -> tuple[Quantity, ...]:
        return FORCES_STD, NOVELTY

    def learned(self, statistics: Statistics, lesson: Lesson) -> Statistics:
        held, atoms = statistics.arrays, lesson.environments
        if not len(atoms.latent):
            raise ValueError("MeanVariance learns from forces, and no structure is labelled with any")
        width = atoms.latent.shape[1]
        table = np.zeros((len(held["elements"]), width + 1))
        every = np.mean(np.maximum(np.mean(atoms.error**2, axis=1), LEAST**2))
        for k, z in enumerate(held["elements"].tolist()):
            mine = atoms.numbers == z
            mean, scale = moments(statistics, k)
            x = (atoms.latent[mine] - mean) / scale
            square = np.mean(atoms.error[mine] ** 2, axis=1) if mine.any() else np.zeros(0)
            # An element without labels has the deviation of all atoms.
            table[k, -1] = 0.5 * np.log(every)
            if len(square):
                table[k] = self.line(x, np.maximum(square, LEAST**2))
        return Statistics({**held, "line": table})

    def line(self, x: Float[np.ndarray, "atoms n"], square: Float[np.ndarray, " atoms"]) -> Float[np.ndarray, " n+1"]:
        """Fit a and b to the mean square errors of the components of forces (eV^2/Å^2)."""
        from scipy.optimize import minimize

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            a, b = parameters[:-1], parameters[-1]
            log = np.clip(x @ a + b, -30, 30)
            ratio = square * np.exp(-2 * log)
            slope = (1 - ratio) / len(square)
            value = np.mean(0.5 * ratio + log) + 0.5 * self.decay * np.sum(a**2)
            return float(value), np.concatenate([x.T @ slope + self.decay * a, [slope.sum()]])

        start = np.concatenate([np.zeros(x.shape[1]), [0.5 * np.log(square.mean())]])
        return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x)

    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        found = [moments(statistics, k) for k in range(len(statistics.arrays["elements"]))]
        mean, scale = (np.stack(x) for x in zip(*found, strict=True))
        own = {"line": statistics.arrays["line"], "line_mean": mean, "line_scale": scale}
        return {**self.novelty.arrays(statistics), **own}

    def deviations(
        self, arrays: Mapping[str, Array], found: Sensitivity, rows: Sequence[Quantity]
    ) -> dict[str, Float[Array, "..."]]:
        out = novelty_of(self.novelty, arrays, found) if NOVELTY in rows else {}
        if FORCES_STD in rows:
            assert found.answer.latent is not None, "networks with features have a descriptor"
            place = arrays["place"][jnp.asarray(found.graph.numbers)]
            known = jnp.maximum(place, 0)
            x = (found.answer.latent - arrays["line_mean"][known]) / arrays["line_scale"][known]
            log = jnp.sum(x * arrays["line"][known, :-1], axis=1) + arrays["line"][known, -1]
            size = jnp.where(place < 0, jnp.inf, jnp.exp(jnp.clip(log, -30, 30)))
            out[FORCES_STD.name] = jnp.where(found.graph.node_mask, size, 0)
        return out


def moments(statistics: Statistics, place: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return mean and deviation of the descriptors of an element, by its place; of components that are constant, 1."""
    held = statistics.arrays
    mean = held["first"][place] / held["count"][place]
    variance = np.diagonal(held["second"][place]) / held["count"][place] - mean**2
    return mean, np.sqrt(np.where(variance > 1e-8 * max(variance.max(), 1e-12), variance, 1.0))
