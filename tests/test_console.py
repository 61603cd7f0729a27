"""What a person sees of long work, and where."""

import io

import pytest

from equipot.console import Console, duration, stream_of


def test_true_is_standard_output_as_it_is_now(capsys):
    Console(stream_of(True)).say("a line")
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize("progress", [None, False])
def test_silence(capsys, progress):
    Console(stream_of(progress)).say("a line")
    assert capsys.readouterr().out == ""


def test_a_stream_of_ones_own():
    told = io.StringIO()
    assert stream_of(told) is told


@pytest.mark.parametrize("seconds, text", [(45.2, "45 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_lines_of_progress_are_seldom_and_the_last_one_always_comes():
    told = io.StringIO()
    console = Console(told, quiet_seconds=1e9)
    for k in range(5):
        console.progress(f"figure {k}", "before", "after", always=k == 4)
    assert told.getvalue() == "before  figure 4  after\n"


def test_a_terminal_has_a_bar_with_the_figures():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    told = Terminal()
    console = Console(told)
    console.open(4, 1)
    console.progress("figure 7", "before")
    console.advance(3)
    console.close()
    assert "4/4" in told.getvalue() and "figure 7" in told.getvalue() and "before" not in told.getvalue()


def test_the_rate_of_a_bar_leaves_out_steps_that_waited_for_a_compilation():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    console = Console(Terminal())
    console.open(100, 10)
    began = console.bar.start_t
    console.advance(timed=False)
    assert console.bar.start_t > began and console.bar.n == console.bar.initial == 11 and console.bar.total == 100
    console.advance(4)
    assert console.bar.n == 15 and console.bar.initial == 11
    console.close()
