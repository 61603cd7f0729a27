"""Gated nonlinearity: an activation of scalars, a scalar gate times each higher irrep (NequIP, arXiv:2101.03164)."""

from __future__ import annotations

from collections.abc import Callable

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from equipot.nn.features import Features, regroup
from equipot.nn.radial import silu

SIGMOID_SCALE = 1.8462285453386051
"""1 / sqrt(E[sigmoid(x)^2]) for x ~ N(0, 1)."""
TANH_SCALE = 1.5925374197228312
"""1 / sqrt(E[tanh(x)^2]) for x ~ N(0, 1)."""


def gated_irreps(irreps: str) -> str:
    """Return the input irreps of a gate with output ``irreps``: one more invariant for every channel with l > 0."""
    gates = sum(mul for ir, mul in regroup(irreps).items() if ir.l > 0)
    return str((e3nn.Irreps(irreps) + e3nn.Irreps(f"{gates}x0e")).sort().irreps.simplify()) if gates else irreps


def sigmoid(x: Array) -> Array:
    """Sigmoid with unit second moment for normally distributed input."""
    return SIGMOID_SCALE * jax.nn.sigmoid(x)


def gate(x: Features, irreps: str, activation: Callable[[Array], Array] = silu) -> Features:
    """Apply SiLU to even scalars, tanh to odd scalars (which keeps their parity), and multiply all other irreps by gates.

    Args:
        x: Features with irreps ``gated_irreps(irreps)``; of the even scalars, the last ones are the gates.
        irreps: Output irreps.
        activation: Function applied to the gates.
    """
    wanted = regroup(irreps)
    even = e3nn.Irrep("0e")
    kept = wanted.get(even, 0)
    gates = activation(x[even][..., kept:])
    out: Features = {}
    start = 0
    for ir, mul in wanted.items():
        if ir == even:
            out[ir] = silu(x[ir][..., :kept])
        elif ir.l == 0:
            if ir in x:
                out[ir] = TANH_SCALE * jnp.tanh(x[ir])
        else:
            if ir in x:
                out[ir] = x[ir] * gates[..., start : start + mul]
            start += mul
    return out
