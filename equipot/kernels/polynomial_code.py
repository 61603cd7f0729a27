"""Machine code of directional derivatives of polynomials.

Channels lie along vector registers; all other loops are unrolled. Directions enter as in forward differentiation: x becomes
x + e_1 u_1 + e_2 u_2 + ..., where every e_j squares to zero, and D^k P[u_1, ..., u_k] is the coefficient of e_1 ... e_k. Values
are evaluated by Horner's rule over the tree of monomials; a derivative with respect to a direction that is left out is a
backward sweep through that tree, which takes about three operations for each coefficient.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from llvmlite import ir

from equipot.kernels import ffi_check, xla_ffi
from equipot.kernels.ffi_handler import I32, I64, Arguments, Signature
from equipot.kernels.llvm_builder import Emitter, Index
from equipot.kernels.polynomial_forms import BASE, DirectionalDerivative, Operand, Polynomial, PolynomialForms
from equipot.kernels.xla_ffi import REAL

MOST_TERMS = 10_000
"""Largest number of terms of a polynomial that machine code is made for."""
Dual = dict[int, ir.Value]
"""Number with nilpotent parts: coefficients by product of e's, given as a set of bits; products without a key have zero."""


def possible(polynomial: Polynomial, dtype: jnp.dtype) -> bool:
    """Return whether machine code for this polynomial and type of numbers can be compiled and called on this processor."""
    return len(polynomial.terms) <= MOST_TERMS and str(dtype) in REAL and ffi_check.available()


