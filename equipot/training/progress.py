"""How far a run is: its place in the order of the data, its clock, and when to save or to stop."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

from equipot.interrupts import Interrupts


class Cursor(NamedTuple):
    """Where a run stands, besides its arrays; JSON holds it exactly."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches done of the epoch that is running."""
    sums: dict[str, float] = {}
    """Sums of the reports of those batches."""
    best: float | None = None
    """Lowest validation loss."""
    stale: int = 0
    """Validations since then."""
    wait: int = 0
    """Validations since then, or since the learning rate was last reduced on a plateau."""
    factor: float = 1.0
    """Of the learning rate: what plateaus have made of it."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl."""
    elapsed: float = 0.0
    """Seconds of training so far."""


class Watch:
    """Times of steps without compilation, and when to save or stop."""

    def __init__(self, save_seconds: float, max_minutes: float | None, began: float):
        self.began, self.save_seconds = began, save_seconds
        self.deadline = None if max_minutes is None else began + 60 * max_minutes
        self.saved = time.monotonic()
        self.steps: list[float] = []
        self.validations: list[float] = []
        self.shapes: set[Any] = set()
        self.interrupts = Interrupts()

    def save_due(self) -> bool:
        return time.monotonic() - self.saved >= self.save_seconds

    def stop(self) -> str | None:
        """Why the run should stop now, if it should."""
        if self.interrupts.requested:
            return "interrupted"
        return "time limit" if self.deadline is not None and time.monotonic() > self.deadline else None

    def seconds_left(self, steps: int, validations: int) -> float:
        """Estimate for what is to come."""
        typical = lambda times: statistics.median(times[-50:]) if times else 0.0
        # The first validation is mostly compilation.
        return steps * typical(self.steps) + validations * typical(self.validations[1:] or self.validations)
