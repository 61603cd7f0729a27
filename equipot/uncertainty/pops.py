"""Deviations by misspecification: what weights would put each training label right by themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from equipot.posterior import Statistics
from equipot.uncertainty.last_layer import LastLayer
from equipot.uncertainty.learning import Lesson

MODES = 1e-8
"""Share of the largest eigenvalue below which a principal component of corrections is dropped."""


@dataclass(frozen=True)
class Ansatz(ABC):
    """Base of the distributions of weights that enclose pointwise corrections."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Hypercube": "equipot.uncertainty.pops:Hypercube",
        "Pointwise": "equipot.uncertainty.pops:Pointwise",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""

    @abstractmethod
    def second_moment(self, corrections: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "features features"]:
        """Compute E[w w^T] of changes w of the weights."""


@dataclass(frozen=True)
class Pointwise(Ansatz):
    """The corrections themselves, each as likely as any other."""

    def second_moment(self, corrections: np.ndarray) -> np.ndarray:
        return corrections.T @ corrections / len(corrections)


@dataclass(frozen=True)
class Hypercube(Ansatz):
    """The uniform distribution in the box of the corrections, along their principal components."""

    def second_moment(self, corrections: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(corrections.T @ corrections)
        axes = vectors[:, values > MODES * values.max()]
        along = corrections @ axes
        low, high = along.min(axis=0), along.max(axis=0)
        middle = (low + high) / 2
        return axes @ (np.diag((high - low) ** 2 / 12) + np.outer(middle, middle)) @ axes.T


@dataclass(frozen=True)
class POPS(LastLayer):
    """Posterior of the weights of the last linear layer from the errors that are left on the training labels, which no noise
    but the limits of the model explain (T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008, 2025,
    arXiv:2402.01810; for potentials arXiv:2502.07104).

    The change of the weights that puts label i right and costs least on all others is w_i = S^-1 f_i e_i / (f_i^T S^-1 f_i),
    with S as in ``LastLayer``, f_i the row of the label and e_i its error. Labels count whose leverage, f_i^T S^-1 f_i over the
    square of their scale, is above the ``leverage`` quantile.
    """

    ansatz: Ansatz = Hypercube()
    """Distribution of the weights that encloses the changes of single labels."""
    leverage: float = 0.5
    """Quantile of the leverage above which a label counts."""

    learned_array: ClassVar[str] = "pops"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.leverage < 1:
            raise ValueError(f"leverage {self.leverage} is a quantile: it must be at least 0 and below 1")

    def learned(self, statistics: Statistics, lesson: Lesson) -> Statistics:
        rows, error, scale, *_ = lesson.equations
        half = rows @ super().root(statistics)
        # Of rows of zeros, such as those of an isolated atom, no weights put the label right.
        size = np.sum(half**2, axis=1)
        leverage = size / scale**2
        used = (leverage >= np.quantile(leverage, self.leverage)) & (size > 0)
        if not used.any():
            raise ValueError("POPS: no label depends on the weights of the last layer; give structures of more than one atom")
        corrections = (half[used] * (error[used] / size[used])[:, None]) @ super().root(statistics).T
        return Statistics({**statistics.arrays, "pops": self.ansatz.second_moment(corrections)})

    def root(self, statistics: Statistics) -> Float[np.ndarray, "features features"]:
        values, vectors = np.linalg.eigh(statistics.arrays["pops"])
        return vectors * np.sqrt(np.maximum(values, 0))
