"""The codec of all files: what is written is read back exactly, and a file that is another is refused in one line."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from equipot.artifact import DamagedError, Kind, named_leaves, restored

NOTE = Kind("note", "note of a test", 2, "write it again")
ARRAYS = {"a/b": np.arange(6.0).reshape(2, 3).T / 7, "n": np.array(3, np.int32), "ok": np.array(True)}


@pytest.fixture
def path(tmp_path):
    NOTE.write(tmp_path / "it.note", {"text": "åäö", "x": 0.1 + 0.2, "list": [1, None]}, ARRAYS)
    return tmp_path / "it.note"


def test_round_trip_is_exact(path):
    found = NOTE.read(path)
    assert found.format == 2 and found.record == {"text": "åäö", "x": 0.1 + 0.2, "list": [1, None]}
    assert found.arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert found.arrays[name].dtype == value.dtype and np.array_equal(found.arrays[name], value)


def test_what_is_no_such_file_is_told_with_a_remedy(path, tmp_path):
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=r"it\.note: not a readable note of a test, or cut short .*; write it again"):
        NOTE.read(path)
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(DamagedError, match=r"it\.note: the content does not match its SHA-256.*; write it again"):
        NOTE.read(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"it\.note: holds a note, not what is read here: a letter"):
        Kind("letter", "letter", 2, "").read(path)
    with pytest.raises(ValueError, match=r"it\.note: format 2 is newer than this equipot reads \(1\); upgrade"):
        Kind("note", "note", 1, "").read(path)
    with pytest.raises(FileNotFoundError):
        NOTE.read(tmp_path / "missing")


def test_a_tree_is_restored_only_into_its_own_structure():
    tree = {"w": (jnp.ones((2, 3)), jnp.array(1, jnp.int32))}
    leaves = named_leaves(tree)
    assert leaves.keys() == {"['w'][0]", "['w'][1]"}
    assert restored(tree, leaves, "it is another")["w"][0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"^it is another: \['v'\] is missing"):
        restored({**tree, "v": jnp.zeros(1)}, leaves, "it is another")
    with pytest.raises(ValueError, match=r"^it is another: \['w'\]\[1\] is unknown"):
        restored({"w": (jnp.ones((2, 3)),)}, leaves, "it is another")
    with pytest.raises(ValueError, match=r"\['w'\]\[0\] is float32\(2, 3\), not float32\(3, 2\)"):
        restored({"w": (jnp.ones((3, 2)), tree["w"][1])}, leaves, "it is another")
