"""Fit a hyperelastic law to energies and stresses of deformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from equipot.workflows.constitutive.config import Training
from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.density import Constants, Density, cofactor, det, normalised, reference
from equipot.workflows.constitutive.kinematics import StrainRange, range_of
from equipot.workflows.constitutive.law import Law, Origin, started

Say = Callable[[int, int, str], None]
LEAST = 10
"""Deformations below which no law is fitted."""


class Fitted(NamedTuple):
    """A law and its training."""

    law: Law
    history: Float[np.ndarray, "lines 3"]
    """Steps done, loss on training and on validation deformations. A loss is the mean squared error of the stress over its mean
    square, and that of the energy with its weight."""
    validation: np.ndarray
    """Indices of the deformations that the law was chosen by."""


class Labels(NamedTuple):
    """Training data on the device."""

    gradients: Float[Array, "n 3 3"]
    stresses: Float[Array, "n 3 3"]
    """GPa."""
    energies: Float[Array, " n"]
    """GPa; zeros where unknown."""
    stress_weight: Float[Array, ""]
    """Weight of squared errors of stress components, 1 / GPa^2."""
    energy_weight: Float[Array, ""]
    """Weight of squared errors of energies, 1 / GPa^2; zero where energies are unknown."""


def fit(
    data: Deformations,
    rotations: Float[np.ndarray, "rotations 3 3"],
    density: Density | None = None,
    training: Training | None = None,
    *,
    bounds: StrainRange | None = None,
    source: str = "stress-strain data",
    say: Say | None = None,
) -> Fitted:
    """Fit a law to energies and stresses, the stresses being derivatives of the law's energy.

    Args:
        data: Energies and stresses at deformations from a reference without stress.
        rotations: Proper rotations of the material's symmetry, as of ``symmetry.point_rotations``; (1, 3, 3) identity for none.
        density: Form of the law; None for the default.
        training: Settings; None for the defaults.
        bounds: Range that the deformations were drawn from; None for the smallest range that holds them.
        source: Where the data come from, kept with the law.
        say: Called with the number of steps done, that of all, and figures.

    Raises:
        ValueError: too few deformations, deformations of one kind only, or a training that diverges.
    """
    density, training = density or Density(), training or Training()
    if len(data) < LEAST:
        raise ValueError(f"{len(data)} deformations are too few for a law; {LEAST} are the least, and some hundred are better")
    bounds = range_of(data.gradients) if bounds is None else bounds
    order = np.random.default_rng(training.seed).permutation(len(data))
    held = min(max(round(training.validation * len(data)), 1), len(data) - 1)
    with jax.enable_x64(True):
        known, other = labels(data.chosen(order[held:]), training), labels(data.chosen(order[:held]), training)
        # Both losses in the same units.
        other = other._replace(stress_weight=known.stress_weight, energy_weight=known.energy_weight)
        params, constants = start(density, rotations, known, training.seed)
        objective = lambda params, labels: loss(density, params, constants, labels)
        params, history = minimised(objective, params, (known, other), training, say or (lambda done, count, text: None))
        terms = reference(density, params, constants)
    return Fitted(Law(density, params, constants, terms, Origin(source, bounds, len(data))), history, order[:held])


def labels(data: Deformations, training: Training) -> Labels:
    """Move data to the device, with weights that make errors relative."""
    zero = np.zeros(len(data))
    energies = zero if data.energies is None else data.energies
    mean = np.mean(energies**2)
    weight = training.energy_weight / mean if mean > 0 else 0.0
    arrays = data.gradients, data.stresses, energies, 1 / np.mean(data.stresses**2), weight
    return Labels(*(jnp.asarray(array, jnp.float64) for array in arrays))


def start(density: Density, rotations: np.ndarray, known: Labels, seed: int) -> tuple[Any, Constants]:
    """Draw first parameters, and measure the scales of inputs and energy on the training data."""
    params, constants = started(density, rotations, seed)
    spread = density.apply({"params": params}, constants, known.gradients, method="spreads")
    strains = (jnp.swapaxes(known.gradients, 1, 2) @ known.gradients - jnp.asarray(np.eye(3))[None]) / 2
    modulus = jnp.sqrt(jnp.mean(known.stresses**2) / jnp.mean(strains**2))
    # The energy of an elastic body is of second order in the strain, and the inputs are of order one.
    return params, constants._replace(scale=spread, modulus=modulus * jnp.mean(strains**2) * 9)  # type: ignore[arg-type]


def loss(density: Density, params: Any, constants: Constants, labels: Labels) -> Float[Array, ""]:
    """Compute the weighted squared error of stresses and energies."""
    terms = reference(density, params, constants)
    energy = lambda f: normalised(density, params, constants, terms, (f, cofactor(f), det(f)))
    energies, stresses = jax.vmap(jax.value_and_grad(energy))(labels.gradients)
    return labels.stress_weight * jnp.mean((stresses - labels.stresses) ** 2) + labels.energy_weight * jnp.mean(
        (energies - labels.energies) ** 2
    )


def minimised(
    objective: Callable[[Any, Labels], Array], params: Any, data: tuple[Labels, Labels], training: Training, say: Say
) -> tuple[Any, np.ndarray]:
    """Minimise the loss on the first of two sets of data; return the best parameters by the loss on the second, and a history.

    Raises:
        ValueError: a loss that is not finite.
    """
    known, other = data
    losses = jax.jit(lambda p: (objective(p, known), objective(p, other)))
    first, second = map(float, losses(params))
    history, best, done = [(0, first, second)], (second, params), 0
    total = training.adam_steps + training.lbfgs_steps
    for transformation, steps in stages(training):
        advance = chunk(transformation, lambda p: objective(p, known), training.report_every)
        # Arrays with types of their own, as steps return them: otherwise the second call compiles again.
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), transformation.init(best[1]))
        end = done + steps
        params = best[1]
        while done < end:
            params, state = advance(params, state)
            done += training.report_every
            first, second = map(float, losses(params))
            if not np.isfinite(first + second):
                raise ValueError(
                    f"the training diverged after {done} steps; lower learning_rate, {training.learning_rate}, or look for "
                    "stresses in the data that do not belong to their deformations"
                )
            history.append((done, first, second))
            best = min(best, (second, params), key=lambda pair: pair[0])
            say(min(done, total), total, f"relative error {np.sqrt(first):.2e}, of validation {np.sqrt(second):.2e}")
    return best[1], np.array(history)


def stages(training: Training) -> list[tuple[Any, int]]:
    """List the optimisers with their numbers of steps."""
    found: list[tuple[Any, int]] = []
    if training.adam_steps:
        found.append(
            (optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.adam_steps)), training.adam_steps)
        )
    if training.lbfgs_steps:
        found.append((optax.lbfgs(memory_size=20), training.lbfgs_steps))
    return found


def chunk(transformation: Any, objective: Callable[[Any], Array], steps: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Compile some steps of an optimiser at once."""
    wide = optax.with_extra_args_support(transformation)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        value, slope = jax.value_and_grad(objective)(params)
        updates, state = wide.update(slope, state, params, value=value, grad=slope, value_fn=objective)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda params, state: jax.lax.scan(step, (params, state), None, length=steps)[0])
