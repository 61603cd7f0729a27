"""Electrostatic potentials of Gaussian charges in crystals and slabs, summed over reciprocal vectors.

The interaction of two unit charges is split as 1/r = erf(r / (sqrt(2) s)) / r + erfc(r / (sqrt(2) s)) / r with the smearing
s (Å), the standard deviation of a Gaussian density. The first part, smooth everywhere, is summed over reciprocal vectors
(P. P. Ewald, Ann. Phys. 369, 253, 1921; conventions of M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, 2017).
A slab is summed as a crystal with vacuum above it, and the net dipole is taken out of the interaction of its images (I.-C. Yeh
and M. L. Berkowitz, J. Chem. Phys. 111, 3155, 1999; for charged slabs V. Ballenegger, A. Arnold and J. J. Cerdà, J. Chem. Phys.
131, 094107, 2009).

Reciprocal vectors are a box of integers, so that the strain reaches them, that no wave enters or leaves the sum while the cell
changes, and that phases are products of three factors and sums over atoms are matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from equipot import units
from equipot.extent import VACUUM, Waves

if TYPE_CHECKING:
    from equipot.physics.mesh import ParticleMesh

COULOMB = units.hartree * units.bohr
"""Energy of two unit charges at a distance of 1 Å: 14.399645 eV Å / e^2."""


def longest_wave(smearing: float, tolerance: float) -> float:
    """Return the length (1/Å) of waves beyond which exp(-s^2 k^2 / 2) is below ``tolerance``; ``smearing`` s in Å."""
    return math.sqrt(-2 * math.log(tolerance)) / smearing


@dataclass(frozen=True)
class WaveSum:
    """The sum over reciprocal vectors one by one: exact to rounding, its time grows as the square of the number of atoms."""

    def smooth(
        self,
        charges: Float[Array, " row"],
        sources: Float[Array, "row 3"],
        targets: Float[Array, "row 3"],
        inverse: Float[Array, "3 3"],
        waves: Waves,
        smearing: float,
    ) -> Float[Array, " row"]:
        """Compute sum_{k != 0} (4 pi / k^2) exp(-s^2 k^2 / 2) Re[S(k)* exp(i k . r_i)] at each target r_i, e Å^2.

        Args:
            charges: e; zero in unused rows.
            sources: positions of the charges in units of the lattice vectors, from 0 to 1.
            targets: places where the sum is computed, in the same units; the same array for the charges themselves.
            inverse: inverse of the cell, 1/Å.
            waves: largest integers of the reciprocal vectors.
            smearing: s, Å.
        """
        ab, c = _pair_phases(sources, waves)
        structure = (charges[:, None] * ab).T @ c
        weight = wave_weights(inverse, waves, smearing).reshape(structure.shape)
        ab, c = (ab, c) if targets is sources else _pair_phases(targets, waves)
        return jnp.sum(ab * (c @ (weight * jnp.conj(structure)).T), axis=1).real


class Crystal(NamedTuple):
    """A crystal or slab, and how its waves are summed."""

    cell: Float[Array, "3 3"]
    """Lattice vectors as rows, Å; the row along which a slab is open may be any vector."""
    repeats: Bool[Array, " 3"]
    """Along which rows the system repeats: all three, or two."""
    method: WaveSum | ParticleMesh
    waves: Waves
    """Largest integers of the reciprocal vectors."""
    smearing: float
    """s, Å."""
    left_out: float
    """c, the integral of what the waves leave out of the interaction of two charges, Å^2."""


def wave_potentials(
    crystal: Crystal,
    charges: Float[Array, " row"],
    used: Bool[Array, " row"],
    sources: Float[Array, "row 3"],
    targets: Float[Array, "row 3"],
) -> Float[Array, " row"]:
    """Compute the electrostatic potential (V) of smooth charges at each target in one crystal or slab, of all images.

    phi_i = Ke / V sum_{k != 0} (4 pi / k^2) exp(-s^2 k^2 / 2) Re[S(k)* exp(i k . r_i)] - Ke c Q / V + slab,
    S(k) = sum_j q_j exp(i k . r_j), where a uniform background neutralises the total charge Q; at the place of a charge this
    holds the charge's own potential, Ke q_i sqrt(2 / pi) / s. The last term vanishes in a crystal; in a slab with the normal z
    and V = A L it is 4 pi Ke / V [z_i M - (Q z_i^2 + sum_j q_j z_j^2) / 2 - Q L^2 / 12], with M = sum_j q_j z_j.

    Args:
        charges: e; zero in unused rows.
        used: whether a row holds an atom.
        sources: positions of the charges, Å.
        targets: places of the potential, Å; the same array for the charges themselves.
    """
    cell, normal, height = with_vacuum(sources, used, crystal.cell, crystal.repeats)
    volume = jnp.abs(jnp.linalg.det(cell))
    inverse = jnp.linalg.inv(cell)
    places = [x @ inverse for x in ((sources,) if targets is sources else (sources, targets))]
    # Whole cells change no phase; taken off they cost no digits.
    places = [fraction - lax.stop_gradient(jnp.floor(fraction)) for fraction in places]
    smooth = crystal.method.smooth(charges, places[0], places[-1], inverse, crystal.waves, crystal.smearing) / volume
    total = jnp.sum(charges)
    middle = lax.stop_gradient(jnp.sum(jnp.where(used, sources @ normal, 0)) / jnp.maximum(jnp.sum(used), 1))
    z, at = sources @ normal - middle, targets @ normal - middle
    square = (total * at**2 + jnp.sum(charges * z**2)) / 2
    slab = 4 * jnp.pi / volume * (at * jnp.sum(charges * z) - square - total * height**2 / 12)
    phi = smooth - crystal.left_out * total / volume + jnp.where(jnp.all(crystal.repeats), 0, slab)
    return COULOMB * jnp.where(used, phi, 0)


def with_vacuum(
    positions: Float[Array, "row 3"], used: Bool[Array, " row"], cell: Float[Array, "3 3"], repeats: Bool[Array, " 3"]
) -> tuple[Float[Array, "3 3"], Float[Array, " 3"], Float[Array, ""]]:
    """Return the cell of a slab with its normal as the open row, as long as the slab is thick and the vacuum above it, see
    ``equipot.extent``; the unit normal, and that length (Å). A crystal's cell is returned as given.

    The length is a constant: energies do not depend on how much vacuum there is.
    """
    rows, normal, height = list(cell), cell[0], jnp.ones((), cell.dtype)
    for k in range(3):
        first, second = cell[(k + 1) % 3], cell[(k + 2) % 3]
        across = jnp.cross(first, second)
        mine = across / jnp.sqrt(jnp.sum(across**2))
        z = positions @ mine
        thick = jnp.max(jnp.where(used, z, -jnp.inf)) - jnp.min(jnp.where(used, z, jnp.inf))
        longer = jnp.sqrt(jnp.maximum(jnp.sum(first**2), jnp.sum(second**2)))
        length = lax.stop_gradient(jnp.where(jnp.any(used), thick, 0) + VACUUM * longer)
        rows[k] = jnp.where(repeats[k], cell[k], mine * length)
        normal, height = jnp.where(repeats[k], normal, mine), jnp.where(repeats[k], height, length)
    return jnp.stack(rows), normal, height


def covers(cell: Float[Array, "3 3"], waves: Waves, longest: float) -> Bool[Array, ""]:
    """Return whether a box of integers holds all reciprocal vectors of ``cell`` (Å) no longer than ``longest`` (1/Å)."""
    needed = jnp.floor(longest * jnp.sqrt(jnp.sum(cell**2, axis=1)) / (2 * math.pi))
    return jnp.all(needed <= jnp.asarray(waves))


def _pair_phases(fraction: Float[Array, "row 3"], waves: Waves) -> tuple[Array, Array]:
    """Compute the phases of all pairs of waves along the first two axes [row, ab], and along the last [row, c]."""
    a, b, c = (_phases(fraction[:, axis], count, axis < 2) for axis, count in enumerate(waves))
    return (a[:, :, None] * b[:, None, :]).reshape(len(fraction), -1), c


def _phases(fraction: Float[Array, " row"], count: int, both: bool) -> Array:
    """Compute exp(2 pi i n u) of fractional coordinates u for n from -count (from 0 unless ``both``) to count: [row, n]."""
    n = jnp.arange(-count if both else 0, count + 1, dtype=fraction.dtype)
    angle = 2 * jnp.pi * fraction[:, None] * n[None]
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def wave_weights(inverse: Float[Array, "3 3"], waves: Waves, smearing: float) -> Float[Array, "a b c"]:
    """Compute 4 pi exp(-s^2 k^2 / 2) / k^2 of every wave of the box (Å^2), twice that where the box lacks -k; 0 at k = 0."""
    dtype = inverse.dtype
    axes = [jnp.arange(-n if axis < 2 else 0, n + 1, dtype=dtype) for axis, n in enumerate(waves)]
    n = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    k = 2 * jnp.pi * n @ inverse.T
    zero = jnp.all(n == 0, axis=-1)
    square = jnp.where(zero, 1, jnp.sum(k**2, axis=-1))
    once = jnp.where(n[..., 2] == 0, 1, 2)
    return jnp.where(zero, 0, 4 * jnp.pi * once * jnp.exp(-(smearing**2) / 2 * square) / square)
