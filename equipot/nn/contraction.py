"""Symmetric contraction: many-body features as polynomials in the atomic basis (MACE, arXiv:2206.07697, eqs. 10-11).

    B_i[c, d] = sum_nu sum_k  W_nu[s_i, k, c]  sum_{p1..p_nu}  U_nu[p1..p_nu, k, d]  A_i[p1, c] ... A_i[p_nu, c]

For each species and channel, weights and U are contracted once into the coefficients of a polynomial in the components of A.
The terms of degree nu are x_p times a sum over the monomials of degree nu - 1, so values come from one matrix product, and by
Euler's theorem the gradient of the degree-nu term is nu times that same product: derivatives cost nothing extra.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from math import factorial

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.nn.features import FEW_SPECIES, Features, one_hot, regroup


@functools.lru_cache(maxsize=64)
def monomials(size: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Multisets of ``degree`` out of ``size`` variables, ascending."""
    return tuple(itertools.combinations_with_replacement(range(size), degree))


@functools.lru_cache(maxsize=64)
def basis(irreps: e3nn.Irreps, degree: int, ir_out: e3nn.Irrep) -> np.ndarray:
    """Equivariant polynomials of one degree: [monomials of degree - 1, p, k, d], symmetric in all variables.

    The multiplicity of each monomial is included, so that sum_q sum_p m_q x_p U[q, p] is the full contraction.
    """
    with jax.ensure_compile_time_eval():
        full = e3nn.reduced_symmetric_tensor_product_basis(irreps, degree, keep_ir=[ir_out])
        size = irreps.dim
        if not full.irreps.dim:
            return np.zeros((len(monomials(size, degree - 1)), size, 0, ir_out.dim))
        return fold(np.asarray(full.chunks[0], np.float64), degree)


def fold(u: np.ndarray, degree: int) -> np.ndarray:
    """A tensor that is symmetric in its leading ``degree`` axes as [monomials of degree - 1, p, ...], with multiplicities."""
    rows = []
    for multiset in monomials(u.shape[0], degree - 1):
        multiplicity = factorial(degree - 1)
        for count in Counter(multiset).values():
            multiplicity //= factorial(count)
        rows.append(multiplicity * u[multiset])
    return np.stack(rows)


def evaluate_monomials(x: Float[Array, "*batch p"], degree: int) -> Float[Array, "*batch q"]:
    """All monomials of one degree, in the order of ``monomials``."""
    if degree == 0:
        return jnp.ones((*x.shape[:-1], 1), x.dtype)
    size = x.shape[-1]
    # Those whose smallest index is p are x_p times those of one degree less with indices from p on: a suffix of that list.
    lower = evaluate_monomials(x, degree - 1)
    first = [m[0] if m else 0 for m in monomials(size, degree - 1)]
    starts = [next((k for k, f in enumerate(first) if f >= p), 0) for p in range(size)] if degree > 1 else [0] * size
    return jnp.concatenate([x[..., p : p + 1] * lower[..., starts[p] :] for p in range(size)], axis=-1)


Coefficients = dict[int, Float[Array, "species channels monomials p d"]]
"""By degree; the species and channel axes may be 1, for coefficients that all share."""


def _products(x: Array, coefficients: Coefficients, species: Array) -> dict[int, Array]:
    """For each degree, [channels, atoms, p, d]: the cofactor of x_p."""
    out = {}
    for degree, c in coefficients.items():
        m = evaluate_monomials(x, degree - 1)
        count, channels, rows, p, d = c.shape
        flat = c.reshape(count, channels, rows, p * d)
        if count == 1:
            value = m @ flat[0]
        else:
            hot = one_hot(species, count, x.dtype)
            value = sum(hot[None, :, s, None] * (m @ flat[s]) for s in range(count))
        out[degree] = value.reshape(*value.shape[:2], p, d)
    return out


