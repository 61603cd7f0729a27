"""What every test folder uses."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture
def double_precision():
    """64 bits in JAX for one test, as before afterwards."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
