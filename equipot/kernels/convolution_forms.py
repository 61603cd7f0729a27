"""Sums of multilinear forms of a convolution, closed under differentiation.

A convolution is linear in each of five operands:

    Phi = sum over pairs k from atom n(k) to neighbour j(k), paths p, channels c, components a, b, m of

          (sum_q hidden[k, q] last[q, p, c])  nodes[j(k), a, c]  harmonics[k, b]  message[n(k), p, m, c]  C_p[a, b, m]

with Clebsch-Gordan coefficients C_p. Phi with one operand left out is the derivative with respect to that operand: without
``message`` this is the convolution, without ``harmonics`` the part of a force that comes from the direction of a pair, and so
on. Derivatives of these five forms are sums of these five forms. ``MultilinearForms`` describes several such sums, and is
therefore closed under differentiation of any order, forward and backward.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping, Sequence

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from equipot.kernels.rows import add_rows, sum_rows


class Operand(enum.IntEnum):
    """Kind of an operand or of a result of a convolution, with the shape of its array."""

    HIDDEN = 0
    """Last hidden features of the radial network, [pairs, q]."""
    LAST = 1
    """Last layer of the radial network, [q, numel]: one column for each path and channel."""
    HARMONICS = 2
    """Spherical harmonics, [pairs, (l_max + 1)^2]."""
    NODES = 3
    """Features of the neighbours, with a row for each atom: [atoms, features]."""
    MESSAGE = 4
    """Result of the convolution, or its cotangent: [atoms, messages]."""
    PAIRS = 5
    """Features of the neighbours, with a row for each pair: [pairs, features]."""

    @property
    def position(self) -> int:
        """Index of the factor in a ``Monomial``."""
        return Operand.NODES if self is Operand.PAIRS else self


PER_PAIR = (Operand.HIDDEN, Operand.HARMONICS, Operand.PAIRS)
"""Operands whose arrays have a row for each pair."""

Monomial = tuple[int, int, int, int, int]
"""A product of four operands: the index of the operand for each of the five factors, ``OPEN`` for the factor left out."""
OPEN = -1
"""Index of the factor that is left out of a ``Monomial``."""


@functools.lru_cache(maxsize=256)
def coupling(l_in: int, l_edge: int, l_out: int) -> np.ndarray:
    """Compute the Clebsch-Gordan coefficients [m_in, m_edge, m_out], scaled to keep unit variance of the inputs."""
    with jax.ensure_compile_time_eval():
        return np.asarray(e3nn.clebsch_gordan(l_in, l_edge, l_out), np.float64) * np.sqrt(2 * l_out + 1)


@dataclasses.dataclass(frozen=True)
class CouplingPath:
    """One path (l_in, l_edge) -> l_out of a convolution, and the places of its blocks [component, channel] in arrays."""

    l_in: int
    l_edge: int
    l_out: int
    channels: int
    sender: int
    """Offset of the block in a row of features."""
    sender_stride: int
    """Distance from one component to the next in a row of features."""
    column: int
    """First of ``channels`` columns of the last radial layer."""
    message: int
    """Offset of the block in a row of messages."""
    message_stride: int
    """Distance from one component to the next in a row of messages."""

    @property
    def degrees(self) -> tuple[int, int, int]:
        """Degrees (l_in, l_edge, l_out) of the path."""
        return self.l_in, self.l_edge, self.l_out


@dataclasses.dataclass(frozen=True)
class Layout:
    """The paths of a convolution and the lengths of rows of its operands."""

    paths: tuple[CouplingPath, ...]
    hidden: int
    """Number of hidden features of a pair."""
    harmonics: int
    """Number of spherical harmonics of a pair, (l_max + 1)^2."""
    features: int
    """Number of features of an atom."""
    messages: int
    """Number of components of a message."""
    rows: int | None = None
    """Number of rows of the last radial layer if larger than ``hidden``, as for splines: an index array then gives the first of
    the ``hidden`` consecutive rows that apply to each pair. None if all rows apply to every pair."""
    direct: bool = False
    """Whether hidden features are the radial weights, without a last radial layer. Paths may then share columns."""

    @property
    def numel(self) -> int:
        """Number of columns of the last radial layer."""
        return self.hidden if self.direct else sum(path.channels for path in self.paths)

    @property
    def depth(self) -> int:
        """Number of rows of the last radial layer; 0 with ``direct``, where the operand is empty."""
        return 0 if self.direct else self.rows or self.hidden

    def row(self, kind: Operand) -> int:
        """Return the length of a row of an operand."""
        sizes = (self.hidden, self.numel, self.harmonics, self.features, self.messages)
        return sizes[kind.position]

    def shape(self, kind: Operand, atoms: int, pairs: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an operand's array; ``pairs`` are the leading axes of arrays with values of pairs."""
        if kind is Operand.LAST:
            return self.depth, self.numel
        if kind in (Operand.NODES, Operand.MESSAGE):
            return atoms, self.row(kind)
        return *pairs, self.row(kind)


