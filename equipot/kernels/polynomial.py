"""Polynomials of an atom's features, channel by channel, as a primitive of JAX (see ``polynomial_forms`` for the formula)."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from equipot.kernels import polynomial_code, primitive
from equipot.kernels.polynomial_forms import BASE, DirectionalDerivative, Operand, Polynomial, PolynomialForms, forward


def evaluate(
    x: Float[Array, "atoms size channels"],
    coefficients: Float[Array, "species terms channels"],
    species: Int[Array, " atoms"],
    polynomial: Polynomial,
) -> Float[Array, "atoms dim channels"]:
    """Evaluate polynomials of each atom's features, channel by channel.

        P[i, d, c] = sum over terms t = (M, d) of coefficients[species[i], t, c] x[i, M_1, c] x[i, M_2, c] ...

    Args:
        x: Variables.
        coefficients: Coefficients of each species, in the order of ``polynomial.terms``.
        species: Species of each atom.
        polynomial: Monomials of each output.
    """
    dtype = jnp.result_type(x, coefficients)
    forms = forward(polynomial, coefficients.shape[0])
    return polynomial_p.bind(species.astype(jnp.int32), x.astype(dtype), coefficients.astype(dtype), forms=forms)[0]


def plain(species: Array, *operands: Array, forms: PolynomialForms) -> list[Array]:
    """Compute the results of ``forms`` in JAX, with derivatives by JAX."""
    total = lambda kind, terms: functools.reduce(jnp.add, [_term(kind, term, species, operands, forms) for term in terms])
    return [total(kind, terms) for kind, terms in forms.outputs]


def _term(
    kind: Operand, term: DirectionalDerivative, species: Array, operands: tuple[Array, ...], forms: PolynomialForms
) -> Array:
    """Compute one directional derivative, with the factor ``kind`` left out."""
    x = operands[BASE]
    along = lambda f, u: lambda x: jax.jvp(f, (x,), (u,))[1]

    def derivative(x: Array, coefficients: Array) -> Array:
        value: Callable[[Array], Array] = lambda x: products(x, coefficients, species, forms.polynomial)
        for u in term.directions:
            if u >= 0:
                value = along(value, operands[u])
        return value(x)

    if kind is Operand.OUTPUT:
        return derivative(x, operands[term.coefficients])
    if kind is Operand.DIRECTION:
        return jax.vjp(lambda x: derivative(x, operands[term.coefficients]), x)[1](operands[term.output])[0]
    zero = jnp.zeros((forms.species, len(forms.polynomial.terms), x.shape[-1]), x.dtype)
    return jax.vjp(lambda c: derivative(x, c), zero)[1](operands[term.output])[0]


def native(species: Array, *operands: Array, forms: PolynomialForms) -> list[Array]:
    """Compute the results of ``forms`` by machine code; by ``plain`` where there is none for this processor."""
    if not polynomial_code.possible(forms.polynomial, operands[0].dtype):
        return plain(species, *operands, forms=forms)
    return polynomial_code.call(forms, species, operands)


polynomial_p = primitive.make("equipot_polynomial", plain, native)


# The plain formulation: the terms of degree nu are x_p times a sum over monomials of degree nu - 1, a single matrix product;
# by Euler's theorem the gradient of these terms is nu times that product, so that gradients cost nothing extra.


def products(x: Array, coefficients: Array, species: Array, polynomial: Polynomial) -> Float[Array, "atoms dim channels"]:
    """Evaluate the polynomial by matrix products over monomials, for each channel."""
    tables = {degree: table(coefficients, polynomial, degree) for degree in degrees(polynomial)}
    return jnp.transpose(_polynomial(jnp.transpose(x, (2, 0, 1)), tables, species), (1, 2, 0))


def degrees(polynomial: Polynomial) -> list[int]:
    """Return the degrees of the monomials of a polynomial, ascending."""
    return sorted({len(monomial) for monomial, _ in polynomial.terms})


@functools.lru_cache(maxsize=64)
def monomials(size: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """List all monomials of a degree as ascending indices of the variables, in lexicographic order."""
    return tuple(itertools.combinations_with_replacement(range(size), degree))


def multiplicity(monomial: tuple[int, ...]) -> int:
    """Return the number of distinct orders of the variables of a monomial."""
    return functools.reduce(lambda n, count: n // factorial(count), Counter(monomial).values(), factorial(len(monomial)))


@functools.lru_cache(maxsize=64)
def _coefficient_of_product(polynomial: Polynomial, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the coefficient that multiplies monomial q of degree - 1 times x_p.

    Returns:
        Index of the coefficient in output d, [q, p, d], the number of coefficients where there is none; and the share of the
        coefficient that the product gets, [q, p], since several products are one monomial.
    """
    index = {term: k for k, term in enumerate(polynomial.terms)}
    rows = monomials(polynomial.size, degree - 1)
    where = np.full((len(rows), polynomial.size, polynomial.dim), len(polynomial.terms))
    share = np.zeros(where.shape[:2])
    for q, row in enumerate(rows):
        for p in range(polynomial.size):
            whole = tuple(sorted((*row, p)))
            share[q, p] = multiplicity(row) / multiplicity(whole)
            for d in range(polynomial.dim):
                where[q, p, d] = index.get((whole, d), len(polynomial.terms))
    return where, share


