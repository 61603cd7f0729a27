"""Orthogonalisation of the matrices of all arrays of a network at once, for the optimiser Muon.

Matrices of similar shapes are one stack, and the iteration is a loop: XLA takes seconds to compile the products of every
iteration of each of some thirty arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of the iteration, Jordan et al., kellerjordan.github.io/posts/muon, 2024."""
ITERATIONS = 5
"""Number of iterations."""
WASTE = 2
"""Largest number of elements of a matrix with its zeros over that without."""
SMALL = 1024
"""Number of elements up to which a matrix may have zeros, however small it is."""


def has_matrices(x: Any) -> bool:
    """Return whether the last two axes of an array are a matrix."""
    return x.ndim >= 2 and min(x.shape[-2:]) > 1


def orthogonalized(tree: Any) -> Any:
    """Orthogonalise the matrices in the last two axes of arrays, and keep the root mean square of their elements at one.

    Args:
        tree: Tree of arrays; every matrix has the Frobenius norm sqrt(max(rows, columns)). Other arrays are returned unchanged.
    """
    leaves, structure = jax.tree.flatten(tree)
    # Rows are fewer than columns, so that the product with the transpose is the smaller one.
    tall = [has_matrices(leaf) and leaf.shape[-2] > leaf.shape[-1] for leaf in leaves]
    wide = {k: leaf.mT if tall[k] else leaf for k, leaf in enumerate(leaves) if has_matrices(leaf)}
    for (rows, columns), members in padded_stacks({k: x.shape[-2:] for k, x in wide.items()}).items():
        parts = []
        for k in members:
            part = wide[k].reshape(-1, *wide[k].shape[-2:]) / float(wide[k].shape[-1]) ** 0.5
            parts.append(jnp.pad(part, ((0, 0), (0, rows - part.shape[1]), (0, columns - part.shape[2]))))
        stack = newton_schulz(jnp.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        for k, made in zip(members, jnp.split(stack, ends), strict=True):
            x = wide[k]
            made = float(x.shape[-1]) ** 0.5 * made[:, : x.shape[-2], : x.shape[-1]].reshape(x.shape)
            leaves[k] = made.mT if tall[k] else made
    return jax.tree.unflatten(structure, leaves)


def padded_stacks(shapes: Mapping[int, tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Choose which matrices are one stack: with rows and columns of zeros, which stay zero, all have the shape of the largest.

    Args:
        shapes: Numbers of rows and columns of the matrices.

    Returns:
        Numbers of rows and columns of each stack, with the keys of its matrices.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for key, shape in sorted(shapes.items(), key=lambda item: -item[1][0] * item[1][1]):
        most = max(WASTE * shape[0] * shape[1], SMALL)
        fitting = [s for s in found if s[0] >= shape[0] and s[1] >= shape[1] and s[0] * s[1] <= most]
        found.setdefault(fitting[-1] if fitting else shape, []).append(key)
    return found


def newton_schulz(x: Float[Array, "stack rows columns"]) -> Float[Array, "stack rows columns"]:
    """Iterate X <- a X + (b A + c A A) X with A = X X^T, from matrices of Frobenius norm one: singular values approach one."""
    a, b, c = COEFFICIENTS

    def step(_: Any, x: Array) -> Array:
        square = x @ x.mT
        return a * x + (b * square + (c * square) @ square) @ x

    return jax.lax.fori_loop(0, ITERATIONS, step, x)
