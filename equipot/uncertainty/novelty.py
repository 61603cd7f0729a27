"""How far the environment of an atom is from those of the fitted structures, for each element by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from equipot.posterior import Sensitivity, Statistics
from equipot.quantities import NOVELTY

FARTHEST = 0.99
"""Quantile of the distances of fitted environments that counts as 1."""
FEWEST = 20
"""Number of environments of an element below which nothing is said about its novelty but that all of them are new."""
RESOLUTION = 3e-5
"""Difference of descriptors, as a share of their size, below which environments are alike: rounding is well below."""


@dataclass(frozen=True)
class Novelty(ABC):
    """Base of the distances. A subclass in any package can be used in a config as ``kind: package.module:Class``."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Euclidean": "equipot.uncertainty.novelty:Euclidean",
        "Mahalanobis": "equipot.uncertainty.novelty:Mahalanobis",
        "Mixture": "equipot.uncertainty.mixture:Mixture",
        "Nearest": "equipot.uncertainty.novelty:Nearest",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""

    @abstractmethod
    def tables(self, statistics: Statistics) -> dict[str, np.ndarray]:
        """Compute tables by element, whose first axis is that of ``statistics.arrays["elements"]``."""

    @abstractmethod
    def distance(
        self, tables: Mapping[str, Float[Array, "elements ..."]], element: Int[Array, " atoms"], x: Float[Array, "atoms n"]
    ) -> Float[Array, " atoms"]:
        """Compute the distance of descriptors from those of the elements in these places."""

    def distances_of_kept(
        self, tables: Mapping[str, np.ndarray], place: int, kept: Float[np.ndarray, "kept n"]
    ) -> Float[np.ndarray, " kept"]:
        """Compute the distances of the kept environments of an element, by its place, from the fitted ones."""
        return np.asarray(self.distance(on_device(tables), jnp.full(len(kept), place), jnp.asarray(kept)))

    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        """Compute the arrays of ``novelty``: tables of the distance, and the distance of each element that counts as 1."""
        tables, held = self.tables(statistics), statistics.arrays
        limits = np.full(len(held["elements"]), np.nan)
        for k, kept in enumerate(held["kept"]):
            kept = kept[np.isfinite(kept).all(axis=1)]
            if len(kept) >= FEWEST:
                kept = kept.astype(np.float64)
                near = kept + np.sqrt(resolution(statistics)[k])
                with jax.enable_x64(True):
                    farthest = np.quantile(self.distances_of_kept(tables, k, kept), FARTHEST)
                    alike = self.distance(on_device(tables), jnp.full(len(kept), k), jnp.asarray(near))
                    limits[k] = max(farthest, np.median(alike))
        place = np.full(119, -1)
        place[held["elements"]] = np.arange(len(held["elements"]))
        return {**tables, "limit": limits, "place": place}

    def novelty(
        self, arrays: Mapping[str, Array], numbers: Int[Array, " atoms"], latent: Float[Array, "atoms n"]
    ) -> Float[Array, " atoms"]:
        """Compute the novelty of atoms; infinite for an element of which too few environments are known."""
        place = arrays["place"][numbers]
        known = jnp.maximum(place, 0)
        limit = arrays["limit"][known]
        far = self.distance(arrays, known, latent.astype(limit.dtype)) / jnp.where(limit > 0, limit, 1)
        return jnp.where((place < 0) | jnp.isnan(limit), jnp.inf, far)


def novelty_of(novelty: Novelty, arrays: Mapping[str, Array], found: Sensitivity) -> dict[str, Float[Array, " atoms"]]:
    """Compute the novelty of the atoms of a batch, zero for padding, by the name of the quantity."""
    assert found.answer.latent is not None, "networks with features have a descriptor"
    value = novelty.novelty(arrays, jnp.asarray(found.graph.numbers), found.answer.latent)
    return {NOVELTY.name: jnp.where(found.graph.node_mask, value, 0)}


