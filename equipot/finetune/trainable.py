"""Choose the trained parameters of a potential: all, some, or low-rank changes of matrices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from equipot.arrays import AnyArray
from equipot.training.beginning import Trained
from equipot.training.config import FineTune


def trainable(params: Mapping[str, Any], settings: FineTune, species: Mapping[str, int], key: Array) -> Trained:
    """Choose the parameters to train, and make adapters for some of them.

    Args:
        species: axis of species or of heads of the arrays that have one, by path.
        key: random key of the adapters.

    Raises:
        ValueError: a pattern that matches no parameter, or nothing left to train.
    """
    leaves = flatten_dict(params, sep="/")
    chosen = list(leaves) if settings.train == "all" else select(leaves, settings.train, "model.train")
    factors = factors_of(leaves, settings.rates)
    chosen = [path for path in chosen if factors[path]]
    if not leaves:
        raise ValueError("nothing is trained: the base has no parameters; add a network to it")
    if not chosen:
        raise ValueError("nothing is trained: model.rates are 0 for all that model.train names; raise one")
    low = low_rank(leaves, chosen, settings, species)
    keys = dict(zip(low, jax.random.split(key, max(1, len(low))), strict=False))
    rank = 0 if settings.adapters is None else settings.adapters.rank
    make = lambda path: adapter(leaves[path], rank, keys[path]) if path in low else leaves[path]
    free = {path: make(path) for path in chosen}
    rates = {path: jax.tree.map(lambda _, f=factors[path]: f, part) for path, part in free.items()}
    return Trained(
        unflatten_dict(free, sep="/"),
        unflatten_dict(rates, sep="/") if any(factors[p] != 1 for p in chosen) else None,
        len(low),
    )


def low_rank(leaves: Mapping[str, Array], chosen: Collection[str], settings: FineTune, species: Mapping[str, int]) -> list[str]:
    """Choose the paths among ``chosen`` that are trained through adapters.

    Raises:
        ValueError: a pattern that matches no parameter, or no matrix that is larger than its adapter.
    """
    if settings.adapters is None:
        return []
    named = set(select(leaves, settings.adapters.parts, "model.adapters.parts")) & set(chosen)
    rank = settings.adapters.rank
    found = [path for path in chosen if path in named and is_matrix(leaves[path], species.get(path))]
    found = [path for path in found if rank * sum(leaves[path].shape[-2:]) < np.prod(leaves[path].shape[-2:])]
    if not found:
        raise ValueError(f"model.adapters: rank {rank} makes no trained matrix smaller; lower it, or leave adapters out")
    return found


def is_matrix(leaf: Array, axis: int | None) -> bool:
    """Whether the last two axes form a matrix; a table with a row per species, along ``axis``, is not a matrix."""
    return leaf.ndim >= 2 and (axis is None or axis < leaf.ndim - 2)


def adapter(matrix: Float[AnyArray, "*stack inputs outputs"], rank: int, key: Array) -> dict[str, Array]:
    """Make the factors of a low-rank change: random a (stack, inputs, rank), zero b (stack, rank, outputs)."""
    *stack, inputs, outputs = matrix.shape
    a = jax.random.normal(key, (*stack, inputs, rank), matrix.dtype)
    return {"a": a, "b": jnp.zeros((*stack, rank, outputs), matrix.dtype)}


def factors_of(paths: Collection[str], rates: Mapping[str, float]) -> dict[str, float]:
    """Find the factor on the learning rate of each path: that of the last matching pattern, else 1."""
    factors = dict.fromkeys(paths, 1.0)
    for pattern, factor in rates.items():
        factors |= dict.fromkeys(select(paths, (pattern,), "model.rates"), factor)
    return factors


def select(paths: Collection[str], patterns: Sequence[str], where: str) -> list[str]:
    """Select the paths that match a pattern, or lie below a matching path.

    Args:
        where: key of the config that holds the patterns, for messages.

    Raises:
        ValueError: a pattern that matches no path; the message lists the parts.
    """
    fits = lambda path, pattern: fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*")
    for pattern in patterns:
        if not any(fits(path, pattern) for path in paths):
            parts = ", ".join(dict.fromkeys(path.partition("/")[0] for path in paths))
            deepest = max(paths, key=lambda path: path.count("/"))
            raise ValueError(f"{where}: {pattern!r} fits no parameter; there are {parts}, and below them such as {deepest}")
    return [path for path in paths if any(fits(path, pattern) for pattern in patterns)]
