"""A chunk of a run as one compiled function: steps, updates of the neighbour list, lines of the log and frames.

A chunk begins by taking whole lattice vectors off atoms that have gone far, and with a list yet to be built, so that it is a
function of the state alone: a run that is cut between two chunks goes on as if it had not been. It ends early where the list
overflows, to be repeated from its beginning with a larger one, or where the system falls apart.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph, edge_vectors
from equipot.md.ensembles import Ensemble
from equipot.md.forces import Forces
from equipot.md.state import Observation, Setup, State, kinetic_energy
from equipot.neighbors import DeviceList, ListSpec, allocate, complete_cell
from equipot.potential import Potential
from equipot.units import kB

FAR = 1.5
"""Cells from the middle of the cell beyond which lattice vectors are taken off."""


class ChunkSpec(NamedTuple):
    """Sizes and limits of a chunk, and the ensemble; hashable, since it is compiled in."""

    ensemble: Ensemble
    steps_per_line: int
    lines: int
    """Lines of the log in a full chunk."""
    lines_per_frame: int
    """Zero where no frames are kept."""
    max_kinetic: float
    """eV; above it the run counts as exploded."""
    min_distance: float
    """Å; atoms closer than this count as fused."""


class Frames(NamedTuple):
    """Frames of a chunk, stacked."""

    position: Float[Array, "frames atoms 3"]
    """Å, continuous in time."""
    momentum: Float[Array, "frames atoms 3"]
    force: Float[Array, "frames atoms 3"]
    cell: Float[Array, "frames 3 3"]


class ChunkResult(NamedTuple):
    """State at the end of a chunk, its lines of the log and its frames. Rows beyond ``done`` lines mean nothing."""

    state: State
    log: Observation
    frames: Frames
    done: Int[Array, ""]
    """Lines of the log that were reached."""
    steps: Int[Array, ""]
    """Steps that were made, the last one of an overflow or an explosion included."""
    overflow: Bool[Array, ""]
    """The list was too small: nothing of this chunk is to be used, but for the place where it happened."""
    exploded: Bool[Array, ""]
    """The last line is of a system that has fallen apart."""


def begin(
    potential: Potential, spec: ListSpec, frozen: Frozen, ensemble: Ensemble, state: State
) -> tuple[State, Observation, Array]:
    """Compute forces and the extra state of the ensemble at step zero: the state, its observation, the list's overflow flag."""
    return _begin(potential, frozen.arrays, state, spec, frozen.fixed, ensemble)


def run_chunk(
    potential: Potential, spec: ListSpec, frozen: Frozen, chunk_spec: ChunkSpec, state: State, lines: int
) -> ChunkResult:
    """Go on by ``lines`` lines of the log. Compiled once for each list size, whatever the number of lines."""
    return _run(potential, frozen.arrays, state, jnp.int32(lines), spec, frozen.fixed, chunk_spec)


class Frozen(NamedTuple):
    """A ``Setup`` in two parts: arrays, which are traced, and numbers, which are compiled in."""

    arrays: tuple
    fixed: tuple

    @classmethod
    def of(cls, setup: Setup) -> Frozen:
        return cls((setup.mass, setup.numbers), tuple(x for x in setup if not isinstance(x, np.ndarray)))

    @staticmethod
    def setup(arrays: tuple, fixed: tuple) -> Setup:
        dt, kT, pressure, dof, pbc, charge, spin = fixed
        return Setup(dt, kT, pressure, dof, *arrays, pbc, charge, spin)


@partial(jax.jit, static_argnames=("spec", "fixed", "ensemble"))
def _begin(
    potential: Potential, arrays: tuple, state: State, spec: ListSpec, fixed: tuple, ensemble: Ensemble
) -> tuple[State, Observation, Array]:
    setup = Frozen.setup(arrays, fixed)
    with jax.default_matmul_precision("highest"):
        forces = Forces(potential, spec, setup)
        neighbor = allocate(spec, state.position, state.cell)
        state = ensemble.start(setup, forces.compute(state, neighbor))
        return state, observe(setup, ensemble, state, forces.graph(state, neighbor)), neighbor.overflow


