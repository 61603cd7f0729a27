"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np

from equipot.console import Console, duration
from equipot.md.config import MDConfig
from equipot.md.log import Line, describe_drift

QUIET_SECONDS = 10.0
"""Shortest time (s) between two plain lines."""


class Progress:
    """Reporter of a run to a stream; None for silence."""

    def __init__(self, stream: TextIO | None, config: MDConfig):
        self.console = Console(stream, QUIET_SECONDS)
        self.config = config
        self.chunks = 0
        self.timed_steps = 0
        self.seconds = 0.0

    @property
    def ns_per_day(self) -> float:
        """Speed (ns/day) without the first chunk, which compiles; NaN before the second chunk."""
        return 1e-6 * self.config.timestep_fs * self.timed_steps / self.seconds * 86400 if self.timed_steps else float("nan")

    def open(self, step: int, atoms: int) -> None:
        """Describe the run in a line, and show the bar from ``step`` on."""
        config = self.config
        kind = type(config.ensemble).__name__
        drawn = config.velocities == "draw" or config.ensemble.has_thermostat
        temperature = f"{config.temperature_K:g} K" if drawn else "velocities of the file"
        pressure = f", {config.pressure_GPa:g} GPa" if config.ensemble.has_pressure else ""
        self.say(f"{kind}: {atoms} atoms, {temperature}{pressure}, {config.steps} steps of {config.timestep_fs:g} fs")
        self.console.open(config.steps, step)

    def say(self, text: str) -> None:
        """Write a line."""
        self.console.say(text)

    def advance(self, step: int, made: int, line: Line, seconds: float) -> None:
        """Report a chunk of ``made`` steps that ended at ``step`` and took ``seconds``."""
        self.chunks += 1
        if self.chunks > 1:
            self.timed_steps += made
            self.seconds += seconds
        figures = f"T {line.temperature_K:.0f} K  E {line.total_eV:.4f} eV"
        if not np.isnan(line.pressure_GPa):
            figures += f"  P {line.pressure_GPa:.3g} GPa  V {line.volume_A3:.1f} Å³"
        if self.timed_steps:
            figures += f"  {self.ns_per_day:.3g} ns/day"
        left = ""
        if self.timed_steps:
            left = f"{duration((self.config.steps - step) * self.seconds / self.timed_steps)} left"
        where = f"step {step:>8d}/{self.config.steps}"
        self.console.progress(figures, where, left, always=step == self.config.steps)
        self.console.advance(made)

    def close(self) -> None:
        """Remove the bar."""
        self.console.close()

    def finish(self, summary: Any, half: Mapping[str, np.ndarray]) -> None:
        """Report means and drift; ``half`` holds the columns of the log in the second half of the run."""
        text = f"second half: T {summary.temperature_K:.1f} K"
        if not np.isnan(half["pressure_GPa"]).all():
            text += f"  P {half['pressure_GPa'].mean():.4g} GPa  V {half['volume_A3'].mean():.2f} Å³"
        time = float(np.ptp(half["time_ps"]))
        self.say(f"{text}  {describe_drift(summary.drift_meV_per_atom_per_ns, summary.drift_error, time)}")
