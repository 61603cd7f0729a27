"""A hyperelastic law: energy, stresses and tangent of a material at a deformation gradient, kept in one file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot import config
from equipot.artifact import Kind, named_leaves, restored
from equipot.workflows.constitutive.density import Constants, Density, Reference, cofactor, det, identity, normalised, reference
from equipot.workflows.constitutive.kinematics import StrainRange

FILE = Kind("constitutive law", "constitutive law", 1, "fit the law again, or take an undamaged copy")


@dataclass(frozen=True)
class Origin:
    """Where a law comes from."""

    source: str
    """Potential and structure, or file of stress-strain data."""
    bounds: StrainRange
    """Range of the deformations that the law was trained on."""
    deformations: int
    """Number of them."""


@partial(jax.tree_util.register_dataclass, data_fields=["params", "constants", "terms"], meta_fields=["density", "origin"])
@dataclass(frozen=True, eq=False)
class Law:
    """A hyperelastic law W(F) of a material, GPa, with P = dW/dF; a pytree, whose functions can be traced by JAX.

    The functions take one deformation gradient (3, 3) in double precision; map them over many with ``jax.vmap``. W(QF) = W(F)
    for every rotation Q, W(FR) = W(F) for every rotation R of the crystal, and W and P are zero at F = I. W is infinite where
    det F <= 0, and its derivatives are NaN there.

    >>> law = fit(deformations, rotations).law
    >>> jax.vmap(law.stress)(gradients)
    """

    density: Density
    """Form of the law, with its hyper-parameters."""
    params: Any
    """Trained arrays of the form."""
    constants: Constants
    """Arrays of the form that are not trained."""
    terms: Reference
    """Terms that make energy and stress of the reference zero."""
    origin: Origin
    """Where the law comes from, and the range of its training data."""

    def energy(self, gradient: Float[Array | np.ndarray, "3 3"]) -> Float[Array, ""]:
        """Compute W, GPa per volume of the reference.

        Raises:
            ValueError: a deformation gradient in single precision, or where JAX computes in single precision.
        """
        f = jnp.asarray(gradient)
        if f.dtype != jnp.float64:
            raise ValueError(
                f"a constitutive law wants deformation gradients in double precision, not {f.dtype}; call "
                "jax.config.update('jax_enable_x64', True) first"
            )
        return normalised(self.density, self.params, self.constants, self.terms, (f, cofactor(f), det(f)))

    def stress(self, gradient: Float[Array | np.ndarray, "3 3"]) -> Float[Array, "3 3"]:
        """Compute the first Piola-Kirchhoff stress P = dW/dF, GPa."""
        return jax.grad(self.energy)(jnp.asarray(gradient))

    def cauchy(self, gradient: Float[Array | np.ndarray, "3 3"]) -> Float[Array, "3 3"]:
        """Compute the Cauchy stress P F^T / J, GPa, positive under tension."""
        f = jnp.asarray(gradient)
        return self.stress(f) @ f.T / det(f)

    def tangent(self, gradient: Float[Array | np.ndarray, "3 3"]) -> Float[Array, "3 3 3 3"]:
        """Compute the tangent A_iJkL = dP_iJ / dF_kL, GPa."""
        return jax.jacfwd(jax.grad(self.energy))(jnp.asarray(gradient))

    def elastic_tensor(self) -> Float[Array, "3 3 3 3"]:
        """Compute the elastic tensor of the reference, GPa: the tangent there, since the reference has no stress."""
        return self.tangent(identity())

    def plain(self) -> dict[str, Any]:
        """Return the law as numpy arrays and numbers, with which the functions of ``plain`` compute."""
        found = self.density.apply({"params": self.params}, self.constants, method="plain")
        bounds = self.origin.bounds
        whole = {**found, "shear": bounds.shear, "volume": bounds.volume, **self.terms._asdict()}  # type: ignore[dict-item]
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), whole | {"powers": None}) | {"powers": whole["powers"]}

    def export(self, path: str | Path) -> None:
        """Write the law as a Python module that needs numpy alone, see ``export.write_module``."""
        from equipot.workflows.constitutive.export import write_module

        write_module(path, self.plain(), self.origin.source)

    def save(self, path: str | Path) -> None:
        """Write the law to one file, without pickle, atomically; ``load`` reads it."""
        record = {"density": config.dump(self.density), "origin": asdict(self.origin)}
        FILE.write(path, record, named_leaves((self.params, self.constants)))

    @classmethod
    def load(cls, path: str | Path) -> Law:
        """Read a law from a file.

        Raises:
            DamagedError: a file that is cut short or was altered.
            ValueError: a file of another kind or a newer version.
            FileNotFoundError: no such file.
        """
        content = FILE.read(path)
        density = config.build(Density, content.record["density"])
        found = content.record["origin"]
        origin = Origin(found["source"], StrainRange(**found["bounds"]), found["deformations"])
        with jax.enable_x64(True):
            template = started(density, content.arrays["[1].rotations"], 0)
            params, constants = restored(
                template, content.arrays, f"{path}: does not fit its record {json.dumps(content.record)}"
            )
            params, constants = jax.tree.map(jnp.asarray, (params, constants))
            return cls(density, params, constants, reference(density, params, constants), origin)


def started(density: Density, rotations: np.ndarray, seed: int) -> tuple[Any, Constants]:
    """Draw random parameters of a law, and constants in which all scales are 1."""
    turns = jnp.asarray(rotations, jnp.float64)
    unscaled = Constants(turns, jnp.ones(inputs(density, turns)), jnp.ones(()))
    one = jnp.ones(())
    return density.init(jax.random.key(seed), unscaled, identity(), identity(), one)["params"], unscaled


def inputs(density: Density, rotations: Array) -> int:
    """Count the inputs of a law's network: invariants and J."""
    made = jax.eval_shape(lambda: density.symmetry.init_with_output(jax.random.key(0), rotations)[0].pooling)
    return 2 * len(density.symmetry.powers) * made.shape[1] + 1
