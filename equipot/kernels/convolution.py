"""The convolution over neighbours as a primitive of JAX (see ``convolution_forms`` for the formula).

On a CPU, one kernel computes all results of a ``MultilinearForms`` and keeps the intermediate results of a pair in registers
and the cache: no array [pairs, numel] is stored. The plain formulation below stores such arrays for one block of atoms at a
time.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.kernels import convolution_code, primitive
from equipot.kernels.convolution_forms import (
    PER_PAIR,
    CouplingPath,
    Layout,
    Monomial,
    MultilinearForms,
    Operand,
    coupling,
    forward,
)

BLOCK_BYTES = 2**30
"""Largest size of the radial weights of one block of the plain formulation, in bytes."""
CPU_BLOCK_BYTES = 2**23
"""Largest size on a CPU, where a block should stay in the cache."""


class PairIndices(NamedTuple):
    """Index arrays of directed pairs; -1 stands for no pair.

    The pairs of an atom follow each other without a gap, and rows behind the last pair are empty.
    """

    pair_of_slot: Int[Array, "atoms slots"]
    """Pair in each slot of an atom."""
    row_starts: Int[Array, " atoms+1"]
    """First pair of each atom, and the number of rows."""
    neighbors: Int[Array, " pairs"]
    """Neighbour of each pair."""
    reverse_pair: Int[Array, "atoms slots"] | None
    """Reverse (from neighbour to atom) of the pair in each slot; None where the list is not symmetric."""


def convolve(
    hidden: Float[Array, "pairs q"],
    last: Float[Array, "rows numel"],
    harmonics: Float[Array, "pairs m"],
    nodes: Float[Array, "atoms features"],
    pairs: PairIndices,
    layout: Layout,
    start: Int[Array, " pairs"] | None = None,
) -> Float[Array, "atoms messages"]:
    """Compute the messages that every atom i gathers from its neighbours j(k).

        A[i, p, m, c] = sum over pairs k of i, components a, b
                        (sum_q hidden[k, q] last[q, p, c])  nodes[j(k), a, c]  harmonics[k, b]  C_p[a, b, m]

    for every coupling path p of ``layout``, with Clebsch-Gordan coefficients C_p. Operands of different precision are computed
    in the highest.

    Args:
        hidden: Last hidden features of the radial network.
        last: Last layer of the radial network, with one column for each path and channel; without rows where
            ``layout.direct``.
        harmonics: Spherical harmonics, l ascending.
        nodes: Features of atoms, as ``layout`` arranges them.
        pairs: Index arrays.
        layout: Coupling paths and where everything lies.
        start: First of the rows of ``last`` that apply to each pair, where ``layout.rows`` is given.
    """
    assert (start is None) == (layout.rows is None)
    indices = [pairs.pair_of_slot, pairs.row_starts, pairs.neighbors]
    indices += [x for x in (start, pairs.reverse_pair) if x is not None]
    dtype = jnp.result_type(hidden, last, harmonics, nodes)
    operands = (x.astype(dtype) for x in (hidden, last, harmonics, nodes))
    forms = forward(layout, symmetric=pairs.reverse_pair is not None)
    return convolution_p.bind(*(x.astype(jnp.int32) for x in indices), *operands, forms=forms)[0]


def plain(*arguments: Array, forms: MultilinearForms, block_bytes: int = BLOCK_BYTES) -> list[Array]:
    """Compute the results of ``forms`` in JAX, with a row of slots for each atom, in blocks of atoms.

    Args:
        arguments: Index arrays and operands.
        forms: Description of the results.
        block_bytes: Largest size of the radial weights of one block, in bytes.
    """
    (pair_of_slot, _, neighbors, *others), operands = arguments[: forms.indices], arguments[forms.indices :]
    active, rows = pair_of_slot >= 0, neighbors.shape[0]
    # The values in slots without a pair are arbitrary.
    slots = lambda x: x[jnp.maximum(pair_of_slot, 0)]

    def pairs(y: Array) -> Array:
        return jnp.zeros((rows, *y.shape[2:]), y.dtype).at[jnp.where(active, pair_of_slot, rows)].set(y, mode="drop")

    start = () if forms.layout.rows is None else (slots(others[0]),)
    given = [slots(x) if kind in PER_PAIR else x for kind, x in zip(forms.kinds, operands, strict=True)]
    found = _blocks(forms, [jnp.maximum(slots(neighbors), 0), active, *start], given, block_bytes)
    return [pairs(y) if kind in PER_PAIR else y for (kind, _), y in zip(forms.outputs, found, strict=True)]


def _blocks(forms: MultilinearForms, indices: list[Array], operands: list[Array], block_bytes: int) -> list[Array]:
    """Compute the results for arrays with a row of slots for each atom, one block of atoms after the other."""
    (atoms, slots), layout = indices[0].shape, forms.layout
    size = max(1, min(atoms, block_bytes // max(1, slots * layout.numel * operands[0].dtype.itemsize)))
    blocks = -(-atoms // size)
    common = (Operand.LAST, Operand.NODES)
    whole = {k: x for k, (kind, x) in enumerate(zip(forms.kinds, operands, strict=True)) if kind in common}
    split = lambda x: jnp.pad(x, [(0, blocks * size - atoms)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, size, *x.shape[1:])
    parts = {k: split(x) for k, x in enumerate(operands) if k not in whole}

    def block(mapped: tuple) -> list[Array]:
        of_block, chosen = mapped
        return _block(forms, of_block, [whole[k] if k in whole else chosen[k] for k in range(len(operands))])

    found = jax.lax.map(block, ([split(x) for x in indices], parts))
    return [
        jnp.sum(y, axis=0) if kind is Operand.LAST else y.reshape(blocks * size, *y.shape[2:])[:atoms]
        for (kind, _), y in zip(forms.outputs, found, strict=True)
    ]


def _block(forms: MultilinearForms, indices: list[Array], operands: list[Array]) -> list[Array]:
    """Compute the results for one block of atoms."""
    neighbors, active, *others = indices
    start = None if forms.layout.rows is None else others[0]
    mask = active[..., None]
    rows = []
    for kind, x in zip(forms.kinds, operands, strict=True):
        x = x[neighbors] if kind is Operand.NODES else x
        rows.append(jnp.where(mask, x, 0) if kind in (Operand.NODES, *PER_PAIR) else x)
    out = []
    for kind, terms in forms.outputs:
        shape = forms.layout.shape(kind, len(neighbors), neighbors.shape)
        total = functools.reduce(jnp.add, [_form(forms.layout, kind, term, rows, shape, start) for term in terms])
        out.append(jnp.where(mask, total, 0) if kind in PER_PAIR else total)
    return out


def _components(x: Array, start: int, stride: int, l: int, channels: int) -> Float[Array, "*rows m channels"]:
    """Select the block of an irrep of degree l from rows of features or messages."""
    return jnp.stack([x[..., start + a * stride : start + a * stride + channels] for a in range(2 * l + 1)], axis=-2)


def _form(
    layout: Layout, kind: Operand, term: Monomial, rows: list[Array], shape: tuple[int, ...], start: Array | None
) -> Array:
    """Compute one term of a sum, with the factor ``kind`` left out, path by path; see ``convolution_forms``."""
    mine = None if start is None else start[..., None] + jnp.arange(layout.hidden)[None, None]
    if kind in (Operand.HIDDEN, Operand.LAST):
        if layout.direct:
            return functools.reduce(jnp.add, [_columns(p, layout.hidden, _slope(p, term, rows)) for p in layout.paths])
        # Columns of the last layer are in the order of the paths.
        slope = jnp.concatenate([_slope(path, term, rows) for path in layout.paths], axis=-1)
        if kind is Operand.HIDDEN:
            last = rows[term[Operand.LAST]]
            return slope @ last.T if mine is None else jnp.einsum("nkc,nkqc->nkq", slope, last[mine])
        hidden = rows[term[Operand.HIDDEN]]
        if mine is None:
            return jnp.einsum("nkq,nkj->qj", hidden, slope)
        return jnp.zeros(shape, hidden.dtype).at[mine].add(hidden[..., None] * slope[:, :, None])
    blocks: dict[tuple[int, int], Array] = {}
    hidden = rows[term[Operand.HIDDEN]]
    for path in layout.paths:
        columns = slice(path.column, path.column + path.channels)
        if layout.direct:
            w = hidden[..., columns]
        else:
            last = rows[term[Operand.LAST]]
            w = hidden @ last[:, columns] if mine is None else jnp.einsum("nkq,nkqc->nkc", hidden, last[:, columns][mine])
        w = w[:, :, None]
        if kind is Operand.PAIRS:
            value, place = w * _returned(path, term, rows), (path.sender, path.sender_stride)
        else:
            h = _components(rows[term[Operand.NODES]], path.sender, path.sender_stride, path.l_in, path.channels)
            if kind is Operand.HARMONICS:
                g = _components(rows[term[Operand.MESSAGE]], path.message, path.message_stride, path.l_out, path.channels)
                z = jnp.einsum("nkac,nmc->nkma", w * h, g)
                value, place = jnp.einsum("abm,nkma->nkb", _coupling(path, w), z)[..., None], (path.l_edge**2, 1)
            else:
                value = jnp.einsum("nkma,nkac->nmc", _transfer(path, term, rows), w * h)
                place = path.message, path.message_stride
        blocks[place] = blocks[place] + value if place in blocks else value
    return _joined(blocks, shape)


def _joined(blocks: dict[tuple[int, int], Array], shape: tuple[int, ...]) -> Array:
    """Join blocks [*rows, m, channels], given by (offset, stride) in a row, to an array of ``shape`` with zeros elsewhere.

    The array is one concatenation. In a chain of updates, one for each component, XLA for GPUs fuses every update with all
    updates before, into kernels nested so deep that their compilation takes minutes.
    """
    pieces: dict[int, Array] = {}
    for (offset, stride), x in blocks.items():
        if stride == x.shape[-1]:
            pieces[offset] = x.reshape(*x.shape[:-2], -1)
        else:
            pieces |= {offset + m * stride: x[..., m, :] for m in range(x.shape[-2])}
    parts, end = [], 0
    for offset, x in sorted(pieces.items()):
        parts += [jnp.zeros((*shape[:-1], offset - end), x.dtype), x]
        end = offset + x.shape[-1]
    return jnp.concatenate([*parts, jnp.zeros((*shape[:-1], shape[-1] - end), parts[-1].dtype)], axis=-1)


def _columns(path: CouplingPath, count: int, x: Array) -> Array:
    """Place the columns of a path among ``count`` columns, zero elsewhere."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(path.column, count - path.column - path.channels)])


