"""Sums of rows: the kernel against the formula, and the rules of differentiation and batching."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.kernels import rows_code
from equipot.kernels.rows import sum_rows


def problem(width: tuple[int, ...], dtype: str = "float64"):
    """Rows, an index of up to three for each result, and the same read backwards."""
    rng = np.random.default_rng(0)
    index = rng.integers(-1, 11, (7, 3)).astype(np.int32)
    reverse = [[i for i, row in enumerate(index) for j in row if j == k] for k in range(11)]
    most = max(map(len, reverse))
    reverse = np.array([row + [-1] * (most - len(row)) for row in reverse], np.int32)
    return jnp.asarray(rng.normal(size=(11, *width)), dtype), jnp.asarray(index), jnp.asarray(reverse)


def formula(x, index):
    return jnp.stack([sum((x[j] for j in row if j >= 0), jnp.zeros_like(x[0])) for row in np.asarray(index)])


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("width", [(), (3,), (2, 5), (83,)], ids=str)
def test_sums_and_their_derivatives(width, native, monkeypatch):
    if not native:
        monkeypatch.setattr(rows_code, "possible", lambda dtype: False)
    jax.clear_caches()
    x, index, reverse = problem(width)
    run = jax.jit(lambda x: sum_rows(x, index, reverse))
    np.testing.assert_allclose(run(x), formula(x, index), atol=1e-13)
    y = jnp.cos(run(x))
    np.testing.assert_allclose(jax.jit(jax.vjp(run, x)[1])(y)[0], formula(y, reverse), atol=1e-13)
    np.testing.assert_allclose(jax.jvp(run, (x,), (2 * x,))[1], 2 * run(x), atol=1e-13)
    single = jax.jit(lambda x: sum_rows(x, index[:, :1], reverse))(x)
    np.testing.assert_allclose(single, formula(x, index[:, :1]), atol=1e-13)
    jax.clear_caches()


def test_batches_of_rows_and_of_indices():
    x, index, reverse = problem((4,))
    several = jnp.stack([x, -x, x + 1], axis=1)
    np.testing.assert_allclose(
        jax.vmap(lambda x: sum_rows(x, index, reverse), in_axes=1)(several), [formula(several[:, k], index) for k in range(3)]
    )
    indices = jnp.stack([index, index[::-1]])
    found = jax.vmap(lambda i: sum_rows(x, i, reverse))(indices)
    np.testing.assert_allclose(found, [formula(x, i) for i in indices], atol=1e-13)


def test_other_types_of_numbers():
    x, index, reverse = problem((2,))
    whole = jnp.asarray(10 * x, jnp.int32)
    np.testing.assert_array_equal(sum_rows(whole, index, reverse), formula(whole, index))
