"""Requests to stop: after the first Ctrl-C or SIGTERM work comes to a safe end; the second signal interrupts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn


class Interrupts:
    """Context that records the first Ctrl-C or SIGTERM instead of raising, and raises KeyboardInterrupt at the second.

    Outside the main thread, which alone receives signals, the context does nothing.

    Args:
        noted: called when the first signal arrives.
    """

    def __init__(self, noted: Callable[[], None] = lambda: None):
        self.noted = noted
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self.noted()

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    def reraise(self, message: str = "") -> NoReturn:
        """Raise the exception of the recorded signal.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with ``message``.
            SystemExit: after SIGTERM, with exit code 143.
        """
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)
