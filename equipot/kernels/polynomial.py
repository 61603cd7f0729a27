"""Polynomials of an atom's features, channel by channel, as a primitive of JAX.

    P_d(x; c) = sum_M  c[s, M d] x_{M_1} x_{M_2} ...

for each atom of species s and each channel. Its derivatives are directional derivatives D^k P(x; c)[u_1, ..., u_k], linear in
the directions, in the coefficients and in what the outputs are multiplied by; leaving one of these out gives what a
differentiation of any order, forward or backward, asks for. A ``Bundle`` says which sums of them are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad
from jaxtyping import Array, Float, Int

from equipot.kernels.polynomial_bundle import Bundle, Polynomial, forward

Formula = "Callable[[Array, Array, Array], Array]"


def evaluate(
    x: Float[Array, "atoms size channels"],
    coefficients: Float[Array, "species terms channels"],
    species: Int[Array, "atoms"],
    polynomial: Polynomial,
) -> Float[Array, "atoms dim channels"]:
    """P_d(x; c), with one coefficient for each of ``polynomial.terms``."""
    return polynomial_p.bind(species, x, coefficients, bundle=forward(polynomial))[0]


polynomial_p = Primitive("equipot_polynomial")
polynomial_p.multiple_results = True


def _bind(species, operands: Sequence, bundle: Bundle) -> list:
    """Results for all outputs of a bundle, None for those without terms."""
    pruned, kept, outputs = bundle.pruned()
    results: list = [None] * len(bundle.outputs)
    if outputs:
        found = polynomial_p.bind(species, *(operands[k] for k in kept), bundle=pruned)
        for k, value in zip(outputs, found, strict=True):
            results[k] = value
    return results


def _abstract(species, *operands, bundle: Bundle) -> list:
    atoms, _, channels = operands[0].shape
    kinds = bundle.shapes(atoms, channels, bundle.count(operands))
    return [jax.core.ShapedArray(shape, operands[0].dtype) for shape in kinds]


def _jvp(primals: Sequence, tangents: Sequence, *, bundle: Bundle) -> tuple:
    out = polynomial_p.bind(*primals, bundle=bundle)
    species, *operands = primals
    varied = [k for k, t in enumerate(tangents[1:]) if type(t) is not ad.Zero]
    found = _bind(species, [*operands, *(tangents[1 + k] for k in varied)], bundle.tangent(varied))
    return out, [ad.Zero.from_primal_value(o) if t is None else t for o, t in zip(out, found, strict=True)]


def _transpose(cotangents: Sequence, species, *operands, bundle: Bundle) -> list:
    linear = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
    given = [k for k, cotangent in enumerate(cotangents) if type(cotangent) is not ad.Zero]
    found = _bind(species, [*operands, *(cotangents[k] for k in given)], bundle.transpose(linear, given))
    results: list = [None] * (1 + len(operands))
    for k, value in zip(linear, found, strict=True):
        results[1 + k] = ad.Zero(operands[k].aval) if value is None else value
    return results
