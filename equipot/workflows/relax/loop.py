"""Relax any number of structures in a few batches, which refill as systems converge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from equipot.data.batch import Shape, find_slots
from equipot.data.plan import Limit, plan_batches, rung
from equipot.evaluation.batched import useful_slots
from equipot.neighbors import ROUNDING
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax.batch import (
    Room,
    System,
    Tolerance,
    advance,
    enlarged,
    moved,
    packed,
    relisted,
    unpacked,
)
from equipot.workflows.relax.bounds import limits
from equipot.workflows.relax.config import CLOSE, RelaxConfig

TURNS = 50
"""Evaluations of a batch between two looks of the host."""
CLOSED_FORM, WIDER = 1000, 16
"""Number of parameters below which a potential is a closed form, and how many times as many slots its batches have: they cost
so little that the work of the host between two batches would count."""
AHEAD = 500
"""Waiting systems whose sizes are known before the first batch begins."""
SHRUNK = 8
"""Factor by which a batch shrinks once its systems fit: it is compiled anew for that."""
REFILL = 0.25
"""Share of the systems of a batch that must have finished before others take their rooms."""


class Program(NamedTuple):
    """Fixed parts of a run: the potential, a cheaper one where there is one, and the settings."""

    potentials: tuple[Potential, ...]
    settings: RelaxConfig

    @property
    def radii(self) -> tuple[tuple[float, float], ...]:
        """Radius of the lists and cutoff that they must be complete within, of each potential, Å."""
        return tuple((p.cutoff + self.settings.skin, p.cutoff + ROUNDING) for p in self.potentials)

    @property
    def tolerance(self) -> Tolerance:
        """When a system is done or given up."""
        real = lambda x: jnp.asarray(x, self.potentials[0].dtype)
        return Tolerance(real(self.settings.fmax), real(self.settings.smax), jnp.asarray(self.settings.max_steps))


def relaxed_systems(
    program: Program, structures: Sequence[Structure], say: Callable[[int, int, str], None]
) -> Iterator[tuple[System, str]]:
    """Relax structures; yield each system once, in any order, with the reason why it is not relaxed, empty where it is.

    Args:
        program: Potential and settings.
        structures: At least one.
        say: Called with the number of finished systems, that of all, and figures of those at work.
    """
    bounds = [limits(s, program.settings) for s in structures]
    # The forces of positions that are nearly symmetric are not: a step makes them exactly so.
    even = [s.replace(positions=s.positions + own.misfit) for s, own in zip(structures, bounds, strict=True)]
    waiting = [System(k, s, own, volume=s.volume) for k, (s, own) in enumerate(zip(even, bounds, strict=True))]
    count, finished = len(waiting), 0
    for shape, members in lanes(program, structures):
        queue = [waiting[k] for k in members]
        for system, reason in relaxed_lane(program, shape, queue, lambda text: say(finished, count, text)):  # noqa: B023
            finished += 1
            yield system, reason


def lanes(program: Program, structures: Sequence[Structure]) -> list[tuple[Shape, list[int]]]:
    """Group structures by the shape of their batches; the largest of a group come first."""
    radius = program.radii[0][0]
    width = [find_slots(s, radius).mask.shape[1] for s in structures]
    sizes = np.array([(len(s), rung(int(1.15 * w) + 1)) for s, w in zip(structures, width, strict=True)])
    given = program.settings.batch_size
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(program.potentials[0].variables))
    useful = useful_slots() * (WIDER if parameters < CLOSED_FORM else 1)
    limit = Limit(slots=useful) if given is None else Limit(frames=given)
    found: dict[Shape, list[int]] = {}
    for batch in plan_batches(sizes, limit):
        found.setdefault(batch.shape, []).extend(batch.frames)
    sized = lambda shape, members: shape._replace(graphs=min(shape.graphs, rung(len(members))))
    largest_first = lambda members: sorted(members, key=lambda k: -len(structures[k]))
    return [(sized(shape, members), largest_first(members)) for shape, members in found.items()]


def relaxed_lane(
    program: Program, shape: Shape, queue: list[System], say: Callable[[str], None]
) -> Iterator[tuple[System, str]]:
    """Relax systems in batches of one shape, which shrinks once few are left."""
    potentials, settings = program.potentials, program.settings
    shapes = (shape, *(shape._replace(slots=1) for _ in potentials[1:]))
    room = Room(shapes, (None,) * len(potentials), ((),) * len(potentials))
    # Sizes that the first of them need are planned at once, since each change of them is compiled.
    queue = [relisted(s, potentials, settings) for s in queue[:AHEAD]] + queue[AHEAD:]
    room = enlarged(room, queue[:AHEAD], potentials, settings.skin)
    active: list[System] = []
    while active or queue:
        active, queue = filled(active, queue, shape)
        if not queue:
            shape = shrunk(shape, active)
        active = [relisted(s, potentials, settings) if s.listed is None else s for s in active]
        fitting = [old._replace(atoms=shape.atoms, graphs=shape.graphs) for old in room.shapes]
        room = enlarged(room._replace(shapes=tuple(fitting)), active, potentials, settings.skin)
        device = packed(active, potentials, room, settings.optimizer, settings.moves_cells)
        empty = shape.graphs - len(active)
        enough = max(1, int(REFILL * len(active))) if queue else max(1, len(active) // 2)
        walk, status, stale = advance(
            potentials, (device.graphs, device.bounds, device.listed, device.internals), device.walk, device.status,
            (program.tolerance, jnp.asarray(empty + enough), jnp.asarray(TURNS)), settings.optimizer, settings.moves_cells,
            program.radii,
        )  # fmt: skip
        active = unpacked(active, device._replace(walk=walk, status=status))
        finished = [bool(s.status.done[0] or s.status.lost[0] or abnormal(s, settings)) for s in active]
        for system in (s for s, over in zip(active, finished, strict=True) if over):
            yield system, reason_of(system, settings)
        active = [
            renewed(s._replace(listed=None) if old else s, settings)
            for s, old, over in zip(active, np.asarray(stale), finished, strict=False)
            if not over
        ]
        say(figures(active))


def filled(active: list[System], queue: list[System], shape: Shape) -> tuple[list[System], list[System]]:
    """Put waiting systems into a batch as far as there is room."""
    atoms, left = sum(len(s.structure) for s in active), []
    for system in queue:
        if len(active) < shape.graphs and atoms + len(system.structure) <= shape.atoms:
            active, atoms = [*active, system], atoms + len(system.structure)
        else:
            left.append(system)
    return active, left


def shrunk(shape: Shape, active: Sequence[System]) -> Shape:
    """Return a shape of an eighth, or less, where the systems that are left fit it."""
    atoms = sum(len(s.structure) for s in active)
    while SHRUNK * atoms <= shape.atoms and SHRUNK * len(active) <= shape.graphs:
        shape = shape._replace(atoms=max(1, shape.atoms // SHRUNK), graphs=max(1, shape.graphs // SHRUNK))
    return shape


def renewed(system: System, settings: RelaxConfig) -> System:
    """Let the strain start anew where a target stress, which is not a pressure, is met by the old reference cell only."""
    point = system.walk.point
    volume, n = system.structure.volume, len(system.structure)
    if settings.stress_GPa is None or not volume:
        return system
    slope = np.abs(point.gradient.strain).max() * np.sqrt(n) / volume
    if point.force[0] <= settings.fmax and slope <= settings.smax / 2:
        spent = (system.spent[0] + int(system.status.evaluations[0]), system.spent[1] + int(system.walk.products[0]))
        at = moved(system.structure, point.at)
        return system._replace(structure=at, walk=None, status=None, listed=None, spent=spent)
    return system


def reason_of(system: System, settings: RelaxConfig) -> str:
    """Say why a system is not relaxed; empty where it is."""
    status, point = system.status, system.walk.point
    if not np.isfinite(point.energy[0]):
        return "its energy is not finite: atoms may lie upon each other, or the potential knows nothing like it"
    if what := abnormal(system, settings):
        return what
    if status.done[0]:
        return ""
    force = f"the largest force is {point.force[0]:.2g} eV/Å (fmax {settings.fmax:g})"
    if settings.moves_cells:
        force += f", the error of the stress {point.excess[0] / GPa:.2g} GPa (smax_GPa {settings.smax_GPa:g})"
    if status.evaluations[0] >= settings.max_steps:
        return f"{settings.max_steps} evaluations were not enough: {force}; raise max_steps"
    return (
        f"no step lowers the energy any more, and {force}: rounding, or forces that are not the derivative of the energy; "
        "take --dtype float64 or a larger fmax"
    )


def abnormal(system: System, settings: RelaxConfig) -> str:
    """Say that a cell has collapsed or come apart; empty where it has not."""
    if not settings.moves_cells or not system.volume:
        return ""
    # Of the cell that was given: the reference cell may have been renewed.
    share = moved(system.structure, system.walk.point.at).volume / system.volume
    if CLOSE < share < 1 / CLOSE:
        return ""
    return f"its cell {'collapsed' if share < 1 else 'came apart'}: the volume is {share:.2g} times what it was"


def figures(active: Sequence[System]) -> str:
    """Say how far the systems at work are."""
    if not active:
        return ""
    forces: list[Any] = [s.walk.point.force[0] for s in active if s.walk is not None]
    return f"{len(active)} at work, largest force {max(forces, default=np.nan):.3g} eV/Å"
