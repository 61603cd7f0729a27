"""Real-space force constants of a supercell: exact derivatives of the forces, or finite displacements.

Force constants are Phi[i, j, a, b] = d^2E / dr_ia dr_jb (eV/Å^2), for the atoms i of one primitive cell and all atoms j of the
supercell: the layout that phonopy calls compact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.data.batch import pad
from equipot.evaluation import evaluate_each, not_finite
from equipot.evaluation.batched import SLOTS, SLOTS_PER_CORE
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.potential import Potential
from equipot.second_derivatives import hessian_vector_product
from equipot.structure import Structure


@dataclass(frozen=True)
class Exact:
    """Force constants from exact derivatives: three Hessian-vector products for each atom of the primitive cell."""

    batch_size: int | None = None
    """Hessian-vector products computed at once; None to choose by the size of the supercell."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1; leave it out to have it chosen")

    def rows(self, potential: Potential, supercell: Structure, phonon: Any) -> Float[np.ndarray, "primitive atoms 3 3"]:
        """Compute the force constants (eV/Å^2) between the atoms of phonopy's primitive cell and all of its supercell."""
        return exact_rows(potential, supercell, phonon.primitive.p2s_map.tolist(), self.batch_size)

    def hessian(self, potential: Potential, structure: Structure) -> Float[np.ndarray, "atoms 3 atoms 3"]:
        """Compute the whole Hessian of a structure, eV/Å^2."""
        return exact_rows(potential, structure, range(len(structure)), self.batch_size).transpose(0, 2, 1, 3)


@dataclass(frozen=True)
class Displacements:
    """Force constants from finite displacements of the atoms that differ by symmetry, chosen and put together by phonopy."""

    distance: float = 0.01
    """Length of a displacement, Å."""

    def __post_init__(self) -> None:
        if not 0 < self.distance < 0.5:
            raise ValueError(f"distance {self.distance:g} Å of a displacement must be between 0 and 0.5 Å; 0.01 is usual")

    def rows(self, potential: Potential, supercell: Structure, phonon: Any) -> Float[np.ndarray, "primitive atoms 3 3"]:
        """Compute the force constants (eV/Å^2) as ``Exact.rows`` does; displacements and forces are left in ``phonon``."""
        phonon.generate_displacements(distance=self.distance)
        moved = [supercell.replace(positions=cell.positions) for cell in phonon.supercells_with_displacements]
        phonon.forces = np.stack([np.asarray(out.forces) for out in evaluate_each(potential, moved, ("forces",))])
        phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
        return np.array(phonon.force_constants)

    def hessian(self, potential: Potential, structure: Structure) -> Float[np.ndarray, "atoms 3 atoms 3"]:
        """Compute the whole Hessian of a structure (eV/Å^2) by central differences of the forces."""
        n = len(structure)
        steps = self.distance * np.eye(3 * n).reshape(3 * n, n, 3)
        moved = [structure.replace(positions=structure.positions + step) for step in (*steps, *-steps)]
        forces = np.stack([np.asarray(out.forces) for out in evaluate_each(potential, moved, ("forces",))])
        return (forces[3 * n :] - forces[: 3 * n]).reshape(n, 3, n, 3) / (2 * self.distance)


def exact_rows(
    potential: Potential, structure: Structure, atoms: Sequence[int], batch_size: int | None = None
) -> Float[np.ndarray, "rows atoms 3 3"]:
    """Compute rows of the Hessian by exact derivatives of the forces: d^2E / dr_ia dr_jb (eV/Å^2), [i, j, a, b].

    Never the whole Hessian: the work is three Hessian-vector products for each row.

    Args:
        potential: Potential, in the precision of the result.
        structure: Structure, for force constants a supercell.
        atoms: atoms i, as indices of the structure.
        batch_size: products computed at once; None to choose by the number of neighbour slots.

    Raises:
        ValueError: an unknown element, or a result that is not finite.
    """
    potential.check([structure])
    graph = pad([structure], potential.cutoff, dtype=potential.dtype, extent=potential.extent([structure]))
    bare = potential.replace(metadata=Metadata(), variables=potential.variables)
    chosen = np.repeat(np.asarray(atoms, int), 3), np.tile(np.arange(3), len(atoms))
    size = _batch(graph) if batch_size is None else batch_size
    columns = np.asarray(_columns(bare, graph, *chosen, batch_size=min(size, len(chosen[0]))))
    if not np.isfinite(columns).all():
        raise ValueError(not_finite(structure))
    return columns.reshape(len(atoms), 3, len(structure), 3).transpose(0, 2, 1, 3)


@partial(jax.jit, static_argnames="batch_size")
def _columns(potential: Potential, graph: Graph, atom: Array, axis: Array, batch_size: int) -> Float[Array, "rows atoms 3"]:
    """Compute the columns of the Hessian (eV/Å^2) that belong to displacements of atoms along Cartesian axes."""

    def column(index: tuple[Array, Array]) -> Float[Array, "atoms 3"]:
        direction = jnp.zeros((graph.num_atoms, 3), graph.dtype).at[index].set(1)
        return hessian_vector_product(potential, graph, direction)

    return jax.lax.map(column, (atom, axis), batch_size=batch_size)


def _batch(graph: Graph) -> int:
    """Choose how many Hessian-vector products of a graph are useful at once."""
    useful = SLOTS_PER_CORE if jax.devices()[0].platform == "cpu" else SLOTS
    return max(1, useful // (graph.num_atoms * graph.num_slots))


@dataclass(frozen=True)
class Checks:
    """What is not right about force constants before they are made symmetric, and how far they reach."""

    sum_rule: float
    """Largest violation of the acoustic sum rule, |sum_j Phi[i, j, a, b]|, eV/Å^2."""
    largest: float
    """Largest element, eV/Å^2."""
    boundary: float
    """Largest norm of Phi[i, j] of atoms near the boundary of the supercell over the largest of all neighbours."""
    boundary_distance: float
    """Distance (Å) from which atoms count as near to the boundary: 0.9 of the radius of the supercell's inscribed sphere of
    lattice vectors, or the farthest atom where there is none so far."""


def check(
    rows: Float[np.ndarray, "primitive atoms 3 3"], distances: Float[np.ndarray, "primitive atoms"], radius: float
) -> Checks:
    """Measure the violation of the acoustic sum rule, and whether force constants have decayed at the boundary.

    Args:
        rows: force constants as computed, eV/Å^2.
        distances: distance of each pair by the nearest image, Å; zero for an atom and itself.
        radius: half of the shortest lattice vector of the supercell, Å.
    """
    drift = float(np.abs(rows.sum(axis=1)).max())
    norm = np.linalg.norm(rows, axis=(2, 3))
    others = distances > 1e-3
    if not others.any():
        # Nothing but the atom itself: no force constant has had room to decay.
        return Checks(drift, float(np.abs(rows).max()), 1.0, radius)
    start = min(0.9 * radius, float(distances.max()) - 1e-3)
    return Checks(drift, float(np.abs(rows).max()), float(norm[distances >= start].max() / norm[others].max()), start)