@dataclasses.dataclass(frozen=True)
class MultilinearForms:
    """Several results, each a sum of monomials with the same operand left out (see ``primitive.Forms``).

    Index arrays are ``pair_of_slot``, ``row_starts`` and ``neighbors`` of ``convolution.PairIndices``, the first row of the
    last layer for each pair where ``layout.rows`` is given, and ``reverse_pair`` where the list is symmetric.
    """

    layout: Layout
    kinds: tuple[Operand, ...]
    """Kinds of the operands."""
    outputs: tuple[tuple[Operand, tuple[Monomial, ...]], ...]
    """For each result, its kind, which is the operand left out of the monomials, and the monomials of the sum."""
    symmetric: bool = True
    """Whether the list is symmetric."""

    @property
    def indices(self) -> int:
        """Number of index arrays."""
        return 3 + (self.layout.rows is not None) + self.symmetric

    def shapes(
        self, pair_of_slot: tuple[int, ...], row_starts: tuple[int, ...], neighbors: tuple[int, ...], *_: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        return [self.layout.shape(kind, pair_of_slot[0], neighbors) for kind, _ in self.outputs]

    def tangent(self, varied: Sequence[int]) -> MultilinearForms:
        number = {operand: len(self.kinds) + k for k, operand in enumerate(varied) if self._matters(operand)}
        outputs = tuple(
            (kind, tuple(_with(term, {k: number[o]}) for term in terms for k, o in enumerate(term) if o in number))
            for kind, terms in self.outputs
        )
        return dataclasses.replace(self, kinds=self.kinds + tuple(self.kinds[o] for o in varied), outputs=outputs)

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> MultilinearForms:
        """See ``primitive.Forms``. The cotangent of ``NODES`` is an output of kind ``PAIRS``."""
        outputs = []
        for operand in linear:
            kind = Operand.PAIRS if self.kinds[operand] is Operand.NODES else self.kinds[operand]
            terms = []
            for k, output in enumerate(given):
                out, sums = self.outputs[output]
                for term in sums:
                    if term[kind.position] == operand and self._matters(operand):
                        terms.append(_with(term, {kind.position: OPEN, out.position: len(self.kinds) + k}))
            outputs.append((kind, tuple(terms)))
        kinds = self.kinds + tuple(self.outputs[o][0] for o in given)
        return dataclasses.replace(self, kinds=kinds, outputs=tuple(outputs))

    def _matters(self, operand: int) -> bool:
        """Return whether any result depends on an operand: none depends on the empty last layer of ``layout.direct``."""
        return not (self.layout.direct and self.kinds[operand] is Operand.LAST)

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        """Sum a cotangent of ``NODES``, with a row for each pair, over the pairs that point to each atom."""
        if self.kinds[operand] is not Operand.NODES:
            return cotangent
        pair_of_slot, _, neighbors, *_ = indices
        if self.symmetric:
            return sum_rows(cotangent, indices[-1], neighbors[:, None])
        return add_rows(cotangent, neighbors, len(pair_of_slot))

    def pruned(self) -> tuple[MultilinearForms, tuple[int, ...], tuple[int, ...]]:
        outputs = tuple(k for k, (_, terms) in enumerate(self.outputs) if terms)
        used = {o for k in outputs for term in self.outputs[k][1] for o in term} - {OPEN}
        operands = tuple(o for o in range(len(self.kinds)) if o in used)
        number = {o: k for k, o in enumerate(operands)} | {OPEN: OPEN}
        kept = tuple(
            (self.outputs[k][0], tuple(sorted(_with(t, {j: number[o] for j, o in enumerate(t)}) for t in self.outputs[k][1])))
            for k in outputs
        )
        return dataclasses.replace(self, kinds=tuple(self.kinds[o] for o in operands), outputs=kept), operands, outputs

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        return [kind is not Operand.LAST for kind in self.kinds], [kind is not Operand.LAST for kind, _ in self.outputs]

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        pair_of_slot, row_starts, neighbors, *others = indices
        (atoms, _), rows = pair_of_slot.shape, neighbors.shape[0]
        copies = jnp.arange(size, dtype=pair_of_slot.dtype)

        def many(x: Array, step: int) -> Array:
            moved = jnp.where(x[None] < 0, -1, x[None] + step * copies.reshape(size, *[1] * x.ndim))
            return moved.reshape(size * x.shape[0], *x.shape[1:])

        ends = jnp.full(1, size * rows, row_starts.dtype)
        out = [many(pair_of_slot, rows), jnp.concatenate([many(row_starts[:-1], rows), ends]), many(neighbors, atoms)]
        # Of the others, reverse_pair has two axes; rows of the last layer are those of all copies.
        out += [many(x, rows if x.ndim == 2 else 0) for x in others]
        return out


def _with(term: Monomial, changes: Mapping[int, int]) -> Monomial:
    """Replace operands of a monomial, by the index of the factor."""
    hidden, last, harmonics, nodes, message = (changes.get(k, operand) for k, operand in enumerate(term))
    return hidden, last, harmonics, nodes, message


def forward(layout: Layout, symmetric: bool) -> MultilinearForms:
    """Describe the convolution of the operands hidden, last, harmonics and nodes."""
    kinds = (Operand.HIDDEN, Operand.LAST, Operand.HARMONICS, Operand.NODES)
    return MultilinearForms(layout, kinds, ((Operand.MESSAGE, ((0, 1, 2, 3, OPEN),)),), symmetric)


def pack(layout: Layout, last: Array) -> Array:
    """Flatten the last layer [rows, numel] with the columns of each path contiguous, which uses the cache better."""
    if layout.direct:
        return last.reshape(-1)
    return jnp.concatenate([last[:, path.column : path.column + path.channels].reshape(-1) for path in layout.paths])


def unpack(layout: Layout, packed: Array) -> Array:
    """Invert ``pack``."""
    q = layout.depth
    blocks = [packed[path.column * q : (path.column + path.channels) * q].reshape(q, path.channels) for path in layout.paths]
    return jnp.concatenate(blocks, axis=1)
