"""Equivariant convolution over neighbours.

    A_i[p] = sum_k  R_p(r_ik)  (h_k (x)_p Y(v_ik))

with one radial weight R for each path p = (input irrep, edge l, output irrep) and channel, as in NequIP (arXiv:2101.03164,
eq. 5) and MACE (arXiv:2206.07697, eq. 8). The product and the sum are one kernel, see ``equipot.kernels``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.kernels.convolution import convolve
from equipot.kernels.convolution_forms import CouplingPath, Layout
from equipot.nn.edge_features import Edges
from equipot.nn.features import FEW_SPECIES, Features, regroup
from equipot.nn.radial_network import Endpoints, RadialMLP


class Path(NamedTuple):
    """One equivariant product of a neighbour's feature and the spherical harmonics of the vector to the neighbour."""

    ir_in: e3nn.Irrep
    """Irrep of the neighbour's feature."""
    l_edge: int
    """Degree of the spherical harmonics."""
    ir_out: e3nn.Irrep
    """Irrep of the product."""


def find_paths(irreps_in: Iterable[e3nn.Irrep], l_max: int, irreps_out: Iterable[e3nn.Irrep], odd: int = -1) -> list[Path]:
    """List all paths into ``irreps_out``, ordered by output, then input, then l.

    ``odd`` is the parity of the spherical harmonics of odd l: -1, or 1 if reflections are ignored and all irreps count as even.
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


class Convolution(nn.Module):
    """Radial network, tensor product and sum over neighbours; paths with one output irrep are concatenated along channels."""

    irreps: str
    """Output irreps; the numbers of channels follow from the paths."""
    l_max: int
    """Highest degree of the spherical harmonics."""
    mlp: tuple[int, ...]
    """Hidden widths of the radial network."""
    network: Callable[..., Any] = RadialMLP
    """Class of the radial network, called with its widths and ``name``; see ``RadialMLP`` for its interface."""
    odd: int = -1
    """Parity of the spherical harmonics of odd l, see ``find_paths``."""

    @nn.compact
    def __call__(self, x: Features, edges: Edges, per_species: bool = False, ends: Endpoints | None = None) -> Features:
        """Compute the messages, sums over the neighbours of each atom.

        Args:
            x: Features of atoms; with ``per_species``, features of species.
            edges: Features of atoms and pairs.
            per_species: Whether ``x`` has one row for each species, which it may if features depend on the species alone.
            ends: Contributions of the atoms to the first layer of the radial network, for an ``EndpointMLP``.
        """
        paths = find_paths(x, self.l_max, regroup(self.irreps), self.odd)
        used = {ir: x[ir] for ir in sorted({path.ir_in for path in paths})}
        widths = {ir: value.shape[-1] for ir, value in used.items()}
        numel = sum(widths[path.ir_in] for path in paths)
        radial = self.network((*self.mlp, numel), name="radial").network_of(edges, ends)
        hidden = radial.hidden(edges)
        count = next(iter(used.values())).shape[0]
        if per_species and count <= FEW_SPECIES and all(ir.l == 0 for ir in used) and radial.start is None:
            return combine_moments(species_moments(hidden, edges, count, self.l_max), used, radial.last, paths)
        rows = {ir: value[edges.species] if per_species else value for ir, value in used.items()}
        nodes = jnp.concatenate([value.reshape(value.shape[0], -1) for value in rows.values()], axis=-1)
        layout, blocks = arrange(paths, widths, self.l_max, hidden.shape[-1])
        if radial.start is not None:
            layout = dataclasses.replace(layout, rows=radial.last.shape[0])
        out = convolve(hidden, radial.last, edges.known_harmonics, nodes, edges.pairs.indices, layout, radial.start)
        return {ir: out[:, block].reshape(len(out), ir.dim, -1) for ir, block in blocks.items()}


def arrange(
    paths: list[Path], widths: dict[e3nn.Irrep, int], l_max: int, hidden: int
) -> tuple[Layout, dict[e3nn.Irrep, slice]]:
    """Compute the layout of a row of features and of a row of messages in the arrays of the kernel.

    Paths with one output irrep are placed side by side along its channels.

    Args:
        paths: Paths in the order of the radial weights.
        widths: Number of channels of each input irrep.
        l_max: Highest degree of the spherical harmonics.
        hidden: Number of hidden features of the radial network.

    Returns:
        The layout, and the columns of each output irrep in a row of messages.
    """
    senders: dict[e3nn.Irrep, int] = {}
    outputs: dict[e3nn.Irrep, int] = {}
    start = 0
    for ir, width in widths.items():
        senders[ir], start = start, start + ir.dim * width
    for path in paths:
        outputs[path.ir_out] = outputs.get(path.ir_out, 0) + widths[path.ir_in]
    blocks, end = {}, 0
    for ir, width in outputs.items():
        blocks[ir], end = slice(end, end + ir.dim * width), end + ir.dim * width
    routes, column, filled = [], 0, dict.fromkeys(outputs, 0)
    for ir_in, l_edge, ir_out in paths:
        width = widths[ir_in]
        routes.append(
            CouplingPath(
                ir_in.l, l_edge, ir_out.l, width, senders[ir_in], width, column, blocks[ir_out].start + filled[ir_out],
                outputs[ir_out],
            )
        )  # fmt: skip
        filled[ir_out] += width
        column += width
    return Layout(tuple(routes), hidden, (l_max + 1) ** 2, start, end), blocks


def species_moments(
    hidden: Float[Array, "pairs hidden"], edges: Edges, count: int, l_max: int
) -> Float[Array, "atoms species m hidden"]:
    """Compute sum_k 1[z_k = z] Y_m(v_k) a_q(r_k) over the neighbours k of each atom, a_q the hidden features of a pair.

    These moments are a convolution of the one-hot species of the neighbours with the radial weights a_q.
    """
    q, size = hidden.shape[1], (l_max + 1) ** 2
    places = [(z, l) for z in range(count) for l in range(l_max + 1)]
    routes = tuple(CouplingPath(0, l, l, q, z * q, q, 0, (z * size + l**2) * q, q) for z, l in places)
    layout = Layout(routes, q, size, count * q, count * size * q, direct=True)
    # Rows are read from a table, since XLA on CPUs (jaxlib 0.10.1) miscompiles comparisons with two species that are repeated
    # over 32 bytes in all, four times in float32 or twice in float64: zeros and ones change places.
    nodes = jnp.asarray(np.repeat(np.eye(count), q, axis=1), hidden.dtype)[edges.species]
    out = convolve(hidden, jnp.zeros((0, q), hidden.dtype), edges.known_harmonics, nodes, edges.pairs.indices, layout)
    return out.reshape(-1, count, size, q)


def combine_moments(
    moments: Float[Array, "atoms species m hidden"], x: Features, last: Float[Array, "hidden numel"], paths: list[Path]
) -> Features:
    """Compute the convolution of the scalar features ``x`` [species, 1, channels] from moments of species.

    The last layer of the radial network is applied once for each atom, not for each pair.
    """
    out: dict[e3nn.Irrep, list[Array]] = {}
    start = 0
    for path in paths:
        table = x[path.ir_in][:, 0]
        w = last[:, start : start + table.shape[-1]]
        start += table.shape[-1]
        rows = moments[:, :, path.l_edge**2 : (path.l_edge + 1) ** 2]
        out.setdefault(path.ir_out, []).append(jnp.einsum("nzmc,zc->nmc", rows @ w, table))
    return {ir: jnp.concatenate(parts, axis=-1) for ir, parts in out.items()}
