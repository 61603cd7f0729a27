"""Samples of the posterior as potentials of their own, through which the uncertainty of any result can be followed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.physics.committee import WEIGHTS
from equipot.posterior import Calibration
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.term import Atomic, Scope, Space, Term, call

CHANGE = "last_layer_change"


class Perturbed(Term):
    """A network with other weights of its last linear layer: E_i = E_i of ``unperturbed`` + f_i . w.

    The variables are those of ``unperturbed``, under the same names, and the constant ``last_layer_change`` [features], w.
    """

    own_constants: ClassVar[tuple[str, ...]] = (CHANGE,)
    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å; that of ``unperturbed``."""
    unperturbed: Term  # type: ignore[misc]  # the cutoff before it is for keywords only

    def __post_init__(self) -> None:
        object.__setattr__(self, "cutoff", self.unperturbed.cutoff)
        super().__post_init__()

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Those of ``unperturbed``."""
        return self.unperturbed.inner_cutoffs

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # of an object, where others have it of a class
        """Whether ``unperturbed`` has a correction for dispersion."""
        return self.unperturbed.has_dispersion

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # as ``has_dispersion``
        """What ``unperturbed`` needs."""
        return self.unperturbed.needs

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``has_dispersion``
        """What ``unperturbed`` provides."""
        return self.unperturbed.provides

    @property
    def longest_wave(self) -> float | None:
        return self.unperturbed.longest_wave

    def check(self, structure: Structure) -> None:
        self.unperturbed.check(structure)

    def scope_of(self, member: str) -> Scope:
        """That of the term itself."""
        return Scope(())

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"], space: Space | None = None) -> Atomic:
        nn.share_scope(self, self.unperturbed)
        answer = call(self.unperturbed, graph, vectors, space)
        assert answer.features is not None, "a posterior is of features"
        features = answer.features
        change = self.variable("constants", CHANGE, lambda: jnp.zeros(features.shape[1])).value
        return answer._replace(energy=answer.energy + features @ jnp.asarray(change, features.dtype))


def members(potential: Potential, by: str = "forces_std") -> list[Potential]:
    """Return the samples of the last layer, or the members of a committee about their mean, as potentials, to be used as any
    other: in relaxations, phonons or dynamics.

    The spread of a result over the members, about that of ``potential``, is its deviation, calibrated by those of ``by``. The
    floor of the calibration is not in it: it is of errors that the weights do not describe. All members have the same shape, so
    that ``equipot.evaluate_ensemble`` evaluates them at once.

    Args:
        by: deviation whose calibration scales the samples: energy_std, forces_std (the mean over elements) or stress_std.

    Raises:
        ValueError: the potential has no samples, or no such calibration.
    """
    changes, leaves = changes_of_weights(potential, by), flatten_dict(potential.variables)
    if count := potential.term.copies:
        # The energy of a committee is the product of its weights and the energies of its members.
        name, term, values = WEIGHTS, potential.term, 1 / count + changes - changes.mean(axis=1, keepdims=True)
    else:
        name, term, values = CHANGE, Perturbed(unperturbed=potential.term.clone()), changes
    each = [{**leaves, ("constants", name): jnp.asarray(row, potential.dtype)} for row in values]
    return [potential.replace(term=term, variables=unflatten_dict(variables)) for variables in each]


def changes_of_weights(potential: Potential, by: str) -> Float[np.ndarray, "members features"]:
    """Return changes w of the weights of the last layer whose energies f . w are those of the members less the energy of the
    potential; arguments and errors as ``members``."""
    if potential.posterior is None or not (potential.term.copies or "samples" in potential.posterior.arrays):
        raise ValueError("the potential has no samples of its last layer, and no members; make some by equipot.uncertainty.fit")
    if by not in potential.posterior.calibrations:
        known = ", ".join(potential.posterior.calibrations) or "none"
        raise ValueError(f"{by} is not calibrated; calibrated are {known}")
    scale = single_scale(potential.posterior.calibrations[by])
    if count := potential.term.copies:
        # The features are the members less their mean; the deviation has their number less one as its divisor.
        return scale * np.sqrt(count / (count - 1)) * np.eye(count)
    return scale * np.asarray(potential.posterior.arrays["samples"], np.float64)


def single_scale(calibration: Calibration) -> float:
    """Return the factor of a linear calibration; the mean square over elements, weighted by labelled frames.

    Raises:
        ValueError: the calibration is not linear, or the deviations explain none of the errors.
    """
    if float(calibration.power) != 1:
        raise ValueError(
            f"samples take a linear calibration, not the power {float(calibration.power):.2f}; calibrate by Linear"
        )
    scale = np.atleast_1d(np.asarray(calibration.scale, np.float64))
    weights = np.asarray(calibration.frames, np.float64)
    used = weights > 0
    found = float(np.sqrt(np.average(scale[used] ** 2, weights=weights[used])))
    if found == 0:
        raise ValueError(
            "the calibration found no relation of the deviations to the errors, and samples would have no spread; calibrate "
            "another deviation, or by Proportional"
        )
    return found
