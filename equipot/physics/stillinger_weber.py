"""The Stillinger-Weber potential of silicon: pairs and angles in closed form, for checks of everything that angles reach."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["StillingerWeber"]

VANISHED = 700.0
"""Exponent beyond which exp(-x) counts as zero: close to the least number of double precision."""


class StillingerWeber(Term):
    """Pair and three-body energy of Stillinger and Weber, Phys. Rev. B 31, 5262 (1985), with their parameters of silicon.

    E = sum_(i<j) epsilon A (B (sigma/r)^p - (sigma/r)^q) h(r)  +  sum_i sum_(j<k) epsilon lambda h(r_ij)^gamma h(r_ik)^gamma
    (cos theta_jik - cos theta_0)^2, with h(r) = exp(sigma / (r - c)) inside the cutoff c, which is a sigma in the paper. All
    derivatives vanish at the cutoff. No parameter depends on the elements.
    """

    cutoff: float | None = 3.77118
    """c, Å."""
    epsilon: float = 2.1683
    """Depth of the pair energy, eV."""
    sigma: float = 2.0951
    """Unit of length, Å."""
    pair_strength: float = 7.049556277
    """A."""
    repulsion: float = 0.6022245584
    """B."""
    repulsive_power: float = 4.0
    """p."""
    attractive_power: float = 0.0
    """q."""
    angle_strength: float = 21.0
    """lambda."""
    angle_range: float = 1.2
    """gamma."""
    cosine: float = -1 / 3
    """Cosine of the angle between bonds without three-body energy, cos theta_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigma", "angle_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name):g} must be positive, as in the paper: sigma 2.0951, gamma 1.2")
        if not -1 <= self.cosine <= 1:
            raise ValueError(f"cosine {self.cosine:g} must be from -1 to 1: it is that of an angle, -1/3 in silicon")

    def setup(self) -> None:
        # Kept among the variables, so that the potential has a precision.
        self.depth = self.variable("constants", "epsilon", lambda: jnp.asarray(self.epsilon)).value

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        cutoff, squared = cutoff_of(self), jnp.sum(vectors**2, axis=-1)
        # Closer to the cutoff the energy is zero in double precision, and the slopes of its factors are without bound.
        end = cutoff - min(1.0, self.angle_range) * self.sigma / VANISHED
        inside = jnp.asarray(graph.slot_mask & (squared < end**2))
        r = jnp.sqrt(jnp.where(inside, squared, (0.5 * cutoff) ** 2))
        x = r / self.sigma
        fall = 1 / (x - cutoff / self.sigma)
        pairs = (self.repulsion * x**-self.repulsive_power - x**-self.attractive_power) * jnp.exp(fall)
        bonds = jnp.where(inside, jnp.exp(self.angle_range * fall), 0)
        pair_energy = 0.5 * self.pair_strength * jnp.sum(jnp.where(inside, pairs, 0), axis=-1)
        angle_energy = 0.5 * self.angle_strength * self.angles(bonds, vectors / r[..., None], inside)
        return Atomic(self.depth.astype(r.dtype) * (pair_energy + angle_energy))

    def angles(
        self,
        bonds: Float[Array, "atoms slots"],
        directions: Float[Array, "atoms slots 3"],
        inside: Bool[Array, "atoms slots"],
    ) -> Float[Array, " atoms"]:
        """Sum b_j b_k (u_j . u_k - cos theta_0)^2 over the ordered pairs of different slots of each atom.

        The square is a polynomial in u_j . u_k, so that moments of the directions replace the sum over pairs: sum_jk b_j b_k
        (u_j . u_k)^2 is the squared norm of sum_j b_j u_j (x) u_j, and so on.
        """
        u = jnp.where(inside[..., None], directions, 0)
        weighted = bonds[..., None] * u
        second = jnp.sum(weighted[..., :, None] * u[..., None, :], axis=1)
        first, total = jnp.sum(weighted, axis=1), jnp.sum(bonds, axis=1)
        every = (
            jnp.sum(second**2, axis=(1, 2))
            - 2 * self.cosine * jnp.sum(first**2, axis=1)
            + self.cosine**2 * total**2
        )  # fmt: skip
        return every - (1 - self.cosine) ** 2 * jnp.sum(bonds**2, axis=1)
