"""Sums of directional derivatives of polynomials, closed under differentiation.

    P_d(x; c) = sum_M  c[s, (M, d)]  x_{M_1} x_{M_2} ...

for each atom of species s and each channel, M running over monomials. The derivative sum_d g_d D^k P_d(x; c)[u_1, ..., u_k] is
linear in every direction u, in the coefficients c and in the factors g of the outputs. Differentiation of any order, forward or
backward, gives sums of such derivatives with one of these factors left out. ``PolynomialForms`` describes several such sums,
and is therefore closed under differentiation.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

OPEN = -1
"""Index of the factor that is left out."""
BASE = 0
"""Index of the operand x, at which derivatives are evaluated."""


class Operand(enum.IntEnum):
    """Kind of an operand or of a result, with the shape of its array; a directional derivative is linear in each kind."""

    DIRECTION = 0
    """Direction u, or the base x: [atoms, size, channels]."""
    COEFFICIENTS = 1
    """Coefficients c: [species, terms, channels]."""
    OUTPUT = 2
    """Outputs P, or factors g of the outputs: [atoms, dim, channels]."""


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """The monomials of a polynomial with several outputs."""

    size: int
    """Number of variables."""
    dim: int
    """Number of outputs."""
    terms: tuple[tuple[tuple[int, ...], int], ...]
    """Monomials with a coefficient, each once: (ascending indices of the variables, output)."""


@dataclasses.dataclass(frozen=True, order=True)
class DirectionalDerivative:
    """sum_d g_d D^k P_d(x; c)[directions] with one of the factors left out (``OPEN``)."""

    directions: tuple[int, ...]
    """Indices of the operands that are the directions, ascending."""
    coefficients: int
    """Index of the operand that holds the coefficients c."""
    output: int
    """Index of the operand that holds the factors g of the outputs."""

    def replaced(self, kind: Operand, operand: int, by: int) -> list[DirectionalDerivative]:
        """Replace ``operand`` by ``by`` as a factor of this kind; return one term for each occurrence."""
        if kind is Operand.COEFFICIENTS:
            return [dataclasses.replace(self, coefficients=by)] if self.coefficients == operand else []
        if kind is Operand.OUTPUT:
            return [dataclasses.replace(self, output=by)] if self.output == operand else []
        places = [k for k, u in enumerate(self.directions) if u == operand]
        directions = [(*self.directions[:k], by, *self.directions[k + 1 :]) for k in places]
        return [dataclasses.replace(self, directions=tuple(sorted(d))) for d in directions]

    def along(self, direction: int) -> DirectionalDerivative:
        """Differentiate with respect to the base, along the operand ``direction``."""
        return dataclasses.replace(self, directions=tuple(sorted((*self.directions, direction))))

    def operands(self) -> set[int]:
        """Return the indices of all operands."""
        return {*self.directions, self.coefficients, self.output} - {OPEN}

    def renumbered(self, number: dict[int, int]) -> DirectionalDerivative:
        """Replace the index of every operand by ``number[index]``."""
        return DirectionalDerivative(
            tuple(sorted(number[u] for u in self.directions)), number[self.coefficients], number[self.output]
        )


@dataclasses.dataclass(frozen=True)
class PolynomialForms:
    """Several results, each a sum of directional derivatives with the same factor left out (see ``primitive.Forms``).

    The first operand is the base x. The only index array is the species of each atom.
    """

    polynomial: Polynomial
    species: int
    """Number of species."""
    kinds: tuple[Operand, ...]
    """Kinds of the operands."""
    outputs: tuple[tuple[Operand, tuple[DirectionalDerivative, ...]], ...]
    """For each result, its kind, which is the factor left out of the terms, and the terms of the sum."""

    indices = 1

    def shapes(self, species: tuple[int, ...], base: tuple[int, ...], *others: tuple[int, ...]) -> list[tuple[int, ...]]:
        atoms, _, channels = base
        p = self.polynomial
        kinds = (atoms, p.size, channels), (self.species, len(p.terms), channels), (atoms, p.dim, channels)
        return [kinds[kind] for kind, _ in self.outputs]

    def tangent(self, varied: Sequence[int]) -> PolynomialForms:
        outputs = []
        for kind, terms in self.outputs:
            changed: list[DirectionalDerivative] = []
            for k, operand in enumerate(varied):
                by = len(self.kinds) + k
                for term in terms:
                    changed += [term.along(by)] if operand == BASE else term.replaced(self.kinds[operand], operand, by)
            outputs.append((kind, tuple(changed)))
        kinds = self.kinds + tuple(self.kinds[o] for o in varied)
        return dataclasses.replace(self, kinds=kinds, outputs=tuple(outputs))

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> PolynomialForms:
        outputs = []
        for operand in linear:
            kind, terms = self.kinds[operand], []
            for k, which in enumerate(given):
                out, sums = self.outputs[which]
                for term in sums:
                    # The cotangent takes the place of the factor left out, and the operand is left out instead.
                    for opened in term.replaced(kind, operand, -2):
                        (filled,) = opened.replaced(out, OPEN, len(self.kinds) + k)
                        (final,) = filled.replaced(kind, -2, OPEN)
                        terms.append(final)
            outputs.append((kind, tuple(terms)))
        kinds = self.kinds + tuple(self.outputs[o][0] for o in given)
        return dataclasses.replace(self, kinds=kinds, outputs=tuple(outputs))

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        return cotangent

    def pruned(self) -> tuple[PolynomialForms, tuple[int, ...], tuple[int, ...]]:
        """See ``primitive.Forms``. Derivatives of higher order than the degree of the polynomial are zero and dropped."""
        degree = max((len(monomial) for monomial, _ in self.polynomial.terms), default=0)
        alive = [(kind, [t for t in terms if len(t.directions) <= degree]) for kind, terms in self.outputs]
        outputs = tuple(k for k, (_, terms) in enumerate(alive) if terms)
        used = {BASE}.union(*(term.operands() for k in outputs for term in alive[k][1]))
        operands = tuple(sorted(used))
        number = {o: k for k, o in enumerate(operands)} | {OPEN: OPEN}
        kept = tuple((alive[k][0], tuple(sorted(term.renumbered(number) for term in alive[k][1]))) for k in outputs)
        return dataclasses.replace(self, kinds=tuple(self.kinds[o] for o in operands), outputs=kept), operands, outputs

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        mine = lambda kind: kind is not Operand.COEFFICIENTS
        return [mine(kind) for kind in self.kinds], [mine(kind) for kind, _ in self.outputs]

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        return [jnp.tile(indices[0], size)]


def forward(polynomial: Polynomial, species: int) -> PolynomialForms:
    """Describe the values of the polynomial; the operands are base and coefficients."""
    value = DirectionalDerivative((), 1, OPEN)
    return PolynomialForms(polynomial, species, (Operand.DIRECTION, Operand.COEFFICIENTS), ((Operand.OUTPUT, (value,)),))
