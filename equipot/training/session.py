"""What a run keeps of the world outside: signals that ask it to stop, the clock, and its place in the order of data."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from typing import Any, NamedTuple, NoReturn


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
        self.signal: int | None = None

    def save_due(self) -> bool:
        return time.monotonic() - self.saved >= self.save_seconds

    def stop(self) -> str | None:
        """Why the run should stop now, if it should."""
        if self.signal is not None:
            return "interrupted"
        return "time limit" if self.deadline is not None and time.monotonic() > self.deadline else None

    def reraise(self) -> NoReturn:
        """Ends the program as the signal would have.

        Raises:
            KeyboardInterrupt, SystemExit: always, by the signal.
        """
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def seconds_left(self, steps: int, validations: int) -> float:
        """Estimate for what is to come."""
        typical = lambda times: statistics.median(times[-50:]) if times else 0.0
        # The first validation is mostly compilation.
        return steps * typical(self.steps) + validations * typical(self.validations[1:] or self.validations)


class Signals:
    """While it is entered, the first Ctrl-C (or SIGTERM) is noted in the watch instead of raised; a second one is raised."""

    def __init__(self, watch: Watch):
        self.watch, self.before = watch, {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self.note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def note(self, number: int, frame: Any) -> None:
        if self.watch.signal is not None:
            raise KeyboardInterrupt
        self.watch.signal = number

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
