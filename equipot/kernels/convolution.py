"""The convolution over neighbours as a primitive of JAX.

On a CPU a bundle is one kernel that keeps what belongs to a pair in registers and the cache; nothing as large as [pairs,
numel] is ever stored. Elsewhere, and where LLVM does not know the processor, it is the plain formulation below.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equipot.kernels import convolution_code, primitive
from equipot.kernels.convolution_bundle import PER_PAIR, Bundle, Layout, Leg, Route, Term, coupling, forward
from equipot.neighbors.packed import Pairs

BLOCK_BYTES = {"cpu": 2**23, "other": 2**30}
"""Size of the radial weights that the plain formulation holds at once."""


def convolve(
    hidden: Float[Array, "pairs q"],
    last: Float[Array, "q numel"],
    harmonics: Float[Array, "pairs m"],
    nodes: Float[Array, "atoms features"],
    pairs: Pairs,
    layout: Layout,
    start: Int[Array, " pairs"] | None = None,
) -> Float[Array, "atoms messages"]:
    """Messages of the neighbours.

    Where ``layout.rows`` is given, ``start`` is the first row of the last layer that belongs to a pair. Where the layout is
    ``direct``, ``last`` has no rows.
    """
    assert (start is None) == (layout.rows is None)
    indices = [x for x in (pairs.place, pairs.first, pairs.neighbors, start, pairs.back) if x is not None]
    dtype = jnp.result_type(hidden, last, harmonics, nodes)
    operands = (x.astype(dtype) for x in (hidden, last, harmonics, nodes))
    bundle = forward(layout, pairs.back is not None, pairs.packed)
    return convolution_p.bind(*(x.astype(jnp.int32) for x in indices), *operands, bundle=bundle)[0]


def plain(*arguments: Array, bundle: Bundle) -> list[Array]:
    """What a bundle means, with a row of slots for each atom."""
    (place, _, neighbors, *others), operands = arguments[: bundle.indices], arguments[bundle.indices :]
    active, rows = place >= 0, neighbors.shape[0]

    def slots(x: Array) -> Array:
        """What belongs to pairs; anything in slots that are not active."""
        return x[jnp.maximum(place, 0)] if bundle.packed else x.reshape(*place.shape, *x.shape[1:])

    def pairs(y: Array) -> Array:
        if not bundle.packed:
            return y.reshape(rows, *y.shape[2:])
        return jnp.zeros((rows, *y.shape[2:]), y.dtype).at[jnp.where(active, place, rows)].set(y, mode="drop")

    start = () if bundle.layout.rows is None else (slots(others[0]),)
    given = [x if leg in (Leg.LAST, Leg.NODES, Leg.MESSAGE) else slots(x) for leg, x in zip(bundle.legs, operands, strict=True)]
    found = _plain_slots(bundle, [jnp.maximum(slots(neighbors), 0), active, *start], given)
    return [pairs(y) if leg in PER_PAIR else y for (leg, _), y in zip(bundle.outputs, found, strict=True)]


def _plain_slots(bundle: Bundle, indices: list[Array], operands: list[Array]) -> list[Array]:
    """In blocks of atoms."""
    (atoms, slots), layout = indices[0].shape, bundle.layout
    limit = BLOCK_BYTES["cpu" if jax.default_backend() == "cpu" else "other"]
    size = max(1, min(atoms, limit // max(1, slots * layout.numel * operands[0].dtype.itemsize)))
    blocks = -(-atoms // size)
    whole = {k: x for k, (leg, x) in enumerate(zip(bundle.legs, operands, strict=True)) if leg in (Leg.LAST, Leg.NODES)}
    split = lambda x: jnp.pad(x, [(0, blocks * size - atoms)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, size, *x.shape[1:])
    parts = {k: split(x) for k, x in enumerate(operands) if k not in whole}

    def block(mapped: tuple) -> list[Array]:
        of_block, chosen = mapped
        return _plain_block(bundle, of_block, [whole[k] if k in whole else chosen[k] for k in range(len(operands))])

    found = jax.lax.map(block, ([split(x) for x in indices], parts))
    return [
        jnp.sum(y, axis=0) if leg is Leg.LAST else y.reshape(blocks * size, *y.shape[2:])[:atoms]
        for (leg, _), y in zip(bundle.outputs, found, strict=True)
    ]


def _plain_block(bundle: Bundle, indices: list[Array], operands: list[Array]) -> list[Array]:
    neighbors, active, *others = indices
    start = None if bundle.layout.rows is None else others[0]
    mask = active[..., None]
    rows = []
    for leg, x in zip(bundle.legs, operands, strict=True):
        x = x[neighbors] if leg is Leg.NODES else x
        rows.append(jnp.where(mask, x, 0) if leg in (Leg.NODES, *PER_PAIR) else x)
    out = []
    for leg, terms in bundle.outputs:
        shape = bundle.layout.shape(leg, len(neighbors), neighbors.shape)
        total = sum(_form(bundle.layout, leg, term, rows, shape, start) for term in terms)
        out.append(jnp.where(mask, total, 0) if leg in PER_PAIR else total)
    return out


def _components(x: Array, start: int, stride: int, l: int, channels: int) -> Float[Array, "*rows m channels"]:
    """Block of an irrep in rows of features or messages."""
    return jnp.stack([x[..., start + a * stride : start + a * stride + channels] for a in range(2 * l + 1)], axis=-2)


def _form(layout: Layout, leg: Leg, term: Term, rows: list[Array], shape: tuple[int, ...], start: Array | None) -> Array:
    """The form with one leg left out, path by path."""
    hidden, last, *_ = (rows[o] if o >= 0 else None for o in term)
    mine = None if start is None else start[..., None] + jnp.arange(layout.hidden)
    if leg in (Leg.HIDDEN, Leg.LAST):
        if layout.direct:
            return sum(_columns(r, layout.hidden, _slope(r, term, rows)) for r in layout.routes)
        # Columns of the last layer stand in the order of the routes.
        slope = jnp.concatenate([_slope(r, term, rows) for r in layout.routes], axis=-1)
        if leg is Leg.HIDDEN:
            return slope @ last.T if mine is None else jnp.einsum("nkc,nkqc->nkq", slope, last[mine])
        if mine is None:
            return jnp.einsum("nkq,nkj->qj", hidden, slope)
        return jnp.zeros(shape, hidden.dtype).at[mine].add(hidden[..., None] * slope[:, :, None])
    blocks: dict[tuple[int, int], Array] = {}
    for r in layout.routes:
        columns = slice(r.column, r.column + r.channels)
        if layout.direct:
            w = hidden[..., columns]
        else:
            w = hidden @ last[:, columns] if mine is None else jnp.einsum("nkq,nkqc->nkc", hidden, last[:, columns][mine])
        w = w[:, :, None]
        if leg is Leg.PAIRS:
            value, place = w * _returned(r, term, rows), (r.sender, r.sender_stride)
        else:
            h = _components(rows[term[Leg.NODES]], r.sender, r.sender_stride, r.l_in, r.channels)
            if leg is Leg.HARMONICS:
                g = _components(rows[term[Leg.MESSAGE]], r.message, r.message_stride, r.l_out, r.channels)
                value = jnp.einsum("abm,nkma->nkb", _coupling(r, w), jnp.einsum("nkac,nmc->nkma", w * h, g))[..., None]
                place = r.l_edge**2, 1
            else:
                value = jnp.einsum("nkma,nkac->nmc", _transfer(r, term, rows), w * h)
                place = r.message, r.message_stride
        blocks[place] = blocks[place] + value if place in blocks else value
    return _joined(blocks, shape)


def _joined(blocks: dict[tuple[int, int], Array], shape: tuple[int, ...]) -> Array:
    """Rows of shape ``shape`` from their blocks [*rows, m, channels], by offset and stride; zero where there is no block.

    The rows are one concatenation. In a chain of updates, one for each component, XLA for GPUs fuses every update with all
    before it, into kernels nested so deep that their compilation takes minutes.
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


