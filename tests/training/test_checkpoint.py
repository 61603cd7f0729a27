"""Checkpoint files: whole or absent, and honest about what they belong to."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.training import checkpoint

STATE = {"w": jnp.arange(6.0).reshape(2, 3) / 7, "n": jnp.array(3, jnp.int32), "ok": jnp.array(True)}


def write(folder, step, keep=2):
    return checkpoint.write(folder, step, STATE, {"step": step, "best": 0.1 + 0.2}, keep)


def test_what_is_read_is_what_was_written(tmp_path):
    write(tmp_path, 5)
    found = checkpoint.newest(tmp_path)
    assert found.record == {"step": 5, "best": 0.1 + 0.2} and found.passed == () and not found.earlier
    assert found.path.name == "step-0000000005.safetensors"
    state = checkpoint.restore(STATE, found)
    jax.tree.map(np.testing.assert_array_equal, state, STATE)
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, STATE)


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10):
        write(tmp_path, step)
    assert [p.name[5:15] for p in checkpoint.paths(tmp_path)] == ["0000000002", "0000000010"]


@pytest.mark.parametrize("damage", ["cut", "one byte", "record", "empty"])
def test_a_damaged_file_is_passed_over(tmp_path, damage):
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    data = bytearray(path.read_bytes())
    if damage == "one byte":
        data[-3] ^= 1
    elif damage == "record":
        place = data.index(b"step")
        data[place : place + 4] = b"stop"
    path.write_bytes({"cut": data[:-5], "empty": b""}.get(damage, data))
    found = checkpoint.newest(tmp_path)
    assert found.record["step"] == 1 and len(found.passed) == 1 and path.name in found.passed[0]
    found.path.write_bytes(b"x")
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        checkpoint.newest(tmp_path)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="make room, then use --resume") as caught:
        write(tmp_path, 2)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000001.safetensors"]
    assert checkpoint.newest(tmp_path).record["step"] == 1


def test_another_model_is_refused(tmp_path):
    write(tmp_path, 1)
    found = checkpoint.newest(tmp_path)
    with pytest.raises(ValueError, match="another model.*extra"):
        checkpoint.restore({**STATE, "extra": jnp.zeros(1)}, found)
    with pytest.raises(ValueError, match="another model.*float32"):
        checkpoint.restore({**STATE, "w": jnp.zeros((3, 3))}, found)


def test_differences_are_named_by_path():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 0.1}
    assert checkpoint.differences(old, json.loads(json.dumps(old))) == []
    new = {"a": {"b": 2, "c": [1, 2]}, "e": 3}
    assert checkpoint.differences(old, new) == ["a.b: 1 -> 2", "d: 0.1 -> None", "e: None -> 3"]


def test_nothing_there(tmp_path):
    assert checkpoint.newest(tmp_path / "missing") is None
