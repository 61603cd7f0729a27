"""The journal of finished work: what it holds after a kill, and what comes back from it."""

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from equipot.workflows.journal import Journal


class Pair(NamedTuple):
    first: float
    second: float


@dataclass(frozen=True)
class Found:
    values: np.ndarray
    pair: Pair
    missing: np.ndarray | None
    names: tuple[str, ...]
    parts: tuple[Pair, ...]
    count: int


def test_pieces_come_back_bit_for_bit(tmp_path):
    values = np.array([[1 / 3, np.pi], [np.inf, 5e-324]])
    found = Found(values, Pair(0.1, float("nan")), None, ("a", "b"), (Pair(1e-300, 2.0),), 7)
    journal = Journal(tmp_path / "work.jsonl", False)
    journal.once("found", Found, lambda: found)
    again = Journal(tmp_path / "work.jsonl", True)
    back = again.once("found", Found, lambda: pytest.fail("computed again"))
    np.testing.assert_array_equal(back.values, values)
    assert back.pair.first == 0.1 and np.isnan(back.pair.second) and back.missing is None
    assert back.names == ("a", "b") and back.parts == (Pair(1e-300, 2.0),) and back.count == 7


def test_a_line_that_was_cut_is_done_once_more(tmp_path):
    path = tmp_path / "work.jsonl"
    journal = Journal(path, False)
    for name in ("one", "two"):
        journal.add(name, {"value": len(name)})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        left = Journal(path, True)
        assert list(left.done) == ["one", "two"][: whole[:cut].count(b"\n")]
        left.add("three", 3)
        assert list(Journal(path, True).done) == [*list(left.done)[:-1], "three"]
    assert Journal(path, False).done == {} and path.read_bytes() == b""


def test_a_state_replaces_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "work.jsonl"
    journal = Journal(path, False)
    journal.add("first", 1)
    sizes = []
    for k in range(20):
        journal.add("state", [k] * 100)
        sizes.append(path.stat().st_size)
    assert max(sizes) - min(sizes) <= 100
    assert Journal(path, True).done == {"first": 1, "state": [19] * 100}
    # A kill before the file is renamed leaves the state before.
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        journal.add("state", "half")
    assert Journal(path, True).done["state"] == [19] * 100


def test_without_a_file_pieces_are_in_memory():
    journal, calls = Journal(), []
    for _ in range(2):
        found = journal.once("values", np.ndarray, lambda: calls.append(1) or np.arange(3.0))
        np.testing.assert_array_equal(found, [0, 1, 2])
    assert calls == [1]
