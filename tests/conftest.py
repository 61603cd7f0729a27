"""What every test folder uses."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax
import pytest
import shape_checks
from compilation import QUICK

# The conftests of folders import the package, and are read before any hook of pytest is called.
shape_checks.install()


def pytest_configure(config):
    if "not slow" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", QUICK)
    # Arrays of different rank are broadcast where the code says so, and nowhere else.
    jax.config.update("jax_numpy_rank_promotion", "raise")


MAPPED = 20_000
"""Regions of memory beyond which a worker forgets its compiled programs. Each program takes some, Linux grants a process 65,530
(``vm.max_map_count``), and XLA crashes where it gets no more."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Programs are shared within a file, so they are forgotten between files."""
    maps = Path("/proc/self/maps")
    if nextitem is None or nextitem.path == item.path or not maps.exists():
        return
    with maps.open("rb") as lines:
        mapped = sum(1 for _ in lines)
    if mapped > MAPPED:
        jax.clear_caches()
        gc.collect()


PRECISION = jax.config.jax_enable_x64


@pytest.fixture(autouse=True)
def precision_is_put_back():
    """What a test, or the program that it runs, switches on is off for the next one."""
    yield
    jax.config.update("jax_enable_x64", PRECISION)


@pytest.fixture
def double_precision(precision_is_put_back):
    """64 bits in JAX for one test."""
    jax.config.update("jax_enable_x64", True)
