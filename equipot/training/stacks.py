"""Parameters in few arrays, those of one kind in one, which an optimiser then changes at once.

XLA compiles several kernels for each array that the optimiser changes; a network has some sixty, of some fifteen shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from equipot.training.orthogonal import has_matrices


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stacked:
    """Arrays of a tree in groups, see ``Stacks``: the result of ``Stacks.stack``."""

    arrays: dict[str, Any]
    """Array of each group, or what stands in its place where an optimiser leaves the group out."""


class Stacks:
    """The division of a tree of parameters into groups.

    Matrices of one shape, in the last two axes, are a group of shape (number, rows, columns). Arrays of two axes and more
    that hold no matrix are one of shape (number of elements, 1), those of fewer axes one of shape (number of elements). Thus
    each part of a group has what optimisers ask of an array: matrices, or two axes.

    Args:
        params: Tree of arrays; its structure and the shapes count.
        apart: Whether every array stays as it is, for optimisers that need the tree.
    """

    def __init__(self, params: Any, apart: bool = False) -> None:
        leaves, self.structure = jax.tree.flatten(params)
        self.shapes, self.part_shapes = [leaf.shape for leaf in leaves], [part_shape(leaf) for leaf in leaves]
        self.dtypes, self.apart = [leaf.dtype for leaf in leaves], apart
        self.groups: dict[str, list[int]] = {}
        for k, leaf in enumerate(leaves):
            self.groups.setdefault(f"{group_of(leaf)} {leaf.dtype}", []).append(k)

        @jax.custom_vjp
        def unstack(stacked: Stacked) -> Any:
            return self._divided(stacked)

        # JAX would add up one array as large as the group for each of its parts.
        unstack.defvjp(lambda stacked: (self._divided(stacked), None), lambda _, tree: (self.stack(tree),))
        self._unstack = unstack

    def stack(self, tree: Any) -> Any:
        """Return the arrays of a tree like ``params`` by group: on the host, if they are there."""
        if self.apart:
            return tree
        leaves = jax.tree.leaves(tree, is_leaf=left_out)
        arrays = {}
        for name, members in self.groups.items():
            parts = [leaves[k] for k in members]
            if left_out(parts[0]):
                arrays[name] = parts[0]
                continue
            xp: Any = np if all(isinstance(part, np.ndarray) for part in parts) else jnp
            arrays[name] = xp.concatenate([xp.reshape(part, (-1, *part_shape(part))) for part in parts])
        return Stacked(arrays)

    def factors(self, numbers: Any) -> Any:
        """Return one number for each array, a tree like ``params``, as arrays that broadcast to those of ``stack``."""
        if self.apart:
            return numbers
        leaves, arrays = jax.tree.leaves(numbers), {}
        for name, members in self.groups.items():
            parts = [self._parts(k) for k in members]
            ones = (1,) * len(self.part_shapes[members[0]])
            arrays[name] = np.repeat(np.array([leaves[k] for k in members], self.dtypes[members[0]]), parts).reshape(-1, *ones)
        return Stacked(arrays)

    def unstack(self, stacked: Any) -> Any:
        """Return the tree of a result of ``stack``. Derivatives are those of reverse mode alone."""
        return stacked if self.apart else self._unstack(stacked)

    def _parts(self, k: int) -> int:
        """Return the number of parts of array k in its group."""
        return int(np.prod(self.shapes[k])) // int(np.prod(self.part_shapes[k]))

    def _divided(self, stacked: Stacked) -> Any:
        leaves: list[Any] = [None] * len(self.shapes)
        for name, members in self.groups.items():
            group, begin = stacked.arrays[name], 0
            for k in members:
                leaves[k] = group
                if not left_out(group):
                    end = begin + self._parts(k)
                    leaves[k], begin = group[begin:end].reshape(self.shapes[k]), end
        return jax.tree.unflatten(self.structure, leaves)

    def unstack_state(self, state: Any) -> Any:
        """Return a state on the host with a tree in place of each result of ``stack``, the form that is written to files."""
        return jax.tree.map(lambda x: self._divided(x) if is_stacked(x) else x, state, is_leaf=is_stacked)

    def stack_state(self, like: Any, state: Any) -> Any:
        """Return a state of the form of ``unstack_state`` in the form of ``like``."""
        return jax.tree.map(lambda old, new: self.stack(new) if is_stacked(old) else new, like, state, is_leaf=is_stacked)


def is_stacked(x: Any) -> bool:
    """Return whether this is a result of ``Stacks.stack``."""
    return isinstance(x, Stacked)


def left_out(x: Any) -> bool:
    """Return whether this stands in place of arrays that an optimiser leaves to another."""
    return isinstance(x, optax.MaskedNode)


def part_shape(x: Any) -> tuple[int, ...]:
    """Return the shape of one part of an array in its group: that of its matrices, of a column, or of a number."""
    return tuple(x.shape[-2:]) if has_matrices(x) else (1,) if x.ndim >= 2 else ()


def group_of(x: Any) -> str:
    """Return the name of the group of an array."""
    return "x".join(map(str, part_shape(x))) or "numbers"
