"""Progress of long work: a bar on a terminal, plain lines elsewhere, durations in words."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


def duration(seconds: float) -> str:
    """Format a duration, given in seconds, as 45 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def stream_of(progress: TextIO | bool | None) -> TextIO | None:
    """Return the stream for progress: the present standard output for True, None (silence) for None and False."""
    # Looked up at each call: notebooks and tests replace standard output.
    if progress is True:
        return sys.stdout
    return progress or None


class Console:
    """Writer of lines and of a progress bar.

    Args:
        stream: None for silence.
        quiet_seconds: shortest time (s) between two lines of progress where no bar is shown.
    """

    def __init__(self, stream: TextIO | None, quiet_seconds: float = 5.0):
        self.stream, self.quiet_seconds = stream, quiet_seconds
        self.bar: Any = None
        self.last_line = 0.0

    def open(self, steps: int, done: int) -> None:
        """Show a bar of ``steps`` steps, of which ``done`` are done, if the stream is a terminal."""
        if self.stream is not None and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, initial=done, file=self.stream, unit="step", dynamic_ncols=True, smoothing=0.05)

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self.stream is None:
            return
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def advance(self, steps: int = 1, timed: bool = True) -> None:
        """Move the bar by ``steps``; unless they are ``timed``, as they waited for a compilation, its clock starts anew."""
        if self.bar is None:
            return
        self.bar.update(steps)
        if not timed:
            done = self.bar.n
            self.bar.reset()
            self.bar.n = self.bar.initial = self.bar.last_print_n = done

    def progress(self, figures: str, before: str = "", after: str = "", always: bool = False) -> None:
        """Show figures beside the bar; without a bar, write the line ``before  figures  after``.

        Lines are written at most every ``quiet_seconds``, unless ``always``.
        """
        if self.bar is not None:
            self.bar.set_postfix_str(figures)
        elif always or time.monotonic() - self.last_line > self.quiet_seconds:
            self.last_line = time.monotonic()
            self.say("  ".join(part for part in (before, figures, after) if part))

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