def table(coefficients: Array, polynomial: Polynomial, degree: int) -> Float[Array, "species channels q p d"]:
    """Arrange the coefficients of one degree by product of a monomial q and a variable p; zero where there is none."""
    where, share = _coefficient_of_product(polynomial, degree)
    padded = jnp.pad(coefficients, ((0, 0), (0, 1), (0, 0)))
    return jnp.moveaxis(padded[:, where], -1, 1) * jnp.asarray(share[None, None, ..., None], coefficients.dtype)


def evaluate_monomials(x: Float[Array, "*batch p"], degree: int) -> Float[Array, "*batch q"]:
    """Compute all monomials of one degree, in the order of ``monomials``."""
    if degree == 0:
        return jnp.ones((*x.shape[:-1], 1), x.dtype)
    size = x.shape[-1]
    # Monomials with smallest index p are x_p times a suffix of the list of one degree less: the monomials of indices >= p.
    lower = evaluate_monomials(x, degree - 1)
    first = [m[0] if m else 0 for m in monomials(size, degree - 1)]
    starts = [next((k for k, f in enumerate(first) if f >= p), 0) for p in range(size)] if degree > 1 else [0] * size
    return jnp.concatenate([x[..., p : p + 1] * lower[..., starts[p] :] for p in range(size)], axis=-1)


def _products(x: Array, tables: dict[int, Array], species: Array) -> dict[int, Array]:
    """Compute the cofactor of x_p for each degree, [channels, atoms, p, d]."""
    out = {}
    for degree, c in tables.items():
        m = evaluate_monomials(x, degree - 1)
        count, channels, rows, p, d = c.shape
        flat = c.reshape(count, channels, rows, p * d)
        mine = lambda s: (species == s).astype(x.dtype)[None, :, None]
        value = m @ flat[0] if count == 1 else sum(mine(s) * (m @ flat[s]) for s in range(count))
        out[degree] = value.reshape(*value.shape[:2], p, d)
    return out


@jax.custom_jvp
def _polynomial(
    x: Float[Array, "channels atoms p"], tables: dict[int, Array], species: Int[Array, " atoms"]
) -> Float[Array, "channels atoms d"]:
    """Compute sum_nu sum_p x_p sum_q m_q(x) c_nu[species, channel, q, p, d], m_q the monomials of degree nu - 1."""
    return jnp.einsum("cnp,cnpd->cnd", x, sum(_products(x, tables, species).values()))


def _polynomial_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, tables, species = primals
    dx, dc, _ = tangents
    cofactors = _products(x, tables, species)
    value = jnp.einsum("cnp,cnpd->cnd", x, sum(cofactors.values()))
    zero = jax.custom_derivatives.SymbolicZero
    tangent = jnp.zeros_like(value)
    if type(dx) is not zero:
        gradient = sum(degree * part for degree, part in cofactors.items())
        tangent += jnp.einsum("cnp,cnpd->cnd", dx, gradient)
    varied = {degree: d for degree, d in dc.items() if type(d) is not zero}
    if varied:
        tangent += jnp.einsum("cnp,cnpd->cnd", x, sum(_products(x, varied, species).values()))
    return value, tangent


_polynomial.defjvp(_polynomial_jvp, symbolic_zeros=True)