def _columns(r: Route, count: int, x: Array) -> Array:
    """What belongs to a route among so many columns."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(r.column, count - r.column - r.channels)])


def _coupling(r: Route, like: Array) -> Array:
    return jnp.asarray(coupling(*r.degrees), like.dtype)


def _transfer(r: Route, term: Term, rows: list[Array]) -> Float[Array, "atoms slots m_out m_in"]:
    harmonics = rows[term[Leg.HARMONICS]]
    return jnp.einsum("abm,nkb->nkma", _coupling(r, harmonics), harmonics[..., r.l_edge**2 : (r.l_edge + 1) ** 2])


def _returned(r: Route, term: Term, rows: list[Array]) -> Float[Array, "atoms slots m_in channels"]:
    """What a message's derivative is for the features of a neighbour, without the radial weight."""
    g = _components(rows[term[Leg.MESSAGE]], r.message, r.message_stride, r.l_out, r.channels)
    return jnp.einsum("nkma,nmc->nkac", _transfer(r, term, rows), g)


def _slope(r: Route, term: Term, rows: list[Array]) -> Float[Array, "atoms slots channels"]:
    """Derivative with respect to the radial weights of a route."""
    h = _components(rows[term[Leg.NODES]], r.sender, r.sender_stride, r.l_in, r.channels)
    return jnp.sum(_returned(r, term, rows) * h, axis=2)


def native(*arguments: Array, bundle: Bundle) -> list[Array]:
    """The same by a kernel for this processor."""
    indices, operands = arguments[: bundle.indices], arguments[bundle.indices :]
    if not (bundle.packed and convolution_code.possible(operands[0].dtype)):
        return plain(*arguments, bundle=bundle)
    return convolution_code.call(bundle, indices, operands)


convolution_p = primitive.make("equipot_convolution", plain, native)
