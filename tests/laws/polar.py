"""A term that predicts a dipole and charges besides an energy."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp

from equipot.physics.lennard_jones import LennardJones
from equipot.quantities import CHARGES, DIPOLE, Quantity
from equipot.term import Atomic


class Polar(LennardJones):
    """Each neighbour draws charge to itself by its number Z."""

    provides: ClassVar[tuple[Quantity, ...]] = (DIPOLE, CHARGES)

    def __call__(self, graph, vectors):
        r2 = jnp.sum(vectors**2, axis=-1)
        z = graph.numbers.astype(vectors.dtype)
        pull = (z[graph.neighbors] - z[:, None]) * jnp.maximum(1 - r2 / self.cutoff**2, 0) ** 3
        drawn = jnp.where(graph.slot_mask, 0.01 * pull, 0)
        dipole = jnp.sum(drawn[..., None] * vectors, axis=1)
        energy = super().__call__(graph, vectors).energy
        return Atomic(energy, charges=drawn.sum(axis=1), others={"dipole": dipole})
