"""Requests to stop: the first Ctrl-C, or SIGTERM, lets work under way come to a safe end; the second one is obeyed at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn


class Interrupts:
    """While entered, notes the first Ctrl-C or SIGTERM instead of raising it, and raises KeyboardInterrupt at the second.

    Outside the main thread, which alone receives signals, entering changes nothing.

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
        """End the program as the noted signal would have.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM, with the code a shell gives it.
        """
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)
