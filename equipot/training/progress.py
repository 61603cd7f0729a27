"""Progress of a run: its place in the order of the data and in the schedule, its clock, and the times to save and to stop."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

from equipot.interrupts import Interrupts

ESTIMATE_AFTER = 10
"""Number of timed steps after which the length of the run is estimated."""
WINDOW = 50
"""Number of the last timed steps that count in estimates."""
PATIENCE = 0.25
"""Share of a time limit after which steps beside a compilation count in estimates, where there are too few others."""


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
    position: float = 0.0
    """Place in the schedule, from 0 to ``Descent.steps``."""
    advance: float = 1.0
    """Part of the schedule that a step covers: 1 unless a time limit decides."""
    step_seconds: float = 0.0
    """Typical time of a step (s); 0 before enough steps were timed."""


class Watch:
    """Clock of a run: times of steps, and the times to save and to stop.

    Args:
        save_seconds: Least time between two checkpoints (s).
        max_minutes: Length of the run (min); None for no limit.
        began: Start of the run on the monotonic clock (s).
    """

    deadline: float | None
    """End of the run on the monotonic clock (s); None for no limit."""
    steps: list[float]
    """Times of steps (s) beside which nothing was compiled."""
    hindered: list[float]
    """Times of steps (s) while programs for other shapes were compiled in the background."""
    seeded: int
    """Number of the first ``steps`` that were timed before the run was resumed."""

    def __init__(self, save_seconds: float, max_minutes: float | None, began: float):
        self.began, self.save_seconds = began, save_seconds
        self.deadline = None if max_minutes is None else began + 60 * max_minutes
        self.compiling_ends = began if max_minutes is None else began + PATIENCE * 60 * max_minutes
        self.saved = time.monotonic()
        self.steps, self.hindered = [], []
        self.validations: list[float] = []
        self.seeded = 0
        self.shapes: set[Any] = set()
        self.interrupts = Interrupts()

    def save_due(self) -> bool:
        """Return whether a checkpoint is due."""
        return time.monotonic() - self.saved >= self.save_seconds

    def stop(self) -> str | None:
        """Return the reason why the run should stop now; None if the run should continue.

        The time limit is a reason only as long as steps are not yet timed, or where a resumed run comes too late for any:
        later, ``advance`` ends the schedule in time.
        """
        if self.interrupts.requested:
            return "interrupted"
        late = self.deadline is not None and time.monotonic() > self.deadline
        unknown = not self.is_timed or len(self.steps) == self.seeded
        return "time limit" if late and unknown and len(self.hindered) < ESTIMATE_AFTER else None

    def resume(self, elapsed: float, step_seconds: float) -> None:
        """Count the time (s) that a resumed run has already taken, and expect steps as long as its last ones (s)."""
        if self.deadline is not None:
            self.deadline -= elapsed
            self.compiling_ends -= elapsed
            self.steps = [step_seconds] * ESTIMATE_AFTER if step_seconds else []
            self.seeded = len(self.steps)

    @property
    def step_seconds(self) -> float:
        """Typical time of a step (s); 0 before enough steps were timed."""
        return statistics.median(self.steps[-WINDOW:]) if self.is_timed else 0.0

    @property
    def is_timed(self) -> bool:
        """Whether enough steps were timed to estimate the length of the run."""
        return len(self.steps) >= ESTIMATE_AFTER

    def advance(self, left: float, steps: int) -> float | None:
        """Compute the part of the schedule that a step must cover for the schedule to end at the time limit.

        Args:
            left: Rest of the schedule.
            steps: Number of steps between two validations.

        Returns:
            At most ``left``; None without a time limit, or before enough steps were timed.
        """
        paced = len(self.hindered) >= ESTIMATE_AFTER and time.monotonic() > self.compiling_ends
        if self.deadline is None or not (self.is_timed or paced):
            return None
        recent = (self.steps if self.is_timed else self.hindered)[-WINDOW:]
        step = sum(recent) / len(recent) + self.seconds_left(0, 1) / steps
        return left / max(1.0, (self.deadline - time.monotonic()) / step)

    def seconds_left(self, steps: int, validations: int) -> float:
        """Estimate the time (s) of the remaining steps and validations."""
        typical = lambda times: statistics.median(times[-WINDOW:]) if times else 0.0
        # The first validation is mostly compilation.
        return steps * typical(self.steps) + validations * typical(self.validations[1:] or self.validations)
