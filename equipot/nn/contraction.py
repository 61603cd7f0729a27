"""Symmetric contraction: many-body features as polynomials in the atomic basis (MACE, arXiv:2206.07697, eqs. 10-11).

    B_i[c, d] = sum_nu sum_k  W_nu[s_i, k, c]  sum_{p1..p_nu}  U_nu[p1..p_nu, k, d]  A_i[p1, c] ... A_i[p_nu, c]

For each species and channel, weights and U are contracted once into the coefficients of a polynomial in the components of A,
most of which vanish by symmetry. See ``equipot.kernels.polynomial``.
"""

from __future__ import annotations

import functools

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.kernels.polynomial import evaluate, monomials, multiplicity
from equipot.kernels.polynomial_forms import Polynomial
from equipot.nn.features import Features, regroup

TABLES_BYTES = 2**24
"""Largest size of the polynomial coefficients of all species; larger ones are not formed, see ``_shared_basis``."""
ZERO = 1e-12
"""Coupling coefficients (of order one) below this are rounding errors of zero."""


@functools.lru_cache(maxsize=64)
def basis(irreps: e3nn.Irreps, degree: int, ir_out: e3nn.Irrep) -> np.ndarray:
    """Compute all k equivariant polynomials of one degree as coefficients of monomials, [monomials, k, d].

    Coefficients include the multiplicity of the monomial; d counts the components of ``ir_out``.
    """
    with jax.ensure_compile_time_eval():
        full = e3nn.reduced_symmetric_tensor_product_basis(irreps, degree, keep_ir=[ir_out])
        if not full.irreps.dim:
            return np.zeros((len(monomials(irreps.dim, degree)), 0, ir_out.dim))
        return fold(np.asarray(full.chunks[0], np.float64), degree)


def fold(u: np.ndarray, degree: int) -> np.ndarray:
    """Sum a tensor symmetric in its leading ``degree`` axes, over equal monomials: [n, ..., n, *rest] -> [monomials, *rest]."""
    return np.stack([multiplicity(monomial) * u[monomial] for monomial in monomials(u.shape[0], degree)])


Bases = dict[tuple[int, e3nn.Irrep], np.ndarray]
"""Equivariant polynomials [monomials, k, d] by degree and output irrep."""
Weights = dict[tuple[int, e3nn.Irrep], Float[Array, "species k channels"]]
"""Weights of these polynomials by degree and output irrep."""


class SymmetricContraction(nn.Module):
    """Map features of one channel width to polynomials of them of degree 1 to ``correlation``, channel by channel."""

    irreps: str
    """Output irreps; their multiplicities are not used, since the output has as many channels as the input."""
    correlation: int
    """Highest degree."""
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, a: Features, species: Int[Array, " atoms"]) -> Features:
        irreps_in = e3nn.Irreps([(1, ir) for ir in sorted(a)])
        x = jnp.concatenate([a[ir] for ir in sorted(a)], axis=1)
        outputs = list(regroup(self.irreps))
        bases: Bases = {}
        weights: Weights = {}
        for degree in range(1, self.correlation + 1):
            for ir in outputs:
                u = basis(irreps_in, degree, ir)
                if u.shape[1]:
                    shape = (self.count, u.shape[1], x.shape[-1])
                    w = self.param(f"w{degree}_{ir}", nn.initializers.normal(1.0), shape)
                    bases[degree, ir], weights[degree, ir] = u, (w / u.shape[1]).astype(x.dtype)
        terms = sum(int(np.sum(np.any(np.abs(u) > ZERO, axis=1))) for u in bases.values())
        few = self.count * terms * x.shape[-1] * x.dtype.itemsize <= TABLES_BYTES
        b = (_species_tables if few else _shared_basis)(x, bases, weights, species, outputs)
        starts = np.cumsum([ir.dim for ir in outputs])[:-1]
        return dict(zip(outputs, jnp.split(b, starts, axis=1), strict=True))


def _species_tables(
    x: Array, bases: Bases, weights: Weights, species: Array, outputs: list[e3nn.Irrep]
) -> Float[Array, "atoms d channels"]:
    """Evaluate one polynomial for each species and channel."""
    first = dict(zip(outputs, np.cumsum([0, *(ir.dim for ir in outputs)]), strict=False))
    terms, coefficients = [], []
    for (degree, ir), u in bases.items():
        rows, columns = np.nonzero(np.any(np.abs(u) > ZERO, axis=1))
        of_degree = monomials(x.shape[1], degree)
        terms += [(of_degree[row], int(first[ir] + d)) for row, d in zip(rows, columns, strict=True)]
        coefficients.append(jnp.einsum("tk,skc->stc", jnp.asarray(u[rows, :, columns], x.dtype), weights[degree, ir]))
    polynomial = Polynomial(x.shape[1], sum(ir.dim for ir in outputs), tuple(terms))
    return evaluate(x, jnp.concatenate(coefficients, axis=1), species, polynomial)


def _shared_basis(
    x: Array, bases: Bases, weights: Weights, species: Array, outputs: list[e3nn.Irrep]
) -> Float[Array, "atoms d channels"]:
    """Evaluate the basis polynomials, then apply each atom's weights: cost does not depend on the number of species."""
    out = {ir: jnp.zeros((x.shape[0], ir.dim, x.shape[-1]), x.dtype) for ir in outputs}
    one = jnp.zeros_like(species)
    for (degree, ir), u in bases.items():
        flat = u.reshape(u.shape[0], -1)
        rows, columns = np.nonzero(np.abs(flat) > ZERO)
        of_degree = monomials(x.shape[1], degree)
        terms = tuple((of_degree[row], int(column)) for row, column in zip(rows, columns, strict=True))
        shared = jnp.broadcast_to(jnp.asarray(flat[rows, columns], x.dtype)[None, :, None], (1, len(terms), x.shape[-1]))
        value = evaluate(x, shared, one, Polynomial(x.shape[1], flat.shape[1], terms))
        value = value.reshape(x.shape[0], *u.shape[1:], x.shape[-1])
        out[ir] += jnp.einsum("nkdc,nkc->ndc", value, weights[degree, ir][species])
    return jnp.concatenate(list(out.values()), axis=1)
