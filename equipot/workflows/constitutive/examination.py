"""Examine a law: errors on unseen deformations, indifference to rotations, ellipticity."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.kinematics import StrainRange, lowest_acoustic, random_rotations, unit_vectors
from equipot.workflows.constitutive.law import Law
from equipot.workflows.constitutive.sampling import random_gradients

DIRECTIONS = 60
"""Directions in which waves are examined."""


@dataclass(frozen=True)
class Evaluated:
    """A law as a function of numpy arrays, like the classical ones of ``baselines``."""

    law: Law

    def energies(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
        """Compute W, GPa per volume of the reference."""
        with jax.enable_x64(True):
            return np.asarray(_energies(self.law, jnp.asarray(gradients)))

    def stresses(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Compute P = dW/dF, GPa."""
        with jax.enable_x64(True):
            return np.asarray(_stresses(self.law, jnp.asarray(gradients)))

    def tangents(self, gradients: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3 3 3"]:
        """Compute A_iJkL = dP_iJ / dF_kL, GPa."""
        with jax.enable_x64(True):
            return np.asarray(_tangents(self.law, jnp.asarray(gradients)))


_energies = jax.jit(lambda law, f: jax.vmap(law.energy)(f))
_stresses = jax.jit(lambda law, f: jax.vmap(law.stress)(f))
_tangents = jax.jit(lambda law, f: jax.vmap(law.tangent)(f))


@dataclass(frozen=True)
class StressError:
    """Errors of stresses and energies at some deformations."""

    stress: float
    """Root mean square error of the components of P, GPa."""
    relative: float
    """That over the root mean square of P."""
    largest: float
    """Largest error of a component, GPa."""
    energy: float | None
    """Root mean square error of W, GPa; None where energies are unknown."""


def error_of(energies: np.ndarray, stresses: np.ndarray, data: Deformations) -> StressError:
    """Compare energies (n,) and stresses (n, 3, 3), GPa, with those of data."""
    off = stresses - data.stresses
    size = float(np.sqrt(np.mean(off**2)))
    energy = None if data.energies is None else float(np.sqrt(np.mean((energies - data.energies) ** 2)))
    return StressError(size, size / float(np.sqrt(np.mean(data.stresses**2))), float(np.abs(off).max()), energy)


@dataclass(frozen=True)
class Indifference:
    """Largest changes under rotations, relative to the largest energy or stress."""

    energy: float
    """Of W(QF) - W(F), Q a rotation of the deformed body."""
    stress: float
    """Of P(QF) - Q P(F)."""
    symmetry: float
    """Of W(FR) - W(F), R a rotation of the crystal."""


def indifference(law: Law, bounds: StrainRange, count: int = 100, seed: int = 0) -> Indifference:
    """Rotate the body ``count`` times at random, and the crystal by each of its rotations, at as many random deformations."""
    f = random_gradients(bounds, count, seed)
    turns = random_rotations(count, seed + 1)
    own = np.asarray(law.constants.rotations)
    repeated = own[np.arange(count) % len(own)]
    functions = Evaluated(law)
    energies, stresses = functions.energies(f), functions.stresses(f)
    largest, strongest = np.abs(energies).max(), np.abs(stresses).max()
    return Indifference(
        float(np.abs(functions.energies(turns @ f) - energies).max() / largest),
        float(np.abs(functions.stresses(turns @ f) - turns @ stresses).max() / strongest),
        float(np.abs(functions.energies(f @ repeated) - energies).max() / largest),
    )


@dataclass(frozen=True)
class Ellipticity:
    """Lowest eigenvalues of acoustic tensors at random deformations and directions."""

    inside: float
    """Lowest inside the range of the training data, GPa."""
    lost_inside: float
    """Share of the deformations inside at which one is negative."""
    outside: float
    """Lowest outside the range, GPa."""
    lost_outside: float
    """Share of the deformations outside at which one is negative."""
    worst: Float[np.ndarray, "3 3"]
    """Deformation gradient of the lowest inside."""


def ellipticity(law: Law, bounds: StrainRange, reach: float, count: int = 200, seed: int = 0) -> Ellipticity:
    """Sample the Legendre-Hadamard condition at ``count`` deformations inside a range, and as many from there to ``reach``."""
    inside = np.concatenate([np.eye(3)[None], random_gradients(bounds, count - 1, seed)])
    outside = random_gradients(bounds, count, seed + 1, 1.0, reach)
    functions, directions = Evaluated(law), unit_vectors(DIRECTIONS)
    lowest, beyond = (lowest_acoustic(functions.tangents(f), directions) for f in (inside, outside))
    # Rounding of the tangent must not count.
    limit = -1e-10 * float(np.abs(law.plain()["modulus"]))
    return Ellipticity(
        float(lowest.min()), float(np.mean(lowest < limit)), float(beyond.min()), float(np.mean(beyond < limit)),
        inside[np.argmin(lowest)],
    )  # fmt: skip
