"""A model of the Hessian from stretches, bends and torsions, for steps that are good before any curvature has been seen.

R. Lindh, A. Bernhardsson, G. Karlström and P.-Å. Malmqvist, Chem. Phys. Lett. 241, 423 (1995): with

    rho_ij = exp(alpha_ij (r_ref,ij^2 - r_ij^2)),

a stretch has the force constant k_r rho_ij, a bend k_phi rho_ij rho_jk, a torsion k_tau rho_ij rho_jk rho_kl; the Hessian is
sum_q k_q (dq/dx)(dq/dx)^T. It knows chemical bonds; of metals, salts and noble gases, whose atoms do not touch within it,
it has nothing to say. Coordinates are found on the host when neighbour lists are made; force constants and derivatives
are those of the present geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.units import Bohr
from jaxtyping import Array, Float, Int

from equipot.arrays import AnyArray
from equipot.data.batch import Shape
from equipot.graph import Graph
from equipot.neighbors import Slots
from equipot.structure import Structure

ALPHA = np.array([[1.0, 0.3949, 0.3949], [0.3949, 0.28, 0.28], [0.3949, 0.28, 0.28]]) / Bohr**2
"""alpha by the rows of the periodic table of two atoms (H and He, Li to Ne, others), 1/Å^2."""
REFERENCE = np.array([[1.35, 2.10, 2.53], [2.10, 2.87, 3.40], [2.53, 3.40, 3.40]]) * Bohr
"""r_ref by the same rows, Å."""
NOBLE = (2, 10, 18, 36, 54, 86)
"""Elements without chemical bonds, however close their atoms are."""
FAINT = 0.1
"""Product of rho below which a stretch, bend or torsion is left out."""
LARGEST = 200
"""Number of atoms above which a system has no model: its matrix would cost more than it saves."""
STRETCH, BEND, LINEAR, ACROSS, TORSION = 1, 2, 3, 4, 5
"""Kinds of internal coordinates: a nearly straight angle bends in two directions. 0 is padding."""
STRAIGHT = 0.3
"""Sine of an angle below which it counts as nearly straight."""
BENT = 0.2
"""Least sine of the two angles in a torsion."""


@dataclass(frozen=True)
class Valence:
    """Force constants of the model Hessian; those of Lindh et al., but for torsions, which are twice as stiff.

    Raises:
        ValueError: a constant that is not positive.
    """

    stretch: float = 43.7
    """k_r, eV/Å^2."""
    bend: float = 4.08
    """k_phi, eV/rad^2."""
    torsion: float = 0.27
    """k_tau, eV/rad^2."""
    floor: float = 1.0
    """Curvature (eV/Å^2) that is added for all directions."""

    def __post_init__(self) -> None:
        for name in ("stretch", "bend", "torsion", "floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")

    def stiffness(self, kind: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the force constant of each kind of coordinate at rho = 1; 0 for padding."""
        return jnp.asarray([0.0, self.stretch, self.bend, self.bend, self.bend, self.torsion])[kind]


class Internals(NamedTuple):
    """Internal coordinates: of one structure on the host, without the axis of graphs, or of a batch.

    A coordinate is made of up to three vectors of the neighbour list: a from its centre, b from its centre, and c from the atom
    at the end of b. A stretch has a alone, a bend a and b, a torsion all three.
    """

    centre: Int[AnyArray, "graphs internals"]
    """Row of the atom at the centre."""
    slots: Int[AnyArray, "graphs internals 3"]
    """Slots of a, b and c; any slot where there is no such vector."""
    kind: Int[AnyArray, "graphs internals"]
    decay: Float[AnyArray, "graphs internals 3"]
    """alpha of a, b and c, 1/Å^2; 0 where there is no such vector."""
    reach: Float[AnyArray, "graphs internals 3"]
    """alpha r_ref^2 of a, b and c."""
    rows: Int[AnyArray, "graphs atoms_of_one"]
    """Rows of the atoms of each system; beyond the last row of the batch for padding."""


