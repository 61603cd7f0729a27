"""Spread of the members of a committee: deep ensembles, and samples of all weights of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.graph import sum_graphs
from equipot.posterior import Sensitivity, Statistics, UncertaintyMethod
from equipot.quantities import ENERGY_STD, ENSEMBLE, FORCES_STD, NOVELTY, STRESS_STD, Quantity
from equipot.uncertainty.novelty import Mahalanobis, Novelty, novelty_of


@dataclass(frozen=True)
class Spread(UncertaintyMethod):
    """Standard deviation of the members of a ``Committee`` about their mean: s^2 = sum_k (x_k - mean)^2 / (K - 1).

    B. Lakshminarayanan, A. Pritzel and C. Blundell, NeurIPS 2017, arXiv:1612.01474. All of it is calibrated afterwards.
    """

    novelty: Novelty = Mahalanobis()
    """Distance of environments, in the descriptor of the first member."""

    of_committees: ClassVar[bool] = True

    @property
    def provides(self) -> tuple[Quantity, ...]:
        return ENERGY_STD, FORCES_STD, STRESS_STD, ENSEMBLE, NOVELTY

    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        return self.novelty.arrays(statistics)

    def deviations(
        self, arrays: Mapping[str, Array], found: Sensitivity, rows: Sequence[Quantity]
    ) -> dict[str, Float[Array, "..."]]:
        out = novelty_of(self.novelty, arrays, found) if NOVELTY in rows else {}
        if ENERGY_STD in rows:
            out[ENERGY_STD.name] = _spread(sum_graphs(found.features, found.graph).T)
        if ENSEMBLE in rows:
            away = sum_graphs(found.features, found.graph)
            # The deviation has the number of members less one as its divisor.
            out[ENSEMBLE.name] = away * jnp.sqrt(away.shape[1] / (away.shape[1] - 1))
        if FORCES_STD in rows or STRESS_STD in rows:
            assert found.members is not None, "of a committee"
            if FORCES_STD in rows:
                out[FORCES_STD.name] = _spread(found.members.forces, 1)
            if STRESS_STD in rows:
                assert found.members.stress is not None, "wanted"
                out[STRESS_STD.name] = _spread(found.members.stress, 2)
        return out


def _spread(values: Float[Array, "members ..."], components: int = 0) -> Float[Array, "..."]:
    """Compute the sample deviation over members, the root mean square over as many last axes of components."""
    variance = jnp.var(values, axis=0, ddof=1)
    return jnp.sqrt(jnp.mean(variance, axis=tuple(range(-components, 0))) if components else variance)
