"""Merging of trained parameters, and of low-rank adapters, into the parameters of a potential."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


def merge(params: Any, trained: Any) -> Any:
    """Replace the trained parameters in a tree of parameters, and add adapters to their matrices.

    Args:
        params: Parameters, a nested mapping of arrays.
        trained: Part of such a tree with the trained arrays; in place of a matrix W there may be an adapter, a mapping with the
            factors ``a`` and ``b`` of W + a b / sqrt(rank).
    """
    if not isinstance(trained, Mapping):
        return trained
    if isinstance(params, Mapping):
        return {**params, **{name: merge(params[name], part) for name, part in trained.items()}}
    a, b = trained["a"], trained["b"]
    return params + jnp.matmul(a, b, precision="highest") / np.sqrt(b.shape[-2]).astype(params.dtype)
