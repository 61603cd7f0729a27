"""A potential with its radial networks tabulated as splines: the same potential but for a stated deviation, and faster.

The splines are the model from then on: energies are conserved exactly as before. The precedent is the compression of DeePMD
(Lu et al., J. Chem. Theory Comput. 18, 5559 (2022), arXiv:2107.02103).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.models.network import Network
from equipot.nn.radial import CARDINAL, DEGREE, Splines
from equipot.nn.radial_network import EndpointMLP, RadialMLP, SpeciesMLP
from equipot.potential import Geometry, Potential, atomic

SAMPLES = 4
"""Distances in each interval to which the splines are fitted."""


class Compressed(NamedTuple):
    """What came out, and how far it is from what went in."""

    potential: Potential
    weights: float
    """Largest deviation of a radial weight, relative to the largest weight of its layer."""
    slopes: float
    """The same of their derivatives by the distance."""


def compress(potential: Potential, intervals: int = Splines.intervals) -> Compressed:
    """The potential with all radial weights as quintic splines on so many intervals.

    Raises:
        ValueError: the model has no radial weights that depend on distance and species alone, or it is compressed already.
    """
    term = potential.term
    if not isinstance(term, Network):
        raise ValueError(f"{type(term).__name__} has no radial network to tabulate")
    radial = term.radial
    if radial.table is not None:
        raise ValueError(f"the potential is compressed already, on {radial.table.intervals} intervals")
    pairs = term.radial_weights_see_species
    splines = Splines(intervals, pairs)
    with jax.enable_x64(True):
        exact = potential.astype("float64")
        offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
        inside = (np.arange(intervals)[:, None] + offsets).reshape(-1) / intervals * potential.cutoff
        sampled = dict(_sample(exact, inside, pairs))
        tables = {name: _fit(values, splines) for name, (values, _) in sampled.items()}
        found = [
            _deviation(tables[name], values, slopes, splines, potential.cutoff) for name, (values, slopes) in sampled.items()
        ]
    variables = flatten_dict(potential.variables, sep="/")
    kept = {path: leaf for path, leaf in variables.items() if not any(path.startswith(f"params/{name}/") for name in tables)}
    for name, table in tables.items():
        kept[f"constants/{name}/table"] = jnp.asarray(table.reshape(-1, table.shape[-1]), potential.dtype)
    changed = potential.replace(
        term=term.clone(radial=dataclasses.replace(radial, table=splines)), variables=unflatten_dict(kept, sep="/")
    )
    return Compressed(changed, max(weight for weight, _ in found), max(slope for _, slope in found))


def _sample(
    potential: Potential, distances: Float[np.ndarray, " r"], pairs: bool
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Radial weights [pairs, r, numel] of each convolution, by the path of its network, and their slopes."""
    elements = potential.term.elements
    count = len(elements) if pairs else 1
    numbers = np.repeat(elements[:count], count * len(distances)).reshape(count, -1)
    # Atom n is of species n; behind come atoms of all species, to which its slots point.
    slots = np.repeat(np.arange(count), len(distances))
    one = np.zeros(count, np.int32)
    graph = Graph(
        positions=None,
        numbers=jnp.asarray(elements[:count]),
        cell=jnp.zeros((1, 3, 3)),
        neighbors=jnp.asarray(np.tile(slots, (count, 1)), jnp.int32),
        shifts=jnp.zeros((count, len(slots), 3), jnp.int32),
        reverse=None,
        slot_mask=jnp.ones(numbers.shape, bool),
        node_mask=jnp.ones(count, bool),
        node_graph=jnp.asarray(one),
        graph_mask=jnp.ones(1, bool),
        charge=jnp.zeros(1),
        spin=jnp.zeros(1),
        head=jnp.zeros(1, jnp.int32) if potential.heads else None,
    )
    r = jnp.asarray(np.tile(distances, (count, count)))

    def weights(r: Array) -> dict[str, Array]:
        found: dict[str, Array] = {}

        def watch(following: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            result = following(*args, **kwargs)
            path = "/".join(context.module.path)
            if context.method_name == "network_of" and path.endswith("convolution/radial"):
                if isinstance(context.module, EndpointMLP):
                    raise ValueError("radial weights that depend on the features of atoms (Attention) cannot be tabulated")
                assert isinstance(context.module, RadialMLP | SpeciesMLP)
                found[path] = result(args[0])
            return result

        vectors = jnp.stack([r, jnp.zeros_like(r), jnp.zeros_like(r)], axis=-1)
        with nn.intercept_methods(watch):
            atomic(potential, graph, Geometry(vectors))
        return found

    # Slots do not depend on each other: one tangent gives all slopes.
    values, slopes = jax.jit(lambda r: jax.jvp(weights, (r,), (jnp.ones_like(r),)))(r)
    shape = lambda x: np.asarray(x).reshape(count * count, len(distances), -1)
    for path, value in values.items():
        yield path, (shape(value), shape(slopes[path]))


def _basis(splines: Splines, slope: bool = False) -> Float[np.ndarray, "r rows"]:
    """Basis functions, or their derivatives by r times the width of an interval, at the sampled distances."""
    t = (np.arange(SAMPLES) + 0.5) / SAMPLES
    powers = np.arange(DEGREE + 1)
    monomials = powers * t[:, None] ** np.maximum(powers - 1, 0) if slope else t[:, None] ** powers
    local = monomials @ CARDINAL.T
    out = np.zeros((splines.intervals * SAMPLES, splines.rows))
    for k in range(splines.intervals):
        out[k * SAMPLES : (k + 1) * SAMPLES, k : k + DEGREE + 1] = local
    return out


def _fit(values: Float[np.ndarray, "pairs r numel"], splines: Splines) -> Float[np.ndarray, "pairs rows numel"]:
    """Coefficients of the least deviation among those whose value, slope and curvature vanish at the cutoff."""
    # At a knot five basis functions do not vanish: the last three coefficients follow from the two before.
    conditions = np.array([[1, 26, 66, 26, 1], [-1, -10, 0, 10, 1], [1, 2, -6, 2, 1]], float)
    expand = np.zeros((splines.rows, splines.rows - 3))
    expand[:-3] = np.eye(splines.rows - 3)
    expand[-3:, -2:] = -np.linalg.solve(conditions[:, 2:], conditions[:, :2])
    pairs, _, numel = values.shape
    right = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    free = np.linalg.lstsq(_basis(splines) @ expand, right)[0]
    return np.moveaxis((expand @ free).reshape(splines.rows, pairs, numel), 0, 1)


def _deviation(
    table: np.ndarray, values: np.ndarray, slopes: np.ndarray, splines: Splines, cutoff: float
) -> tuple[float, float]:
    weight = np.abs(_basis(splines) @ table - values).max() / np.abs(values).max()
    slope = np.abs(_basis(splines, slope=True) @ table * splines.intervals / cutoff - slopes).max() / np.abs(slopes).max()
    return float(weight), float(slope)
