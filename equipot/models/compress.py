"""Compression of a potential: its radial networks are tabulated as splines, which makes it faster at a stated deviation.

Forces are derivatives of the splines, so that energy is conserved as before. The precedent is the compression of DeePMD (Lu et
al., J. Chem. Theory Comput. 18, 5559 (2022), arXiv:2107.02103).
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

from equipot.geometry import Geometry
from equipot.graph import Graph
from equipot.models.network import Network
from equipot.nn.radial import CARDINAL, DEGREE, Splines
from equipot.potential import Potential, atomic
from equipot.term import walk

__all__ = ["Compressed", "compress"]

SAMPLES = 4
"""Number of distances in each interval to which the splines are fitted."""


class Compressed(NamedTuple):
    """A compressed potential and its deviation from the original potential."""

    potential: Potential
    weights: float
    """Largest deviation of a radial weight, relative to the largest weight of its layer."""
    slopes: float
    """Largest deviation of the derivative of a radial weight by the distance, relative to the largest slope of its layer."""


def compress(potential: Potential, intervals: int = Splines.intervals) -> Compressed:
    """Tabulate all radial weights of a potential as quintic splines of the distance; those of all networks that it is made of.

    Args:
        potential: Potential to compress.
        intervals: Number of intervals of the splines between zero and the cutoff.

    Raises:
        ValueError: the potential has no radial network, has one that depends on more than distance and species, or is
            compressed already.
    """
    networks = [term for term in walk(potential.term) if isinstance(term, Network)]
    if not networks:
        raise ValueError(f"{type(potential.term).__name__} has no radial network to tabulate")
    tables = [table for network in networks if (table := network.radial.table) is not None]
    if len(tables) == len(networks):
        raise ValueError(f"the potential is compressed already, on {tables[0].intervals} intervals")
    return _compressed(potential, intervals)


def _compressed(potential: Potential, intervals: int) -> Compressed:
    """Compress the networks that a potential is made of, frozen ones too, but for those that are compressed already."""
    if isinstance(potential.term, Network):
        return _tabulated(potential, intervals)
    weights = slopes = 0.0
    for name, member in potential.term.members.items():
        if any(isinstance(term, Network) and term.radial.table is None for term in walk(member)):
            part = _compressed(potential.member(name), intervals)
            potential = potential.with_member(name, part.potential)
            weights, slopes = max(weights, part.weights), max(slopes, part.slopes)
    return Compressed(potential, weights, slopes)


def _tabulated(potential: Potential, intervals: int) -> Compressed:
    """Tabulate the radial weights of one network."""
    term = potential.term
    radial = term.radial
    pairs = term.radial_weights_see_species
    splines = Splines(intervals, pairs)
    with jax.enable_x64(True):
        exact = potential.astype("float64")
        offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
        inside = (np.arange(intervals)[:, None] + offsets).reshape(-1) / intervals * potential.cutoff
        sampled = dict(_sample(exact, inside, pairs))
        if not sampled:
            kind = type(term).__name__
            raise ValueError(f"{kind} has no equipot.nn.tensor_product.Convolution, whose radial weights would be tabulated")
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
    """Compute the radial weights of each convolution and their derivatives by the distance, both [pairs, r, numel].

    Args:
        potential: Potential in float64.
        distances: Distances (Å).
        pairs: Whether to sample every ordered pair of species instead of a single pair.

    Yields:
        The path of a radial network among the variables, and (weights, derivatives).
    """
    elements = potential.term.elements
    count = len(elements) if pairs else 1
    numbers = np.repeat(elements[:count], count * len(distances)).reshape(count, -1)
    # Atom n is of species n; its slots point to atoms of every species, once for each distance.
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
                if context.module.needs_features:
                    raise ValueError("radial weights that depend on the features of atoms (Attention) cannot be tabulated")
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
    """Compute the B-splines at the sampled distances, or with ``slope`` their derivatives by r in units of the interval."""
    t = (np.arange(SAMPLES) + 0.5) / SAMPLES
    powers = np.arange(DEGREE + 1)
    monomials = powers * t[:, None] ** np.maximum(powers - 1, 0) if slope else t[:, None] ** powers
    local = monomials @ CARDINAL.T
    out = np.zeros((splines.intervals * SAMPLES, splines.rows))
    for k in range(splines.intervals):
        out[k * SAMPLES : (k + 1) * SAMPLES, k : k + DEGREE + 1] = local
    return out


def _fit(values: Float[np.ndarray, "pairs r numel"], splines: Splines) -> Float[np.ndarray, "pairs rows numel"]:
    """Fit the coefficients by least squares, with value, slope and curvature constrained to zero at the cutoff."""
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
    """Compute the largest deviations of the splines from ``values`` and ``slopes``, relative to the largest of these."""
    weight = np.abs(_basis(splines) @ table - values).max() / np.abs(values).max()
    slope = np.abs(_basis(splines, slope=True) @ table * splines.intervals / cutoff - slopes).max() / np.abs(slopes).max()
    return float(weight), float(slope)
