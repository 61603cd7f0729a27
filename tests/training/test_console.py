"""Where a run reports to."""

import io

import pytest

from equipot.training.console import Console, stream_of


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
