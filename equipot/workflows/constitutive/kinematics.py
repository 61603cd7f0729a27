"""Deformation gradients and stresses of finite elasticity, in numpy.

F maps a vector of the reference to the deformed body, x = F X; C = F^T F is the right Cauchy-Green tensor, J = det F, and
H = (ln C) / 2 the Hencky strain. Textbook: Bonet and Wood, Nonlinear Continuum Mechanics for Finite Element Analysis (2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class StrainRange:
    """Range of deformations: bounds of the two parts of the Hencky strain.

    Raises:
        ValueError: a bound that is not positive, or so large that a cell collapses.
    """

    shear: float = 0.12
    """Largest absolute principal value of the part of the Hencky strain without trace."""
    volume: float = 0.15
    """Largest absolute logarithm of J, the ratio of the volumes."""

    def __post_init__(self) -> None:
        for name in ("shear", "volume"):
            value = float(getattr(self, name))
            if not 0 < value <= 1:
                raise ValueError(f"{name} {value} must be above 0 and at most 1: it is a logarithmic strain")

    def distance(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
        """Measure deformations in units of the range: 0 for none, 1 at the edge of the range, more outside of it."""
        shear, volume = parts(gradients)
        return np.maximum(shear / self.shear, np.abs(volume) / self.volume)


def parts(gradients: Float[np.ndarray, "n 3 3"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the largest absolute principal value of the traceless Hencky strain, and ln J."""
    check(gradients)
    principal = np.log(np.linalg.eigvalsh(np.swapaxes(gradients, 1, 2) @ gradients)) / 2
    volume = principal.sum(axis=1)
    return np.abs(principal - volume[:, None] / 3).max(axis=1), volume


def range_of(gradients: Float[np.ndarray, "n 3 3"]) -> StrainRange:
    """Return the smallest range that holds all deformations.

    Raises:
        ValueError: deformations that have no shear or no change of volume, or a determinant that is not positive.
    """
    shear, volume = parts(gradients)
    largest = float(shear.max()), float(np.abs(volume).max())
    if min(largest) < 1e-6:
        what = "shear" if largest[0] < 1e-6 else "change of volume"
        raise ValueError(f"none of the {len(gradients)} deformations has a {what}: a law of all strains needs both")
    return StrainRange(*largest)


def check(gradients: Float[np.ndarray, "n 3 3"]) -> None:
    """Raise a ValueError unless all deformation gradients have a positive determinant."""
    lowest = float(np.linalg.det(gradients).min(initial=1.0))
    # Not `<=`, so that NaN is refused as well.
    if not lowest > 0:
        raise ValueError(
            f"a deformation gradient has the determinant {lowest:.3g}; it must be positive: no body is turned inside out"
        )


def exponential(symmetric: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Compute exp(H) of symmetric matrices: the stretch U with the Hencky strain H."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.exp(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)


def piola_of_cauchy(cauchy: Float[np.ndarray, "n 3 3"], gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Convert Cauchy stresses sigma to first Piola-Kirchhoff stresses P = J sigma F^-T, in the same unit."""
    check(gradients)
    inverse = np.swapaxes(np.linalg.inv(gradients), 1, 2)
    return np.linalg.det(gradients)[:, None, None] * cauchy @ inverse


def cauchy_of_piola(piola: Float[np.ndarray, "n 3 3"], gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Convert first Piola-Kirchhoff stresses P to Cauchy stresses sigma = P F^T / J, in the same unit."""
    check(gradients)
    return piola @ np.swapaxes(gradients, 1, 2) / np.linalg.det(gradients)[:, None, None]


def random_rotations(count: int, seed: int) -> Float[np.ndarray, "count 3 3"]:
    """Draw rotations from the uniform (Haar) distribution, as normalised quaternions of normal components."""
    from scipy.spatial.transform import Rotation

    q = np.random.default_rng(seed).normal(size=(count, 4))
    return Rotation.from_quat(q / np.linalg.norm(q, axis=1, keepdims=True)).as_matrix()


def unit_vectors(count: int) -> Float[np.ndarray, "count 3"]:
    """Return directions that cover half of the sphere evenly: a Fibonacci lattice with the three Cartesian axes."""
    k = np.arange(count - 3) + 0.5
    z, angle = k / (count - 3), np.pi * (1 + np.sqrt(5)) * k
    across = np.sqrt(1 - z**2)
    lattice = np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1)
    return np.concatenate([np.eye(3), lattice])


def lowest_acoustic(tangents: Float[np.ndarray, "n 3 3 3 3"], directions: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, " n"]:
    """Compute the lowest eigenvalue of the acoustic tensors Q_ik(N) = A_iJkL N_J N_L over directions N of the reference.

    The law is elliptic at a deformation (Legendre-Hadamard) where the value is not negative for any N; a negative one means
    that a plane wave grows, and that a finite-element solution depends on its mesh.

    Args:
        tangents: A_iJkL = dP_iJ / dF_kL, in the unit of the result.
        directions: unit vectors.
    """
    acoustic = np.einsum("nijkl,mj,ml->nmik", tangents, directions, directions, optimize=True)
    return np.linalg.eigvalsh((acoustic + np.swapaxes(acoustic, 2, 3)) / 2).min(axis=(1, 2))
