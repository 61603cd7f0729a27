"""Progress of a run: its place in the order of the data, its clock, and the times to save and to stop."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

from equipot.interrupts import Interrupts


class Cursor(NamedTuple):
    """State of a run besides its arrays, exactly representable in JSON."""

    epoch: int = 0
    """Number of finished epochs."""
    batch: int = 0
    """Number of finished batches of the present epoch."""
    sums: dict[str, float] = {}
    """Sums of the reports of the finished batches of the present epoch."""
    best: float | None = None
    """Lowest validation loss; None before the first validation."""
    stale: int = 0
    """Number of validations since the lowest validation loss."""
    wait: int = 0
    """Number of validations since the lowest validation loss, or since the last reduction of the learning rate on a plateau."""
    factor: float = 1.0
    """Factor on the learning rate from reductions on plateaus."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl in bytes."""
    elapsed: float = 0.0
    """Time of training so far (s)."""


class Watch:
    """Clock of a run: times of steps without compilation, and the times to save and to stop.

    Args:
        save_seconds: Least time between two checkpoints (s).
        max_minutes: Time after which the run stops (min); None for no limit.
        began: Start of the run on the monotonic clock (s).
    """

    def __init__(self, save_seconds: float, max_minutes: float | None, began: float):
        self.began, self.save_seconds = began, save_seconds
        self.deadline = None if max_minutes is None else began + 60 * max_minutes
        self.saved = time.monotonic()
        self.steps: list[float] = []
        self.validations: list[float] = []
        self.shapes: set[Any] = set()
        self.interrupts = Interrupts()

    def save_due(self) -> bool:
        """Return whether a checkpoint is due."""
        return time.monotonic() - self.saved >= self.save_seconds

    def stop(self) -> str | None:
        """Return the reason why the run should stop now; None if the run should continue."""
        if self.interrupts.requested:
            return "interrupted"
        return "time limit" if self.deadline is not None and time.monotonic() > self.deadline else None

    def seconds_left(self, steps: int, validations: int) -> float:
        """Estimate the time (s) of the remaining steps and validations."""
        typical = lambda times: statistics.median(times[-50:]) if times else 0.0
        # The first validation is mostly compilation.
        return steps * typical(self.steps) + validations * typical(self.validations[1:] or self.validations)
