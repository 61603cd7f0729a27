"""Novelty by a mixture of normal distributions, for environments that come in several kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.posterior import Statistics
from equipot.uncertainty.novelty import FEWEST, Mahalanobis, whitened

STEPS = 100
"""Number of steps of expectation maximisation."""
FOLDS = 5
"""Parts of the kept environments, each of which is compared with a mixture of the others to know what is far."""
LEAST = 1e-6
"""Smallest mean variance of a component, in units of the spread of all environments."""


@dataclass(frozen=True)
class Mixture(Mahalanobis):
    """sqrt(-2 log sum_c p_c exp(-(y - m_c)^T V^-1 (y - m_c) / 2)): surprise at an environment, from a mixture of up to
    ``components`` normal distributions of one covariance V for each element, in the coordinates y of ``Mahalanobis``.

    V is shrunk towards a multiple of one by n / (n + N), for N environments of n numbers that are kept. The number of
    components is the one of least Bayesian information criterion (G. Schwarz, Ann. Stat. 6, 461, 1978) for these environments.
    A mixture of one is ``Mahalanobis``, but for a factor.
    """

    components: int = 8
    """Largest number of normal distributions of an element."""
    seed: int = 0
    """Of the first centres."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1:
            raise ValueError(f"components {self.components} must be at least 1")

    def tables(self, statistics: Statistics) -> dict[str, np.ndarray]:
        tables = super().tables(statistics)
        found = []
        for k, kept in enumerate(statistics.arrays["kept"]):
            kept = kept[np.isfinite(kept).all(axis=1)].astype(np.float64)
            y = (kept - tables["mean"][k]) @ tables["whiten"][k]
            found.append(best_mixture(y, self.components if len(y) >= FEWEST else 1, self.seed))
        most = max(len(mixture.weights) for mixture in found)
        fill = lambda x, value: np.concatenate([x, np.full((most - len(x), *x.shape[1:]), value)])
        centres = np.stack([fill(mixture.centres, 0.0) for mixture in found])
        with np.errstate(divide="ignore"):
            weights = np.stack([np.log(fill(mixture.weights, 0.0)) for mixture in found])
        return {**tables, "centres": centres, "log_weights": weights, "narrow": np.stack([m.root for m in found])}

    def distances_of_kept(self, tables: Mapping[str, np.ndarray], place: int, kept: np.ndarray) -> np.ndarray:
        y = (kept - tables["mean"][place]) @ tables["whiten"][place]
        count = int(np.isfinite(tables["log_weights"][place]).sum())
        out = np.zeros(len(y))
        # Environments that a mixture was fitted to are less surprising to it than others of the same kinds.
        for fold in range(FOLDS):
            other = np.arange(len(y)) % FOLDS == fold
            mixture, _ = fit_mixture(y[~other], count, self.seed)
            out[other] = surprise(mixture, y[other])
        return out

    def distance(self, tables: Mapping[str, Array], element: Array, x: Array) -> Array:
        y = whitened(tables, element, x)
        # One matrix for each element, instead of a copy for each atom.
        every = jnp.einsum("ni,kij->knj", y, tables["narrow"], precision="highest")
        own = jnp.take_along_axis(every, element[None, :, None], axis=0)[0]
        away = jnp.sum((own[:, None] - tables["centres"][element]) ** 2, axis=2)
        log = jax.nn.logsumexp(tables["log_weights"][element] - away / 2, axis=1)
        return jnp.sqrt(jnp.maximum(-2 * log, 0))


class Normals(NamedTuple):
    """Normal distributions of one covariance."""

    centres: Float[np.ndarray, "components n"]
    """In coordinates in which the covariance is one."""
    weights: Float[np.ndarray, " components"]
    root: Float[np.ndarray, "n n"]
    """Matrix on points, as rows, to these coordinates."""


def surprise(mixture: Normals, y: Float[np.ndarray, "points n"]) -> Float[np.ndarray, " points"]:
    """Compute the distance of points from a mixture, see ``Mixture``."""
    from scipy.special import logsumexp

    away = np.sum(((y @ mixture.root)[:, None] - mixture.centres) ** 2, axis=2)
    return np.sqrt(np.maximum(-2 * logsumexp(np.log(mixture.weights) - away / 2, axis=1), 0))


def best_mixture(y: Float[np.ndarray, "points n"], most: int, seed: int) -> Normals:
    """Fit mixtures of 1 to ``most`` components to points, and return that of least Bayesian information criterion."""
    found, least = None, np.inf
    for count in range(1, most + 1):
        mixture, log_likelihood = fit_mixture(y, count, seed)
        criterion = count * (y.shape[1] + 1) * np.log(len(y)) - 2 * log_likelihood
        if found is None or criterion < least:
            found, least = mixture, criterion
    assert found is not None, "at least one component"
    return found


def fit_mixture(y: Float[np.ndarray, "points n"], count: int, seed: int) -> tuple[Normals, float]:
    """Fit a mixture of a number of components by expectation maximisation (A. P. Dempster, N. M. Laird and D. B. Rubin, J. R.
    Stat. Soc. B 39, 1, 1977), from centres by k-means; also return the logarithm of the likelihood."""
    from scipy.cluster.vq import kmeans2
    from scipy.special import logsumexp

    points, width = y.shape
    _, labels = kmeans2(y, count, minit="++", rng=seed) if count > 1 else (None, np.zeros(points, int))
    shares, one, shrinkage = np.eye(count)[labels], np.eye(width), width / (width + points)
    mixture, log_likelihood = Normals(y[:1], np.ones(1), one), -np.inf
    for _ in range(STEPS):
        weights = np.maximum(shares.sum(axis=0), 1e-12)
        centres = shares.T @ y / weights[:, None]
        covariance = (y.T @ y - (centres.T * weights) @ centres) / points
        size = max(float(np.trace(covariance)) / width, LEAST)
        root = np.linalg.cholesky(np.linalg.inv((1 - shrinkage) * covariance + shrinkage * size * one))
        mixture = Normals(centres @ root, weights / weights.sum(), root)
        away = np.sum(((y @ root)[:, None] - mixture.centres) ** 2, axis=2)
        constant = np.sum(np.log(np.diagonal(root))) - 0.5 * width * np.log(2 * np.pi)
        log = np.log(mixture.weights) - away / 2 + constant
        total, before = float(logsumexp(log, axis=1).sum()), log_likelihood
        shares, log_likelihood = np.exp(log - logsumexp(log, axis=1, keepdims=True)), total
        if abs(total - before) < 1e-6 * points:
            break
    return mixture, log_likelihood
