"""The Lennard-Jones potential: a closed form to check every driver against, and a cheap substitute for a trained model."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["LennardJones"]


class LennardJones(Term):
    """Pair energy 4 epsilon ((sigma/r)^12 - (sigma/r)^6), switched to zero between the onset and the cutoff.

    The switching function is that of HOOMD-blue, (c - x)^2 (c + 2x - 3o) / (c - o)^3 with x = r^2, c = cutoff^2, o = onset^2,
    as in ``ase.calculators.lj.LennardJones(smooth=True)``: energy and forces are continuous. Epsilon and sigma do not depend on
    the elements.
    """

    epsilon: float = 0.0104
    """Depth of the well (eV), of argon."""
    sigma: float = 3.40
    """Distance (Å) where the energy is zero, of argon."""
    onset: float = 0.66
    """Distance where the switching function begins to fall, as a fraction of the cutoff."""

    def constant(self, name: str) -> Array:
        """Return the constant that is initialised with the field ``name``."""
        return self.variable("constants", name, lambda: jnp.asarray(getattr(self, name))).value

    def setup(self) -> None:
        self.depth, self.size = self.constant("epsilon"), self.constant("sigma")

    @property
    def receptive_radius(self) -> float | None:
        return self.cutoff

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        squared = jnp.sum(vectors**2, axis=-1)
        cutoff = cutoff_of(self)
        c, o = cutoff**2, (self.onset * cutoff) ** 2
        inside = graph.slot_mask & (squared < c)
        x = jnp.where(inside, squared, c)
        sixth = (self.size.astype(x.dtype) ** 2 / x) ** 3
        switch = jnp.where(x < o, 1.0, (c - x) ** 2 * (c + 2 * x - 3 * o) / (c - o) ** 3)
        pairs = 4 * self.depth.astype(x.dtype) * (sixth**2 - sixth) * switch
        # Each pair is in two slots, and half of its energy belongs to either atom.
        return Atomic(0.5 * jnp.sum(jnp.where(inside, pairs, 0), axis=-1))