@partial(jax.jit, static_argnames=("spec", "fixed", "chunk_spec"))
def _run(
    potential: Potential, arrays: tuple, state: State, lines: Array, spec: ListSpec, fixed: tuple, chunk_spec: ChunkSpec
) -> ChunkResult:
    setup = Frozen.setup(arrays, fixed)
    with jax.default_matmul_precision("highest"):
        forces = Forces(potential, spec, setup)
        state = wrap(state.replace(heat=jnp.zeros_like(state.heat)), setup.pbc)
        neighbor = unbuilt(spec, state)
        log, frames = empty(chunk_spec, state)
        result = ChunkResult(state, log, frames, jnp.int32(0), jnp.int32(0), neighbor.overflow, jnp.asarray(False))

        def line(carry: tuple[ChunkResult, DeviceList]) -> tuple[ChunkResult, DeviceList]:
            before, neighbor = carry
            state, neighbor, made = advance(chunk_spec, forces, before.state, neighbor)
            seen = observe(setup, chunk_spec.ensemble, state, forces.graph(state, neighbor))
            log = jax.tree.map(lambda rows, row: rows.at[before.done].set(row), before.log, seen)
            frames = keep_frame(chunk_spec, before.frames, state, before.done + 1)
            cool = seen.kinetic <= chunk_spec.max_kinetic
            fine = cool & (seen.closest >= chunk_spec.min_distance) & jnp.isfinite(seen.interaction)
            # An overflow ends the steps before the line: what was seen then is not part of the log.
            done = before.done + jnp.where(neighbor.overflow, 0, 1)
            exploded = ~fine & ~neighbor.overflow
            after = ChunkResult(state, log, frames, done, before.steps + made, neighbor.overflow, exploded)
            return after, neighbor

        going = lambda carry: (carry[0].done < lines) & ~carry[0].overflow & ~carry[0].exploded
        return jax.lax.while_loop(going, line, (result, neighbor))[0]


def advance(chunk_spec: ChunkSpec, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList, Array]:
    """Make the steps up to the next line of the log, or up to an overflow of the list: state, list and number of steps."""

    def one(carry: tuple[State, DeviceList, Array]) -> tuple[State, DeviceList, Array]:
        state, neighbor, made = carry
        return *chunk_spec.ensemble.step(forces.setup, forces, state, neighbor), made + 1

    going = lambda carry: (carry[2] < chunk_spec.steps_per_line) & ~carry[1].overflow
    return jax.lax.while_loop(going, one, (state, neighbor, jnp.int32(0)))


def unbuilt(spec: ListSpec, state: State) -> DeviceList:
    """Make an empty list that counts as stale, so that the first step builds it: one copy less of that code to compile."""
    shape = jax.eval_shape(partial(allocate, spec), state.position, state.cell)
    neighbor = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    return dataclasses.replace(neighbor, reference_positions=neighbor.reference_positions + jnp.nan)


def observe(setup: Setup, ensemble: Ensemble, state: State, graph: Graph) -> Observation:
    """Measure what a line of the log says of a state; ``graph`` is the model's input for it."""
    periodic = all(setup.pbc)
    distance = jnp.sqrt(jnp.sum(edge_vectors(graph) ** 2, axis=-1))
    nothing = jnp.full((3, 3), jnp.nan, state.position.dtype)
    volume = jnp.abs(jnp.linalg.det(state.cell)) if periodic else nothing[0, 0]
    return Observation(
        interaction=state.interaction,
        kinetic=kinetic_energy(state.momentum, jnp.asarray(setup.mass, state.position.dtype)),
        reservoir=ensemble.reservoir(setup, state),
        stress=state.virial / volume if periodic else nothing,
        volume=volume,
        closest=jnp.min(distance),
    )


def wrap(state: State, pbc: tuple[bool, bool, bool]) -> State:
    """Take whole lattice vectors off atoms that have gone far, for the sake of float32; ``images`` counts them."""
    if not any(pbc):
        return state
    cell = complete_cell(state.cell, pbc)
    fraction = state.position @ jnp.linalg.inv(cell)
    far = (jnp.abs(fraction - 0.5) > FAR) & jnp.asarray(pbc)
    whole = jnp.where(far, jnp.floor(fraction), 0)
    return state.replace(position=state.position - whole @ cell, images=state.images + whole.astype(jnp.int32))


def empty(chunk_spec: ChunkSpec, state: State) -> tuple[Observation, Frames]:
    """Make zeros for the lines and frames of a full chunk."""
    dtype, atoms = state.position.dtype, state.position.shape
    room = lambda *shape: jnp.zeros(shape, dtype)
    n = chunk_spec.lines // chunk_spec.lines_per_frame if chunk_spec.lines_per_frame else 0
    log = Observation(*(room(chunk_spec.lines, *((3, 3) if name == "stress" else ())) for name in Observation._fields))
    return log, Frames(*(room(n, *atoms) for _ in range(3)), room(n, 3, 3))


def keep_frame(chunk_spec: ChunkSpec, frames: Frames, state: State, done: Array) -> Frames:
    """Write the state into its row of ``frames``, where ``done`` lines make whole frames."""
    if not chunk_spec.lines_per_frame:
        return frames
    place = jnp.where(done % chunk_spec.lines_per_frame == 0, done // chunk_spec.lines_per_frame - 1, chunk_spec.lines)
    now = frame_of(state)
    return jax.tree.map(lambda rows, row: rows.at[place].set(row, mode="drop"), frames, now)


def frame_of(state: State) -> Frames:
    """The state as one frame, without the leading axis."""
    position = state.position + state.images.astype(state.position.dtype) @ state.cell
    return Frames(position, state.momentum, state.force, state.cell)


def max_kinetic(temperature: float, atoms: int) -> float:
    """Kinetic energy (eV) of so many atoms at a temperature (K)."""
    return 1.5 * atoms * kB * temperature
