"""Bundles of convolutions: what is computed together, and what its derivatives are.

A convolution is linear in each of five things, its legs:

    Phi = sum over pairs k of atoms n(k) and j(k), routes p, channels c, components a, b, m of

          (sum_q hidden[k,q] last[q,p,c])  senders[j,a,c]  harmonics[k,b]  message[n,p,m,c]  C_p[a,b,m]

Leaving out one leg gives the derivative with respect to it: without ``message`` it is the convolution, without ``hidden`` what
a force needs, and so on. Since derivatives of these are sums of the same five forms, a ``Bundle`` that says which sums of
which forms are wanted has bundles as its derivatives, to any order, forward and backward.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Sequence

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from equipot.neighbors.packed import scatter_pairs


class Leg(enum.IntEnum):
    """What a convolution is linear in, and how an array of it is laid out."""

    HIDDEN = 0
    """Last hidden features of the radial network, [pairs, q]."""
    LAST = 1
    """Its last layer, [q, numel]: one column for each route and channel."""
    HARMONICS = 2
    """Spherical harmonics, [pairs, (l_max + 1)^2]."""
    NODES = 3
    """Features of the neighbours, as a row for each atom: [atoms, features]."""
    MESSAGE = 4
    """What the convolution gives, [atoms, messages]."""
    PAIRS = 5
    """Features of the neighbours, as a row for each pair: [pairs, features]."""

    @property
    def position(self) -> int:
        """Its place in a ``Term``."""
        return Leg.NODES if self is Leg.PAIRS else self


PER_PAIR = (Leg.HIDDEN, Leg.HARMONICS, Leg.PAIRS)
"""Legs whose arrays have a row for each pair."""

Term = tuple[int, int, int, int, int]
"""Which operand stands for each leg; ``OPEN`` for the one that is left out."""
OPEN = -1


@functools.lru_cache(maxsize=256)
def coupling(l_in: int, l_edge: int, l_out: int) -> np.ndarray:
    """Clebsch-Gordan coefficients [m_in, m_edge, m_out], such that inputs of unit variance give an output of unit variance."""
    with jax.ensure_compile_time_eval():
        return np.asarray(e3nn.clebsch_gordan(l_in, l_edge, l_out), np.float64) * np.sqrt(2 * l_out + 1)


@dataclasses.dataclass(frozen=True)
class Route:
    """One path of a convolution and where its parts lie: [component, channel] blocks in the rows of features and messages."""

    l_in: int
    l_edge: int
    l_out: int
    channels: int
    sender: int
    """Offset in a row of features."""
    sender_stride: int
    """From one component to the next."""
    column: int
    """First of ``channels`` columns of the last radial layer."""
    message: int
    """Offset in a row of messages."""
    message_stride: int

    @property
    def degrees(self) -> tuple[int, int, int]:
        return self.l_in, self.l_edge, self.l_out


@dataclasses.dataclass(frozen=True)
class Layout:
    """The routes of a convolution and the sizes of its rows."""

    routes: tuple[Route, ...]
    hidden: int
    """Hidden features of a slot."""
    harmonics: int
    features: int
    messages: int
    rows: int | None = None
    """Rows of the last radial layer where they are more than ``hidden``: a pair then has its own ``hidden`` consecutive ones,
    from an index on that stands behind the neighbours. So it is with splines, of which few overlap."""
    direct: bool = False
    """Whether there is no last layer: the radial weight of a column is that hidden feature. Routes may share columns."""

    @property
    def numel(self) -> int:
        """Columns of the last radial layer."""
        return self.hidden if self.direct else sum(route.channels for route in self.routes)

    @property
    def depth(self) -> int:
        """Rows of the last radial layer; where there is none, an empty array stands for it."""
        return 0 if self.direct else self.rows or self.hidden

    def row(self, leg: Leg) -> int:
        """Length of a row of a leg."""
        sizes = (self.hidden, self.numel, self.harmonics, self.features, self.messages)
        return sizes[leg.position]

    def shape(self, leg: Leg, atoms: int, pairs: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of an array of a leg. ``NODES`` has as many rows as there are atoms; ``pairs`` may be more than one axis."""
        if leg is Leg.LAST:
            return self.depth, self.numel
        if leg in (Leg.NODES, Leg.MESSAGE):
            return atoms, self.row(leg)
        return *pairs, self.row(leg)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Sums of convolutions with one leg left out each."""

    layout: Layout
    legs: tuple[Leg, ...]
    """Of the operands."""
    outputs: tuple[tuple[Leg, tuple[Term, ...]], ...]
    """The leg that is left out, which is what comes out, and the terms of the sum."""
    symmetric: bool = True
    """Whether the reverse pairs are known."""
    packed: bool = True
    """Whether the pairs of an atom follow each other without a gap, see ``pairs.Pairs``."""

    @property
    def indices(self) -> int:
        """``place``, ``first`` and ``neighbors`` of the pairs, then the first row of the last layer for each where pairs have
        their own, then ``back`` where it is known."""
        return 3 + (self.layout.rows is not None) + self.symmetric

    def shapes(
        self, place: tuple[int, ...], first: tuple[int, ...], neighbors: tuple[int, ...], *others: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        """Of the results."""
        return [self.layout.shape(leg, place[0], neighbors) for leg, _ in self.outputs]

    def tangent(self, varied: Sequence[int]) -> Bundle:
        """See ``primitive.Bundle``."""
        place = {operand: len(self.legs) + k for k, operand in enumerate(varied) if self._matters(operand)}
        replaced = lambda term, k: tuple(place[o] if j == k else o for j, o in enumerate(term))
        outputs = tuple(
            (leg, tuple(replaced(term, k) for term in terms for k, operand in enumerate(term) if operand in place))
            for leg, terms in self.outputs
        )
        return dataclasses.replace(self, legs=self.legs + tuple(self.legs[o] for o in varied), outputs=outputs)

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> Bundle:
        """See ``primitive.Bundle``. Cotangents of ``NODES`` come out as ``PAIRS``."""
        outputs = []
        for operand in linear:
            leg = Leg.PAIRS if self.legs[operand] is Leg.NODES else self.legs[operand]
            terms = []
            for k, output in enumerate(given):
                out, sums = self.outputs[output]
                for term in sums:
                    if term[leg.position] == operand and self._matters(operand):
                        changed = list(term)
                        changed[leg.position], changed[out.position] = OPEN, len(self.legs) + k
                        terms.append(tuple(changed))
            outputs.append((leg, tuple(terms)))
        legs = self.legs + tuple(self.outputs[o][0] for o in given)
        return dataclasses.replace(self, legs=legs, outputs=tuple(outputs))

    def _matters(self, operand: int) -> bool:
        """Whether anything depends on an operand: not on a last layer that is none."""
        return not (self.layout.direct and self.legs[operand] is Leg.LAST)

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        """Sum over the pairs that point to an atom, for a cotangent of ``NODES``."""
        if self.legs[operand] is not Leg.NODES:
            return cotangent
        place, _, neighbors, *_ = indices
        return scatter_pairs(cotangent, neighbors, indices[-1] if self.symmetric else None, len(place))

    def pruned(self) -> tuple[Bundle, tuple[int, ...], tuple[int, ...]]:
        """See ``primitive.Bundle``."""
        outputs = tuple(k for k, (_, terms) in enumerate(self.outputs) if terms)
        used = {o for k in outputs for term in self.outputs[k][1] for o in term} - {OPEN}
        operands = tuple(o for o in range(len(self.legs)) if o in used)
        number = {o: k for k, o in enumerate(operands)} | {OPEN: OPEN}
        kept = tuple(
            (self.outputs[k][0], tuple(sorted(tuple(number[o] for o in term) for term in self.outputs[k][1]))) for k in outputs
        )
        return dataclasses.replace(self, legs=tuple(self.legs[o] for o in operands), outputs=kept), operands, outputs

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        """All but the last radial layer."""
        return [leg is not Leg.LAST for leg in self.legs], [leg is not Leg.LAST for leg, _ in self.outputs]

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        """Index arrays of so many copies of the system, one behind the other."""
        place, first, neighbors, *others = indices
        (atoms, _), rows = place.shape, neighbors.shape[0]
        copies = jnp.arange(size, dtype=place.dtype)

        def many(x: Array, step: int) -> Array:
            moved = jnp.where(x < 0, -1, x + step * copies.reshape(size, *[1] * x.ndim))
            return moved.reshape(size * x.shape[0], *x.shape[1:])

        ends = jnp.full(1, size * rows, first.dtype)
        out = [many(place, rows), jnp.concatenate([many(first[:-1], rows), ends]), many(neighbors, atoms)]
        out += [many(x, rows if x.ndim == 2 else 0) for x in others]
        return out


def forward(layout: Layout, symmetric: bool, packed: bool) -> Bundle:
    """The convolution itself, of hidden features, last layer, harmonics and atoms' features."""
    legs = (Leg.HIDDEN, Leg.LAST, Leg.HARMONICS, Leg.NODES)
    return Bundle(layout, legs, ((Leg.MESSAGE, ((0, 1, 2, 3, OPEN),)),), symmetric, packed)
