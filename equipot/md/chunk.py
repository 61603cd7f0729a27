"""A chunk of a run as one compiled function: steps, updates of the neighbour list, lines of the log and frames.

A chunk begins by subtracting whole lattice vectors from distant atoms and by building the neighbour list. The chunk is
therefore a function of the state alone, and a run that stops between two chunks resumes exactly. A chunk ends early if the list
overflows (the host repeats the chunk with a larger list), if the system explodes, or where a gate stops the run: at a check of
the deviations of forces, or in any step by novelty, so that the last line is then one between the usual steps.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

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
    """Lines of the log per check of the deviations of forces; zero for none."""
    halt: float = float("inf")
    """Deviation of a force (eV/Å) at which the gate stops the run."""
    watches_novelty: bool = False
    """Whether the novelty of all atoms is computed in every step."""
    halt_novelty: float = float("inf")
    """Novelty of an atom at which the gate stops the run."""


class Frames(NamedTuple):
    """Frames of a chunk, stacked along the first axis, or a single one without that axis."""

    position: Float[Array, "frames atoms 3"]
    """Å, continuous in time."""
    momentum: Float[Array, "frames atoms 3"]
    force: Float[Array, "frames atoms 3"]
    cell: Float[Array, "frames 3 3"]
    novelty: Float[Array, "frames atoms"] | tuple[()] = ()
    """Novelty of each atom; an empty tuple where it is not watched."""


class Peak(NamedTuple):
    """The step since the last line of the log in which the largest novelty of any atom was largest, the first of several."""

    step: Int[Array, ""]
    """Number of steps of the chunk made by then."""
    interaction: Float[Array, ""]
    """Potential energy, eV, without E0 of the isolated atoms."""
    frame: Frames
    """The frame, with novelty; NaN in place of novelty before the first step."""

    @property
    def novelty(self) -> Float[Array, ""]:
        """Largest novelty of any atom."""
        return jnp.max(jnp.asarray(self.frame.novelty))


class ChunkResult(NamedTuple):
    """State at the end of a chunk, lines of the log and frames. Rows after the first ``done`` lines are meaningless."""

    state: State
    log: Observation
    frames: Frames
    checked: Frames
    """Frames at the checks of the deviations of forces."""
    peaks: Peak | tuple[()]
    """The peak of novelty before each line, stacked; an empty tuple where novelty is not watched."""
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
    """Compute forces and ``State.extra`` at step zero; return the state, the observation and the overflow flag of the list.

    The state has its novelty where that is watched.
    """
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
        forces = Forces(potential, spec, setup, chunk_spec.watches_novelty)
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
        forces = Forces(potential, spec, setup, chunk_spec.watches_novelty)
        state = wrap(state.replace(heat=jnp.zeros_like(state.heat)), setup.pbc)
        neighbor = unbuilt(spec, state)
        if chunk_spec.watches_novelty:
            state = state.replace(novelty=jnp.full(len(state.position), jnp.nan, state.position.dtype))
        log, frames, checked, peaks = empty(chunk_spec, state)
        none, no = jnp.int32(0), jnp.asarray(False)
        result = ChunkResult(state, log, frames, checked, peaks, none, none, neighbor.overflow, no, no)

        def line(carry: tuple[ChunkResult, DeviceList]) -> tuple[ChunkResult, DeviceList]:
            before, neighbor = carry
            state, neighbor, made, peak = advance(chunk_spec, forces, before.state, neighbor)
            per = chunk_spec.lines_per_check
            due = ((before.done + 1) % per == 0) & ~neighbor.overflow if per else False
            seen = observe(forces, chunk_spec.ensemble, state, neighbor, due)
            log = jax.tree.map(lambda rows, row: rows.at[before.done].set(row), before.log, seen)
            peaks = keep_peak(before, peak)
            frames = keep_frame(chunk_spec.lines_per_frame, before.frames, state, before.done + 1)
            checked = keep_frame(per, before.checked, state, before.done + 1)
            cool = seen.kinetic <= chunk_spec.max_kinetic
            fine = cool & (seen.closest >= chunk_spec.min_distance) & jnp.isfinite(seen.interaction)
            # An overflow ends the steps before the line: what was seen then is not part of the log.
            done = before.done + jnp.where(neighbor.overflow, 0, 1)
            exploded = ~fine & ~neighbor.overflow
            halted = ~neighbor.overflow & (jnp.max(seen.forces_std) >= chunk_spec.halt)
            if isinstance(peak, Peak):
                halted |= ~neighbor.overflow & is_too_new(chunk_spec, peak)
            made = before.steps + made
            after = ChunkResult(state, log, frames, checked, peaks, done, made, neighbor.overflow, exploded, halted)
            return after, neighbor

        stopped = lambda result: result.overflow | result.exploded | result.halted
        going = lambda carry: (carry[0].done < lines) & ~stopped(carry[0])
        result = jax.lax.while_loop(going, line, (result, neighbor))[0]
        return result._replace(state=result.state.replace(novelty=()))


def advance(
    chunk_spec: ChunkSpec, forces: Forces, state: State, neighbor: DeviceList
) -> tuple[State, DeviceList, Array, Peak | tuple[()]]:
    """Make the steps up to the next line of the log, to an overflow of the list, or to a halt by novelty.

    Returns:
        State, list, number of steps, and the peak of novelty, which counts steps from the last line on.
    """
    watches = chunk_spec.watches_novelty

    def one(carry: tuple[State, DeviceList, Array, Any]) -> tuple[State, DeviceList, Array, Any]:
        state, neighbor, made, peak = carry
        state, neighbor = chunk_spec.ensemble.step(forces.setup, forces, state, neighbor)
        return state, neighbor, made + 1, higher(peak, state, made + 1) if watches else peak

    def going(carry: tuple[State, DeviceList, Array, Any]) -> Array:
        _, neighbor, made, peak = carry
        more = (made < chunk_spec.steps_per_line) & ~neighbor.overflow
        return more & ~is_too_new(chunk_spec, peak) if watches else more

    made = jnp.int32(0)
    lowest = Peak(made, state.interaction, frame_of(state.replace(novelty=state.novelty + jnp.nan))) if watches else ()
    return jax.lax.while_loop(going, one, (state, neighbor, made, lowest))


def higher(peak: Peak, state: State, made: Array) -> Peak:
    """Return the peak of novelty after a further step; values that are no numbers count as the largest."""
    now = Peak(made, state.interaction, frame_of(state))
    return jax.tree.map(partial(jnp.where, peak.novelty >= now.novelty), peak, now)


def is_too_new(chunk_spec: ChunkSpec, peak: Peak) -> Bool[Array, ""]:
    """Whether novelty stops the run; an infinite limit is none, even for atoms of infinite novelty."""
    return (peak.novelty >= chunk_spec.halt_novelty) & (chunk_spec.halt_novelty < jnp.inf)


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


def empty(chunk_spec: ChunkSpec, state: State) -> tuple[Observation, Frames, Frames, Peak | tuple[()]]:
    """Allocate zeros for the lines, frames, checked frames and peaks of novelty of a full chunk."""
    dtype, atoms = state.position.dtype, state.position.shape
    room = lambda *shape: jnp.zeros(shape, dtype)
    shapes = {"stress": (3, 3), "dipole": (3,), "forces_std": atoms[:1]}
    log = Observation(*(room(chunk_spec.lines, *shapes.get(name, ())) for name in Observation._fields))
    watches = chunk_spec.watches_novelty
    novelty = lambda n: room(n, *atoms[:1]) if watches else ()
    frames = lambda n: Frames(room(n, *atoms), room(n, *atoms), room(n, *atoms), room(n, 3, 3), novelty(n))
    every = (chunk_spec.lines_per_frame, chunk_spec.lines_per_check)
    of_log, of_gate = (frames(chunk_spec.lines // per if per else 0) for per in every)
    peaks = Peak(jnp.zeros(chunk_spec.lines, jnp.int32), room(chunk_spec.lines), frames(chunk_spec.lines)) if watches else ()
    return log, of_log, of_gate, peaks


def keep_peak(before: ChunkResult, peak: Peak | tuple[()]) -> Peak | tuple[()]:
    """Write the peak of novelty before a line into its row, as steps of the whole chunk; nothing where none is watched."""
    if isinstance(peak, Peak):
        peak = peak._replace(step=before.steps + peak.step)
    return jax.tree.map(lambda rows, row: rows.at[before.done].set(row), before.peaks, peak)


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
    return Frames(position, state.momentum, state.force, state.cell, state.novelty)


def max_kinetic(temperature: float, atoms: int) -> float:
    """Compute the kinetic energy (eV) of a number of atoms at a temperature (K)."""
    return 1.5 * atoms * kB * temperature
