"""NequIP: gated equivariant convolutions (Batzner et al., Nat. Commun. 13, 2453 (2022), arXiv:2101.03164)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph
from equipot.models.network import Network
from equipot.nn.edge_features import Edges, SolidHarmonics, SphericalHarmonics
from equipot.nn.features import Features, Linear, PerSpecies, Shared, add, scalars
from equipot.nn.gate import gate, gated_irreps
from equipot.nn.normalize import Density, MeanNeighbors, Normalize, Rescale, RMSNorm, SenderNeighbors, UnitVariance
from equipot.nn.radial import MLP, Radial
from equipot.nn.radial_network import RadialMLP, splines_of
from equipot.nn.readout import ReadOut, scaled
from equipot.nn.tensor_product import Convolution, Path, find_paths
from equipot.term import Atomic, cutoff_of

__all__ = ["NequIP"]


@dataclasses.dataclass(frozen=True)
class BothParities:
    """True vectors and pseudo-vectors, scalars and pseudo-scalars, and so on."""

    def irreps(self, l: int) -> tuple[e3nn.Irrep, ...]:
        return e3nn.Irrep(l, 1), e3nn.Irrep(l, -1)

    odd = -1


@dataclasses.dataclass(frozen=True)
class NaturalParity:
    """Only features that behave under reflection as the spherical harmonics do."""

    def irreps(self, l: int) -> tuple[e3nn.Irrep, ...]:
        return (e3nn.Irrep(l, (-1) ** l),)

    odd = -1


@dataclasses.dataclass(frozen=True)
class RotationsOnly:
    """Parity is ignored: every product that rotations allow. The energy of a mirror image may then differ."""

    def irreps(self, l: int) -> tuple[e3nn.Irrep, ...]:
        return (e3nn.Irrep(l, 1),)

    odd = 1


class NequIP(Network):
    """Layers of tensor-product convolution, self-connection and gate; the invariants of the last layer give the energy."""

    channels: int | tuple[int, ...] = 32
    """Width of every irrep, or one for each l."""
    l_max: int = 2
    """Highest l of features and spherical harmonics."""
    parity: BothParities | NaturalParity | RotationsOnly = BothParities()
    """Parities of the features: both, those of the spherical harmonics, or none."""
    layers: int = 4
    """Number of layers, each of which reaches one cutoff further."""
    embedding: int | None = None
    """Width of the vector that a species is embedded as; the width of the scalars where left out."""
    radial: Radial = Radial(mlp=(64, 64))
    """Radial features of the distances."""
    harmonics: SphericalHarmonics | SolidHarmonics = SphericalHarmonics()
    """Angular functions of the edge vectors."""
    self_connection: PerSpecies | Shared | None = PerSpecies()
    """Linear map by which an atom's own features bypass the convolution: one for each species or for all; null for none."""
    normalization: UnitVariance | MeanNeighbors | SenderNeighbors | Density = UnitVariance()
    """Normalisation of the sum over neighbours."""
    layer_norm: RMSNorm | None = None
    """Normalisation of the features that enter the gate."""
    bias: bool = False
    """Whether the linear maps before and after each convolution add learned constants."""
    readout: int | None = 16
    """Width of a linear layer between the last features and the energy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "layers")
        self.at_least(0, "l_max")
        widths = [*self._widths(), *(n for n in (self.embedding, self.readout) if n is not None)]
        if min(widths) < 1:
            raise ValueError(f"channels, embedding and readout must be at least 1, got {min(widths)}")
        if len(self._widths()) != self.l_max + 1:
            raise ValueError(f"channels has {len(self._widths())} widths, but l = 0..{self.l_max} need {self.l_max + 1}")

    @property
    def receptive_radius(self) -> float | None:
        return None if self.cutoff is None else self.layers * self.cutoff

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        count = len(self.elements)
        edges = self.embed(graph, vectors).with_harmonics(self.harmonics, self.l_max)
        shape = (count,) if self.normalization.counts_by_species else ()
        avg_num_neighbors = self.variable("constants", "avg_num_neighbors", lambda: jnp.ones(shape)).value
        x, table = self.embed_species(self.embedding or self._widths()[0], edges.species)
        for layer in range(self.layers):
            block = Layer(
                self.features(x, last=layer == self.layers - 1), self.self_connection, self.normalization, self.layer_norm,
                self.bias, self.l_max, self.parity.odd, self.radial, cutoff_of(self), count, name=f"layer{layer}",
            )  # fmt: skip
            x = block(x, edges, avg_num_neighbors, graph, table if layer == 0 else None)
            if layer == 0:
                x, shares = self.feel_electrons(x, edges, graph)
        return self.answer(ScaledReadout, x, edges, graph, scalars(x), shares, width=self.readout)

    def with_last_layer(self, params: Any, change: Float[np.ndarray, " features"]) -> Any:
        """See ``Network.with_last_layer``. Of two linear layers the first changes, along the second."""
        read = {name: dict(layer) for name, layer in params["readout"].items()}
        last = np.asarray(read["out"]["w0"])
        if self.readout is None:
            read["out"]["w0"] = last + change[:, None].astype(last.dtype)
        else:
            along = last[:, 0] * (math.sqrt(len(last)) / np.sum(last**2))
            w = np.asarray(read["hidden"]["w0e"])
            read["hidden"]["w0e"] = w + (change[:, None] * along).astype(w.dtype)
        return {**params, "readout": read}

    def features(self, irreps_in: Iterable[e3nn.Irrep], last: bool) -> str:
        """Return the irreps after a layer: all that a convolution of ``irreps_in`` can produce, only scalars after the last."""
        degrees = range(0 if last else self.l_max, -1, -1)
        wanted = {ir: self._widths()[l] for l in degrees for ir in self.parity.irreps(l) if not last or ir.p == 1}
        found = {path.ir_out for path in self.paths(irreps_in, wanted)}
        return str(e3nn.Irreps([(wanted[ir], ir) for ir in sorted(found)]))

    def paths(self, irreps_in: Iterable[e3nn.Irrep], irreps_out: Iterable[e3nn.Irrep]) -> list[Path]:
        """List the coupling paths of a layer's convolution, in the order of the weights."""
        return find_paths(irreps_in, self.l_max, irreps_out, self.parity.odd)

    def _widths(self) -> tuple[int, ...]:
        return (self.channels,) * (self.l_max + 1) if isinstance(self.channels, int) else tuple(self.channels)


