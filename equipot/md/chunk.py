"""A chunk of a run as one compiled function: steps, updates of the neighbour list, lines of the log and frames.

A chunk begins by subtracting whole lattice vectors from distant atoms and by building the neighbour list. The chunk is
therefore a function of the state alone, and a run that stops between two chunks resumes exactly. A chunk ends early if the list
overflows (the host repeats the chunk with a larger list) or if the system explodes.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import edge_vectors
from equipot.md.ensembles import Ensemble
from equipot.md.forces import Forces
from equipot.md.state import Observation, Setup, State, kinetic_energy
from equipot.neighbors import DeviceList, ListSpec, allocate, complete_cell
from equipot.potential import Potential
from equipot.units import kB

FAR = 1.5
"""Distance from the middle of the cell, in cell vectors, beyond which lattice vectors are subtracted."""


class ChunkSpec(NamedTuple):
    """Sizes and limits of a chunk, and the ensemble; hashable, as a static argument of the compiled function."""

    ensemble: Ensemble
    steps_per_line: int
    lines: int
    """Lines of the log in a full chunk."""
    lines_per_frame: int
    """Lines of the log per frame of the trajectory; zero if no frames are kept."""
    max_kinetic: float
    """Kinetic energy (eV) above which the run counts as exploded."""
    min_distance: float
    """Distance (Å) below which two atoms count as fused."""
    lines_per_check: int = 0
    """Lines of the log per check of the gate; zero for no gate."""
    halt: float = float("inf")
    """Deviation of a force (eV/Å) at which the gate stops the run."""


class Frames(NamedTuple):
    """Frames of a chunk, stacked along the first axis."""

    position: Float[Array, "frames atoms 3"]
    """Å, continuous in time."""
    momentum: Float[Array, "frames atoms 3"]
    force: Float[Array, "frames atoms 3"]
    cell: Float[Array, "frames 3 3"]


class ChunkResult(NamedTuple):
    """State at the end of a chunk, lines of the log and frames. Rows after the first ``done`` lines are meaningless."""

    state: State
    log: Observation
    frames: Frames
    checked: Frames
    """Frames at the checks of the gate."""
    done: Int[Array, ""]
    """Number of completed lines of the log."""
    steps: Int[Array, ""]
    """Number of steps made, the step of an overflow or explosion included."""
    overflow: Bool[Array, ""]
    """Whether the list was too small; of such a chunk only ``steps`` and the geometry at the overflow may be used."""
    exploded: Bool[Array, ""]
    """Whether the system has exploded; the last line is of the exploded system."""
    halted: Bool[Array, ""]
    """Whether the gate has stopped the run, at the last line."""


def begin(
    potential: Potential, spec: ListSpec, frozen: Frozen, chunk_spec: ChunkSpec, state: State
) -> tuple[State, Observation, Array]:
    """Compute forces and ``State.extra`` at step zero; return the state, the observation and the overflow flag of the list."""
    return _begin(potential, frozen.arrays, state, spec, frozen.fixed, chunk_spec)


def run_chunk(
    potential: Potential, spec: ListSpec, frozen: Frozen, chunk_spec: ChunkSpec, state: State, lines: int
) -> ChunkResult:
    """Run a chunk of ``lines`` lines of the log; compiled once for each size of the list, for any number of lines."""
    return _run(potential, frozen.arrays, state, jnp.int32(lines), spec, frozen.fixed, chunk_spec)


class Frozen(NamedTuple):
    """A ``Setup`` split into arrays, which are traced, and numbers, which are static."""

    arrays: tuple
    fixed: tuple

    @classmethod
    def of(cls, setup: Setup) -> Frozen:
        """Split a setup."""
        return cls((setup.mass, setup.numbers), tuple(x for x in setup if not isinstance(x, np.ndarray)))

    @staticmethod
    def setup(arrays: tuple, fixed: tuple) -> Setup:
        """Join the two parts to a setup."""
        dt, kT, pressure, dof, pbc, charge, spin, field = fixed
        mass, numbers = arrays
        return Setup(dt, kT, pressure, dof, mass, numbers, pbc, charge, spin, field)


@partial(jax.jit, static_argnames=("spec", "fixed", "chunk_spec"))
def _begin(
    potential: Potential, arrays: tuple, state: State, spec: ListSpec, fixed: tuple, chunk_spec: ChunkSpec
) -> tuple[State, Observation, Array]:
    setup = Frozen.setup(arrays, fixed)
    with jax.default_matmul_precision("highest"):
        forces = Forces(potential, spec, setup)
        neighbor = allocate(spec, state.position, state.cell)
        state = chunk_spec.ensemble.start(setup, forces.compute(state, neighbor))
        due = chunk_spec.lines_per_check > 0
        return state, observe(forces, chunk_spec.ensemble, state, neighbor, due), neighbor.overflow


@partial(jax.jit, static_argnames=("spec", "fixed", "chunk_spec"))
def _run(
    potential: Potential, arrays: tuple, state: State, lines: Array, spec: ListSpec, fixed: tuple, chunk_spec: ChunkSpec
) -> ChunkResult:
    setup = Frozen.setup(arrays, fixed)
    with jax.default_matmul_precision("highest"):
        forces = Forces(potential, spec, setup)
        state = wrap(state.replace(heat=jnp.zeros_like(state.heat)), setup.pbc)
        neighbor = unbuilt(spec, state)
        log, frames, checked = empty(chunk_spec, state)
        none, no = jnp.int32(0), jnp.asarray(False)
        result = ChunkResult(state, log, frames, checked, none, none, neighbor.overflow, no, no)

        def line(carry: tuple[ChunkResult, DeviceList]) -> tuple[ChunkResult, DeviceList]:
            before, neighbor = carry
            state, neighbor, made = advance(chunk_spec, forces, before.state, neighbor)
            per = chunk_spec.lines_per_check
            due = ((before.done + 1) % per == 0) & ~neighbor.overflow if per else False
            seen = observe(forces, chunk_spec.ensemble, state, neighbor, due)
            log = jax.tree.map(lambda rows, row: rows.at[before.done].set(row), before.log, seen)
            frames = keep_frame(chunk_spec.lines_per_frame, before.frames, state, before.done + 1)
            checked = keep_frame(per, before.checked, state, before.done + 1)
            cool = seen.kinetic <= chunk_spec.max_kinetic
            fine = cool & (seen.closest >= chunk_spec.min_distance) & jnp.isfinite(seen.interaction)
            # An overflow ends the steps before the line: what was seen then is not part of the log.
            done = before.done + jnp.where(neighbor.overflow, 0, 1)
            exploded = ~fine & ~neighbor.overflow
            halted = ~neighbor.overflow & (jnp.max(seen.forces_std) >= chunk_spec.halt)
            made = before.steps + made
            after = ChunkResult(state, log, frames, checked, done, made, neighbor.overflow, exploded, halted)
            return after, neighbor

        stopped = lambda result: result.overflow | result.exploded | result.halted
        going = lambda carry: (carry[0].done < lines) & ~stopped(carry[0])
        return jax.lax.while_loop(going, line, (result, neighbor))[0]


def advance(chunk_spec: ChunkSpec, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList, Array]:
    """Make the steps up to the next line of the log, or up to an overflow of the list: state, list and number of steps."""

    def one(carry: tuple[State, DeviceList, Array]) -> tuple[State, DeviceList, Array]:
        state, neighbor, made = carry
        return *chunk_spec.ensemble.step(forces.setup, forces, state, neighbor), made + 1

    going = lambda carry: (carry[2] < chunk_spec.steps_per_line) & ~carry[1].overflow
    return jax.lax.while_loop(going, one, (state, neighbor, jnp.int32(0)))


def unbuilt(spec: ListSpec, state: State) -> DeviceList:
    """Make an empty list that counts as stale: the first step builds the list, so that building is compiled only once."""
    shape = jax.eval_shape(partial(allocate, spec), state.position, state.cell)
    neighbor = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    return dataclasses.replace(neighbor, reference_positions=neighbor.reference_positions + jnp.nan)


def observe(forces: Forces, ensemble: Ensemble, state: State, neighbor: DeviceList, due: Bool[Array, ""] | bool) -> Observation:
    """Compute the observation of a state, for which the list is complete, for the log; with deviations where ``due``."""
    energy_std, forces_std = forces.deviations(state, neighbor, due)
    setup, graph = forces.setup, forces.graph(state, neighbor)
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
        dipole=forces.dipole(state, neighbor),
        energy_std=energy_std,
        forces_std=forces_std,
    )


def wrap(state: State, pbc: tuple[bool, bool, bool]) -> State:
    """Subtract whole lattice vectors from distant atoms, to keep digits in float32; ``images`` counts the vectors."""
    if not any(pbc):
        return state
    cell = complete_cell(state.cell, pbc)
    fraction = state.position @ jnp.linalg.inv(cell)
    far = (jnp.abs(fraction - 0.5) > FAR) & jnp.asarray(pbc)[None]
    whole = jnp.where(far, jnp.floor(fraction), 0)
    return state.replace(position=state.position - whole @ cell, images=state.images + whole.astype(jnp.int32))


def empty(chunk_spec: ChunkSpec, state: State) -> tuple[Observation, Frames, Frames]:
    """Allocate zeros for the lines, frames and checked frames of a full chunk."""
    dtype, atoms = state.position.dtype, state.position.shape
    room = lambda *shape: jnp.zeros(shape, dtype)
    shapes = {"stress": (3, 3), "dipole": (3,), "forces_std": atoms[:1]}
    log = Observation(*(room(chunk_spec.lines, *shapes.get(name, ())) for name in Observation._fields))
    frames = lambda n: Frames(room(n, *atoms), room(n, *atoms), room(n, *atoms), room(n, 3, 3))
    every = (chunk_spec.lines_per_frame, chunk_spec.lines_per_check)
    of_log, of_gate = (frames(chunk_spec.lines // per if per else 0) for per in every)
    return log, of_log, of_gate


def keep_frame(per: int, frames: Frames, state: State, done: Array) -> Frames:
    """Write the state into the next row of ``frames`` if ``done`` lines complete a frame, of ``per`` lines; zero for none."""
    if not per:
        return frames
    place = jnp.where(done % per == 0, done // per - 1, len(frames.cell))
    now = frame_of(state)
    return jax.tree.map(lambda rows, row: rows.at[place].set(row, mode="drop"), frames, now)


def frame_of(state: State) -> Frames:
    """Convert a state to one frame, without the leading axis."""
    position = state.position + state.images.astype(state.position.dtype) @ state.cell
    return Frames(position, state.momentum, state.force, state.cell)


def max_kinetic(temperature: float, atoms: int) -> float:
    """Compute the kinetic energy (eV) of a number of atoms at a temperature (K)."""
    return 1.5 * atoms * kB * temperature
