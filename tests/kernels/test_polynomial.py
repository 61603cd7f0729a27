"""The polynomial's kernel against the formula written out, with derivatives of JAX's own, and against the plain formulation."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.kernels import ffi_check, polynomial_code
from equipot.kernels.polynomial import evaluate, monomials
from equipot.kernels.polynomial_forms import Polynomial

CASES = [(3, 2, (1, 2, 3), 5), (3, 1, (2, 4), 16), (5, 2, (2,), 8), (2, 2, (1,), 1)]
"""Variables, outputs, degrees, channels."""


def problem(case: int, dtype: str = "float64"):
    """The polynomial, base, coefficients, species and what the outputs are multiplied by."""
    size, dim, degrees, channels = CASES[case]
    rng = np.random.default_rng(case)
    every = [(monomial, d) for degree in degrees for monomial in monomials(size, degree) for d in range(dim)]
    polynomial = Polynomial(size, dim, tuple(term for term in every if rng.random() < 0.6))
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    species = jnp.asarray(rng.integers(0, 3, 19), jnp.int32)
    return polynomial, make(19, size, channels), make(3, len(polynomial.terms), channels), species, make(19, dim, channels)


def formula(polynomial: Polynomial, species, x, coefficients):
    """Written out, monomial by monomial."""
    out = [jnp.zeros_like(x[:, 0])] * polynomial.dim
    for k, (monomial, d) in enumerate(polynomial.terms):
        value = coefficients[species, k]
        for p in monomial:
            value = value * x[:, p]
        out[d] = out[d] + value
    return jnp.stack(out, axis=1)


def kernel(polynomial, species, x, coefficients):
    return evaluate(x, coefficients, species, polynomial)


def close(x, y, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(float(jnp.abs(b).max()), 1e-300))


def cubes(f):
    """Something whose derivatives do not vanish."""
    return lambda *z: sum(jnp.sum(jnp.sin(v)) for v in jax.tree.leaves(f(*z)))


DERIVATIVES = {
    "value": lambda f, x, g: f(*x),
    "gradient": lambda f, x, g: jax.vjp(f, *x)[1](g),
    "tangent": lambda f, x, g: jax.jvp(f, x, tuple(2 * v + 1 for v in x))[1],
    "hessian": lambda f, x, g: jax.jvp(lambda *y: jax.vjp(f, *y)[1](g), x, tuple(2 * v + 1 for v in x))[1],
    "training": lambda f, x, g: jax.grad(cubes(lambda x, g: jax.vjp(f, *x)[1](g)), argnums=(0, 1))(x, g),
    "third": lambda f, x, g: jax.jvp(lambda *y: jax.grad(cubes(lambda z: jax.vjp(f, *z)[1](g)))(y), x, tuple(v - 1 for v in x))[
        1
    ],
}


@pytest.fixture(params=["native", "plain"])
def lowering(request, monkeypatch):
    """Either the kernel or the plain formulation, as on other devices."""
    if request.param == "native":
        assert ffi_check.available()
    else:
        monkeypatch.setattr(polynomial_code, "possible", lambda polynomial, dtype: False)
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("case", range(len(CASES)))
def test_derivatives_of_every_order_are_those_of_the_formula(case, lowering):
    polynomial, x, coefficients, species, g = problem(case)
    for name, derivative in DERIVATIVES.items():
        run = lambda f, derivative=derivative: jax.jit(
            lambda x, g: derivative(partial(f, polynomial, species), x, g)
        )((x, coefficients), g)  # fmt: skip
        close(run(kernel), run(formula), 1e-11 if name == "third" else 1e-12)


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), ()])
def test_batches_are_many_systems(which, lowering):
    polynomial, x, coefficients, species, g = problem(0)
    many = tuple(jnp.stack([y, 2 * y, y + 1]) if k in which else y for k, y in enumerate((x, coefficients)))
    axes = tuple(0 if k in which else None for k in range(2)), 0 if not which else None
    given = jnp.stack([g] * 3) * jnp.arange(3)[:, None, None, None] if not which else g
    pulled = lambda f: jax.jit(jax.vmap(lambda x, g: jax.vjp(partial(f, polynomial, species), *x)[1](g), in_axes=axes))
    close(pulled(kernel)(many, given), pulled(formula)(many, given))


def test_single_precision_and_eager_calls(lowering):
    polynomial, x, coefficients, species, _ = problem(0, "float32")
    close(kernel(polynomial, species, x, coefficients), formula(polynomial, species, x, coefficients), 3e-6)
