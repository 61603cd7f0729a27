"""The strain-energy density: a network of invariants, normalised so that the reference has neither energy nor stress."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.workflows.constitutive.network import Convex, Network, Unconstrained, value
from equipot.workflows.constitutive.symmetry import GroupAverage, Orbits, StructuralTensors

SMOOTHING = 1e-9
"""Square of the size of a stress, in units of the modulus, below which its norm is rounded off, so that it has a derivative."""


class Constants(NamedTuple):
    """What is known before training."""

    rotations: Float[Array, "rotations 3 3"]
    """Proper rotations of the crystal's Laue group; the identity alone for none."""
    scale: Float[Array, " inputs"]
    """Spread of each invariant, and of J as the last, over the training data."""
    modulus: Float[Array, ""]
    """Size of the elastic moduli, GPa: stress over strain of the training data."""


class Reference(NamedTuple):
    """Terms that make energy and stress vanish in the reference."""

    energy: Float[Array, ""]
    """Energy of the network at F = I, GPa."""
    tension: Float[Array, "3 3"]
    """Coefficients D of (C - I) / 2, positive semi-definite, GPa."""
    pressure: Float[Array, ""]
    """Coefficient s of 1 - J, GPa."""


class Density(nn.Module):
    """Strain-energy density W(F), GPa: energy per volume of the reference.

    W = N(invariants, J) + growth (J + 1/J - 2)^2 + D : (C - I) / 2 - s (J - 1) - N(I). With S the stress of N at F = I,
    s = tr S / 3 + |dev S| and D = s I - S, so that the stress at I is S + D - s I = 0. D is positive semi-definite and both
    terms are convex in F or J: the normalisation keeps polyconvexity for every symmetry (for isotropy it is that of Linden et
    al., J. Mech. Phys. Solids 179, 105363, 2023, from which the growth term is as well). Since W depends on C, F and cof F
    enter through products that do not change when the body is rotated.

    Raises:
        ValueError: a growth below zero.
    """

    symmetry: GroupAverage | StructuralTensors = GroupAverage()
    """How the crystal's symmetry is kept: an average over its rotations, or invariants of structural tensors."""
    network: Convex | Unconstrained = Unconstrained()
    """Form of the network, ``Convex`` for a polyconvex energy, ``Unconstrained`` for one that can also soften and become
    unstable, as crystals do at large strains: close to a crystal, a polyconvex law is a compromise."""
    growth: float = 0.01
    """First coefficient, in units of the modulus, of the growth of the energy as J goes to 0; the coefficient is trained but
    stays positive. 0 leaves the growth out."""

    def setup(self) -> None:
        if self.growth < 0:
            raise ValueError(f"growth {self.growth} must not be negative: the energy would fall without limit as J goes to 0")
        self.stiffening = self.param("stiffening", nn.initializers.zeros, (), jnp.float64)

    def invariants(
        self, orbits: Orbits, gradient: Float[Array, "3 3"], cofactor: Float[Array, "3 3"]
    ) -> Float[Array, "channels invariants"]:
        """Compute all invariants, each 1 in the reference: powers of those of C, then powers of those of cof C."""
        found = []
        for matrix in (gradient, cofactor):
            # One product of matrices: the pairs of indices are joined.
            square = jnp.reshape(matrix.T @ matrix, (1, 9))
            products = jnp.reshape(square @ jnp.reshape(orbits.tensors, (-1, 9)).T, orbits.tensors.shape[:2])
            found += [products**power @ orbits.pooling for power in self.symmetry.powers]
        return jnp.concatenate(found, axis=1)

    def spreads(self, constants: Constants, gradients: Float[Array, "n 3 3"]) -> Float[Array, " inputs"]:
        """Compute the root mean square of each invariant less 1, and of J - 1, over deformations."""
        orbits = self.symmetry(constants.rotations)
        each = lambda f: self.invariants(orbits, f, cofactor(f))
        x = jax.vmap(each)(gradients) - 1
        volume = jax.vmap(jnp.linalg.det)(gradients) - 1
        return jnp.sqrt(jnp.append(jnp.mean(x**2, axis=(0, 1)), jnp.mean(volume**2)))

    def __call__(
        self, constants: Constants, gradient: Float[Array, "3 3"], cofactor: Float[Array, "3 3"], volume: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Compute the energy before its normalisation, GPa, as a function of F, cof F and J that need not belong together."""
        orbits = self.symmetry(constants.rotations)
        x = (self.invariants(orbits, gradient, cofactor) - 1) / constants.scale[None, :-1]
        layers = self.network.layers(x.shape[1])
        volumes = jnp.full((len(x), 1), (volume - 1) / constants.scale[-1])
        energy = jnp.mean(value(layers, x, volumes))
        return constants.modulus * (energy + self.growth * jnp.exp(self.stiffening) * (volume + 1 / volume - 2) ** 2)

    def plain(self, constants: Constants) -> dict[str, Any]:
        """Return everything that the energy before its normalisation is computed from, as arrays and numbers; see ``plain``."""
        orbits = self.symmetry(constants.rotations)
        return {
            "tensors": orbits.tensors, "pooling": orbits.pooling, "powers": self.symmetry.powers, "scale": constants.scale,
            "modulus": constants.modulus, "growth": self.growth * jnp.exp(self.stiffening),
            "layers": self.network.layers(len(constants.scale) - 1),
        }  # fmt: skip


def cofactor(f: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Compute cof F = J F^-T, without a division."""
    return jnp.stack([jnp.cross(f[1], f[2]), jnp.cross(f[2], f[0]), jnp.cross(f[0], f[1])])


def reference(density: Density, params: Any, constants: Constants) -> Reference:
    """Compute the terms that normalise the energy."""
    energy, stress = jax.value_and_grad(lambda f: of_minors(density, params, constants, f, cofactor(f), det(f)))(identity())
    deviator = stress - jnp.trace(stress) / 3 * identity()
    rounded = jnp.sqrt(jnp.sum(deviator**2) + SMOOTHING * constants.modulus**2)
    pressure = jnp.trace(stress) / 3 + rounded
    return Reference(energy, pressure * identity() - stress, pressure)


def of_minors(
    density: Density, params: Any, constants: Constants, gradient: Array, cofactor: Array, volume: Array
) -> Float[Array, ""]:
    """Compute the energy before its normalisation, GPa, of F, cof F and J."""
    found: Array = density.apply({"params": params}, constants, gradient, cofactor, volume)  # type: ignore[assignment]
    return found


def normalised(
    density: Density, params: Any, constants: Constants, terms: Reference, minors: tuple[Array, Array, Array]
) -> Float[Array, ""]:
    """Compute the strain-energy density, GPa, of F, cof F and J, which need not belong together; infinite where J <= 0."""
    gradient, cofactor, volume = minors
    # The other branch is computed as well, and must stay finite for the derivatives.
    safe = jnp.where(volume > 0, volume, 1.0)
    stretch = gradient.T @ gradient - identity()
    raw = of_minors(density, params, constants, gradient, cofactor, safe)
    energy = raw - terms.energy + jnp.sum(terms.tension * stretch) / 2 - terms.pressure * (safe - 1)
    return jnp.where(volume > 0, energy, jnp.inf)


def det(f: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Compute det F."""
    return jnp.dot(f[0], jnp.cross(f[1], f[2]))


def identity() -> Float[Array, "3 3"]:
    """Return the deformation gradient of the reference."""
    return jnp.asarray(np.eye(3))


__all__ = [
    "Constants",
    "Density",
    "Network",
    "Reference",
    "cofactor",
    "det",
    "identity",
    "normalised",
    "of_minors",
    "reference",
]