def _coupling(path: CouplingPath, like: Array) -> Float[Array, "m_in m_edge m_out"]:
    """Return the Clebsch-Gordan coefficients of a path in the precision of ``like``."""
    return jnp.asarray(coupling(*path.degrees), like.dtype)


def _transfer(path: CouplingPath, term: Monomial, rows: list[Array]) -> Float[Array, "atoms slots m_out m_in"]:
    """Compute the matrix of each slot that maps features of the neighbour to the message, without the radial weight."""
    harmonics = rows[term[Operand.HARMONICS]]
    return jnp.einsum("abm,nkb->nkma", _coupling(path, harmonics), harmonics[..., path.l_edge**2 : (path.l_edge + 1) ** 2])


def _returned(path: CouplingPath, term: Monomial, rows: list[Array]) -> Float[Array, "atoms slots m_in channels"]:
    """Compute the derivative with respect to the features of each slot's neighbour, without the radial weight."""
    g = _components(rows[term[Operand.MESSAGE]], path.message, path.message_stride, path.l_out, path.channels)
    return jnp.einsum("nkma,nmc->nkac", _transfer(path, term, rows), g)


def _slope(path: CouplingPath, term: Monomial, rows: list[Array]) -> Float[Array, "atoms slots channels"]:
    """Compute the derivative with respect to the radial weights of a path."""
    h = _components(rows[term[Operand.NODES]], path.sender, path.sender_stride, path.l_in, path.channels)
    return jnp.sum(_returned(path, term, rows) * h, axis=2)


def native(*arguments: Array, forms: MultilinearForms) -> list[Array]:
    """Compute the results of ``forms`` by machine code; by ``plain`` where there is none for this processor."""
    indices, operands = arguments[: forms.indices], arguments[forms.indices :]
    if not convolution_code.possible(operands[0].dtype):
        return plain(*arguments, forms=forms, block_bytes=CPU_BLOCK_BYTES)
    return convolution_code.call(forms, indices, operands)


convolution_p = primitive.make("equipot_convolution", plain, native)
