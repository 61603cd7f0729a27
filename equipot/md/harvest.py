"""Results of a chunk on the host: lines of the log, and frames for the trajectory and for the gate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from equipot.md import chunk, log
from equipot.md.state import Observation
from equipot.md.trajectory import Frame
from equipot.quantities import FORCES_STD, NOVELTY


class Harvest(NamedTuple):
    """Lines and frames of a chunk."""

    table: list[log.Line]
    frames: list[Frame]
    """Frames of the trajectory."""
    checked: list[Frame]
    """Frames that the gate may record, by step: those at checks of forces, and the newest one between two lines."""


class Harvester(NamedTuple):
    """Converter of what the device returns."""

    ledger: log.Ledger
    log_every: int
    origin: Float[np.ndarray, " 3"]
    """Point of the input about which the dynamics runs, Å."""

    def harvest(self, spec: chunk.ChunkSpec, start: int, heat: float, result: chunk.ChunkResult) -> Harvest:
        """Convert the completed lines and frames of a chunk.

        Args:
            start: step at which the chunk began.
            heat: energy that stochastic forces added before, eV.
        """
        done, steps = int(result.done), int(result.steps)
        row = lambda tree, k: jax.tree.map(lambda x: x[k], tree)
        seen = [row(result.log, k) for k in range(done)]
        peaks = [row(result.peaks, k) for k in range(done) if spec.watches_novelty]
        newest = [float(np.max(peak.frame.novelty)) for peak in peaks] or [np.nan] * done
        # A halt by novelty ends the log between two usual lines, where the trajectory has no frame.
        at = [start + min((k + 1) * self.log_every, steps) for k in range(done)]
        usual = min(done, steps // self.log_every)
        table = [self.ledger.line(at[k], seen[k], heat, newest[k]) for k in range(done)]

        def frames(kept: chunk.Frames, per: int) -> list[Frame]:
            last = range(per - 1, usual, per) if per else ()
            return [self.frame_of_line(table[k], row(kept, n), seen[k]) for n, k in enumerate(last)]

        energy = lambda peak: float(peak.interaction) + self.ledger.isolated_atom_energy
        newest_frames = [self.frame(start + int(peak.step), peak.frame, energy(peak)) for peak in peaks]
        checked = frames(result.checked, spec.lines_per_check)
        by_step = {frame.step: frame for frame in (*newest_frames, *checked)}
        return Harvest(table, frames(result.frames, spec.lines_per_frame), [by_step[step] for step in sorted(by_step)])

    def frame_of_line(self, line: log.Line, kept: chunk.Frames, seen: Observation) -> Frame:
        """Convert one frame at a line of the log, with the deviations that were estimated there."""
        return self.frame(line.step, kept, line.potential_eV, np.asarray(seen.forces_std, np.float64))

    def frame(self, step: int, kept: chunk.Frames, energy: float, deviations: Any = np.nan) -> Frame:
        """Convert one frame; positions are moved back to the origin of the input.

        Args:
            energy: potential energy, eV.
            deviations: of the forces on all atoms, eV/Å; NaN where they were not estimated.
        """
        position, momentum, force, cell = (np.asarray(x, np.float64) for x in kept[:4])
        found = {FORCES_STD.name: deviations, NOVELTY.name: np.asarray(kept.novelty, np.float64)}
        estimates = {name: x for name, x in found.items() if np.size(x) and not np.isnan(x).any()}
        return Frame(step, step * self.ledger.timestep_fs, position + self.origin, momentum, force, cell, energy, estimates)