def internals_of(structure: Structure, slots: Slots) -> Internals:
    """Find stretches, bends and torsions of a structure in its neighbour slots; none if it has more than ``LARGEST`` atoms."""
    n = len(structure)
    if n > LARGEST:
        return _joined(n, [])
    at, width = structure.positions, slots.mask.shape[1]
    vectors = at[slots.neighbors] + slots.shifts @ structure.cell - at[:, None]
    row = _row(structure.numbers)
    decay = ALPHA[row[:, None], row[slots.neighbors]]
    reach = decay * REFERENCE[row[:, None], row[slots.neighbors]] ** 2
    bonding = ~np.isin(structure.numbers, NOBLE)
    there = slots.mask & bonding[:, None] & bonding[slots.neighbors]
    rho = np.where(there, np.exp(np.minimum(reach - decay * (vectors**2).sum(-1), 9.0)), 0)
    j, a = np.nonzero(rho > FAINT)
    once = j * width + a < slots.reverse[j, a]
    bonds = j[once], a[once]
    table = _Table(vectors, rho, decay, reach)
    parts = [_part(table, bonds[0], [(bonds[0], bonds[1])], STRETCH), *_bends(table, j, a), *_torsions(table, slots, bonds)]
    return _joined(n, parts)


class _Table(NamedTuple):
    """Vectors (atoms, slots, 3) of a structure, with rho, alpha and alpha r_ref^2 of each."""

    vectors: np.ndarray
    rho: np.ndarray
    decay: np.ndarray
    reach: np.ndarray


def _row(numbers: np.ndarray) -> np.ndarray:
    """Return the row of the tables for atomic numbers."""
    return (numbers > 2).astype(int) + (numbers > 10)


def _bends(table: _Table, j: np.ndarray, a: np.ndarray) -> list[Internals]:
    """Find angles at each atom j between two of its vectors; ``a`` are the slots of those that count."""
    first, second = _pairs(j)
    ordered = first < second
    centre, left, right = j[first[ordered]], a[first[ordered]], a[second[ordered]]
    strong = table.rho[centre, left] * table.rho[centre, right] > FAINT
    centre, left, right = centre[strong], left[strong], right[strong]
    straight = _sine(table.vectors[centre, left], table.vectors[centre, right]) < STRAIGHT
    used = lambda which: [(centre[which], left[which]), (centre[which], right[which])]
    return [
        _part(table, centre[which], used(which), kind)
        for which, kind in ((~straight, BEND), (straight, LINEAR), (straight, ACROSS))
    ]


def _torsions(table: _Table, slots: Slots, bonds: tuple[np.ndarray, np.ndarray]) -> list[Internals]:
    """Find torsions around each bond b = j to k, from a vector of j to one of k."""
    rho, vectors = table.rho, table.vectors
    j, b = bonds
    k = slots.neighbors[j, b]
    width = rho.shape[1]
    # All pairs of a slot of j and a slot of k; the tables are small, since chemical bonds are few.
    most = int(max((rho > FAINT).sum(axis=1).max(initial=0), 1))
    strongest = np.argsort(-rho, axis=1)[:, : min(most, 6)]
    bond, x, y = (axis.ravel() for axis in np.meshgrid(np.arange(len(j)), *[np.arange(strongest.shape[1])] * 2, indexing="ij"))
    j, b, k = j[bond], b[bond], k[bond]
    a, c = strongest[j, x], strongest[k, y]
    back = slots.reverse[j, b] - k * width
    far = vectors[j, b] + vectors[k, c] - vectors[j, a]
    fits = (a != b) & (c != back) & (rho[j, a] * rho[j, b] * rho[k, c] > FAINT) & ((far**2).sum(-1) > 1e-6)
    fits &= (_sine(vectors[j, a], vectors[j, b]) > BENT) & (_sine(vectors[k, c], vectors[j, b]) > BENT)
    j, a, b, k, c = j[fits], a[fits], b[fits], k[fits], c[fits]
    return [_part(table, j, [(j, a), (j, b), (k, c)], TORSION)]


