"""Check that a guarded potential repels below the inner radii of its wall, in dimers and in crowds, by the wall alone.

Where the wall is around the base of a term with charges, this holds for the base; the whole must repel in dimers all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array, Float

from equipot.data.batch import Shape, find_slots, pad
from equipot.geometry import Geometry, geometry_of
from equipot.graph import Graph
from equipot.observables import Observables
from equipot.physics.guard import REPULSION, guarded_part, outer_radii, wall_of
from equipot.potential import Potential, atomic, evaluate
from equipot.structure import Structure
from equipot.workflows.doctor.findings import Finding, Measure

SHARES = (0.1, 0.999)
"""Shortest and longest distance of a dimer, as shares of the inner radius."""
POINTS = (3, 12)
DIMERS = 6000
"""Least and most distances of a pair of elements, and the number of dimers that decides between these."""
CROWD = 6
"""Number of atoms around a pair."""
CROWDED = 64
"""Number of pairs that are examined in a crowd."""
ROOM = 6.0
"""Length of the box of a crowd, in mean inner radii."""
EXACT = 1e-6
"""Deviation from the force of the wall, relative to that force, that is rounding."""
HEIGHT = 5.0
"""Energy (eV) of a wall at half the inner radius below which the wall deserves a look: 20 kT at 3,000 K."""
BATCH = 128
"""Number of systems in a batch."""


class Repulsion(NamedTuple):
    """Forces along the pairs below the inner radius, each once from either side."""

    force: Float[np.ndarray, " pairs"]
    """-dE/dr of the potential with all other vectors fixed, eV/Å."""
    wall: Float[np.ndarray, " pairs"]
    """-dE/dr of the wall alone, eV/Å."""


def wall(potential: Potential, seed: int) -> Finding | None:
    """Check the wall of a potential in float64 for all pairs of its elements; None for a potential without one of its own."""
    part = guarded_part(potential)
    if part is None:
        return None
    width = wall_of(part.term).width
    inner = outer_radii(part) / (1 + width)
    pairs = list(itertools.combinations_with_replacement(potential.elements, 2))
    shares = np.linspace(*SHARES, int(np.clip(DIMERS // len(pairs), *POINTS)))
    dimers = [dimer(a, b, x * inner[a, b]) for a, b in pairs for x in shares]
    alone = measured(part, inner, dimers)
    rng = np.random.default_rng(seed)
    some = [pairs[k] for k in rng.permutation(len(pairs))[:CROWDED]]
    among = measured(part, inner, [crowd(pair, potential.elements, inner, rng) for pair in some])
    force, own = (np.concatenate(both) for both in zip(alone, among, strict=True))
    whole = force if part.term == potential.term else np.concatenate([force, pushes(potential, dimers)])
    attracting = int(np.sum(~(whole > 0)))
    least, at = min((height(a, b, inner[a, b], width), (a, b)) for a, b in pairs)
    name = "-".join(chemical_symbols[z] for z in at)
    measures = (
        Measure("attracting", attracting, f"of {len(whole)} pairs of atoms", 0, 0),
        Measure("force beside the wall's", float(np.max(np.abs(force - own) / own)), "of it", EXACT),
        Measure(f"{name} at half the radius", least, "eV", HEIGHT, 0.0),
    )
    note = f"the wall stands below {_range(inner, pairs)}: {len(pairs)} pairs of elements, alone and in crowds"
    if part.term != potential.term:
        note += f"; it is around the base of {type(potential.term).__name__}, which repels in dimers as a whole"
    if attracting:
        note = "atoms attract each other inside the wall: the base sees distances that the wall should hide"
        if not np.any(~(force > 0)):
            note = "atoms attract each other inside the wall by their charges: a larger share of the wall is stronger there"
    return Finding("wall", measures, note)


def pushes(potential: Potential, dimers: Sequence[Structure]) -> Float[np.ndarray, " dimers"]:
    """Compute the force that pushes the two atoms of each dimer apart, eV/Å."""
    shape, forces = Shape(2 * BATCH + 1, 1, BATCH), []
    for batch in (dimers[k : k + BATCH] for k in range(0, len(dimers), BATCH)):
        graph = pad(batch, potential.cutoff, shape, np.float64, extent=potential.extent(batch))
        found = np.asarray(_evaluated(potential, graph).forces)[: 2 * len(batch)].reshape(-1, 2, 3)
        apart = np.array([s.positions[1] - s.positions[0] for s in batch])
        forces.append(np.sum(found[:, 1] * apart, axis=1) / np.linalg.norm(apart, axis=1))
    return np.concatenate(forces)


@jax.jit
def _evaluated(potential: Potential, graph: Graph) -> Observables:
    return evaluate(potential, graph, ("forces",))


def _range(inner: Float[np.ndarray, "119 119"], pairs: Sequence[tuple[int, int]]) -> str:
    ends = sorted((float(inner[pair]), "-".join(chemical_symbols[z] for z in pair)) for pair in pairs)
    return " to ".join(f"{radius:.2f} Å ({name})" for radius, name in (ends[0], ends[-1]))


def dimer(a: int, b: int, r: float) -> Structure:
    """Make two atoms at the distance r (Å)."""
    return Structure(np.array([a, b]), np.array([[0, 0, 0], [0.48, 0.6, 0.64]]) * [[r]], source="two atoms")


def crowd(
    pair: tuple[int, int], elements: Sequence[int], inner: Float[np.ndarray, "119 119"], rng: np.random.Generator
) -> Structure:
    """Put a pair below its inner radius (Å) among random atoms, some of which are as close."""
    close = dimer(*pair, rng.uniform(*SHARES) * inner[pair])
    others = rng.choice(elements, CROWD)
    places = rng.uniform(-0.5, 0.5, (CROWD, 3)) * ROOM * inner[np.ix_(others, others)].mean()
    positions = np.concatenate([close.positions, places])
    return Structure(np.concatenate([close.numbers, others]), positions, source="a crowd")


def height(a: int, b: int, inner: float, width: float) -> float:
    """Compute the energy of the wall (eV) at half the inner radius (Å) of a pair."""
    return float(REPULSION.of_pairs(*map(jnp.asarray, (inner / 2, float(a), float(b), (1 + width) * inner))))


def measured(potential: Potential, inner: Float[np.ndarray, "119 119"], structures: Sequence[Structure]) -> Repulsion:
    """Compute the forces along all pairs of some structures that are below their inner radius (Å)."""
    batches = [structures[k : k + BATCH] for k in range(0, len(structures), BATCH)]
    slots = [[find_slots(s, potential.cutoff) for s in batch] for batch in batches]
    largest, width = max(len(s) for s in structures), wall_of(potential.term).width
    shape = Shape(BATCH * largest + 1, max(found.mask.shape[1] for row in slots for found in row), BATCH)
    forces, walls = [], []
    for batch, found in zip(batches, slots, strict=True):
        graph = pad(batch, potential.cutoff, shape, np.float64, found)
        radius = inner[graph.numbers[:, None], graph.numbers[graph.neighbors]]
        r, force, own = map(np.asarray, _forces(potential, graph, jnp.asarray(radius * (1 + width))))
        below = graph.slot_mask & (r < radius)
        forces.append(force[below])
        walls.append(own[below])
    return Repulsion(np.concatenate(forces), np.concatenate(walls))


@jax.jit
def _forces(
    potential: Potential, graph: Graph, outer: Float[Array, "atoms slots"]
) -> tuple[Float[Array, "atoms slots"], Float[Array, "atoms slots"], Float[Array, "atoms slots"]]:
    """Compute distances (Å), forces along the pairs, and those of the wall (eV/Å), for outer radii (Å) of the slots."""
    vectors = geometry_of(potential.term, graph).vectors
    total = lambda v: jnp.sum(jnp.where(graph.node_mask, atomic(potential, graph, Geometry(v)).energy, 0))
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    half = -jnp.sum(jax.grad(total)(vectors) * vectors, axis=-1) / r
    force = half + half.reshape(-1)[graph.reverse]
    charge = jnp.maximum(graph.numbers, 1).astype(r.dtype)
    energy = lambda r: jnp.sum(REPULSION.of_pairs(r, charge[:, None], charge[graph.neighbors], outer))
    return r, force, -jax.grad(energy)(r)