class ScaledReadout(nn.Module):
    """Read out the energy of each atom (eV) from the features of the last layer, by a readout, scale and shift.

    The readout is linear in these, also where it has two layers.
    """

    width: int | None
    """See ``Readout``."""
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, x: Features, species: Int[Array, " atoms"]) -> ReadOut:
        inputs = scalars(x)
        return scaled(self, Readout(self.width, name="readout")(x), species, inputs / math.sqrt(inputs.shape[-1]))


class Readout(nn.Module):
    """Map invariant features to a number for each atom: a linear map, or two with ``width`` features between them."""

    width: int | None

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, " atoms"]:
        hidden = scalars(x if self.width is None else Linear(f"{self.width}x0e", name="hidden")(x))
        return MLP((1,), name="out")(hidden)[:, 0]


class Layer(nn.Module):
    """One interaction: linear map, convolution, linear map, plus self-connection, then the gate; features in ``irreps``."""

    irreps: str
    self_connection: PerSpecies | Shared | None
    normalization: UnitVariance | MeanNeighbors | SenderNeighbors | Density
    layer_norm: RMSNorm | None
    bias: bool
    l_max: int
    odd: int
    """Parity of the spherical harmonics of odd l."""
    radial: Radial
    cutoff: float
    """Å."""
    count: int
    """Number of species."""

    @nn.compact
    def __call__(
        self, x: Features, edges: Edges, avg_num_neighbors: Float[Array, "..."], graph: Graph, table: Features | None = None
    ) -> Features:
        """Compute the features of the next layer.

        Args:
            avg_num_neighbors: one number, or one for each species for ``SenderNeighbors``.
            table: features of each species, where ``x`` depends on the species alone, as in the first layer.
        """
        irreps = gated_irreps(self.irreps)
        same = str(e3nn.Irreps([(value.shape[-1], ir) for ir, value in x.items()]))
        up = Linear(same, self.bias, name="up")(x if table is None else table)
        network: Callable = RadialMLP
        if self.radial.table is not None:
            network = splines_of(self.radial.table, self.cutoff, self.count)
        convolution = Convolution(irreps, self.l_max, self.radial.mlp, network, self.odd, name="convolution")
        up = self.normalization.before(up, avg_num_neighbors, None if table is not None else edges.species)
        message = convolution(up, edges, table is not None)
        message = Normalize(self.normalization, self.count, name="normalize")(message, edges, avg_num_neighbors, graph)
        out = Linear(irreps, self.bias, name="down")(message)
        if self.self_connection is not None:
            out = add(out, self.self_connection.linear(x, edges.species, irreps, self.count, name="self"))
        if self.layer_norm is not None:
            out = Rescale(self.layer_norm, name="norm")(out)
        return gate(out, self.irreps)