def _pairs(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of all ordered pairs of equal entries of an ascending array."""
    counts = np.bincount(j, minlength=1)[j] if len(j) else np.zeros(0, int)
    first = np.repeat(np.arange(len(j)), counts)
    begin = np.searchsorted(j, j, side="left")
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, np.repeat(begin, counts) + within


def _sine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the sine of the angle between vectors (..., 3)."""
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.linalg.norm(np.cross(a, b), axis=-1) / np.where(size > 0, size, 1)


def _part(table: _Table, centre: np.ndarray, used: Sequence[tuple[np.ndarray, np.ndarray]], kind: int) -> Internals:
    """Put coordinates of one kind together; ``used`` are the rows and slots of their vectors."""
    n = len(centre)
    slots, decay, reach = np.zeros((n, 3), np.int32), np.zeros((n, 3)), np.zeros((n, 3))
    for place, (row, slot) in enumerate(used):
        slots[:, place] = slot
        decay[:, place], reach[:, place] = table.decay[row, slot], table.reach[row, slot]
    return Internals(centre.astype(np.int32), slots, np.full(n, kind, np.int32), decay, reach, np.zeros(0, np.int32))


def _joined(atoms: int, parts: Sequence[Internals]) -> Internals:
    """Concatenate coordinates of a structure."""
    rows = np.arange(atoms, dtype=np.int32)
    if not parts:
        empty = np.zeros((0, 3))
        return Internals(np.zeros(0, np.int32), empty.astype(np.int32), np.zeros(0, np.int32), empty, empty, rows)
    return Internals._make([*(np.concatenate([getattr(p, name) for p in parts]) for name in Internals._fields[:-1]), rows])


def packed_internals(found: Sequence[Internals], shape: Shape, room: tuple[int, int], dtype: Any) -> Internals:
    """Pad the coordinates of the systems of a batch.

    Args:
        found: Of each system, in the order of their rows.
        shape: Of the batch.
        room: Largest number of coordinates, and of atoms, of a system that has any.
        dtype: Of the potential.
    """
    (many, most), graphs, atoms = room, shape.graphs, shape.atoms
    centre, kind = np.zeros((2, graphs, many), np.int32)
    slots, (decay, reach) = np.zeros((graphs, many, 3), np.int32), np.zeros((2, graphs, many, 3), dtype)
    rows, first = np.full((graphs, most), atoms, np.int32), 0
    for g, one in enumerate(found):
        n, size = len(one.kind), len(one.rows)
        centre[g, :n], slots[g, :n], kind[g, :n] = one.centre + first, one.slots, one.kind
        decay[g, :n], reach[g, :n] = one.decay, one.reach
        # The vectors of a system without any coordinates stay out of the matrices.
        rows[g, :size] = np.arange(first, first + size) if n else atoms
        first += size
    return Internals(*(jnp.asarray(x) for x in (centre, slots, kind, decay, reach, rows)))


def rows_of_model(
    internals: Internals, graph: Graph, valence: Valence
) -> tuple[Float[Array, "graphs internals atoms_of_one 3"], Float[Array, "graphs internals 3 3"]]:
    """Compute sqrt(k_q) dq/dr for all coordinates q: by the positions of the atoms of each system, and by a strain of it.

    The model Hessian is the sum of their products. Both are in sqrt(eV)/Å and sqrt(eV).
    """
    assert graph.positions is not None and graph.cell is not None
    at, cell = jnp.asarray(graph.positions), jnp.asarray(graph.cell)
    neighbors, shifts = jnp.asarray(graph.neighbors), jnp.asarray(graph.shifts)

    def vector(row: Array, slot: Array) -> tuple[Array, Array]:
        end = neighbors[row, slot]
        image = jnp.einsum("gis,gsx->gix", shifts[row, slot].astype(at.dtype), cell, precision="highest")
        return at[end] - at[row] + image, end

    j, kind, slots = jnp.asarray(internals.centre), jnp.asarray(internals.kind), jnp.asarray(internals.slots)
    (a, i), (b, k) = vector(j, slots[..., 0]), vector(j, slots[..., 1])
    c, last = vector(k, slots[..., 2])
    used = internals.decay > 0
    # Vectors that are not there are replaced by ones whose derivatives are finite.
    instead = jnp.eye(3, dtype=at.dtype)
    a, b, c = (jnp.where(used[..., n, None], x, instead[None, None, n]) for n, x in enumerate((a, b, c)))
    squares = jnp.stack([jnp.sum(x**2, axis=-1) for x in (a, b, c)], axis=-1)
    rho = jnp.exp(jnp.minimum(jnp.sum(internals.reach - internals.decay * squares, axis=-1, where=used), 9.0))
    root = jnp.sqrt(valence.stiffness(kind).astype(at.dtype) * rho)[..., None]
    da, db, dc = (root * slope for slope in _slopes(kind[..., None], a, b, c))
    strain = sum((v[..., :, None] * d[..., None, :] for v, d in ((b, db), (c, dc))), a[..., :, None] * da[..., None, :])
    g, q = (x.astype(jnp.int32) for x in jnp.indices(kind.shape))
    local = lambda row: row - internals.rows[:, :1]
    out = jnp.zeros((*kind.shape, internals.rows.shape[1], 3), at.dtype)
    for row, slope in ((j, -da - db), (i, da), (k, db - dc), (last, dc)):
        out = out.at[g, q, local(row)].add(slope, mode="drop")
    return out, strain


def _slopes(
    kind: Int[Array, "*many 1"], a: Float[Array, "*many 3"], b: Float[Array, "*many 3"], c: Float[Array, "*many 3"]
) -> tuple[Float[Array, "*many 3"], Float[Array, "*many 3"], Float[Array, "*many 3"]]:
    """Compute the derivatives of coordinates by their three vectors.

    With the unit vectors u of a and v of b: u for a length, (cos u - v) / (|a| sin) for an angle by a, a direction across the
    axis over |a| for a straight angle. A torsion has -|b| n / n^2 by a with n = b x a, and |b| m / m^2 by c with m = b x c
    (Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996)).
    """
    dot = lambda x, y: jnp.sum(x * y, axis=-1, keepdims=True)
    length = lambda x: jnp.sqrt(jnp.maximum(dot(x, x), 1e-12))
    size_a, size_b = length(a), length(b)
    u, v = a / size_a, b / size_b
    cosine = dot(u, v)
    sine = jnp.sqrt(jnp.maximum(1 - cosine**2, 1e-4))
    axis = u - v
    steep = (jnp.abs(axis[..., :1]) < 0.7 * length(axis)).astype(a.dtype)
    least = jnp.concatenate([steep, 1 - steep, 0 * steep], axis=-1)
    side = jnp.cross(axis, least)
    side = jnp.where(kind == ACROSS, jnp.cross(axis, side), side)
    side = side / length(side)
    n, m = jnp.cross(b, a), jnp.cross(b, c)
    n, m = n / jnp.maximum(dot(n, n), 1e-12), m / jnp.maximum(dot(m, m), 1e-12)
    straight, twisted = (kind == LINEAR) | (kind == ACROSS), kind == TORSION
    bent = lambda x, y, size: jnp.where(kind == BEND, (cosine * x - y) / (size * sine), 0)
    da = jnp.where(kind == STRETCH, u, bent(u, v, size_a)) + jnp.where(straight, side / size_a, 0)
    db = bent(v, u, size_b) + jnp.where(straight, side / size_b, 0)
    turned = jnp.where(twisted, (dot(a, b) * n - dot(c, b) * m) / size_b, 0)
    return da - jnp.where(twisted, size_b * n, 0), db + turned, jnp.where(twisted, size_b * m, 0)


Solve = Callable[[Float[Array, "graphs size"]], Float[Array, "graphs size"]]


def solver(matrix: Float[Array, "graphs size size"]) -> Solve:
    """Factorise positive definite matrices; the returned function multiplies vectors with their inverses."""
    factor = jnp.linalg.cholesky(matrix)

    def solve(x: Float[Array, "graphs size"]) -> Float[Array, "graphs size"]:
        half = jax.scipy.linalg.solve_triangular(factor, x[..., None], lower=True)
        return jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)[..., 0]

    return solve
