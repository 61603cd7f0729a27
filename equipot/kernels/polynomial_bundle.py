"""Bundles of directional derivatives of polynomials: what is computed together, and what its derivatives are.

    P_d(x; c) = sum_M  c[s, (M, d)]  x_{M_1} x_{M_2} ...

for each atom of species s and each channel, M running over monomials. Its derivatives D^k P(x; c)[u_1, ..., u_k] are linear in
every direction u, in the coefficients c and in what the outputs are multiplied by. Leaving one of these out gives what a
differentiation of any order, forward or backward, asks for, so that sums of such terms are closed under differentiation.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

OPEN = -1
BASE = 0
"""The operand x at which everything is evaluated."""


class Leg(enum.IntEnum):
    """What a term is linear in, and how an array of it is laid out."""

    DIRECTION = 0
    """[atoms, size, channels]; so is the base."""
    COEFFICIENTS = 1
    """[species, terms, channels]."""
    OUTPUT = 2
    """[atoms, dim, channels]."""


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """Which monomials of which outputs have a coefficient."""

    size: int
    """Number of variables."""
    dim: int
    """Number of outputs."""
    terms: tuple[tuple[tuple[int, ...], int], ...]
    """(ascending indices of the monomial's variables, output), each once."""


@dataclasses.dataclass(frozen=True, order=True)
class Term:
    """D^k P(x; c)[directions], times what stands for the output; one of the three is left out (``OPEN``)."""

    directions: tuple[int, ...]
    """Operands, ascending: the order of differentiation does not matter."""
    coefficients: int
    output: int

    def replaced(self, leg: Leg, operand: int, by: int) -> list[Term]:
        """One term for each place of this leg where the operand stands."""
        if leg is Leg.COEFFICIENTS:
            return [dataclasses.replace(self, coefficients=by)] if self.coefficients == operand else []
        if leg is Leg.OUTPUT:
            return [dataclasses.replace(self, output=by)] if self.output == operand else []
        places = [k for k, u in enumerate(self.directions) if u == operand]
        directions = [(*self.directions[:k], by, *self.directions[k + 1 :]) for k in places]
        return [dataclasses.replace(self, directions=tuple(sorted(d))) for d in directions]

    def along(self, direction: int) -> Term:
        """Derivative with respect to the base."""
        return dataclasses.replace(self, directions=tuple(sorted((*self.directions, direction))))

    def operands(self) -> set[int]:
        return {*self.directions, self.coefficients, self.output} - {OPEN}

    def renumbered(self, number: dict[int, int]) -> Term:
        return Term(tuple(sorted(number[u] for u in self.directions)), number[self.coefficients], number[self.output])


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Sums of terms with one leg left out each. The operands are the base and then others; the only index array is the species
    of the atoms."""

    polynomial: Polynomial
    species: int
    """How many there are."""
    legs: tuple[Leg, ...]
    """Of the operands."""
    outputs: tuple[tuple[Leg, tuple[Term, ...]], ...]
    """The leg that is left out, which is what comes out, and the terms of the sum."""

    indices = 1

    def shapes(self, species: tuple[int, ...], base: tuple[int, ...], *others: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Of the results."""
        atoms, _, channels = base
        p = self.polynomial
        kinds = (atoms, p.size, channels), (self.species, len(p.terms), channels), (atoms, p.dim, channels)
        return [kinds[leg] for leg, _ in self.outputs]

    def tangent(self, varied: Sequence[int]) -> Bundle:
        """See ``primitive.Bundle``."""
        outputs = []
        for leg, terms in self.outputs:
            changed: list[Term] = []
            for k, operand in enumerate(varied):
                by = len(self.legs) + k
                for term in terms:
                    changed += [term.along(by)] if operand == BASE else term.replaced(self.legs[operand], operand, by)
            outputs.append((leg, tuple(changed)))
        legs = self.legs + tuple(self.legs[o] for o in varied)
        return dataclasses.replace(self, legs=legs, outputs=tuple(outputs))

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> Bundle:
        """See ``primitive.Bundle``."""
        outputs = []
        for operand in linear:
            leg, terms = self.legs[operand], []
            for k, which in enumerate(given):
                out, sums = self.outputs[which]
                for term in sums:
                    # What was left out is now the cotangent, and the operand is left out.
                    for opened in term.replaced(leg, operand, -2):
                        (filled,) = opened.replaced(out, OPEN, len(self.legs) + k)
                        (final,) = filled.replaced(leg, -2, OPEN)
                        terms.append(final)
            outputs.append((leg, tuple(terms)))
        legs = self.legs + tuple(self.outputs[o][0] for o in given)
        return dataclasses.replace(self, legs=legs, outputs=tuple(outputs))

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        """Nothing to do."""
        return cotangent

    def pruned(self) -> tuple[Bundle, tuple[int, ...], tuple[int, ...]]:
        """See ``primitive.Bundle``. A derivative of higher order than the polynomial's degree is zero."""
        degree = max((len(monomial) for monomial, _ in self.polynomial.terms), default=0)
        alive = [(leg, [t for t in terms if len(t.directions) <= degree]) for leg, terms in self.outputs]
        outputs = tuple(k for k, (_, terms) in enumerate(alive) if terms)
        used = {BASE}.union(*(term.operands() for k in outputs for term in alive[k][1]))
        operands = tuple(sorted(used))
        number = {o: k for k, o in enumerate(operands)} | {OPEN: OPEN}
        kept = tuple((alive[k][0], tuple(sorted(term.renumbered(number) for term in alive[k][1]))) for k in outputs)
        return dataclasses.replace(self, legs=tuple(self.legs[o] for o in operands), outputs=kept), operands, outputs

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        """All but coefficients."""
        mine = lambda leg: leg is not Leg.COEFFICIENTS
        return [mine(leg) for leg in self.legs], [mine(leg) for leg, _ in self.outputs]

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        """The species of so many copies."""
        return [jnp.tile(indices[0], size)]


def forward(polynomial: Polynomial, species: int) -> Bundle:
    """The values, of base and coefficients."""
    value = Term((), 1, OPEN)
    return Bundle(polynomial, species, (Leg.DIRECTION, Leg.COEFFICIENTS), ((Leg.OUTPUT, (value,)),))
