"""Material symmetry: the rotations of a crystal, and invariants of deformations that respect them.

Both choices make the same things, ``Orbits``: symmetric positive semi-definite tensors T of trace 1 whose products with
C = F^T F and cof C are |F L|^2 and |cof F L|^2 for T = L L^T, convex in F and in cof F.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.structure import Structure
from equipot.workflows.relax.bounds import operations


class Orbits(NamedTuple):
    """Tensors from whose products with C and cof C invariants are made."""

    tensors: Float[Array, "channels tensors 3 3"]
    """Tensors of trace 1; the energy is the mean over channels."""
    pooling: Float[Array, "tensors invariants"]
    """Weights, not negative, by which products, and their powers, are summed to invariants; columns sum to 1."""


class GroupAverage(nn.Module):
    """Average of a network over the rotations of the crystal, with trained tensors.

    The invariants are tr(C T) and tr(cof C T) of trained tensors T; six span all symmetric matrices, so that the network sees
    all of C. The energy is the mean over T turned by each rotation (Fernández et al., Comput. Mech. 67, 653, 2021), exact for
    every group, at the cost of as many calls of the network as the group has rotations.

    Raises:
        ValueError: no tensors.
    """

    tensors: int = 6
    """Number of trained tensors."""

    @property
    def powers(self) -> tuple[int, ...]:
        """Powers of the products that are pooled."""
        return (1,)

    @nn.compact
    def __call__(self, rotations: Float[Array, "rotations 3 3"]) -> Orbits:
        """Make the tensors, one channel for each rotation."""
        if self.tensors < 1:
            raise ValueError(f"tensors {self.tensors} must be at least 1")
        # Nearly of rank one at first, in random directions.
        shape = jnp.array([1.0, 0.3, 0.1], jnp.float64)[None, None, :]
        start = lambda key, n: shape * nn.initializers.normal(1.0)(key, (n, 3, 3), jnp.float64)
        factors = self.param("factors", start, self.tensors)
        products = factors @ jnp.swapaxes(factors, 1, 2)
        own = products / jnp.trace(products, axis1=1, axis2=2)[:, None, None]
        turned = jnp.einsum("gij,kjl,gml->gkim", rotations, own, rotations)
        return Orbits(turned, jnp.eye(self.tensors, dtype=jnp.float64))


class StructuralTensors(nn.Module):
    """Invariants from structural tensors: sums over the directions that the crystal's rotations make of given ones.

    The invariants are powers p of tr C / 3 and tr cof C / 3, and of each direction a the means of |F a|^2p and |cof F a|^2p
    over its images. For a cubic crystal and a = [100], p = 2 these are the fourth-order invariants of Schröder, Neff and
    Ebbing, J. Mech. Phys. Solids 56, 3486 (2008). The network is called once, but a few directions need not tell all
    deformations that the crystal tells apart. Without directions the law is isotropic.

    Raises:
        ValueError: a direction of length zero, or a power that is not a positive integer.
    """

    directions: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0))
    """Directions in the Cartesian frame of the reference, of any length."""
    powers: tuple[int, ...] = (1, 2, 3)
    """Powers of the products |F a|^2."""

    def __call__(self, rotations: Float[Array, "rotations 3 3"]) -> Orbits:
        """Make the tensors, in one channel."""
        if not self.powers or min(self.powers) < 1:
            raise ValueError(f"powers {self.powers} must be positive integers, at least one")
        if any(not np.linalg.norm(a) > 0 for a in self.directions):
            raise ValueError(f"directions {self.directions}: one has length zero")
        count, kinds = len(rotations), len(self.directions)
        tensors = [jnp.eye(3, dtype=jnp.float64)[None] / 3]
        pooling = np.zeros((1 + kinds * count, 1 + kinds))
        pooling[0, 0] = 1
        for k, a in enumerate(self.directions):
            images = jnp.einsum("gij,j->gi", rotations, jnp.array(a, jnp.float64) / np.linalg.norm(a))
            tensors.append(images[:, :, None] * images[:, None, :])
            pooling[1 + k * count : 1 + (k + 1) * count, 1 + k] = 1 / count
        return Orbits(jnp.concatenate(tensors)[None], jnp.array(pooling))


def point_rotations(structure: Structure, symprec: float = 1e-4) -> Float[np.ndarray, "rotations 3 3"]:
    """Return the proper rotations of a crystal's Laue group, Cartesian and exactly a group: products are members to rounding.

    C, and so the energy, is the same for a rotation and for its product with the inversion: the rotations of the Laue group are
    those of the point group, each with determinant 1.

    Args:
        structure: Crystal in its reference state.
        symprec: Distance (Å) within which atoms count as images of each other.
    """
    found = operations(structure, symprec).rotations
    proper = found * np.sign(np.linalg.det(found))[:, None, None]
    _, first = np.unique(np.round(proper, 3) + 0.0, axis=0, return_index=True)
    return orthogonal(proper[np.sort(first)])


def orthogonal(group: Float[np.ndarray, "rotations 3 3"]) -> Float[np.ndarray, "rotations 3 3"]:
    """Make a matrix group that is orthogonal but for the tolerance of its cell exactly orthogonal, and still a group.

    With M the mean of R^T R, which no member changes, M^1/2 R M^-1/2 is orthogonal for every member R.
    """
    values, vectors = np.linalg.eigh(np.mean(np.swapaxes(group, 1, 2) @ group, axis=0))
    root, inverse = (vectors * values**p @ vectors.T for p in (0.5, -0.5))
    return root @ group @ inverse
