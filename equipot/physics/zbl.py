"""Repulsion of two nuclei at short distance."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot import units
from equipot.arrays import AnyArray
from equipot.graph import Graph
from equipot.neighbors.packed import Pairs
from equipot.nn.edge_features import pairs_within
from equipot.nn.radial import PolynomialEnvelope, covalent_radii
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["ZBL"]


class ZBL(Term):
    """Screened Coulomb repulsion (Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids, 1985).

    V(r) = k Z_i Z_j / r  sum_n c_n exp(-d_n r / a)  u(r),  a = a_0 / (Z_i^x + Z_j^x), with k the Coulomb constant and u an
    envelope that ends at the sum of the covalent radii, where bonds begin, or at the cutoff if that is shorter.

    As the field ``repulsion`` of a network it uses the network's cutoff and the radii that are stored with the network.
    """

    envelope: PolynomialEnvelope = PolynomialEnvelope(6)
    """Factor u that falls to zero where the repulsion ends."""
    length: float = 0.88534 * units.bohr
    """a_0, Å."""
    exponent: float = 0.23
    """x."""
    coefficients: tuple[float, ...] = (0.1818, 0.5099, 0.2802, 0.02817)
    """c_n."""
    decays: tuple[float, ...] = (3.2, 0.9423, 0.4028, 0.2016)
    """d_n."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.coefficients) != len(self.decays):
            raise ValueError(f"{len(self.coefficients)} coefficients, but {len(self.decays)} decays; give one for each")

    def natural_cutoff(self, elements: tuple[int, ...]) -> float | None:
        """Return the largest sum of the covalent radii of two of the elements (Å); None where these are not known yet."""
        return 2 * float(covalent_radii(elements).max()) if elements else None

    @property
    def receptive_radius(self) -> float | None:
        return self.cutoff

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        cutoff = cutoff_of(self)
        pairs, _, r = pairs_within(graph, vectors, cutoff)
        own = jnp.asarray(covalent_radii(range(119)), r.dtype)[graph.numbers]
        radii = pairs.from_centers(own) + pairs.from_neighbors(own)
        energy = self.repel(pairs, r, graph.numbers, jnp.where(pairs.slots < 0, 1, radii), cutoff)
        return Atomic(jnp.where(pairs.overflow, jnp.nan, energy))

    def repel(
        self,
        pairs: Pairs,
        r: Float[Array, " pairs"],
        numbers: Int[AnyArray, " atoms"],
        radii: Float[Array, " pairs"],
        cutoff: float,
    ) -> Float[Array, " atoms"]:
        """Add up half of the energy of each pair (eV) on either atom, for distances ``r`` and sums of covalent radii in Å."""
        charge = jnp.asarray(numbers, r.dtype)
        # An empty row has no charge, and zero to a power has no derivative worth having; it is beyond any envelope.
        own, other = (jnp.maximum(z, 1) for z in (pairs.from_centers(charge), pairs.from_neighbors(charge)))
        return 0.5 * pairs.sum_to_centers(self.of_pairs(r, own, other, jnp.minimum(radii, cutoff)))

    def of_pairs(
        self,
        r: Float[Array, "*pairs"],
        own: Float[Array, "*#pairs"],
        other: Float[Array, "*#pairs"],
        end: Float[Array, "*pairs"],
    ) -> Float[Array, "*pairs"]:
        """Compute V(r) (eV) for distances ``r`` (Å), atomic numbers of at least 1, and the ends of the envelope (Å)."""
        scaled = r * (own**self.exponent + other**self.exponent) / self.length
        screening = sum(c * jnp.exp(-d * scaled) for c, d in zip(self.coefficients, self.decays, strict=True))
        return units.hartree * units.bohr * own * other / r * screening * self.envelope(r, end)
