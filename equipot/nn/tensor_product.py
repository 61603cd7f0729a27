"""Equivariant convolution over neighbour slots.

    A_i[p] = sum_k  R_p(r_ik)  (h_k (x)_p Y(v_ik))

with one radial weight for each path p = (input irrep, edge l, output irrep) and channel, as in NequIP (arXiv:2101.03164, eq. 5)
and MACE (arXiv:2206.07697, eq. 8). Nothing is scattered: the sum runs over the slot axis as a small matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph, gather
from equipot.nn.edges import Edges
from equipot.nn.features import FEW_SPECIES, Features, one_hot, regroup
from equipot.nn.slot_network import Ends, SlotMLP

BLOCK = 1024
"""Slots in one block on a CPU."""
FEW_BLOCKS = 8
"""Up to this many blocks, all atoms are treated at once."""


class Path(NamedTuple):
    """One equivariant product of a neighbour's feature and the edge's spherical harmonics."""

    ir_in: e3nn.Irrep
    l_edge: int
    ir_out: e3nn.Irrep


def find_paths(irreps_in: Iterable[e3nn.Irrep], l_max: int, irreps_out: Iterable[e3nn.Irrep], odd: int = -1) -> list[Path]:
    """All paths into ``irreps_out``, ordered by output, then input, then l.

    ``odd`` is the parity of the spherical harmonics of odd l: 1 where reflections are ignored and everything counts as even.
    """
    wanted = set(irreps_out)
    found = [
        Path(ir_in, l_edge, ir_out)
        for ir_in in irreps_in
        for l_edge in range(l_max + 1)
        for ir_out in ir_in * e3nn.Irrep(l_edge, odd**l_edge)
        if ir_out in wanted
    ]
    return sorted(found, key=lambda path: path.ir_out)


def coupling(path: Path) -> np.ndarray:
    """Clebsch-Gordan coefficients [m_in, m_edge, m_out], such that inputs of unit variance give an output of unit variance."""
    c = np.asarray(e3nn.clebsch_gordan(path.ir_in.l, path.l_edge, path.ir_out.l))
    return c * np.sqrt(path.ir_out.dim)


class Convolution(nn.Module):
    """Radial MLP, tensor product and sum over neighbours; paths with one output irrep are concatenated along the channels."""

    irreps: str
    """Output irreps; their multiplicities follow from the paths."""
    l_max: int
    mlp: tuple[int, ...]
    """Hidden widths of the radial network."""
    network: Callable[..., Any] = SlotMLP
    """Module made from the widths, whose ``stages`` are the radial weights of a slot."""
    odd: int = -1
    """Parity of the spherical harmonics of odd l, see ``find_paths``."""

    @nn.compact
    def __call__(
        self, x: Features, edges: Edges, graph: Graph, per_species: bool = False, ends: Ends | None = None
    ) -> Features:
        """Messages of the neighbours' features ``x``, [atoms, m, channels].

        Where the features depend on the species alone, ``per_species`` says that ``x`` has a row for each species instead.
        ``ends`` is what a network that depends on them is told of the atoms.
        """
        paths = find_paths(x, self.l_max, regroup(self.irreps), self.odd)
        numel = sum(x[path.ir_in].shape[-1] for path in paths)
        stages = self.network((*self.mlp, numel), name="radial").stages(edges, graph, ends)
        inputs, hidden, last = stages.under_envelope(edges)
        used = sorted({path.ir_in for path in paths})
        count = x[used[0]].shape[0]
        factorable = per_species and count <= FEW_SPECIES and all(ir.l == 0 for ir in used)
        if factorable:
            hot = gather(one_hot(edges.species, count, edges.radial.dtype), graph)
            moment = lambda inputs, harmonics, hot: [species_moments(hidden(*inputs), harmonics, hot)]
            (moments,) = map_atoms(moment, (inputs, edges.harmonics, hot))
            out = combine_moments(moments, x, last, paths)
        else:
            rows = {ir: x[ir][edges.species] if per_species else x[ir] for ir in used}
            senders = [gather(rows[ir], graph) for ir in used]
            convolve = lambda inputs, harmonics, senders: messages(
                dict(zip(used, senders, strict=True)), harmonics, hidden(*inputs) @ last, paths
            )
            out = map_atoms(convolve, (inputs, edges.harmonics, senders))
        return dict(zip(dict.fromkeys(path.ir_out for path in paths), out, strict=True))


def species_moments(
    hidden: Float[Array, "atoms slots hidden"],
    harmonics: list[Float[Array, "atoms slots m"]],
    hot: Float[Array, "atoms slots species"],
) -> Float[Array, "atoms species m hidden"]:
    """sum_k 1[z_k = z] Y_m(v_k) a_q(r_k), with a_q the last hidden layer of the radial network."""
    y = jnp.concatenate(harmonics, axis=-1)
    if hot.shape[-1] == 1:
        return jnp.einsum("nkm,nkq->nmq", y, hidden)[:, None]
    n, slots, count = hot.shape
    y = (hot[..., None] * y[:, :, None]).reshape(n, slots, -1)
    return jnp.einsum("nkm,nkq->nmq", y, hidden).reshape(n, count, -1, hidden.shape[-1])


def combine_moments(
    moments: Float[Array, "atoms species m hidden"], x: Features, last: Float[Array, "hidden numel"], paths: list[Path]
) -> list[Float[Array, "atoms m channels"]]:
    """The same as ``messages``, for scalar features of each species: the last radial layer acts once an atom, not a pair."""
    out: dict[e3nn.Irrep, list[Array]] = {}
    start = 0
    for path in paths:
        table = x[path.ir_in][:, 0]
        w = last[:, start : start + table.shape[-1]]
        start += table.shape[-1]
        rows = moments[:, :, path.l_edge**2 : (path.l_edge + 1) ** 2]
        out.setdefault(path.ir_out, []).append(jnp.einsum("nzmc,zc->nmc", rows @ w, table))
    return [jnp.concatenate(parts, axis=-1) for parts in out.values()]


def messages(
    senders: dict[e3nn.Irrep, Float[Array, "atoms slots m channels"]],
    harmonics: list[Float[Array, "atoms slots m"]],
    weights: Float[Array, "atoms slots numel"],
    paths: list[Path],
) -> list[Float[Array, "atoms m channels"]]:
    """Sum over slots of each path's message, one array for each output irrep in the order of ``paths``.

    ``weights`` holds the radial weights of all paths, one for each channel of the path's input, in the order of ``paths``.
    """
    out: dict[e3nn.Irrep, list[Array]] = {}
    start = 0
    for path in paths:
        h, y = senders[path.ir_in], harmonics[path.l_edge]
        w = weights[..., start : start + h.shape[-1]]
        start += h.shape[-1]
        if path.ir_in.l == 0:
            message = jnp.einsum("nkm,nkc->nmc", y, w * h[:, :, 0])
        else:
            transfer = jnp.einsum("abm,nkb->nkma", coupling(path).astype(y.dtype), y)
            message = jnp.einsum("nkma,nkac->nmc", transfer, w[:, :, None] * h)
        out.setdefault(path.ir_out, []).append(message)
    return [jnp.concatenate(parts, axis=-1) for parts in out.values()]


def map_atoms(function: Callable[..., Any], arrays: Any) -> Any:
    """``function(*arrays)`` on blocks of atoms, recomputed in the backward pass.

    Nothing as large as [atoms, slots, channels, paths] is ever stored: on a CPU one block at a time stays in the cache. On an
    accelerator, where a loop over blocks would run one after the other, all atoms are one block.
    """
    n, slots = jax.tree.leaves(arrays)[0].shape[:2]
    size = max(1, BLOCK // slots)
    if n <= FEW_BLOCKS * size or jax.default_backend() != "cpu":
        return function(*arrays)
    blocks = -(-n // size)
    split = lambda x: jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, size, *x.shape[1:])
    body = jax.checkpoint(lambda block: function(*block))
    out = jax.lax.map(body, jax.tree.map(split, arrays))
    return jax.tree.map(lambda y: y.reshape(blocks * size, *y.shape[2:])[:n], out)
