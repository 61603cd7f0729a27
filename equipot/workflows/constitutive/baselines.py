"""Classical hyperelastic laws to compare with: Saint Venant-Kirchhoff with a crystal's elastic tensor, and neo-Hooke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.kinematics import check


class Hyperelastic(Protocol):
    """A law in numpy."""

    def energies(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
        """Compute W, GPa per volume of the reference."""
        ...

    def stresses(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Compute P = dW/dF, GPa."""
        ...


@dataclass(frozen=True, eq=False)
class SaintVenantKirchhoff:
    """W = E : c : E / 2 with the Green-Lagrange strain E = (F^T F - I) / 2: linear elasticity at finite rotations."""

    tensor: Float[np.ndarray, "3 3 3 3"]
    """Elastic tensor c, GPa."""

    def energies(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
        """Compute W, GPa per volume of the reference."""
        strain = green_lagrange(gradients)
        return np.einsum("nij,ijkl,nkl->n", strain, self.tensor, strain, optimize=True) / 2

    def stresses(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Compute P = F (c : E), GPa."""
        return gradients @ np.einsum("ijkl,nkl->nij", self.tensor, green_lagrange(gradients))

    @classmethod
    def fitted(cls, data: Deformations, rotations: Float[np.ndarray, "rotations 3 3"]) -> SaintVenantKirchhoff:
        """Fit the elastic constants that a crystal's rotations allow to stresses, by least squares."""
        basis = invariant_tensors(rotations)
        columns = np.stack([cls(tensor).stresses(data.gradients).ravel() for tensor in basis], axis=1)
        weights, *_ = np.linalg.lstsq(columns, data.stresses.ravel(), rcond=None)
        return cls(np.einsum("b,bijkl->ijkl", weights, basis))


@dataclass(frozen=True)
class NeoHooke:
    """W = mu (tr C - 3 - 2 ln J) / 2 + lambda (ln J)^2 / 2, compressible and isotropic (Bonet and Wood, eq. 6.27)."""

    mu: float
    """Shear modulus, GPa."""
    lame: float
    """First Lamé constant lambda, GPa."""

    def energies(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
        """Compute W, GPa per volume of the reference."""
        check(gradients)
        volume = np.log(np.linalg.det(gradients))
        return self.mu * ((gradients**2).sum(axis=(1, 2)) - 3 - 2 * volume) / 2 + self.lame * volume**2 / 2

    def stresses(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Compute P = mu (F - F^-T) + lambda ln J F^-T, GPa."""
        check(gradients)
        inverse = np.swapaxes(np.linalg.inv(gradients), 1, 2)
        volume = np.log(np.linalg.det(gradients))[:, None, None]
        return self.mu * (gradients - inverse) + self.lame * volume * inverse

    @classmethod
    def fitted(cls, data: Deformations) -> NeoHooke:
        """Fit both constants to stresses, by least squares."""
        columns = np.stack([cls(*unit).stresses(data.gradients).ravel() for unit in ((1.0, 0.0), (0.0, 1.0))], axis=1)
        (mu, lame), *_ = np.linalg.lstsq(columns, data.stresses.ravel(), rcond=None)
        return cls(float(mu), float(lame))


def green_lagrange(gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Compute E = (F^T F - I) / 2."""
    return (np.swapaxes(gradients, 1, 2) @ gradients - np.eye(3)) / 2


def averaged(
    tensor: Float[np.ndarray, "3 3 3 3"], rotations: Float[np.ndarray, "rotations 3 3"]
) -> Float[np.ndarray, "3 3 3 3"]:
    """Average a tensor over rotations and over the exchanges of indices that leave an elastic tensor as it is."""
    t = (tensor + tensor.transpose(1, 0, 2, 3)) / 2
    t = (t + t.transpose(0, 1, 3, 2)) / 2
    t = (t + t.transpose(2, 3, 0, 1)) / 2
    return np.mean([np.einsum("ai,bj,ck,dl,ijkl->abcd", r, r, r, r, t, optimize=True) for r in rotations], axis=0)


def invariant_tensors(rotations: Float[np.ndarray, "rotations 3 3"]) -> Float[np.ndarray, "basis 3 3 3 3"]:
    """Return an orthonormal basis of the elastic tensors that rotations leave as they are: three for a cubic crystal."""
    units = np.eye(81).reshape(81, 3, 3, 3, 3)
    # 21 independent components stand for all 81.
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    chosen = [units[np.ravel_multi_index((*a, *b), (3,) * 4)] for k, a in enumerate(pairs) for b in pairs[k:]]
    spanned = np.array([averaged(unit, rotations).ravel() for unit in chosen])
    _, sizes, rows = np.linalg.svd(spanned, full_matrices=False)
    return rows[sizes > 1e-8 * sizes[0]].reshape(-1, 3, 3, 3, 3)


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Index pairs in Voigt's order."""


def voigt(tensor: Float[np.ndarray, "3 3 3 3"]) -> Float[np.ndarray, "6 6"]:
    """Write an elastic tensor in Voigt's notation, xx yy zz yz xz xy, GPa."""
    return np.array([[tensor[(*a, *b)] for b in VOIGT] for a in VOIGT])
