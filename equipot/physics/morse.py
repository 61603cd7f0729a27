"""The Morse potential: anharmonic pairs in closed form, with continuous second derivatives everywhere."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["Morse"]


class Morse(Term):
    """Pair energy D (exp(-2 a (r - r_0)) - 2 exp(-a (r - r_0))), switched to zero between the onset and the cutoff.

    Morse, Phys. Rev. 34, 57 (1929). The switch is 6 s^5 - 15 s^4 + 10 s^3 with s = (cutoff - r) / (cutoff - onset), as in
    ``ase.calculators.morse.MorsePotential``, whose ``rho0`` is a r_0: energy, forces and Hessians are continuous. No parameter
    depends on the elements.
    """

    depth: float = 0.3429
    """D (eV), of copper (Girifalco and Weizer, Phys. Rev. 114, 687, 1959)."""
    width: float = 1.3588
    """a (1/Å), of copper."""
    distance: float = 2.866
    """r_0, where the energy is least (Å), of copper."""
    onset: float = 0.8
    """Distance where the switch begins to fall, as a fraction of the cutoff."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.onset < 1:
            raise ValueError(f"onset {self.onset:g} must be a fraction of the cutoff between 0 and 1, 0.8 for example")

    def setup(self) -> None:
        # Kept among the variables, so that the potential has a precision.
        self.well = self.variable("constants", "depth", lambda: jnp.asarray(self.depth)).value

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        cutoff, squared = cutoff_of(self), jnp.sum(vectors**2, axis=-1)
        inside = graph.slot_mask & (squared < cutoff**2)
        r = jnp.sqrt(jnp.where(inside, squared, cutoff**2))
        bond = jnp.exp(-self.width * (r - self.distance))
        s = jnp.clip((cutoff - r) / (cutoff * (1 - self.onset)), 0, 1)
        pairs = (bond**2 - 2 * bond) * (6 * s**5 - 15 * s**4 + 10 * s**3)
        # Each pair is in two slots, and half of its energy belongs to either atom.
        return Atomic(0.5 * self.well.astype(r.dtype) * jnp.sum(jnp.where(inside, pairs, 0), axis=-1))
