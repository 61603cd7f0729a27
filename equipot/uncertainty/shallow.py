"""Shallow ensembles: last layers that share the network before, whose spread is trained to be the error of forces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from equipot.posterior import Statistics
from equipot.uncertainty.last_layer import LastLayer
from equipot.uncertainty.learning import Equations, Lesson

LEAST = 1e-3
"""Deviation that is always there, as a share of the scale of a label: a variance of zero has no likelihood."""
ENERGIES = 0.1
"""Share of all energies in the likelihood, where there are forces too."""
HELD_OUT = 5
"""One structure in this many does not train the members, but chooses when to stop."""


@dataclass(frozen=True)
class ShallowEnsemble(LastLayer):
    """Members w + w_k of the last linear layer, with the network and w as they are, and the spread trained by the likelihood of
    energies and forces (M. Kellner and M. Ceriotti, Mach. Learn.: Sci. Technol. 5, 035006, 2024, arXiv:2402.16621; with forces
    arXiv:2602.15747).

    The members begin as samples of the posterior of ``LastLayer``, by a common factor as wide as the errors, and lower the mean
    over labels of e^2 / (2 s^2) + log s, where s^2 = mean_k (f . w_k)^2 and e is the error, both in units of the scale of the
    label. All energies together count a ninth of all components of forces, however many these are. A fifth of the structures is
    left out and says when to stop.
    """

    iterations: int = 200
    """Largest number of steps of the optimiser (L-BFGS)."""

    learned_array: ClassVar[str] = "members"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations {self.iterations} must be at least 1")

    def learned(self, statistics: Statistics, lesson: Lesson) -> Statistics:
        from scipy.optimize import minimize

        root = super().root(statistics)
        draws = np.random.default_rng(self.seed).normal(size=(self.samples, root.shape[1]))
        held = lesson.equations.frame % HELD_OUT == HELD_OUT - 1
        train, valid = lesson.equations.of(~held), lesson.equations.of(held)
        # A single structure trains and chooses.
        train, valid = (train if len(train.error) else valid), (valid if len(valid.error) else train)
        start = draws @ root.T
        start *= _width(start, train)
        best = [negative_log_likelihood(start, valid)[0], start]

        def watch(x: np.ndarray) -> None:
            loss = negative_log_likelihood(x.reshape(start.shape), valid)[0]
            if loss < best[0]:
                best[:] = [loss, x.reshape(start.shape).copy()]

        # In units of the first members, whose numbers differ by orders of magnitude between features.
        unit = np.maximum(np.sqrt(np.mean(start**2, axis=0)), 1e-300)

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = negative_log_likelihood(x.reshape(start.shape) * unit, train)
            return value, (slope * unit).ravel()

        minimize(
            loss, (start / unit).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": self.iterations},
            callback=lambda x: watch((x.reshape(start.shape) * unit).ravel()),
        )  # fmt: skip
        return Statistics({**statistics.arrays, "members": best[1]})

    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        members = statistics.arrays["members"]
        return {"root": members.T / np.sqrt(len(members)), "samples": members, **self.novelty.arrays(statistics)}


def negative_log_likelihood(
    members: Float[np.ndarray, "members features"], equations: Equations
) -> tuple[float, Float[np.ndarray, "members features"]]:
    """Compute the weighted mean negative log-likelihood of errors in units of their scales, but for a constant, and its
    derivative."""
    rows, error = equations.rows / equations.scale[:, None], equations.error / equations.scale
    along = rows @ members.T
    variance = np.mean(along**2, axis=1) + LEAST**2
    weight = weights(equations)
    loss = float(np.sum(weight * (0.5 * error**2 / variance + 0.5 * np.log(variance))))
    slope = weight * (0.5 / variance - 0.5 * error**2 / variance**2)
    return loss, (2 / len(members)) * (slope[:, None] * along).T @ rows


def weights(equations: Equations) -> Float[np.ndarray, " n"]:
    """Return weights that sum to one: a tenth for all energies, if there are both energies and forces.

    By their count energies would hardly matter, and the members that tell forces best rank energies by chance, or the wrong
    way. With a quarter for energies, of which there are few, forces are told less well.
    """
    energies = int(equations.of_energy.sum())
    forces = len(equations.error) - energies
    if not energies or not forces:
        return np.full(len(equations.error), 1 / max(len(equations.error), 1))
    return np.where(equations.of_energy, ENERGIES / energies, (1 - ENERGIES) / forces)


def _width(members: np.ndarray, equations: Equations) -> float:
    """Return the likeliest factor on the members."""
    variance = np.mean((equations.rows @ members.T) ** 2, axis=1)
    used = variance > 1e-12 * variance.max()
    return float(np.sqrt(np.mean(equations.error[used] ** 2 / variance[used])))