@jax.custom_jvp
def polynomial(
    x: Float[Array, "channels atoms p"], coefficients: Coefficients, species: Int[Array, "atoms"]
) -> Float[Array, "channels atoms d"]:
    """sum_nu sum_p x_p sum_q m_q(x) c_nu[species, channel, q, p, d]; each c_nu symmetric under exchange of its variables."""
    return jnp.einsum("cnp,cnpd->cnd", x, sum(_products(x, coefficients, species).values()))


def _polynomial_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, coefficients, species = primals
    dx, dc, _ = tangents
    products = _products(x, coefficients, species)
    value = jnp.einsum("cnp,cnpd->cnd", x, sum(products.values()))
    zero = jax.custom_derivatives.SymbolicZero
    tangent = jnp.zeros_like(value)
    if type(dx) is not zero:
        gradient = sum(degree * part for degree, part in products.items())
        tangent += jnp.einsum("cnp,cnpd->cnd", dx, gradient)
    varied = {degree: d for degree, d in dc.items() if type(d) is not zero}
    if varied:
        tangent += jnp.einsum("cnp,cnpd->cnd", x, sum(_products(x, varied, species).values()))
    return value, tangent


polynomial.defjvp(_polynomial_jvp, symbolic_zeros=True)


class SymmetricContraction(nn.Module):
    """Features of one channel width to ``irreps`` with the same width, up to ``correlation`` factors."""

    irreps: str
    correlation: int
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, a: Features, species: Int[Array, "atoms"]) -> Features:
        irreps_in = e3nn.Irreps([(1, ir) for ir in sorted(a)])
        x = jnp.transpose(jnp.concatenate([a[ir] for ir in sorted(a)], axis=1), (2, 0, 1))
        outputs = list(regroup(self.irreps))
        bases, weights = {}, {}
        for degree in range(1, self.correlation + 1):
            for ir in outputs:
                u = basis(irreps_in, degree, ir).astype(x.dtype)
                if u.shape[2]:
                    shape = (self.count, u.shape[2], x.shape[0])
                    w = self.param(f"w{degree}_{ir}", nn.initializers.normal(1.0), shape)
                    bases[degree, ir], weights[degree, ir] = u, (w / u.shape[2]).astype(x.dtype)
        contract = _species_tables if self.count <= FEW_SPECIES else _shared_basis
        b = contract(x, bases, weights, species, outputs)
        return {ir: jnp.transpose(value, (1, 2, 0)) for ir, value in zip(outputs, b, strict=True)}


Basis = dict[tuple[int, e3nn.Irrep], Array]


def _species_tables(x: Array, bases: Basis, weights: Basis, species: Array, outputs: list[e3nn.Irrep]) -> list[Array]:
    """Weights and basis contracted once per species: one matrix product for all outputs, times the number of species."""
    degrees = sorted({degree for degree, _ in bases})
    count, _, channels = next(iter(weights.values())).shape
    coefficients = {}
    for degree in degrees:
        rows = len(monomials(x.shape[-1], degree - 1))
        parts = [
            jnp.einsum("qpkd,skc->scqpd", bases[degree, ir], weights[degree, ir])
            if (degree, ir) in bases
            else jnp.zeros((count, channels, rows, x.shape[-1], ir.dim), x.dtype)
            for ir in outputs
        ]
        coefficients[degree] = jnp.concatenate(parts, axis=-1)
    b = polynomial(x, coefficients, species)
    return jnp.split(b, np.cumsum([ir.dim for ir in outputs])[:-1], axis=-1)


def _shared_basis(x: Array, bases: Basis, weights: Basis, species: Array, outputs: list[e3nn.Irrep]) -> list[Array]:
    """Basis polynomials first, then each atom's weights: cost does not depend on the number of species."""
    out = {ir: jnp.zeros((*x.shape[:2], ir.dim), x.dtype) for ir in outputs}
    for (degree, ir), u in bases.items():
        value = polynomial(x, {degree: u.reshape(1, 1, *u.shape[:2], -1)}, species)
        value = value.reshape(*value.shape[:2], *u.shape[2:])
        out[ir] += jnp.einsum("cnkd,nkc->cnd", value, weights[degree, ir][species])
    return list(out.values())
