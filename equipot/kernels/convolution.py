"""The convolution over neighbour slots as a primitive of JAX.

On a CPU a bundle is one kernel that keeps what belongs to a slot in registers and the cache; nothing as large as [atoms, slots,
numel] is ever stored. Elsewhere, and where LLVM does not know the processor, it is the plain formulation below.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph
from equipot.kernels import convolution_code, primitive
from equipot.kernels.convolution_bundle import Bundle, Layout, Leg, Route, Term, coupling, forward

BLOCK_BYTES = {"cpu": 2**23, "other": 2**30}
"""Size of the radial weights that the plain formulation holds at once."""


def convolve(
    hidden: Float[Array, "atoms slots q"],
    last: Float[Array, "q numel"],
    harmonics: Float[Array, "atoms slots m"],
    nodes: Float[Array, "atoms features"],
    graph: Graph,
    active: Bool[Array, "atoms slots"],
    layout: Layout,
    start: Int[Array, "atoms slots"] | None = None,
) -> Float[Array, "atoms messages"]:
    """Messages of the neighbours in the slots that are ``active``: the used ones within the cutoff, in both directions.

    Where ``layout.rows`` is given, ``start`` is the first row of the last layer that belongs to a slot.
    """
    assert (start is None) == (layout.rows is None)
    indices = [x for x in (graph.neighbors, active, start, graph.reverse) if x is not None]
    indices = [x if x.dtype == bool else x.astype(jnp.int32) for x in indices]
    dtype = jnp.result_type(hidden, last, harmonics, nodes)
    operands = (x.astype(dtype) for x in (hidden, last, harmonics, nodes))
    return convolution_p.bind(*indices, *operands, bundle=forward(layout, graph.reverse is not None))[0]


def plain(*arguments: Array, bundle: Bundle) -> list[Array]:
    """What a bundle means, in blocks of atoms."""
    indices, operands = arguments[: bundle.indices], arguments[bundle.indices :]
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
        rows.append(jnp.where(mask, x, 0) if leg in (Leg.NODES, Leg.SLOTS, Leg.HARMONICS) else x)
    out = []
    for leg, terms in bundle.outputs:
        shape = bundle.layout.shape(leg, neighbors.shape)
        total = sum(_form(bundle.layout, leg, term, rows, shape, start) for term in terms)
        out.append(jnp.where(mask, total, 0) if leg in (Leg.HIDDEN, Leg.HARMONICS, Leg.SLOTS) else total)
    return out


def _components(x: Array, start: int, stride: int, l: int, channels: int) -> Float[Array, "*rows m channels"]:
    """Block of an irrep in rows of features or messages."""
    return jnp.stack([x[..., start + a * stride : start + a * stride + channels] for a in range(2 * l + 1)], axis=-2)


def _form(layout: Layout, leg: Leg, term: Term, rows: list[Array], shape: tuple[int, ...], start: Array | None) -> Array:
    """The form with one leg left out, path by path."""
    hidden, last, *_ = (rows[o] if o >= 0 else None for o in term)
    mine = None if start is None else start[..., None] + jnp.arange(layout.hidden)
    if leg in (Leg.HIDDEN, Leg.LAST):
        # Columns of the last layer stand in the order of the routes.
        slope = jnp.concatenate([_slope(r, term, rows) for r in layout.routes], axis=-1)
        if leg is Leg.HIDDEN:
            return slope @ last.T if mine is None else jnp.einsum("nkc,nkqc->nkq", slope, last[mine])
        if mine is None:
            return jnp.einsum("nkq,nkj->qj", hidden, slope)
        return jnp.zeros(shape, hidden.dtype).at[mine].add(hidden[..., None] * slope[:, :, None])
    out = jnp.zeros(shape, hidden.dtype)
    for r in layout.routes:
        columns = last[:, r.column : r.column + r.channels]
        w = (hidden @ columns if mine is None else jnp.einsum("nkq,nkqc->nkc", hidden, columns[mine]))[:, :, None]
        if leg is Leg.SLOTS:
            value, offset, stride = w * _returned(r, term, rows), r.sender, r.sender_stride
        else:
            h = _components(rows[term[Leg.NODES]], r.sender, r.sender_stride, r.l_in, r.channels)
            if leg is Leg.HARMONICS:
                g = _components(rows[term[Leg.MESSAGE]], r.message, r.message_stride, r.l_out, r.channels)
                value = jnp.einsum("abm,nkma->nkb", _coupling(r, w), jnp.einsum("nkac,nmc->nkma", w * h, g))
                out = out.at[..., r.l_edge**2 : (r.l_edge + 1) ** 2].add(value)
                continue
            value = jnp.einsum("nkma,nkac->nmc", _transfer(r, term, rows), w * h)
            offset, stride = r.message, r.message_stride
        for m in range(value.shape[-2]):
            at = offset + m * stride
            out = out.at[..., at : at + r.channels].add(value[..., m, :])
    return out


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
    if not convolution_code.possible(operands[0].dtype):
        return plain(*arguments, bundle=bundle)
    return convolution_code.call(bundle, indices, operands)


convolution_p = primitive.make("equipot_convolution", plain, native)
