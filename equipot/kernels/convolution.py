"""The convolution over neighbour slots as a primitive of JAX.

On a CPU a bundle is one kernel that keeps what belongs to a slot in registers and the cache; nothing as large as [atoms, slots,
numel] is ever stored. Elsewhere, and where LLVM does not know the processor, it is the plain formulation below.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph, scatter_slots
from equipot.kernels import convolution_code
from equipot.kernels.bundle import Bundle, Layout, Leg, Term, coupling, forward

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
) -> Float[Array, "atoms messages"]:
    """Messages of the neighbours in the slots that are ``active``: the used ones within the cutoff, in both directions."""
    indices = (graph.neighbors, active, *([] if graph.reverse is None else [graph.reverse]))
    return convolution_p.bind(*indices, hidden, last, harmonics, nodes, bundle=forward(layout), symmetric=len(indices) == 3)[0]


convolution_p = Primitive("equipot_convolution")
convolution_p.multiple_results = True


def _split(operands: Sequence, symmetric: bool) -> tuple[Sequence, Sequence]:
    """Index arrays (neighbours, active slots and, where the list is ``symmetric``, reverse slots), and the others."""
    return operands[: 2 + symmetric], operands[2 + symmetric :]


def _bind(indices: Sequence, operands: Sequence, bundle: Bundle, symmetric: bool) -> list:
    """Results for all outputs of a bundle, None for those without terms."""
    pruned, kept, outputs = bundle.pruned()
    results: list = [None] * len(bundle.outputs)
    if outputs:
        found = convolution_p.bind(*indices, *(operands[k] for k in kept), bundle=pruned, symmetric=symmetric)
        for k, value in zip(outputs, found, strict=True):
            results[k] = value
    return results


def _abstract(*avals, bundle: Bundle, symmetric: bool) -> list:
    indices, operands = _split(avals, symmetric)
    return [jax.core.ShapedArray(bundle.layout.shape(leg, indices[0].shape), operands[0].dtype) for leg, _ in bundle.outputs]


def _jvp(primals: Sequence, tangents: Sequence, *, bundle: Bundle, symmetric: bool) -> tuple:
    out = convolution_p.bind(*primals, bundle=bundle, symmetric=symmetric)
    indices, operands = _split(primals, symmetric)
    changes = _split(tangents, symmetric)[1]
    varied = [k for k, t in enumerate(changes) if type(t) is not ad.Zero]
    found = _bind(indices, [*operands, *(changes[k] for k in varied)], bundle.tangent(varied), symmetric)
    return out, [ad.Zero.from_primal_value(o) if t is None else t for o, t in zip(out, found, strict=True)]


def _transpose(cotangents: Sequence, *arguments, bundle: Bundle, symmetric: bool) -> list:
    indices, operands = _split(arguments, symmetric)
    linear = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
    given = [k for k, cotangent in enumerate(cotangents) if type(cotangent) is not ad.Zero]
    everything = [*operands, *(cotangents[k] for k in given)]
    found = _bind(indices, everything, bundle.transpose(linear, given), symmetric)
    results: list = [None] * len(arguments)
    for k, value in zip(linear, found, strict=True):
        if value is None:
            value = ad.Zero(operands[k].aval)
        elif bundle.legs[k] is Leg.NODES:
            value = scatter_slots(value, *_slots(indices))
        results[len(indices) + k] = value
    return results


def _slots(indices: Sequence) -> tuple:
    """Neighbours, reverse slots or None, and mask."""
    neighbors, active, *reverse = indices
    return neighbors, reverse[0] if reverse else None, active


def _batch(arguments: Sequence, axes: Sequence, *, bundle: Bundle, symmetric: bool) -> tuple:
    """Where nothing of the batch is summed over atoms, more systems are more atoms."""
    indices, operands = _split(arguments, symmetric)
    where_indices, where = _split(axes, symmetric)
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if isinstance(axis, int))
    front = [jnp.moveaxis(a, axis, 0) if isinstance(axis, int) else a for a, axis in zip(arguments, axes, strict=True)]
    mapped = [isinstance(axis, int) for axis in axes]
    over_layers = any(leg is Leg.LAST and isinstance(axis, int) for leg, axis in zip(bundle.legs, where, strict=True))
    if over_layers or any(leg is Leg.LAST for leg, _ in bundle.outputs) or any(isinstance(a, int) for a in where_indices):
        one = lambda chosen: convolution_p.bind(
            *(c if m else a for a, c, m in zip(front, chosen, mapped, strict=True)), bundle=bundle, symmetric=symmetric
        )
        chosen = [a if m else jnp.zeros(size) for a, m in zip(front, mapped, strict=True)]
        out = jax.lax.map(one, chosen)
    else:
        atoms, slots = indices[0].shape
        many = lambda x, m: (x if m else jnp.broadcast_to(x, (size, *x.shape))).reshape(size * x.shape[m], *x.shape[m + 1 :])
        offset = jnp.arange(size, dtype=indices[0].dtype)[:, None, None]
        neighbors = (indices[0][None] + offset * atoms).reshape(size * atoms, slots)
        wide = [neighbors, many(indices[1], False)]
        if symmetric:
            wide.append((indices[2][None] + offset * (atoms * slots)).reshape(size * atoms, slots))
        pairs = zip(bundle.legs, _split(front, symmetric)[1], _split(mapped, symmetric)[1], strict=True)
        wide += [x if leg is Leg.LAST else many(x, m) for leg, x, m in pairs]
        out = convolution_p.bind(*wide, bundle=bundle, symmetric=symmetric)
        out = [y.reshape(size, atoms, *y.shape[1:]) for y in out]
    return out, [0] * len(out)


def plain(*arguments: Array, bundle: Bundle, symmetric: bool) -> list[Array]:
    """What a bundle means, in blocks of atoms."""
    indices, operands = _split(arguments, symmetric)
    (atoms, slots), layout = indices[0].shape, bundle.layout
    limit = BLOCK_BYTES["cpu" if jax.default_backend() == "cpu" else "other"]
    size = max(1, min(atoms, limit // max(1, slots * layout.numel * operands[0].dtype.itemsize)))
    blocks = -(-atoms // size)
    whole = {k: x for k, (leg, x) in enumerate(zip(bundle.legs, operands, strict=True)) if leg in (Leg.LAST, Leg.NODES)}
    split = lambda x: jnp.pad(x, [(0, blocks * size - atoms)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, size, *x.shape[1:])
    parts = {k: split(x) for k, x in enumerate(operands) if k not in whole}

    def block(mapped: tuple) -> list[Array]:
        neighbors, active, chosen = mapped
        return _plain_block(bundle, neighbors, active, [whole[k] if k in whole else chosen[k] for k in range(len(operands))])

    found = jax.lax.map(block, (split(indices[0]), split(indices[1]), parts))
    return [
        jnp.sum(y, axis=0) if leg is Leg.LAST else y.reshape(blocks * size, *y.shape[2:])[:atoms]
        for (leg, _), y in zip(bundle.outputs, found, strict=True)
    ]


def _plain_block(bundle: Bundle, neighbors: Array, active: Array, operands: list[Array]) -> list[Array]:
    mask = active[..., None]
    rows = [jnp.where(mask, x[neighbors], 0) if leg is Leg.NODES else x for leg, x in zip(bundle.legs, operands, strict=True)]
    rows = [jnp.where(mask, x, 0) if leg in (Leg.SLOTS, Leg.HARMONICS) else x for leg, x in zip(bundle.legs, rows, strict=True)]
    out = []
    for leg, terms in bundle.outputs:
        shape = bundle.layout.shape(leg, neighbors.shape)
        out.append(sum(_form(bundle.layout, leg, term, rows, shape) for term in terms))
    return [
        jnp.where(mask, y, 0) if leg in (Leg.HIDDEN, Leg.HARMONICS, Leg.SLOTS) else y
        for (leg, _), y in zip(bundle.outputs, out)
    ]


def _form(layout: Layout, leg: Leg, term: Term, rows: list[Array], shape: tuple[int, ...]) -> Array:
    """The form with one leg left out, path by path."""
    hidden, last, harmonics, senders, message = (rows[o] if o >= 0 else None for o in term)
    dtype = next(x for x in (hidden, last, message) if x is not None).dtype
    by_column = leg in (Leg.HIDDEN, Leg.LAST)
    columns, out = [], None if by_column else jnp.zeros(shape, dtype)
    for r in layout.routes:
        c = jnp.asarray(coupling(*r.degrees), dtype)
        edge = slice(r.l_edge**2, (r.l_edge + 1) ** 2)
        block = lambda x, start, stride, l: jnp.stack(
            [x[..., start + a * stride : start + a * stride + r.channels] for a in range(2 * l + 1)], axis=-2
        )
        h = None if senders is None else block(senders, r.sender, r.sender_stride, r.l_in)
        g = None if message is None else block(message, r.message, r.message_stride, r.l_out)
        w = None if by_column else hidden @ last[:, r.column : r.column + r.channels]
        t = None if leg is Leg.HARMONICS else jnp.einsum("abm,nkb->nkma", c, harmonics[..., edge])
        if leg is Leg.MESSAGE:
            value = jnp.einsum("nkma,nkac->nmc", t, w[:, :, None] * h)
            for m in range(2 * r.l_out + 1):
                at = r.message + m * r.message_stride
                out = out.at[:, at : at + r.channels].add(value[:, m])
        elif leg is Leg.HARMONICS:
            value = jnp.einsum("nkac,nmc->nkma", w[:, :, None] * h, g)
            out = out.at[..., edge].add(jnp.einsum("abm,nkma->nkb", c, value))
        else:
            z = jnp.einsum("nkma,nmc->nkac", t, g)
            if by_column:
                columns.append(jnp.sum(z * h, axis=2))
                continue
            for a in range(2 * r.l_in + 1):
                at = r.sender + a * r.sender_stride
                out = out.at[..., at : at + r.channels].add(w * z[:, :, a])
    if not by_column:
        return out
    # Columns of the last layer stand in the order of the routes.
    slope = jnp.concatenate(columns, axis=-1)
    return jnp.einsum("nkj,qj->nkq", slope, last) if leg is Leg.HIDDEN else jnp.einsum("nkq,nkj->qj", hidden, slope)


def native(*arguments: Array, bundle: Bundle, symmetric: bool) -> list[Array]:
    """The same by a kernel for this processor."""
    indices, operands = _split(arguments, symmetric)
    if not convolution_code.possible(operands[0].dtype):
        return plain(*arguments, bundle=bundle, symmetric=symmetric)
    return convolution_code.call(bundle, indices[0], indices[1], operands)


convolution_p.def_impl(lambda *arguments, **static: _run(arguments, **static))
convolution_p.def_abstract_eval(_abstract)
mlir.register_lowering(convolution_p, mlir.lower_fun(plain, multiple_results=True))
mlir.register_lowering(convolution_p, mlir.lower_fun(native, multiple_results=True), platform="cpu")
ad.primitive_jvps[convolution_p] = _jvp
ad.primitive_transposes[convolution_p] = _transpose
batching.primitive_batchers[convolution_p] = _batch


@partial(jax.jit, static_argnames=("bundle", "symmetric"))
def _run(arguments: Sequence[Array], bundle: Bundle, symmetric: bool) -> list[Array]:
    return convolution_p.bind(*arguments, bundle=bundle, symmetric=symmetric)
