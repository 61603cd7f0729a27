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
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from equipot import units
from equipot.extent import Waves, slab_length

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
        fraction: Float[Array, "row 3"],
        inverse: Float[Array, "3 3"],
        waves: Waves,
        smearing: float,
    ) -> Float[Array, " row"]:
        """Compute sum_{k != 0} (4 pi / k^2) exp(-s^2 k^2 / 2) Re[S(k)* exp(i k . r_i)] at each charge, e Å^2.

        Args:
            charges: e; zero in unused rows.
            fraction: positions in units of the lattice vectors, from 0 to 1.
            inverse: inverse of the cell, 1/Å.
            waves: largest integers of the reciprocal vectors.
            smearing: s, Å.
        """
        ab, c = _pair_phases(fraction, waves)
        structure = (charges[:, None] * ab).T @ c
        weight = wave_weights(inverse, waves, smearing).reshape(structure.shape)
        return jnp.sum(ab * (c @ (weight * jnp.conj(structure)).T), axis=1).real

    def smooth_felt(
        self,
        charges: Float[Array, " row"],
        dipoles: Float[Array, "row 3"],
        fraction: Float[Array, "row 3"],
        inverse: Float[Array, "3 3"],
        waves: Waves,
        smearing: float,
    ) -> tuple[Float[Array, " row"], Float[Array, "row 3"]]:
        """Compute the sum of ``smooth`` and its slope by ``fraction``, with S(k) = sum_j (q_j + i k . p_j) exp(i k . r_j).

        Args:
            charges: e.
            dipoles: p in units of the lattice vectors, e.
            fraction: as ``smooth``, with the rest.
        """
        ab, c = _pair_phases(fraction, waves)
        n = jnp.asarray(_integers(waves), fraction.dtype).reshape(ab.shape[1], c.shape[1], 3)
        # A slope by a coordinate u multiplies a wave by 2 pi i n: n stands outside of sums over atoms.
        slopes = [jnp.ones(n.shape[:2], lax.complex(n[0, 0, 0], n[0, 0, 0]).dtype), *jnp.moveaxis(2j * jnp.pi * n, -1, 0)]
        moments = jnp.concatenate([charges[:, None], dipoles], axis=1)
        structure = sum(slope * ((moment[:, None] * ab).T @ c) for slope, moment in zip(slopes, moments.T, strict=True))
        weight = wave_weights(inverse, waves, smearing).reshape(n.shape[:2]) * jnp.conj(structure)
        found = [jnp.sum(ab * (c @ (slope * weight).T), axis=1).real for slope in slopes]
        return found[0], jnp.stack(found[1:], axis=1)


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
    crystal: Crystal, charges: Float[Array, " row"], used: Bool[Array, " row"], positions: Float[Array, "row 3"]
) -> Float[Array, " row"]:
    """Compute the electrostatic potential (V) at the atoms of one crystal or slab of smooth charges and all of their images.

    phi_i = Ke / V sum_{k != 0} (4 pi / k^2) exp(-s^2 k^2 / 2) Re[S(k)* exp(i k . r_i)] - Ke c Q / V + slab,
    S(k) = sum_j q_j exp(i k . r_j), where a uniform background neutralises the total charge Q; it holds the potential of an
    atom's own charge, Ke q_i sqrt(2 / pi) / s. The last term vanishes in a crystal; in a slab with the normal z and V = A L it
    is 4 pi Ke / V [z_i M - (Q z_i^2 + sum_j q_j z_j^2) / 2 - Q L^2 / 12], with M = sum_j q_j z_j.

    Args:
        charges: e; zero in unused rows.
        used: whether a row holds an atom.
        positions: Å.
    """
    box = _box_of(crystal, used, positions)
    phi = crystal.method.smooth(charges, box.fraction, box.inverse, crystal.waves, crystal.smearing)
    total, z = jnp.sum(charges), box.z
    slab = z * jnp.sum(charges * z) - (total * z**2 + jnp.sum(charges * z**2)) / 2 - total * box.height**2 / 12
    phi = phi - box.left_out * total + jnp.where(jnp.all(crystal.repeats), 0, 4 * jnp.pi * slab)
    return COULOMB * jnp.where(used, phi / box.volume, 0)


