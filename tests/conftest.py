"""What every test folder uses."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax
import jaxlib
import pytest
import shape_checks

# The conftests of folders import the package, and are read before any hook of pytest is called.
shape_checks.install()

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
"""What XLA is told: compiling is most of the time of the tests, and what they check does not depend on how well it is done.
``XLA_FLAGS= pytest`` compiles as users do, and so do the slow tests, which compute more than they compile."""
if any(Path("/dev").glob("nvidia[0-9]*")):
    # On a GPU, XLA (jax 0.11.2) computes wrong numbers with the first two of these (a sum over neighbours of the Lennard-Jones
    # potential, among others), and right ones without. Trying out kernels takes a minute for each program.
    QUICK = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
elif jaxlib.version.__version_info__ < (0, 11):
    # The emitters that came before compile twice as fast. Later versions lack them, and end at flags they do not know.
    QUICK += " --xla_cpu_use_fusion_emitters=false"


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