def on_device(tables: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Convert tables to arrays of JAX."""
    return {name: jnp.asarray(value) for name, value in tables.items()}


def _mean(statistics: Statistics) -> np.ndarray:
    held = statistics.arrays
    return held["first"] / held["count"][:, None]


def _covariance(statistics: Statistics) -> np.ndarray:
    held, mean = statistics.arrays, _mean(statistics)
    return held["second"] / held["count"][:, None, None] - mean[:, :, None] * mean[:, None, :]


def resolution(statistics: Statistics) -> Float[np.ndarray, " elements"]:
    """Compute the mean square difference in a component below which the environments of each element are alike."""
    held = statistics.arrays
    square = np.trace(held["second"], axis1=1, axis2=2) / held["count"] / held["second"].shape[-1]
    return RESOLUTION**2 * np.maximum(square, 1e-12)


@dataclass(frozen=True)
class Euclidean(Novelty):
    """Distance from the mean of the element."""

    def tables(self, statistics: Statistics) -> dict[str, np.ndarray]:
        return {"mean": _mean(statistics)}

    def distance(self, tables: Mapping[str, Array], element: Array, x: Array) -> Array:
        return jnp.sqrt(jnp.sum((x - tables["mean"][element]) ** 2, axis=1))


@dataclass(frozen=True)
class Mahalanobis(Novelty):
    """Distance from the mean of the element in units of the spread: sqrt((x - m)^T C^-1 (x - m)), C the covariance.

    C is shrunk towards a multiple of one, (1 - s) C + s tr(C) / n, so that directions in which nothing was seen count much, but
    not without end.
    """

    shrinkage: float = 1e-3
    """Share s of a multiple of one in the covariance."""

    def __post_init__(self) -> None:
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage {self.shrinkage} must be above 0 and at most 1")

    def tables(self, statistics: Statistics) -> dict[str, np.ndarray]:
        covariance = _covariance(statistics)
        size = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / covariance.shape[-1]
        one = np.eye(covariance.shape[-1])
        # Where environments are all alike there is no spread but that of rounding.
        least = self.shrinkage * size + resolution(statistics)[:, None, None]
        inverse = np.linalg.inv((1 - self.shrinkage) * covariance + least * one)
        return {"mean": _mean(statistics), "whiten": np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2)}

    def distance(self, tables: Mapping[str, Array], element: Array, x: Array) -> Array:
        return jnp.sqrt(jnp.sum(whitened(tables, element, x) ** 2, axis=1))


def whitened(tables: Mapping[str, Array], element: Int[Array, " atoms"], x: Float[Array, "atoms n"]) -> Float[Array, "atoms n"]:
    """Convert descriptors to coordinates in which the environments of their element have mean zero and unit spread."""
    away = x - tables["mean"][element]
    # One matrix for each element, instead of a copy for each atom.
    every = jnp.einsum("ni,kij->knj", away, tables["whiten"], precision="highest")
    return jnp.take_along_axis(every, element[None, :, None], axis=0)[0]


@dataclass(frozen=True)
class Nearest(Novelty):
    """Distance from the nearest of the kept environments of the element, in units of the spread of each component."""

    def tables(self, statistics: Statistics) -> dict[str, np.ndarray]:
        variance = np.diagonal(_covariance(statistics), axis1=1, axis2=2)
        least = 1e-6 * variance.mean(axis=1, keepdims=True) + resolution(statistics)[:, None]
        scale = 1 / np.sqrt(np.maximum(variance, least))
        kept = statistics.arrays["kept"].astype(np.float64)
        # Far from everything, in place of none.
        return {"kept": np.where(np.isfinite(kept), kept, 1e6), "scale": scale}

    def distance(self, tables: Mapping[str, Array], element: Array, x: Array) -> Array:
        return jnp.sqrt(jnp.min(self._squared(tables, element, x), axis=1))

    def distances_of_kept(self, tables: Mapping[str, np.ndarray], place: int, kept: np.ndarray) -> np.ndarray:
        squared = np.asarray(self._squared(on_device(tables), jnp.full(len(kept), place), jnp.asarray(kept)))
        # The nearest of each is the environment itself.
        return np.sqrt(np.sort(squared, axis=1)[:, 1])

    def _squared(self, tables: Mapping[str, Array], element: Array, x: Array) -> Float[Array, "atoms kept"]:
        scale = tables["scale"][element]
        return jnp.sum(((x[:, None] - tables["kept"][element]) * scale[:, None]) ** 2, axis=2)