def wave_felt(
    crystal: Crystal,
    charges: Float[Array, " row"],
    dipoles: Float[Array, "row 3"],
    used: Bool[Array, " row"],
    positions: Float[Array, "row 3"],
) -> tuple[Float[Array, " row"], Float[Array, "row 3"]]:
    """Compute potential (V) and field (V/Å) at the atoms, as ``wave_potentials``, of charges (e) and dipoles (e Å).

    A dipole is the derivative of a charge by its place, and the field that of the potential.
    """
    box = _box_of(crystal, used, positions)
    phi, slope = crystal.method.smooth_felt(
        charges, dipoles @ box.inverse, box.fraction, box.inverse, crystal.waves, crystal.smearing
    )
    total, z, up = jnp.sum(charges), box.z, dipoles @ box.normal
    moment, second = jnp.sum(charges * z + up), jnp.sum(charges * z**2 + 2 * up * z)
    slab = z * moment - (total * z**2 + second) / 2 - total * box.height**2 / 12
    flat = jnp.where(jnp.all(crystal.repeats), 0, 4 * jnp.pi)
    phi = phi - box.left_out * total + flat * slab
    field = -slope @ box.inverse.T - flat * (moment - total * z)[:, None] * box.normal[None]
    scale = COULOMB / box.volume
    return jnp.where(used, scale * phi, 0), jnp.where(used[:, None], scale * field, 0)


class _Box(NamedTuple):
    """A crystal, or a slab with its vacuum, and the places of atoms in it."""

    volume: Float[Array, ""]
    """Å^3."""
    inverse: Float[Array, "3 3"]
    """Of the cell, 1/Å."""
    fraction: Float[Array, "row 3"]
    """Positions in units of the lattice vectors, from 0 to 1."""
    normal: Float[Array, " 3"]
    """Unit normal of a slab."""
    z: Float[Array, " row"]
    """Height of each atom along the normal over the mean, Å."""
    height: Float[Array, ""]
    """Length of the cell along the normal, Å."""
    left_out: Float[Array, ""]
    """c, Å^2. In a slab it is that of points for any kernel: only so energies do not depend on how much vacuum there is."""


def _box_of(crystal: Crystal, used: Bool[Array, " row"], positions: Float[Array, "row 3"]) -> _Box:
    cell, normal, height = with_vacuum(positions, used, crystal.cell, crystal.repeats)
    inverse = jnp.linalg.inv(cell)
    fraction = positions @ inverse
    # Whole cells change no phase; taken off they cost no digits.
    fraction -= lax.stop_gradient(jnp.floor(fraction))
    z = positions @ normal
    middle = lax.stop_gradient(jnp.sum(jnp.where(used, z, 0)) / jnp.maximum(jnp.sum(used), 1))
    left_out = jnp.where(jnp.all(crystal.repeats), crystal.left_out, 2 * math.pi * crystal.smearing**2)
    return _Box(jnp.abs(jnp.linalg.det(cell)), inverse, fraction, normal, z - middle, height, left_out)


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
        long, wide = (jnp.sqrt(jnp.sum(side**2)) for side in (first, second))
        length = lax.stop_gradient(slab_length(jnp.where(jnp.any(used), thick, 0), long, wide, jnp))
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
    n = _integers(waves)
    k = 2 * jnp.pi * jnp.asarray(n, inverse.dtype) @ inverse.T
    zero = np.all(n == 0, axis=-1)
    square = jnp.where(zero, 1, jnp.sum(k**2, axis=-1))
    once = jnp.asarray(np.where(n[..., 2] == 0, 1, 2), inverse.dtype)
    return jnp.where(zero, 0, 4 * jnp.pi * once * jnp.exp(-(smearing**2) / 2 * square) / square)


def _integers(waves: Waves) -> Int[np.ndarray, "a b c 3"]:
    """Return the integers of every wave of the box."""
    axes = [np.arange(-n if axis < 2 else 0, n + 1) for axis, n in enumerate(waves)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
