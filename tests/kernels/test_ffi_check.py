"""Whether machine code can be used: another layout of XLA's structures is noticed, and plain JAX computes the same."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.kernels import ffi_check
from equipot.kernels.rows import sum_rows


@pytest.fixture
def forgetful(monkeypatch):
    """No verdict is known, and none is kept."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    ffi_check.available.cache_clear()
    jax.clear_caches()
    yield
    ffi_check.available.cache_clear()
    jax.clear_caches()


@pytest.mark.parametrize("field", ["arguments", "schedule"])
def test_a_shifted_layout_is_noticed_and_plain_jax_takes_over(field, forgetful, monkeypatch):
    shifted = dataclasses.replace(ffi_check.LAYOUT, **{field: getattr(ffi_check.LAYOUT, field) + 8})
    monkeypatch.setattr(ffi_check, "LAYOUT", shifted)
    x, index = jnp.arange(12.0).reshape(4, 3), jnp.asarray([[0, 2], [3, -1]])
    reverse = jnp.asarray([[0], [-1], [0], [1]])
    lower = lambda: jax.jit(lambda x: sum_rows(x, index, reverse)).lower(x)
    with pytest.warns(UserWarning, match=r"jaxlib .* does not call machine code .* XLA alone, but slower"):
        lowered = lower()
    assert "equipot_rows" not in lowered.as_text()
    np.testing.assert_array_equal(lowered.compile()(x), [x[0] + x[2], x[3]])


def test_an_older_interface_than_jaxlib_accepts_is_noticed(forgetful):
    assert "API version" in ffi_check.complaint(dataclasses.replace(ffi_check.LAYOUT, minor=ffi_check.LAYOUT.minor + 8))


def test_the_verdict_is_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path))
    asked = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: asked.append(a) or run(*a, **k))
    assert ffi_check.complaint(ffi_check.LAYOUT) is None
    assert ffi_check.complaint(ffi_check.LAYOUT) is None
    (file,) = (tmp_path / "ffi").iterdir()
    assert len(asked) == 1
    file.write_text("{")
    assert ffi_check.complaint(ffi_check.LAYOUT) is None and len(asked) == 2


def test_a_program_without_an_interpreter_to_start_tries_it_itself(forgetful, monkeypatch):
    for executable in ("", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", executable)
        assert ffi_check.complaint(ffi_check.LAYOUT) is None


def test_importing_the_kernels_starts_no_process():
    code = """
import subprocess
subprocess.Popen = None
import equipot.kernels.convolution, equipot.kernels.polynomial
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
