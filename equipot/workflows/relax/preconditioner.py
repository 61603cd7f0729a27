"""The inverse of the model Hessian of a batch: what steps are multiplied with before any curvature is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.workflows.relax.coordinates import Coordinates, Landscape
from equipot.workflows.relax.valence import Internals, Valence, rows_of_model, solver


class Inverse(NamedTuple):
    """Inverse of the model Hessian of a batch at a point."""

    multiply: Callable[[Coordinates], Coordinates]
    """Multiply a gradient (eV/Å) with the inverse (Å^2/eV)."""
    curvature: Float[Array, " graphs"]
    """Mean curvature of the model of each system, eV/Å^2."""
    modelled: Bool[Array, " graphs"]
    """Whether a system has stretches, bends or torsions, whose curvatures are known to about a factor of two."""


def inverse_of_model(landscape: Landscape, at: Coordinates, valence: Valence | None, curvature: float) -> Inverse:
    """Invert the model Hessian at a point.

    Systems without stretches, bends and torsions have the inverse of ``curvature`` (eV/Å^2) instead of a model.
    """
    internals = landscape.internals
    same = jnp.full_like(at.strain[:, 0, 0], curvature)
    if internals is None or valence is None:
        return Inverse(lambda x: landscape.scaled(1 / same, x), same, jnp.zeros(same.shape, bool))
    slopes = _slopes(landscape, at, internals, valence)
    unit = jnp.eye(slopes.shape[-1], dtype=slopes.dtype)
    solve = solver(jnp.einsum("gia,gib->gab", slopes, slopes, precision="highest") + valence.floor * unit[None])
    modelled = jnp.any(internals.kind != 0, axis=1)[:, None, None]

    def invert(x: Coordinates) -> Coordinates:
        graphs, most = internals.rows.shape
        dense = x.positions.at[internals.rows].get(mode="fill", fill_value=0).reshape(graphs, -1)
        strain = x.strain.reshape(graphs, -1)
        found = solve(jnp.concatenate([dense, strain], axis=1) if landscape.moves_cells else dense)
        moved = found[:, : 3 * most].reshape(graphs, most, 3)
        positions = (x.positions / curvature).at[internals.rows].set(moved, mode="drop")
        strained = found[:, 3 * most :].reshape(x.strain.shape) if landscape.moves_cells else x.strain
        return landscape.project(Coordinates(positions, jnp.where(modelled, strained, x.strain / curvature)))

    mean = jnp.sum(slopes**2, axis=(1, 2)) / (3 * landscape.lengths**2) + valence.floor
    return Inverse(invert, jnp.where(modelled[:, 0, 0], mean, same), modelled[:, 0, 0])


def _slopes(
    landscape: Landscape, at: Coordinates, internals: Internals, valence: Valence
) -> Float[Array, "graphs internals size"]:
    """Compute sqrt(k) dq/dx of all internal coordinates q by the coordinates x of each system, those that may move."""
    bounds = landscape.bounds
    by_atoms, by_strain = rows_of_model(internals, landscape.placed(at), valence)
    graphs, count = internals.kind.shape
    free = bounds.free.at[internals.rows].get(mode="fill", fill_value=False)
    if not landscape.moves_cells:
        return jnp.where(free[:, None], by_atoms, 0).reshape(graphs, count, -1)
    # r = u F: a slope by u is that by r, times F^T.
    by_atoms = jnp.einsum("giaj,gyj->giay", by_atoms, landscape.deformation(at.strain), precision="highest")
    by_atoms = jnp.where(free[:, None], by_atoms, 0)
    by_strain = by_strain.reshape(graphs, count, 9) / landscape.lengths[:, None, None]
    by_strain = jnp.einsum("gab,gib->gia", bounds.strains, by_strain, precision="highest")
    return jnp.concatenate([by_atoms.reshape(graphs, count, -1), by_strain], axis=-1)
