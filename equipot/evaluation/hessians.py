"""Hessians of a potential: products with directions, in training and for labels, and whole matrices of many systems.

No matrix is made where products do: a product is the forward derivative of the forces along a direction, computed together with
the energy and the forces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot import hessian_labels
from equipot.data.batch import Shape, find_slots, pad, smallest_shape
from equipot.data.plan import rung
from equipot.evaluation import not_finite
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.observables import Observables
from equipot.potential import Potential, evaluate
from equipot.quantities import FORCES, HESSIAN
from equipot.second_derivatives import hessian_vector_product
from equipot.structure import Structure

TOGETHER = 16
"""Largest number of products that are computed at once."""


def evaluate_along(
    potential: Potential, graph: Graph, want: tuple[str, ...], directions: Float[Array, "atoms 3"]
) -> Observables:
    """Compute what ``potential.evaluate`` does, and the product of each graph's Hessian with a direction.

    The product H d (atoms, 3), in eV/Å^2 times the unit of the directions, is under ``Observables[HESSIAN]``. Forces come
    from the same pass, as the value whose forward derivative is -H d: the cost beside that of forces is one forward derivative
    for all graphs, whatever their number of atoms.
    """
    names = tuple(dict.fromkeys((*want, FORCES.name)))

    def at(positions: Array) -> tuple[Array, Observables]:
        moved = graph.replace(positions=positions, positions_residual=graph.positions_residual)
        found = evaluate(potential, moved, names)
        return jnp.asarray(found.forces), found

    _, slope, found = jax.jvp(at, (jnp.asarray(graph.positions),), (jnp.asarray(directions),), has_aux=True)
    return found.replace(others={**found.others, HESSIAN.name: -slope})


@jax.jit
def _products(potential: Potential, graph: Graph, directions: Float[Array, "k atoms 3"]) -> Float[Array, "k atoms 3"]:
    return jax.vmap(partial(hessian_vector_product, potential, graph))(directions)


def products(potential: Potential, structure: Structure, directions: Float[np.ndarray, "k atoms 3"]) -> np.ndarray:
    """Compute the products of the Hessian of a structure with directions: (K, atoms, 3), eV/Å^2 times their unit.

    Structures are padded to a few sizes, so that those of nearly one size share compiled programs.

    Raises:
        ValueError: an unknown element, or a result that is not finite.
    """
    potential.check([structure])
    found = find_slots(structure, potential.cutoff)
    need = smallest_shape([found])
    shape = Shape(rung(need.atoms), rung(need.slots), 1)
    graph = pad([structure], potential.cutoff, shape, potential.dtype, [found], extent=potential.extent([structure]))
    together = TOGETHER if len(directions) > TOGETHER else rung(len(directions))
    padded = np.zeros((-(-len(directions) // together) * together, shape.atoms, 3), potential.dtype)
    padded[: len(directions), : len(structure)] = directions
    # Metadata are static under jit: without them, potentials that differ in their origin share what is compiled.
    model = potential.replace(metadata=Metadata(), posterior=None)
    parts = [_products(model, graph, part) for part in np.split(padded, len(padded) // together)]
    out = np.concatenate([np.asarray(part, np.float64) for part in parts])[: len(directions), : len(structure)]
    if not np.isfinite(out).all():
        raise ValueError(not_finite(structure))
    return out


def hessian_matrix(potential: Potential, structure: Structure) -> np.ndarray:
    """Compute the Hessian of a structure (atoms, 3, atoms, 3), eV/Å^2, made symmetric: as ``evaluation.hessian_of``, but in one
    of a few padded sizes, for many structures.

    Raises:
        ValueError: as ``products``.
    """
    n = len(structure)
    square = products(potential, structure, np.eye(3 * n).reshape(-1, n, 3)).reshape(3 * n, 3 * n)
    return ((square + square.T) / 2).reshape(n, 3, n, 3)


def predicted_label(potential: Potential, structure: Structure, label: np.ndarray) -> np.ndarray:
    """Compute the Hessian of a structure in the form of a label: the whole matrix, or products with the same directions.

    Raises:
        ValueError: as ``products``.
    """
    if hessian_labels.is_whole(label):
        return hessian_matrix(potential, structure)
    return hessian_labels.of_products(label[:, 0], products(potential, structure, label[:, 0]))


def with_hessians(
    potential: Potential, references: Sequence[Structure], predictions: Sequence[Structure]
) -> Iterator[Structure]:
    """Iterate over predictions, with the Hessian as a further label where the reference has one, in the same form.

    Raises:
        ValueError: as ``products``.
    """
    for k, predicted in enumerate(predictions):
        reference = references[k]
        label = reference.labels.get(HESSIAN)
        yield predicted if label is None else predicted.replace(hessian=predicted_label(potential, reference, label))
