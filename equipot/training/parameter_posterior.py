"""Posterior of all parameters of a potential, given labelled structures, as functions of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from equipot.data.batch import Batch
from equipot.data.loader import Loader, plan_training, prefetch, prepare
from equipot.potential import Potential, evaluate
from equipot.quantities import LABELLED, Quantity
from equipot.structure import Structure
from equipot.training.loss import has_label, residuals
from equipot.training.step import with_params

LEAST = 1e-3
"""Smallest deviation of a label, as a share of its scale in the loss."""


@dataclass(frozen=True)
class ParameterPosterior:
    """Negative logarithm of a posterior of parameters, from batches of data.

    ``energy`` and ``gradient`` of a batch are estimates over all data: the part of the data is multiplied by the number of
    batches of an epoch.
    """

    start: Float[Array, " parameters"]
    """Parameters of the trained potential."""
    energy: Callable[[Float[Array, " parameters"], Any], Float[Array, ""]]
    """Negative logarithm of likelihood and prior, of parameters and a batch."""
    batches: Callable[[int], Iterator[Any]]
    """Batches of an epoch."""
    count: int
    """Number of batches of an epoch."""

    @property
    def gradient(self) -> Callable[[Float[Array, " parameters"], Any], Float[Array, " parameters"]]:
        """Derivative of ``energy`` by the parameters."""
        return jax.grad(self.energy)

    def curvature(self) -> Float[Array, " parameters"]:
        """Estimate the diagonal of the curvature at the start by the sum over data of squared gradients."""
        gradient, squares = jax.jit(self.gradient), jnp.zeros_like(self.start)
        for batch in self.batches(0):
            squares += gradient(self.start, batch) ** 2 / self.count
        return squares / self.count


def parameter_posterior(
    potential: Potential, structures: Sequence[Structure], batch_size: int, prior: float, seed: int
) -> tuple[ParameterPosterior, Callable[[Float[Array, " parameters"]], Potential]]:
    """Make the posterior of the parameters of a potential, and the function from parameters to a potential.

    Errors of energies (per atom), of components of forces and of stresses are normal, with the deviations of the errors that
    the potential has on the structures; energies count once for each atom. Labels of Hessians are not used. Parameters are
    normal, with deviation ``prior``.

    Raises:
        ValueError: there are no labels, or no parameters.
    """
    if not potential.params:
        raise ValueError(f"{type(potential.term).__name__} has no parameters of which samples could be drawn")
    potential.check(structures)
    energies = dict(potential.metadata.atomic_energies)
    frames = prepare(structures, potential.cutoff, potential.term.inner_cutoffs, extent=potential.extent(structures))
    wants = tuple(row for row in frames.quantities if row in LABELLED)
    if not wants:
        raise ValueError("there are no labels of energy, forces or stress, given which samples could be drawn")
    loader = plan_training(frames, energies, batch_size, 1, np.dtype(potential.dtype), seed)
    start, unravel = ravel_pytree(potential.params)
    made = lambda vector: with_params(potential, unravel(vector))
    names = tuple(row.name for row in wants)

    def errors(vector: Array, batch: Batch) -> dict[str, Array]:
        return residuals(evaluate(made(vector), batch.graph, names), batch, wants)

    count = len(loader.epoch(seed, 0))
    scales = deviations(start, jax.jit(errors), loader, wants, seed)

    def energy(vector: Array, batch: Batch) -> Array:
        found = errors(vector, batch)
        halves = jnp.zeros((), vector.dtype)
        for row in wants:
            square = jnp.sum((found[row.name] / scales[row.name]) ** 2, axis=tuple(range(1, found[row.name].ndim)))
            halves += 0.5 * jnp.sum(square * batch.targets.atoms if row.extensive else square)
        return count * halves + 0.5 * jnp.sum(vector**2) / prior**2

    def batches(epoch: int) -> Iterator[Batch]:
        for _, batch in prefetch(loader.epoch(seed, epoch), lambda chosen: built(loader, chosen)):
            yield batch

    return ParameterPosterior(start, energy, batches, count), made


def built(loader: Loader, chosen: np.ndarray) -> Batch:
    """Build a batch for one device."""
    return jax.tree.map(lambda x: x[0], loader.build(loader.shards(chosen)))


def deviations(
    start: Array, errors: Callable[[Array, Batch], dict[str, Array]], loader: Loader, wants: Sequence[Quantity], seed: int
) -> dict[str, float]:
    """Compute the root mean square error of each quantity, per atom where extensive, by name."""
    sums, counts = dict.fromkeys((row.name for row in wants), 0.0), dict.fromkeys((row.name for row in wants), 0)
    for chosen in loader.epoch(seed, 0):
        batch = built(loader, chosen)
        found = errors(start, batch)
        for row in wants:
            sums[row.name] += float(np.sum(np.square(np.asarray(found[row.name], np.float64))))
            counts[row.name] += int(np.sum(has_label(row, batch))) * row.size
    return {row.name: max(float(np.sqrt(sums[row.name] / max(counts[row.name], 1))), LEAST * row.scale) for row in wants}
