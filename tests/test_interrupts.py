"""Requests to stop: noted once, obeyed at the second time, and the handlers from before come back."""

import signal
import threading

import pytest

from equipot.interrupts import Interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_raised(number):
    told, before = [], [signal.getsignal(s) for s in SIGNALS]
    with Interrupts(lambda: told.append("noted")) as interrupts:
        assert not interrupts.requested
        signal.raise_signal(number)
        assert interrupts.requested and told == ["noted"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_the_program_ends_as_the_signal_would_have_ended_it():
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
        with Interrupts() as interrupts:
            signal.raise_signal(number)
        with pytest.raises(kind) as caught:
            interrupts.reraise("why")
        assert caught.value.args == (("why",) if kind is KeyboardInterrupt else (128 + signal.SIGTERM,))


def test_another_thread_leaves_the_handlers_alone():
    seen, before = [], signal.getsignal(signal.SIGINT)

    def work():
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(signal.SIGINT), interrupts.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
