"""Repulsion of two nuclei at short distance."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot import units
from equipot.graph import Graph
from equipot.nn.edge_features import Edges
from equipot.nn.radial import PolynomialEnvelope


@dataclasses.dataclass(frozen=True)
class ZBL:
    """Screened Coulomb repulsion (Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids, 1985).

    V(r) = k Z_i Z_j / r  sum_n c_n exp(-d_n r / a)  u(r),  a = a_0 / (Z_i^x + Z_j^x), with k the Coulomb constant and u an
    envelope that ends at the sum of the covalent radii, where bonds begin, or at the model's cutoff if that is shorter.
    """

    envelope: PolynomialEnvelope = PolynomialEnvelope(6)
    length: float = 0.88534 * units.bohr
    """a_0, Å."""
    exponent: float = 0.23
    """x."""
    coefficients: tuple[float, ...] = (0.1818, 0.5099, 0.2802, 0.02817)
    """c_n."""
    decays: tuple[float, ...] = (3.2, 0.9423, 0.4028, 0.2016)
    """d_n."""

    def __post_init__(self) -> None:
        if len(self.coefficients) != len(self.decays):
            raise ValueError(f"{len(self.coefficients)} coefficients, but {len(self.decays)} decays; give one for each")

    def __call__(self, edges: Edges, graph: Graph, cutoff: float) -> Float[Array, " atoms"]:
        """Half of each pair's energy to either atom, eV. ``edges`` needs the covalent radii."""
        r, pairs = edges.distances, edges.pairs
        charge = graph.numbers.astype(r.dtype)
        # An empty row has no charge, and zero to a power has no derivative worth having; it is beyond any envelope.
        own, other = (jnp.maximum(z, 1) for z in (pairs.of_centers(charge), pairs.of_neighbors(charge)))
        scaled = r * (own**self.exponent + other**self.exponent) / self.length
        screening = sum(c * jnp.exp(-d * scaled) for c, d in zip(self.coefficients, self.decays, strict=True))
        energy = units.hartree * units.bohr * own * other / r * screening
        return 0.5 * pairs.sum(energy * self.envelope(r, jnp.minimum(edges.radii, cutoff)))
