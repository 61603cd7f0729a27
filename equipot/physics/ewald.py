"""Ewald sum of Gaussian charges: the reciprocal-space part, its host-side set of waves, and the short-range remainder.

The interaction of two unit charges is split as 1/r = erf(r / (sqrt(2) s)) / r + erfc(r / (sqrt(2) s)) / r with the smearing
s (Å), the standard deviation of a Gaussian density. The first part, smooth everywhere, is summed over reciprocal vectors
(P. P. Ewald, Ann. Phys. 369, 253, 1921; conventions of M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, 2017).

Waves are stored as integer multiples of reciprocal vectors, so that the strain reaches them and no wave enters or leaves the
sum while the cell changes.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Bool, Float, Int

from equipot import units
from equipot.arrays import AnyArray

COULOMB = units.hartree * units.bohr
"""Energy of two unit charges at a distance of 1 Å: 14.399645 eV Å / e^2."""


def wave_counts(cell: Float[np.ndarray, "3 3"], longest: float) -> Int[np.ndarray, "waves 3"]:
    """List one of each pair (k, -k) of the reciprocal vectors of a crystal that are no longer than ``longest``, without zero.

    Args:
        cell: lattice vectors as rows, Å.
        longest: largest length of a reciprocal vector, 1/Å (2 pi included).

    Returns:
        Integer coordinates in the reciprocal lattice, shortest wave first.
    """
    reach = np.floor(longest * np.linalg.norm(cell, axis=1) / (2 * math.pi)).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    counts = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(2 * math.pi * counts @ np.linalg.inv(cell).T, axis=1)
    # The first coordinate that is not zero is positive in one of k and -k.
    half = (counts[:, 0] > 0) | ((counts[:, 0] == 0) & ((counts[:, 1] > 0) | ((counts[:, 1] == 0) & (counts[:, 2] > 0))))
    chosen = half & (length <= longest)
    return counts[chosen][np.argsort(length[chosen], kind="stable")].astype(np.int32)


def longest_wave(smearing: float, tolerance: float) -> float:
    """Return the length (1/Å) of waves beyond which exp(-s^2 k^2 / 2) is below ``tolerance``; ``smearing`` s in Å."""
    return math.sqrt(-2 * math.log(tolerance)) / smearing


def potentials_of_waves(
    charges: Float[Array, " atoms"],
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    counts: Int[AnyArray, "waves 3"],
    used: Bool[Array, " waves"],
    smearing: float,
) -> Float[Array, " atoms"]:
    """Compute the electrostatic potential (V) of the smooth part at each atom of one crystal, its own smooth charge removed.

    phi_i = Ke / V sum_{k != 0} (4 pi / k^2) exp(-s^2 k^2 / 2) Re[S(k)* exp(i k . r_i)] - Ke q_i sqrt(2 / pi) / s
            - Ke 2 pi s^2 Q / V,
    S(k) = sum_j q_j exp(i k . r_j). The last term is that of a uniform background which neutralises the total charge Q; half of
    the sum over atoms of q_i phi_i is the energy.

    Args:
        charges: e; zero for padding atoms.
        positions: Å.
        cell: lattice vectors as rows, Å.
        counts: waves of one half of reciprocal space, see ``wave_counts``.
        used: False for padding waves.
        smearing: s, Å.
    """
    volume = jnp.abs(jnp.linalg.det(cell))
    k = 2 * jnp.pi * counts.astype(positions.dtype) @ jnp.linalg.inv(cell).T
    squared = jnp.where(used, jnp.sum(k**2, axis=-1), 1.0)
    weight = jnp.where(used, 8 * jnp.pi / volume * jnp.exp(-(smearing**2) * squared / 2) / squared, 0.0)
    phase = positions @ k.T
    cosine, sine = jnp.cos(phase), jnp.sin(phase)
    smooth = cosine @ (weight * (charges @ cosine)) + sine @ (weight * (charges @ sine))
    own = charges * (math.sqrt(2 / math.pi) / smearing)
    background = 2 * jnp.pi * smearing**2 * jnp.sum(charges) / volume
    return COULOMB * (smooth - own - background)


def short_range(r: Float[Array, " pairs"], smearing: float) -> Float[Array, " pairs"]:
    """Compute the remainder Ke erfc(r / (sqrt(2) s)) / r (eV / e^2) at distances r (Å) above zero."""
    return COULOMB * erfc(r / (math.sqrt(2) * smearing)) / r