def call(forms: PolynomialForms, species: Int[Array, " atoms"], operands: Sequence[Array]) -> list[Array]:
    """Call the machine code of ``forms``; return the results."""
    dtype, channels = operands[0].dtype, operands[0].shape[-1]
    lanes = xla_ffi.vector_bytes() // dtype.itemsize
    width = -(-channels // lanes) * lanes
    wide = [jnp.pad(x, ((0, 0), (0, 0), (0, width - channels))) if width > channels else x for x in operands]
    shapes = forms.shapes(species.shape, wide[0].shape)
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    write = lambda builder, arguments: _Writer(Emitter(builder, REAL[str(dtype)]), forms, width, arguments).write()
    # Sums over atoms are computed by one thread for each block of channels.
    inputs, fixed = 1 + len(wide), width // lanes if _sums_over_atoms(forms) else None
    signature = Signature(inputs, len(results), fixed)
    found = xla_ffi.call("polynomial", (forms, width), write, [species[:, None], *wide], results, signature)
    return [y[..., :channels] if width > channels else y for y in found]


def _sums_over_atoms(forms: PolynomialForms) -> bool:
    """Return whether any result is a sum over atoms."""
    return any(kind is Operand.COEFFICIENTS for kind, _ in forms.outputs)


class Tree:
    """Tree of monomials, branched by their first variable, then their second, and so on.

    Attributes:
        here: (output, index of the coefficient) of each monomial that ends at this node.
        below: Subtrees by their variable.
    """

    def __init__(self, monomials: Iterable[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]) -> None:
        self.here: tuple[tuple[int, int], ...] = ()
        below: dict[int, list] = {}
        for monomial, entries in monomials:
            if monomial:
                below.setdefault(monomial[0], []).append((monomial[1:], entries))
            else:
                self.here = entries
        self.below = {p: Tree(rest) for p, rest in sorted(below.items())}


@functools.lru_cache(maxsize=32)
def _tree(polynomial: Polynomial) -> Tree:
    """Make the tree of the monomials of a polynomial."""
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for k, (monomial, d) in enumerate(polynomial.terms):
        found.setdefault(monomial, []).append((d, k))
    return Tree([(monomial, tuple(entries)) for monomial, entries in found.items()])


class _Writer:
    """Writes the kernel of one ``PolynomialForms``."""

    def __init__(self, e: Emitter, forms: PolynomialForms, width: int, arguments: Arguments) -> None:
        self.e, self.forms, self.width, self.arguments = e, forms, width, arguments
        self.species, *self.inputs = arguments.inputs
        self.polynomial, self.tree = forms.polynomial, _tree(forms.polynomial)
        copies: dict[int, int] = {}
        for _, terms in forms.outputs:
            for term in terms:
                for operand, count in Counter(u for u in term.directions if u >= 0).items():
                    copies[operand] = max(copies.get(operand, 0), count)
        self.bits = {pair: 1 << k for k, pair in enumerate((u, j) for u in sorted(copies) for j in range(copies[u]))}

    def write(self) -> None:
        """Write the kernel: all results for the atoms, or the block of channels, of one part."""
        e, blocks = self.e, self.width // self.e.lanes
        if _sums_over_atoms(self.forms):
            block = e.mul(self.arguments.part, e.lanes)
            for o, (kind, _) in enumerate(self.forms.outputs):
                if kind is Operand.COEFFICIENTS:
                    with e.loop(self.forms.species * len(self.polynomial.terms)) as row:
                        e.store(e.zero(e.lanes), self.arguments.outputs[o], e.at(row, self.width, block))
            with e.loop(self.arguments.shape[0]) as n:
                self._atom(n, block)
        else:
            begin, end = self.arguments.rows(e.b)
            with e.loop(blocks * e.lanes, e.lanes) as block, e.loop(end, start=begin) as n:
                self._atom(n, block)

    def _atom(self, n: ir.Value, block: Index) -> None:
        """Write all results for one block of channels of an atom."""
        e, p = self.e, self.polynomial
        s = e.b.sext(e.load(self.species, n, kind=I32), I64)
        self.table = e.add(e.mul(s, len(p.terms) * self.width), block)
        self.own = {
            kind: e.add(e.mul(n, size * self.width), block)
            for kind, size in ((Operand.DIRECTION, p.size), (Operand.OUTPUT, p.dim))
        }
        self.x: list[Dual] = []
        for k in range(p.size):
            x = {0: self._operand(BASE, Operand.DIRECTION, k)}
            for (operand, _), bit in self.bits.items():
                x[bit] = self._operand(operand, Operand.DIRECTION, k)
            self.x.append(x)
        for o, (kind, terms) in enumerate(self.forms.outputs):
            {Operand.OUTPUT: self._values, Operand.DIRECTION: self._slopes, Operand.COEFFICIENTS: self._moments}[kind](o, terms)

    def _operand(self, operand: int, kind: Operand, row: int) -> ir.Value:
        """Load a row of an operand for the present atom (or its species) and block of channels."""
        base = self.table if kind is Operand.COEFFICIENTS else self.own[kind]
        return self.e.load(self.inputs[operand], self.e.add(base, row * self.width), self.e.lanes)

    def _store(self, o: int, kind: Operand, rows: Iterable[tuple[int, ir.Value | None]]) -> None:
        """Store (row, value) of output ``o`` for the present atom and block of channels; None stands for zero."""
        for row, value in rows:
            where = self.e.add(self.own[kind], row * self.width)
            self.e.store(self.e.zero(self.e.lanes) if value is None else value, self.arguments.outputs[o], where)

    def _mask(self, term: DirectionalDerivative) -> int:
        """Return the set of e's of a term's directions."""
        seen: Counter[int] = Counter()
        mask = 0
        for u in term.directions:
            if u >= 0:
                mask |= self.bits[u, seen[u]]
                seen[u] += 1
        return mask

    def _multiply(self, x: Dual, y: Dual, wanted: set[int], start: Dual | None = None) -> Dual:
        """Compute start + x y, only the products of e's in ``wanted``."""
        out = dict(start or {})
        for a, xa in x.items():
            for b, yb in y.items():
                if not a & b and a | b in wanted:
                    out[a | b] = self.e.fma(xa, yb, out.get(a | b))
        return out

    # Values

    def _values(self, o: int, terms: Sequence[DirectionalDerivative]) -> None:
        """Write D^k P(x; c)[u_1, ..., u_k]."""
        total: list[ir.Value | None] = [None] * self.polynomial.dim
        for c in sorted({t.coefficients for t in terms}):
            masks = [self._mask(t) for t in terms if t.coefficients == c]
            found = self._horner(self.tree, c, _subsets(masks))
            for d in range(self.polynomial.dim):
                for mask in masks:
                    value = found.get(d, {}).get(mask)
                    if value is not None:
                        total[d] = value if total[d] is None else self.e.b.fadd(total[d], value)
        self._store(o, Operand.OUTPUT, enumerate(total))

    def _horner(self, tree: Tree, c: int, wanted: set[int]) -> dict[int, Dual]:
        """Compute the polynomial below a node of the tree, for each output."""
        out: dict[int, Dual] = {d: {0: self._operand(c, Operand.COEFFICIENTS, k)} for d, k in tree.here}
        for p, below in tree.below.items():
            for d, value in self._horner(below, c, wanted).items():
                out[d] = self._multiply(self.x[p], value, wanted, out.get(d))
        return out

    # Derivatives with respect to a direction

    def _slopes(self, o: int, terms: Sequence[DirectionalDerivative]) -> None:
        """Write the gradient of sum_d g_d D^k P_d(x; c)[u_1, ..., u_k] with respect to x."""
        whole = functools.reduce(int.__or__, (self._mask(t) for t in terms))
        weights: dict[int, list[tuple[int, int]]] = {}
        for t in terms:
            # Coefficients are multiplied by the e's of the union that a term lacks.
            weights.setdefault(whole & ~self._mask(t), []).append((t.coefficients, t.output))
        outputs = {
            g: [self._operand(g, Operand.OUTPUT, d) for d in range(self.polynomial.dim)] for g in {t.output for t in terms}
        }
        slopes: list[ir.Value | None] = [None] * self.polynomial.size
        wanted = _subsets([whole])

        def coefficient(tree: Tree) -> Dual:
            out: Dual = {}
            for mask, pairs in weights.items():
                for c, g in pairs:
                    for d, k in tree.here:
                        out[mask] = self.e.fma(self._operand(c, Operand.COEFFICIENTS, k), outputs[g][d], out.get(mask))
            return out

        def visit(tree: Tree, product: Dual) -> Dual:
            """Compute the polynomial below a node; ``product`` is the product of the variables above the node."""
            total = coefficient(tree)
            for p, below in tree.below.items():
                inner = visit(below, self._multiply(product, self.x[p], wanted) if below.below else {})
                part = self._multiply(product, inner, {whole}, {} if slopes[p] is None else {whole: slopes[p]})
                slopes[p] = part.get(whole)
                total = self._multiply(self.x[p], inner, wanted, total)
            return total

        visit(self.tree, {0: self.e.constant(1.0, self.e.lanes)})
        self._store(o, Operand.DIRECTION, enumerate(slopes))

    # Derivatives with respect to coefficients

    def _moments(self, o: int, terms: Sequence[DirectionalDerivative]) -> None:
        """Write the derivative with respect to the coefficients: g_d D^k of the monomials, summed over atoms of a species."""
        masks = [self._mask(t) for t in terms]
        wanted = _subsets(masks)
        outputs = {
            g: [self._operand(g, Operand.OUTPUT, d) for d in range(self.polynomial.dim)] for g in {t.output for t in terms}
        }

        def visit(tree: Tree, product: Dual) -> None:
            for d, k in tree.here:
                where = self.e.add(self.table, k * self.width)
                total = self.e.load(self.arguments.outputs[o], where, self.e.lanes)
                for term, mask in zip(terms, masks, strict=True):
                    if mask in product:
                        total = self.e.fma(outputs[term.output][d], product[mask], total)
                self.e.store(total, self.arguments.outputs[o], where)
            for p, below in tree.below.items():
                visit(below, self._multiply(product, self.x[p], wanted))

        visit(self.tree, {0: self.e.constant(1.0, self.e.lanes)})


def _subsets(masks: Iterable[int]) -> set[int]:
    """Return all subsets of sets of bits."""
    return {sub for mask in masks for sub in range(mask + 1) if sub & ~mask == 0}
