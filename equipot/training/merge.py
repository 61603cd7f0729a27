"""Parameters of which a part is trained: by values of its own, or through low-rank changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


def merge(params: Any, trained: Any) -> Any:
    """The parameters with those that are trained in their places, adapters added to their matrices.

    ``trained`` has the form of ``params``, with what is not trained left out; in the place of a matrix it may hold an adapter,
    the factors ``a`` and ``b`` of W + a b / sqrt(rank).
    """
    if not isinstance(trained, Mapping):
        return trained
    if isinstance(params, Mapping):
        return {**params, **{name: merge(params[name], part) for name, part in trained.items()}}
    a, b = trained["a"], trained["b"]
    return params + jnp.matmul(a, b, precision="highest") / np.sqrt(b.shape[-2]).astype(params.dtype)
