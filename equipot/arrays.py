"""Arrays of the host and of the device under one name, for annotations."""

from __future__ import annotations

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
"""NumPy's array on the host or JAX's on the device. Functions that compute on the device return ``jax.Array``."""
AnyNumber = jax.Array | np.ndarray | np.floating
"""``AnyArray``, or one of NumPy's numbers: the value of a single system, without axes."""
