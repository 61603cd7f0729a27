"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from equipot.units import GPa

FIGURES = (
    ("E", "energy_mae_per_atom", 1e3, "meV/atom"),
    ("F", "forces_mae", 1e3, "meV/Å"),
    ("S", "stress_mae", 1 / GPa, "GPa"),
)
QUIET_SECONDS = 5.0
"""Least time between two plain lines about epochs."""


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def errors_text(row: Mapping[str, Any], prefix: str = "valid_") -> str:
    """Mean absolute errors, such as ``E 1.2 meV/atom  F 34.5 meV/Å``."""
    found = [(symbol, row[prefix + key] * factor, unit) for symbol, key, factor, unit in FIGURES if prefix + key in row]
    return "  ".join(f"{symbol} {value:.3g} {unit}" for symbol, value, unit in found)


def stream_of(progress: TextIO | bool | None) -> TextIO | None:
    """Where to report: True is standard output as it is now (notebooks and tests replace it), None and False are nowhere."""
    if progress is True:
        return sys.stdout
    return progress or None


class Console:
    """Writes to a stream; with None it keeps silent."""

    def __init__(self, stream: TextIO | None):
        self.stream, self.last, self.bar = stream, 0.0, None

    def open(self, steps: int, done: int) -> None:
        """Shows the bar, where there is a terminal for it."""
        if self.stream is not None and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, initial=done, file=self.stream, unit="step", dynamic_ncols=True, smoothing=0.05)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.stream is None:
            return
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def step(self) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def epoch(self, row: Mapping[str, Any], epochs: int, left: float, always: bool) -> None:
        """The figures of an epoch; plain lines come at most every ``QUIET_SECONDS`` unless ``always``."""
        figures = f"loss {row['loss']:.4g}"
        if "valid_loss" in row:
            figures += f"  valid {row['valid_loss']:.4g}  MAE {errors_text(row)}"
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {row['epoch']}/{epochs}  {figures}")
        elif always or time.monotonic() - self.last > QUIET_SECONDS:
            self.last = time.monotonic()
            rate = f"lr {row['learning_rate']:.2g}"
            self.say(f"epoch {row['epoch']:4d}/{epochs}  {figures}  {rate}  {duration(left)} left")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
