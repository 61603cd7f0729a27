"""Equivariant convolution over neighbour slots.

    A_i[p] = sum_k  R_p(r_ik)  (h_k (x)_p Y(v_ik))

with one radial weight for each path p = (input irrep, edge l, output irrep) and channel, as in NequIP (arXiv:2101.03164, eq. 5)
and MACE (arXiv:2206.07697, eq. 8). Nothing is scattered: the sum runs over the slot axis as a small matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.graph import Graph, gather
from equipot.nn.features import Features


class Path(NamedTuple):
    """One equivariant product of a neighbour's feature and the edge's spherical harmonics."""

    ir_in: e3nn.Irrep
    l_edge: int
    ir_out: e3nn.Irrep


def find_paths(irreps_in: Iterable[e3nn.Irrep], l_max: int, irreps_out: Iterable[e3nn.Irrep]) -> list[Path]:
    """All paths into ``irreps_out``, ordered by output, then input, then l."""
    wanted = set(irreps_out)
    found = [
        Path(ir_in, l_edge, ir_out)
        for ir_in in irreps_in
        for l_edge in range(l_max + 1)
        for ir_out in ir_in * e3nn.Irrep(l_edge, (-1) ** l_edge)
        if ir_out in wanted
    ]
    return sorted(found, key=lambda path: path.ir_out)


def coupling(path: Path) -> np.ndarray:
    """Clebsch-Gordan coefficients [m_in, m_edge, m_out], such that inputs of unit variance give an output of unit variance."""
    c = np.asarray(e3nn.clebsch_gordan(path.ir_in.l, path.l_edge, path.ir_out.l))
    return c * np.sqrt(path.ir_out.dim)


def spherical_harmonics(vectors: Float[Array, "*edges 3"], l_max: int) -> list[Float[Array, "*edges m"]]:
    """Y_l of the directions for l = 0..l_max, e3nn's order, |Y_l|^2 = 2l + 1."""
    irreps = e3nn.Irreps.spherical_harmonics(l_max)
    y = e3nn.spherical_harmonics(irreps, vectors, normalize=True, normalization="component").array
    return [y[..., block] for block in irreps.slices()]


def convolve(
    x: Features,
    harmonics: list[Float[Array, "atoms slots m"]],
    weights: Float[Array, "atoms slots numel"],
    paths: list[Path],
    graph: Graph,
) -> Features:
    """Sum over the slots of every path's message; paths with one output irrep are concatenated along the channels.

    ``weights`` holds the radial weights of all paths, one for each channel of the path's input, in the order of ``paths``.
    """
    senders = {ir: gather(value, graph) for ir, value in x.items() if any(path.ir_in == ir for path in paths)}
    out: dict[e3nn.Irrep, list[Array]] = {}
    start = 0
    for path in paths:
        h, y = senders[path.ir_in], harmonics[path.l_edge]
        channels = h.shape[-1]
        w = weights[..., start : start + channels]
        start += channels
        if path.ir_in.l == 0:
            message = jnp.einsum("nkm,nkc->nmc", y, w * h[:, :, 0])
        else:
            transfer = jnp.einsum("abm,nkb->nkma", coupling(path).astype(y.dtype), y)
            message = jnp.einsum("nkma,nkac->nmc", transfer, w[:, :, None] * h)
        out.setdefault(path.ir_out, []).append(message)
    return {ir: jnp.concatenate(parts, axis=-1) for ir, parts in out.items()}
