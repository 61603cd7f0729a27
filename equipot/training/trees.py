"""Trees of parameters, nested dictionaries: by path, and with a part of them replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

Tree = Mapping[str, Any]


def overlay(params: Any, trained: Any) -> Any:
    """The parameters with those that are trained in their places, adapters added to their matrices.

    ``trained`` has the form of ``params``, with what is not trained left out; in the place of a matrix it may hold an adapter,
    the factors ``a`` and ``b`` of W + a b / sqrt(rank).
    """
    if not isinstance(trained, Mapping):
        return trained
    if isinstance(params, Mapping):
        return {**params, **{name: overlay(params[name], part) for name, part in trained.items()}}
    a, b = trained["a"], trained["b"]
    return params + jnp.matmul(a, b, precision="highest") / np.sqrt(b.shape[-2]).astype(params.dtype)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by path, such as ``interaction0/up/w0e``."""
    out = {}
    for name, part in tree.items():
        path = f"{prefix}{name}"
        out |= flatten(part, f"{path}/") if isinstance(part, Mapping) else {path: part}
    return out


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree
