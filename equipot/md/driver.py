"""Run molecular dynamics: chunks on the device; files, progress and errors on the host.

The folder of a run holds ``config.yaml``, ``log.csv``, the trajectory, ``checkpoint.safetensors`` and, at the end, ``md.png``
and ``md.html``; with a gate ``recorded.xyz`` and ``recorded.png`` besides.
After each chunk, log and trajectory are extended and then the checkpoint is replaced, so that a kill loses at most one chunk. A
resumed run cuts the files back to the checkpoint and continues bit for bit. A checkpoint always holds the state after a full
chunk: if the run ends within a chunk, a longer run repeats that chunk, and so does, after a halt, a run with another gate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

import jax
import numpy as np

from equipot import config as yaml
from equipot.console import stream_of
from equipot.data.batch import centred
from equipot.files import write_atomically
from equipot.interrupts import Interrupts
from equipot.isolated_atoms import isolated_atom_energy
from equipot.md import chunk, log
from equipot.md.checkpoint import fingerprint, read_checkpoint, restore, spec_from_record, spec_to_record, write_checkpoint
from equipot.md.config import MDConfig
from equipot.md.gate import Halted
from equipot.md.harvest import Harvester
from equipot.md.outputs import Outputs
from equipot.md.prepare import (
    check_start,
    explain_start,
    read_structure,
    start_list,
    start_setup,
    start_state,
    with_conditions,
    with_subtracted,
)
from equipot.md.progress import Progress
from equipot.md.state import Setup, State, masses
from equipot.md.summary import Summary, second_half, summarise
from equipot.md.trajectory import System
from equipot.neighbors import ListSpec, grow, more_pairs
from equipot.pages import try_to_write_page
from equipot.potential import Potential
from equipot.published import load as load_potential
from equipot.quantities import DIPOLE
from equipot.structure import Structure
from equipot.units import kB

MOST_GROWTHS = 20
"""Largest number of repetitions of a chunk with a larger neighbour list."""


class Explosion(RuntimeError):
    """The system exploded: a coordinate is not finite, the temperature is above its limit, or atoms have fused."""


class Snapshot(NamedTuple):
    """State of a run between two chunks, as stored in a checkpoint."""

    step: int
    state: State
    spec: ListSpec
    heat: float
    """Energy that stochastic forces added in earlier chunks, eV."""
    marks: dict[str, int]
    """Length of the log (bytes) and of the trajectory (bytes or frames)."""


def run(config: MDConfig, out: str | Path, resume: bool = False, progress: TextIO | bool | None = True) -> Summary:
    """Run molecular dynamics by a config into the folder ``out``.

    Args:
        resume: whether to continue the run in the folder.
        progress: stream for progress; True for standard output, None or False for silence.

    Raises:
        FileNotFoundError: no such potential or structure.
        ValueError: errors in the config, the structure or the folder.
        Explosion: the system exploded; the last frames are in the trajectory.
        Halted: the gate has stopped the run; the log ends where it did. With another gate, or none, ``resume`` goes on.
        KeyboardInterrupt: after Ctrl-C, once the chunk is finished and stored.
    """
    potential = load_potential(config.model, dtype=config.dtype)
    structure = read_structure(config.structure, config.frame, config.repeat, config.types)
    return simulate(potential, structure, config, out, resume, progress)


def simulate(
    potential: Potential,
    structure: Structure,
    config: MDConfig,
    out: str | Path,
    resume: bool = False,
    progress: TextIO | bool | None = True,
) -> Summary:
    """Run molecular dynamics of a given potential and structure, instead of those that the config names.

    Other arguments are those of ``run``.

    Raises:
        ValueError, Explosion, KeyboardInterrupt: as ``run``.
    """
    start, shown = with_conditions(config, structure), Progress(stream_of(progress), config)
    moved, zero = with_subtracted(config, potential.astype(config.dtype), start)
    return Simulation(moved, start, config, Path(out), shown, zero).go(resume)


class Simulation:
    """One run: work of the host between chunks."""

    def __init__(
        self, potential: Potential, structure: Structure, config: MDConfig, out: Path, progress: Progress, zero: float = 0.0
    ):
        """Prepare a run; ``zero`` is an energy (eV) that those of the potential lack beside E0.

        Raises:
            ValueError: as ``check_start``.
        """
        check_start(config, potential, structure, progress.say)
        dtype = potential.dtype
        self.potential = potential
        self.structure = structure
        self.config = config
        self.out = out
        self.progress = progress
        self.setup: Setup = start_setup(config, structure, dtype)
        self.frozen = chunk.Frozen.of(self.setup)
        lines_per_frame = 0 if config.trajectory is None else config.trajectory.every // config.log_every
        limit = chunk.max_kinetic(config.max_temperature_K, len(structure))
        lines = config.chunk // config.log_every
        self.gate = gate = config.gate
        self.chunk_spec = chunk.ChunkSpec(config.ensemble, config.log_every, lines, lines_per_frame, limit, config.min_distance)
        if gate is not None:
            self.chunk_spec = self.chunk_spec._replace(
                lines_per_check=gate.interval // config.log_every,
                halt=gate.limit,
                watches_novelty=gate.watches_novelty,
                halt_novelty=gate.novelty_limit,
            )
        e0 = float(isolated_atom_energy(structure.numbers, dict(potential.metadata.atomic_energies)).sum())
        has_dipole = DIPOLE in potential.provides
        self.ledger = log.Ledger(e0 + zero, max(self.setup.dof, 1), config.timestep_fs, has_dipole, gate is not None)
        system = System(
            structure.numbers,
            masses(structure),
            self.setup.pbc,
            structure.masses is not None,
            structure.conditions,
            gate is not None,
        )
        self.outputs = Outputs(config, out, system)
        geometry = (structure.numbers, structure.positions, structure.cell, structure.pbc)
        momenta = structure.momenta if config.velocities == "file" else None
        conditions = (structure.charge, structure.spin, *(structure.field if structure.field.any() else ()))
        self.identity = fingerprint(potential.variables, geometry, masses(structure), momenta, conditions)
        # What a gate asks besides; of no concern to a run without one.
        self.estimate = None if gate is None else fingerprint(potential.posterior)
        self.builds = 1

    @property
    def harvester(self) -> Harvester:
        """Converter of results of the device."""
        # Atoms of an ion in a field are not centred.
        origin = (self.structure.positions - centred(self.structure)).mean(axis=0)
        return Harvester(self.ledger, self.config.log_every, origin)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.out / "checkpoint.safetensors"

    def go(self, resume: bool) -> Summary:
        """Run from the start, or from the checkpoint, to the last step."""
        at = self.resume() if resume else self.start()
        self.progress.open(at.step, len(self.structure))
        try:
            with Interrupts(lambda: self.progress.say(STOPPING)) as interrupts:
                while at.step < self.config.steps:
                    at = self.advance(at)
                    if interrupts.requested:
                        interrupts.reraise(f"stopped at step {at.step} of {self.config.steps}; continue with resume")
        finally:
            self.progress.close()
        return self.finish()

    def start(self) -> Snapshot:
        """Compute step zero and write the first line of the log, the first frame and a checkpoint.

        Raises:
            ValueError: the folder holds a run, or energy or forces are not finite.
        """
        if self.checkpoint.exists() or self.outputs.log.mark():
            raise ValueError(f"{self.out} holds a run already; continue it with resume, or choose another folder")
        explain_start(self.config, self.structure, self.progress.say)
        first, spec = start_state(self.config, self.structure, self.potential.dtype), self.first_list()
        begin = lambda spec: chunk.begin(self.potential, spec, self.frozen, self.chunk_spec, first)
        state, seen, overflow = begin(spec)
        growths = 0
        while bool(overflow):
            spec, growths = grow(spec, self.structure.positions, self.structure.cell), growths + 1
            if growths > MOST_GROWTHS:
                raise ValueError(f"{self.structure.name}: no neighbour list holds it, not even one {spec}")
            state, seen, overflow = begin(spec)
        if not (np.isfinite(seen.interaction) and np.isfinite(state.force).all()):
            raise ValueError(
                f"{self.structure.name}: the potential's energy or forces are not finite there; correct the structure"
            )
        newest = float(np.max(state.novelty)) if self.chunk_spec.watches_novelty else np.nan
        line = self.ledger.line(0, seen, 0.0, newest)
        first_frame = self.harvester.frame_of_line(line, chunk.frame_of(state), seen)
        if self.gate is not None and (reason := self.gate.reason(first_frame)):
            raise Halted(reason)
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "config.yaml", yaml.to_yaml(self.config).encode())
        self.outputs.log.append(log.header(line))
        self.outputs.append([line], [first_frame], [first_frame])
        at = Snapshot(0, state.replace(novelty=()), spec, 0.0, self.outputs.marks())
        self.save(at, 0)
        return at

    def first_list(self) -> ListSpec:
        """Plan the neighbour list for the starting structure."""
        return start_list(self.config, self.structure, self.potential)

    def resume(self) -> Snapshot:
        """Read the checkpoint and cut the files back to its step; without a checkpoint, start.

        Raises:
            ValueError: a checkpoint of another config, potential or structure, or beyond the last step.
        """
        if not self.checkpoint.exists():
            self.outputs.clear()
            self.progress.say(f"{self.out} holds no checkpoint to resume from: starting at step 0")
            return self.start()
        arrays, record = read_checkpoint(self.checkpoint)
        now, then = yaml.dump(self.config), record["config"]
        changed = [key for key in now if key not in MAY_CHANGE and now[key] != then.get(key)]
        if changed:
            key = changed[0]
            raise ValueError(
                f"{key} was {then.get(key)} and is {now[key]}: a resumed run may only change {' and '.join(MAY_CHANGE)}"
            )
        if record["identity"] != self.identity:
            raise ValueError(f"{self.checkpoint} was written with another potential or another structure; use the same ones")
        if len({self.estimate, record.get("estimate")} - {None}) > 1:
            raise ValueError(
                f"{self.checkpoint} was written with another estimate of uncertainty; use the same one, or go on without a gate"
            )
        state = start_state(self.config, self.structure, self.potential.dtype)
        begin = lambda s: chunk.begin(self.potential, self.first_list(), self.frozen, self.chunk_spec, s)[0].replace(novelty=())
        state = restore(self.checkpoint, arrays, jax.eval_shape(begin, state))
        done, marks = record["done"], record["marks"]
        if done > self.config.steps:
            raise ValueError(f"steps is {self.config.steps}, but {done} are done already")
        at = Snapshot(record["step"], state, spec_from_record(record["spec"]), record["heat"], marks)
        if done == self.config.steps:
            self.progress.say(f"all {done} steps are done already; a larger value of steps continues the run")
            return at._replace(step=done)
        # Before the files are cut: the lines behind the checkpoint are about to go.
        self.save(at, at.step)
        self.outputs.cut(marks)
        self.ledger = self.ledger._replace(has_gate=log.has_gate_columns(self.outputs.log.path))
        if self.gate is not None and not self.ledger.has_gate:
            self.progress.say("log and trajectory began without a gate and stay without estimates; recorded.xyz has them")
        write_atomically(self.out / "config.yaml", yaml.to_yaml(self.config).encode())
        self.progress.say(f"resuming at step {at.step} of {self.config.steps}")
        return at

    def save(self, at: Snapshot, done: int) -> None:
        """Replace the checkpoint; log and trajectory are complete up to step ``done``."""
        record = {
            "step": at.step,
            "done": done,
            "heat": at.heat,
            "spec": spec_to_record(at.spec),
            "marks": at.marks,
            "identity": self.identity,
            "estimate": self.estimate,
            "config": yaml.dump(self.config),
        }
        write_checkpoint(self.checkpoint, at.state, record)

    def advance(self, at: Snapshot) -> Snapshot:
        """Compute one chunk, write its lines and frames, and replace the checkpoint."""
        begun = time.perf_counter()
        lines = min(self.chunk_spec.lines, (self.config.steps - at.step) // self.config.log_every)
        result, spec = self.compute(at, lines)
        table, frames, checked = self.harvester.harvest(self.chunk_spec, at.step, at.heat, result)
        self.outputs.append(table, frames, checked)
        if bool(result.halted):
            assert self.gate is not None, "nothing else halts a run"
            self.outputs.draw_recorded()
            raise Halted(self.gate.reason(checked[-1]))
        after = Snapshot(table[-1].step, result.state, spec, at.heat + float(result.state.heat), self.marks(at.marks))
        # Frames and builds of the list are counted from the beginning of a chunk: nothing may go on from the middle of one.
        self.save(after if lines == self.chunk_spec.lines else at, after.step)
        self.progress.advance(after.step, lines * self.config.log_every, table[-1], time.perf_counter() - begun)
        return after

    def marks(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the lengths of the files; without a gate, that of what earlier gates recorded stays what it was."""
        return self.outputs.marks() | ({"recorded": before.get("recorded", 0)} if self.gate is None else {})

    def compute(self, at: Snapshot, lines: int) -> tuple[chunk.ChunkResult, ListSpec]:
        """Compute a chunk on the device; while the neighbour list overflows, repeat the chunk with a larger list.

        Raises:
            Explosion: the system exploded, or the list is still too small after ``MOST_GROWTHS`` repetitions.
        """
        spec = at.spec
        for _ in range(MOST_GROWTHS):
            result = jax.device_get(chunk.run_chunk(self.potential, spec, self.frozen, self.chunk_spec, at.state, lines))
            step = at.step + int(result.steps)
            # Pairs without room make forces that are no numbers: only where there is room for all has something broken.
            wider = None if self.finite(result) else more_pairs(spec, len(self.structure))
            if wider is not None:
                spec = self.repeat(at, step, wider)
                continue
            reason = self.what_broke(result)
            if reason:
                self.explode(at, result, reason)
            if not bool(result.overflow):
                return result, spec
            try:
                spec = self.repeat(at, step, grow(spec, result.state.position, result.state.cell))
            except ValueError as error:
                self.explode(at, result, str(error))
        self.explode(at, result, f"the neighbour list is still too small after {MOST_GROWTHS} growths")

    def repeat(self, at: Snapshot, step: int, spec: ListSpec) -> ListSpec:
        """Report that a chunk is repeated with a larger list, and return the sizes of that list."""
        self.builds += 1
        pairs = "" if spec.pair_capacity is None else f" and {spec.pair_capacity} pairs within the cutoff"
        room = f"with room for {spec.slots} neighbours of an atom{pairs}"
        self.progress.say(f"step {step}: the neighbour list was too small; repeating from step {at.step} {room}")
        return spec

    def finite(self, result: chunk.ChunkResult) -> bool:
        """Whether positions, momenta and cell at the end of a chunk are finite."""
        state = result.state
        return all(np.isfinite(x).all() for x in (state.position, state.momentum, state.cell))

    def what_broke(self, result: chunk.ChunkResult) -> str:
        """Describe why the state at the end of a chunk counts as exploded; empty if not."""
        state, config = result.state, self.config
        temperature = float(np.sum(state.momentum**2 / self.setup.mass)) / (self.ledger.dof * kB)
        if not self.finite(result):
            return "a coordinate is not finite"
        if temperature > config.max_temperature_K:
            return f"the temperature is {temperature:.3g} K (max_temperature_K is {config.max_temperature_K:g})"
        if not bool(result.exploded):
            return ""
        closest = float(result.log.closest[int(result.done) - 1])
        if closest < config.min_distance:
            return f"two atoms are {closest:.3f} Å apart (min_distance is {config.min_distance} Å)"
        return "the energy is not finite"

    def explode(self, at: Snapshot, result: chunk.ChunkResult, reason: str) -> NoReturn:
        """Write lines and frames, the exploded state last, and raise; the checkpoint stays at the last chunk.

        Raises:
            Explosion: always.
        """
        step = at.step + int(result.steps)
        table, frames, checked = self.harvester.harvest(self.chunk_spec, at.step, at.heat, result)
        state = result.state
        if np.isfinite(state.position).all() and (not frames or frames[-1].step < step):
            energy = table[-1].potential_eV if table and table[-1].step == step else np.nan
            frames = [*frames, self.harvester.frame(step, jax.device_get(chunk.frame_of(state)), energy)]
        self.outputs.append(table, frames, checked)
        self.outputs.draw_recorded()
        where = "" if self.outputs.trajectory is None else " The last frames are in the trajectory."
        raise Explosion(f"step {step}: {reason}; {REMEDY}{where} The last good state is step {at.step}.")

    def finish(self) -> Summary:
        """Draw md.png and what a gate recorded, write md.html, and report and return the results of the whole run."""
        from equipot.md import page
        from equipot.md.plot import plot

        table = log.read(self.outputs.log.path)
        plot(table, self.out / "md.png")
        self.outputs.draw_recorded()
        summary = summarise(table, self.config, len(self.structure), self.progress.ns_per_day, self.builds)
        blocks = lambda: page.run_blocks(self.out, table, summary)
        try_to_write_page(self.out / page.NAME, f"Molecular dynamics: {self.out.name}", blocks, self.progress.say)
        self.progress.finish(summary, second_half(table))
        return summary


MAY_CHANGE = ("steps", "gate", "model", "structure")
"""Fields of the config that may differ in a resumed run; potential and structure may be other files with equal content."""
REMEDY = "look at the last frames; use a shorter time step, a relaxed start, or a potential that knows such structures."
STOPPING = "stopping after this chunk; once more to stop at once, at the cost of this chunk"
