"""Pack systems into one padded batch, and let the optimiser run on the device until the host is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from equipot.data.batch import Shape, centred, find_slots, pad
from equipot.data.plan import rung
from equipot.extent import Extent, still_holds
from equipot.graph import Graph, Shell
from equipot.neighbors import Slots
from equipot.neighbors.shells import crowding
from equipot.neighbors.staleness import graphs_may_miss_pairs
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.relax.bounds import Limits
from equipot.workflows.relax.config import RelaxConfig
from equipot.workflows.relax.coordinates import Bounds, Coordinates, Landscape, map_rows, rows_of
from equipot.workflows.relax.optimizers import Optimizer, Walk
from equipot.workflows.relax.valence import Internals, internals_of, packed_internals

GROWN = 1.04
"""Growth of a lattice vector beyond which the lists, and the waves of an Ewald sum, are made anew."""
STALLED = 40
"""Evaluations without a lower energy after which a system is given up."""


class System(NamedTuple):
    """A system that is being relaxed, on the host."""

    place: int
    """Place among the structures that were given."""
    structure: Structure
    """Geometry that the coordinates refer to: strain zero is its cell."""
    limits: Limits
    walk: Any = None
    """State of the optimiser, the rows of this system; None before the first evaluation."""
    status: Any = None
    """``Status`` of the system; None before the first evaluation."""
    listed: Structure | None = None
    """Geometry for which the lists were built."""
    slots: tuple[Slots, ...] = ()
    """Lists within the cutoff of the potential, and of the cheaper one."""
    internals: Internals | None = None
    """Stretches, bends and torsions in the first list; None where the optimiser has no model of them."""
    spent: tuple[int, int] = (0, 0)
    """Evaluations and Hessian products before the present reference cell."""
    volume: float = 0.0
    """Volume of the structure that was given, Å^3."""
    trace: tuple[tuple[float, ...], ...] = ()
    """Evaluations, energy (eV), largest force (eV/Å) and excess of the stress (eV/Å^3) in the course of the relaxation."""

    @property
    def trial(self) -> Structure:
        """Geometry to be evaluated next."""
        return self.structure if self.walk is None else moved(self.structure, self.walk.trial)


class Status(NamedTuple):
    """How far each system is."""

    evaluations: Int[Array, " graphs"]
    since: Int[Array, " graphs"]
    """Evaluations since a point was taken."""
    done: Bool[Array, " graphs"]
    """Whether forces and stress are small enough."""
    lost: Bool[Array, " graphs"]
    """Whether the system is given up."""


class Tolerance(NamedTuple):
    """When a system is done, and when it is given up."""

    force: Any
    """eV/Å."""
    excess: Any
    """eV/Å^3."""
    evaluations: Any


class Device(NamedTuple):
    """A batch on the device."""

    graphs: tuple[Graph, ...]
    """Graph of the potential, and of the cheaper one."""
    bounds: Bounds
    internals: Internals | None
    walk: Walk
    status: Status
    listed: tuple[Array, Array]
    """Positions [atoms, 3] and cells [graphs, 3, 3] (Å) for which the lists were built."""


def moved(structure: Structure, at: Coordinates) -> Structure:
    """Return a structure with its atoms and cell at coordinates of its own rows, in double precision."""
    from scipy.linalg import expm

    strain = np.asarray(at.strain, np.float64)[0] / np.sqrt(len(structure))
    origin = structure.positions.mean(axis=0) - centred(structure).mean(axis=0)
    positions = np.asarray(at.positions, np.float64) + origin
    if not strain.any():
        return structure.replace(positions=positions)
    deformed = expm(strain)
    return structure.replace(positions=positions @ deformed, cell=structure.cell @ deformed)


class Room(NamedTuple):
    """Static sizes of a batch: shapes, extents and shells of the potential and the cheaper one."""

    shapes: tuple[Shape, ...]
    extents: tuple[Extent | None, ...]
    shells: tuple[tuple[Shell, ...], ...]
    internals: tuple[int, int] = (0, 0)
    """Largest number of internal coordinates of a system, and of atoms of one that has any."""


def relisted(system: System, potentials: Sequence[Potential], settings: RelaxConfig) -> System:
    """Build the lists of a system for its trial point."""
    at = system.trial
    found = tuple(find_slots(at, p.cutoff + settings.skin, bool(p.term.inner_cutoffs)) for p in potentials)
    internals = None if settings.optimizer.valence is None else internals_of(at, found[0])
    return system._replace(listed=at, slots=found, internals=internals)


def enlarged(room: Room, systems: Sequence[System], potentials: Sequence[Potential], skin: float) -> Room:
    """Enlarge slots, waves and shells so that the lists of the systems fit."""
    shapes, extents, shells = [], [], []
    for k, potential in enumerate(potentials):
        width = max(s.slots[k].mask.shape[1] for s in systems)
        old = room.shapes[k]
        shapes.append(old if width <= old.slots else old._replace(slots=4 * -(-int(1.1 * width) // 4)))
        listed = [s.listed for s in systems if s.listed is not None]
        holds = all(still_holds(room.extents[k], at, potential.term.longest_wave) for at in listed)
        atoms = max(map(len, listed))
        extent = room.extents[k]
        if not holds or (extent is not None and extent.atoms < atoms):
            new = potential.extent(listed)
            extent = new if extent is None or new is None else extent.join(new)
        extents.append(extent)
        shells.append(_shells(room.shells[k], systems, k, [c + skin for c in potential.term.inner_cutoffs]))
    sizes = [(len(s.internals.kind), len(s.structure)) for s in systems if s.internals is not None and len(s.internals.kind)]
    count, atoms = (max((size[k] for size in sizes), default=0) for k in range(2))
    grown = lambda new, old: old if new <= old else rung(new)
    internals = grown(count, room.internals[0]), grown(atoms, room.internals[1])
    return Room(tuple(shapes), tuple(extents), tuple(shells), internals)


def _shells(old: tuple[Shell, ...], systems: Sequence[System], k: int, cutoffs: Sequence[float]) -> tuple[Shell, ...]:
    """Plan room for the neighbours within shorter cutoffs (Å), no less than there was."""
    if not cutoffs:
        return ()
    counts = np.max([crowding(s.slots[k], s.listed.positions, s.listed.cell, cutoffs) for s in systems if s.listed], axis=0)
    before = {shell.cutoff: shell.slots for shell in old}
    room = lambda cutoff, count: before[cutoff] if count <= before.get(cutoff, 0) else 4 * -(-int(1.2 * count) // 4)
    return tuple(Shell(cutoff, room(cutoff, int(count))) for cutoff, count in zip(cutoffs, counts, strict=True))


def packed(
    systems: Sequence[System], potentials: Sequence[Potential], room: Room, optimizer: Optimizer, moves_cells: bool
) -> Device:
    """Pad systems with complete lists to one batch on the device."""
    dtype = potentials[0].dtype
    listed = [s.listed for s in systems if s.listed is not None]
    graphs = tuple(
        jax.device_put(pad(listed, p.cutoff, shape, dtype, [s.slots[k] for s in systems], extent=extent, shells=shells))
        for k, (p, shape, extent, shells) in enumerate(zip(potentials, room.shapes, room.extents, room.shells, strict=True))
    )
    shape = room.shapes[0]
    bounds = _bounds(systems, shape, dtype)
    found = [s.internals for s in systems if s.internals is not None]
    internals = packed_internals(found, shape, room.internals, dtype) if room.internals[0] else None
    start = np.zeros((shape.atoms, 3), dtype)
    places, cells = np.zeros((shape.atoms, 3), dtype), np.zeros((shape.graphs, 3, 3), dtype)
    for k, (rows, s, known) in enumerate(zip(rows_in(systems), systems, listed, strict=True)):
        start[rows] = centred(s.structure)
        # The list forgives a shift, single precision no large one.
        places[rows] = known.positions - known.positions.mean(axis=0)
        cells[k] = known.cell if known.pbc.any() else 0
    at = Coordinates(jnp.asarray(start), jnp.zeros((shape.graphs, 3, 3), dtype))
    walk, status = _fresh(potentials[0], graphs[0], bounds, at, optimizer, moves_cells)
    if any(s.walk is not None for s in systems):
        # Copies, since arrays of a device cannot be written to.
        walk, status = jax.tree.map(lambda x: np.array(x), jax.device_get((walk, status)))
        for k, (rows, s) in enumerate(zip(rows_in(systems), systems, strict=True)):
            if s.walk is not None:
                _put((walk, status), (s.walk, s.status), rows, k)
        walk, status = jax.device_put((walk, status))
    return Device(graphs, bounds, internals, walk, status, (jnp.asarray(places), jnp.asarray(cells)))


def rows_in(systems: Sequence[System]) -> list[slice]:
    """Return the rows of the atoms of each system in a batch."""
    ends = np.cumsum([len(s.structure) for s in systems]).tolist()
    return [slice(end - len(s.structure), end) for s, end in zip(systems, ends, strict=True)]


def unpacked(systems: Sequence[System], device: Device) -> list[System]:
    """Return the systems with their states, as they are on the device."""
    walk, status = jax.device_get((device.walk, device.status))
    out = []
    for k, (rows, s) in enumerate(zip(rows_in(systems), systems, strict=True)):
        mine, how = rows_of(walk, rows, k), rows_of(status, rows, k)
        point = mine.point
        line = (s.spent[0] + int(how.evaluations[0]), float(point.energy[0]), float(point.force[0]), float(point.excess[0]))
        out.append(s._replace(walk=mine, status=how, trace=(*s.trace, line)))
    return out


def _put(whole: Any, own: Any, rows: slice, graph: int) -> None:
    """Write the rows of one system into a tree of a batch."""

    def into(where: Any) -> Any:
        def write(target: np.ndarray, value: np.ndarray) -> np.ndarray:
            target[where] = value
            return target

        return write

    map_rows(into(rows), into(slice(graph, graph + 1)), whole, own)


def _bounds(systems: Sequence[System], shape: Shape, dtype: Any) -> Bounds:
    """Pad what the systems may do."""
    operations = max(len(s.limits.rotations) for s in systems)
    # A rung, so that batches of other crystals share what was compiled.
    operations = 1 if operations == 1 else next(n for n in (4, 16, 48, 96, 192, operations) if n >= operations)
    atoms, graphs = shape.atoms, shape.graphs
    cell, work, target = np.zeros((3, graphs, 3, 3))
    free, strains, pressure = np.zeros((atoms, 3), bool), np.zeros((graphs, 9, 9)), np.zeros(graphs)
    rotations = np.zeros((graphs, operations, 3, 3))
    images = np.broadcast_to(np.arange(atoms, dtype=np.int32), (operations, atoms)).copy()
    for k, (rows, s) in enumerate(zip(rows_in(systems), systems, strict=True)):
        own, count = s.limits, len(s.limits.rotations)
        mean = np.trace(own.target) / 3
        cell[k] = s.structure.cell if s.structure.pbc.any() else 0
        free[rows], strains[k], target[k], pressure[k] = own.free, own.strains, own.target, -mean
        work[k] = (own.target - mean * np.eye(3)) * s.structure.volume
        rotations[k, :count] = own.rotations
        images[:count, rows] = own.images + rows.start
    real = lambda x: jnp.asarray(x, dtype)
    return Bounds(
        real(cell), jnp.asarray(free), real(strains), real(rotations), jnp.asarray(images), real(pressure), real(work),
        real(target),
    )  # fmt: skip


def landscape_of(
    potentials: Sequence[Potential],
    graphs: Sequence[Graph],
    bounds: Bounds,
    moves_cells: bool,
    internals: Internals | None = None,
) -> Landscape:
    """Make the landscape of a batch, with the cheaper potential where there are two."""
    cheaper = Landscape(potentials[1], graphs[1], bounds, moves_cells) if len(potentials) > 1 else None
    return Landscape(potentials[0], graphs[0], bounds, moves_cells, cheaper, internals)


@partial(jax.jit, static_argnames=("optimizer", "moves_cells"))
def _fresh(
    potential: Potential, graph: Graph, bounds: Bounds, at: Coordinates, optimizer: Optimizer, moves_cells: bool
) -> tuple[Walk, Status]:
    """Make the state of systems that have not been evaluated."""
    landscape = landscape_of((potential,), (graph,), bounds, moves_cells)
    shapes = jax.eval_shape(landscape.point, at)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)._replace(at=at)
    mask = jnp.asarray(graph.graph_mask)
    count = jnp.zeros(mask.shape, jnp.int32)
    walk = Walk(nothing, at, mask, optimizer.start(landscape, at), jnp.zeros(mask.shape, at.positions.dtype))
    return walk, Status(count, count, ~mask, ~mask)


def judged(walk: Walk, status: Status, before: Walk, tolerance: Tolerance) -> Status:
    """Count an evaluation, and find which systems are done or given up.

    Args:
        walk: State after a point was taken or refused.
        status: How far the systems were.
        before: State before that.
        tolerance: When a system is done or given up.
    """
    point, old = walk.point, before.point
    out = status.done | status.lost
    same = (point.energy == old.energy) & (point.force == old.force) & ~before.fresh
    done = (point.force <= tolerance.force) & (point.excess <= tolerance.excess) & jnp.isfinite(point.energy)
    count = status.evaluations + ~out
    since = jnp.where(same, status.since + 1, 0)
    unsound = ~jnp.isfinite(point.energy) | ~jnp.isfinite(point.force)
    lost = ~done & ((count >= tolerance.evaluations) | (since >= STALLED) | unsound)
    return Status(count, since, status.done | (done & ~out), status.lost | (lost & ~out))


def stale(placed: Graph, listed: tuple[Array, Array], radii: tuple[tuple[float, float], ...]) -> Bool[Array, " graphs"]:
    """Tell which systems need new lists: the arguments are those of ``advance``, the graph at the trial first."""
    at = jnp.asarray(placed.positions), jnp.asarray(placed.cell)
    # The waves of an Ewald sum are planned for cells that grow little.
    lengths = [jnp.linalg.norm(cell, axis=-1) for cell in (at[1], listed[1])]
    found = jnp.any(lengths[0] > GROWN * lengths[1], axis=-1)
    for radius, cutoff in radii:
        found |= graphs_may_miss_pairs(listed, at, placed, radius, cutoff)
    return found


@partial(jax.jit, static_argnames=("optimizer", "moves_cells", "radii"), donate_argnames=("walk", "status"))
def advance(
    potentials: tuple[Potential, ...],
    device: tuple[tuple[Graph, ...], Bounds, tuple[Array, Array], Internals | None],
    walk: Walk,
    status: Status,
    limits: tuple[Tolerance, Int[Array, ""], Int[Array, ""]],
    optimizer: Optimizer,
    moves_cells: bool,
    radii: tuple[tuple[float, float], ...],
) -> tuple[Walk, Status, Bool[Array, " graphs"]]:
    """Evaluate trials, take or refuse them and propose new ones, until the host has something to do.

    Args:
        potentials: The potential, and the cheaper one where there is one.
        device: Graphs, bounds, geometry of the lists, and internal coordinates.
        walk: State; its trial has complete lists.
        status: How far the systems are.
        limits: When a system is done or given up; the number of finished systems, padding included, and that of evaluations of
            the batch, after which to return.
        optimizer: Method.
        moves_cells: Whether any cell may change.
        radii: Radius of the list and cutoff of each potential, Å.

    Returns:
        State, status, and which systems need new lists for their trial.
    """
    graphs, bounds, listed, internals = device
    landscape = landscape_of(potentials, graphs, bounds, moves_cells, internals)

    def body(now: tuple[Walk, Status, Array, Array]) -> tuple[Walk, Status, Array, Array]:
        before, status, _, turns = now
        after = optimizer.take(landscape, before, landscape.point(before.trial))
        walk = after._replace(fresh=before.fresh & (status.done | status.lost))
        status = judged(walk, status, before, limits[0])
        finished = status.done | status.lost
        # Systems that are finished move no more, and need no steps.
        proposed = optimizer.propose(landscape, walk._replace(fresh=finished))._replace(fresh=walk.fresh)
        walk = proposed._replace(trial=landscape.choose(finished, walk.point.at, proposed.trial))
        return walk, status, stale(landscape.placed(walk.trial), listed, radii) & ~finished, turns + 1

    def goes_on(now: tuple[Walk, Status, Array, Array]) -> Array:
        _, status, old, turns = now
        return ~jnp.any(old) & (jnp.sum(status.done | status.lost) < limits[1]) & (turns < limits[2])

    start = walk, status, jnp.zeros_like(status.done), jnp.zeros((), jnp.int32)
    walk, status, old, _ = jax.lax.while_loop(goes_on, body, start)
    return walk, status, old
