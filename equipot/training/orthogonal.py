"""Orthogonalisation of the matrices of all arrays of a network at once, for the optimiser Muon.

Matrices of one shape are one stack, and the iteration is a loop: XLA takes seconds to compile the products of every iteration
of each of some thirty arrays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of the iteration, Jordan et al., kellerjordan.github.io/posts/muon, 2024."""
ITERATIONS = 5
"""Number of iterations."""


def has_matrices(x: Any) -> bool:
    """Return whether the last two axes of an array are a matrix."""
    return x.ndim >= 2 and min(x.shape[-2:]) > 1


def orthogonalized(tree: Any) -> Any:
    """Orthogonalise the matrices in the last two axes of arrays, and keep the root mean square of their elements at one.

    Args:
        tree: Tree of arrays; every matrix has the Frobenius norm sqrt(max(rows, columns)). Other arrays are returned unchanged.
    """
    leaves, structure = jax.tree.flatten(tree)
    stacks: dict[tuple[int, int], list[int]] = {}
    for k, leaf in enumerate(leaves):
        if has_matrices(leaf):
            rows, columns = sorted(leaf.shape[-2:])
            stacks.setdefault((rows, columns), []).append(k)
    for shape, members in stacks.items():
        # Rows are fewer than columns, so that the product with the transpose is the smaller one.
        tall = [leaves[k].shape[-2] > leaves[k].shape[-1] for k in members]
        wide = [leaves[k].mT if turned else leaves[k] for k, turned in zip(members, tall, strict=True)]
        scale = float(shape[1]) ** 0.5
        stack = scale * newton_schulz(jnp.concatenate([x.reshape(-1, *shape) for x in wide]) / scale)
        ends = np.cumsum([x.size // (shape[0] * shape[1]) for x in wide])[:-1]
        for k, turned, x, made in zip(members, tall, wide, jnp.split(stack, ends), strict=True):
            leaves[k] = made.reshape(x.shape).mT if turned else made.reshape(x.shape)
    return jax.tree.unflatten(structure, leaves)


def newton_schulz(x: Float[Array, "stack rows columns"]) -> Float[Array, "stack rows columns"]:
    """Iterate X <- a X + (b A + c A A) X with A = X X^T, from matrices of Frobenius norm one: singular values approach one."""
    a, b, c = COEFFICIENTS

    def step(_: Any, x: Array) -> Array:
        square = x @ x.mT
        return a * x + (b * square + (c * square) @ square) @ x

    return jax.lax.fori_loop(0, ITERATIONS, step, x)
