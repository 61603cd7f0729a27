"""Energy, stress and tangent of a hyperelastic law in numpy, coded by hand.

The text of this file is the body of the modules that a law is exported to, so that it imports numpy alone. ``law`` is what
``Law.plain`` returns. F has any leading axes, (..., 3, 3); energies and stresses are in GPa.
"""

import numpy as np


def cofactors(F: np.ndarray) -> np.ndarray:
    """Compute cof F = det(F) F^-T, without a division: (..., 3, 3)."""
    rows = F[..., 0, :], F[..., 1, :], F[..., 2, :]
    return np.stack([np.cross(rows[1], rows[2]), np.cross(rows[2], rows[0]), np.cross(rows[0], rows[1])], axis=-2)


def softplus(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute log(1 + exp(x)) and its derivative, of real or complex x."""
    # exp of the negative one of x and -x does not overflow.
    below = np.exp(np.where(x.real > 0, -x, x))
    return np.where(x.real > 0, x, 0) + np.log(1 + below), np.where(x.real > 0, 1, below) / (1 + below)


def network(layers: list, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the value of a network, and its derivative by the inputs x (..., inputs), of which J is the last."""
    z, slopes = np.zeros(0), []
    for layer in layers:
        y = x[..., :-1] @ layer["input"] + x[..., -1:] @ layer["volume"]
        if layer is not layers[0]:
            y = y + z @ layer["hidden"]
        if layer is not layers[-1]:
            z, slope = softplus(y + layer["bias"])
            slopes.append(slope)
    by_output = np.ones_like(y)
    by_input = np.zeros_like(x)
    for k in range(len(layers) - 1, -1, -1):
        layer = layers[k]
        by_input = by_input + np.concatenate([by_output @ layer["input"].T, by_output @ layer["volume"].T], axis=-1)
        if k:
            by_output = by_output @ layer["hidden"].T * slopes[k - 1]
    return y[..., 0], by_input


def energy_and_stress(law: dict, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute W (...) and P (..., 3, 3), GPa, of real or complex F."""
    tensors, pooling, powers = law["tensors"], law["pooling"], law["powers"]
    K = cofactors(F)
    J = np.sum(F[..., 0, :] * K[..., 0, :], axis=-1)
    by_C = [np.einsum("...ji,...jk,gtik->...gt", M, M, tensors, optimize=True) for M in (F, K)]
    parts = [t**p @ pooling for t in by_C for p in powers]
    channels = len(tensors)
    volume = np.broadcast_to(J[..., None, None], (*J.shape, channels, 1))
    x = (np.concatenate([*parts, volume], axis=-1) - 1) / law["scale"]
    values, slopes = network(law["layers"], x)
    slopes = slopes / law["scale"] / channels
    # Derivatives by F as such, by the cofactor and by J; then all by F.
    by_matrix, wide = [], pooling.shape[1]
    for k, (M, t) in enumerate(zip((F, K), by_C, strict=True)):
        by_t = np.zeros_like(t)
        for j, p in enumerate(powers):
            first = (k * len(powers) + j) * wide
            by_t = by_t + slopes[..., first : first + wide] @ pooling.T * p * t ** (p - 1)
        by_matrix.append(2 * law["modulus"] * M @ np.einsum("...gt,gtij->...ij", by_t, tensors, optimize=True))
    growth = law["modulus"] * law["growth"]
    by_J = law["modulus"] * slopes[..., -1].sum(axis=-1) + growth * 2 * (J + 1 / J - 2) * (1 - 1 / J**2) - law["pressure"]
    stress = by_matrix[0] + F @ law["tension"] + by_J[..., None, None] * K + by_cofactor(F, by_matrix[1])
    C = np.swapaxes(F, -1, -2) @ F
    energy = law["modulus"] * values.mean(axis=-1) + growth * (J + 1 / J - 2) ** 2 - law["energy"]
    return energy + np.sum(law["tension"] * (C - np.eye(3)), axis=(-1, -2)) / 2 - law["pressure"] * (J - 1), stress


def by_cofactor(F: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Turn the derivative of a function by cof F into that by F: (..., 3, 3)."""
    rows, by = [F[..., k, :] for k in range(3)], [slope[..., k, :] for k in range(3)]
    # cof F has the rows F1 x F2, F2 x F0, F0 x F1, and the derivative of s . (a x b) is b x s by a, and s x a by b.
    return np.stack(
        [
            np.cross(by[1], rows[2]) + np.cross(rows[1], by[2]),
            np.cross(by[2], rows[0]) + np.cross(rows[2], by[0]),
            np.cross(by[0], rows[1]) + np.cross(rows[0], by[1]),
        ],
        axis=-2,
    )


def checked(F: np.ndarray) -> np.ndarray:
    """Return F as an array of double precision; refuse one that turns the body inside out."""
    F = np.asarray(F, np.float64)
    if F.shape[-2:] != (3, 3):
        raise ValueError(f"a deformation gradient has the shape (..., 3, 3), not {F.shape}")
    # Not `<=`, so that NaN is refused as well.
    if not np.all(np.linalg.det(F) > 0):
        raise ValueError(f"a deformation gradient has the determinant {np.linalg.det(F).min():.3g}; it must be positive")
    return F


def energy_of(law: dict, F: np.ndarray) -> np.ndarray:
    """Compute the energy W per volume of the reference, GPa (10^9 J/m^3): (...)."""
    return energy_and_stress(law, checked(F))[0]


def stress_of(law: dict, F: np.ndarray) -> np.ndarray:
    """Compute the first Piola-Kirchhoff stress P = dW/dF, GPa: (..., 3, 3)."""
    return energy_and_stress(law, checked(F))[1]


def cauchy_of(law: dict, F: np.ndarray) -> np.ndarray:
    """Compute the Cauchy stress P F^T / J, GPa: (..., 3, 3)."""
    F = checked(F)
    return stress_of(law, F) @ np.swapaxes(F, -1, -2) / np.linalg.det(F)[..., None, None]


def tangent_of(law: dict, F: np.ndarray) -> np.ndarray:
    """Compute the tangent A_iJkL = dP_iJ / dF_kL, GPa: (..., 3, 3, 3, 3).

    Derivatives are imaginary parts after an imaginary step, which have no error but rounding (Squire and Trapp, SIAM Rev. 40,
    110, 1998).
    """
    F = checked(F)
    tangent = np.empty((*F.shape, 3, 3))
    for k in range(3):
        for l in range(3):
            step = np.zeros((3, 3), complex)
            step[k, l] = 1e-30j
            tangent[..., k, l] = energy_and_stress(law, F + step)[1].imag / 1e-30
    return tangent


def distance_of(law: dict, F: np.ndarray) -> np.ndarray:
    """Measure deformations in units of the range of the training data, (...): more than 1 is outside, where nobody knows."""
    F = checked(F)
    principal = np.log(np.linalg.eigvalsh(np.swapaxes(F, -1, -2) @ F)) / 2
    volume = principal.sum(axis=-1)
    shear = np.abs(principal - volume[..., None] / 3).max(axis=-1)
    return np.maximum(shear / law["shear"], np.abs(volume) / law["volume"])
