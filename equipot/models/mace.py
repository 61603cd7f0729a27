"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv:2206.07697)."""

from __future__ import annotations

import functools
from typing import Any

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import Graph
from equipot.models.network import Network
from equipot.nn.contraction import SymmetricContraction
from equipot.nn.edge_features import SphericalHarmonics
from equipot.nn.features import Linear, PerSpecies, Shared, add, scalars
from equipot.nn.interaction import Attention, Interaction, NonLinear, Plain, Residual
from equipot.nn.radial import MLP
from equipot.nn.readout import BiasedMLP, ReadOut, scaled
from equipot.term import Atomic, cutoff_of

__all__ = ["MACE"]


class MACE(Network):
    """Layers that sum over neighbours, multiply the sums of each atom with one another and read out an energy.

    In layer t the atomic basis A_i = sum_j R(r_ij) Y(r_ij) (x) h_j^t has products of ``correlation`` factors, from which a
    linear map makes h_i^{t+1}; the energy of an atom is the sum of the readouts of all layers (eqs. 8-13 of the paper).
    """

    channels: int = 64
    """Width of every irrep."""
    hidden_l: int = 1
    """Highest l of the features passed between layers."""
    l_max: int = 3
    """Highest l of the spherical harmonics."""
    message_channels: int | tuple[int, ...] | None = None
    """Width of the messages, one for all layers or one for each; ``channels`` where left out."""
    correlation: int | tuple[int, ...] = 3
    """Factors in the symmetric contraction, the body order less one: one number for all layers or one for each."""
    contraction: PerSpecies | Shared = PerSpecies()
    """Weights of the symmetric contraction."""
    layers: int = 2
    """Number of layers, each of which reaches one cutoff further."""
    first: Plain | Residual | Attention | NonLinear = Residual()
    """Interaction of the first layer."""
    others: Plain | Residual | Attention | NonLinear = Residual()
    """Interaction of the other layers."""
    readout: tuple[int, ...] = (16,)
    """Hidden widths of the last layer's readout; the other layers read out linearly."""
    readout_bias: bool = False
    """Whether the last layer's readout adds a constant in every layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "channels", "layers")
        self.at_least(0, "hidden_l", "l_max")
        for name in ("correlation", "message_channels"):
            values = self.each(name)
            if min(values) < 1 or len(values) != self.layers:
                raise ValueError(f"{name} {list(values)} must be one number or one for each of {self.layers} layers, 1 or more")
        late = [kind for kind in (self.first, self.others) if kind.weights_may_stay]
        if late and not (self.radial.envelope_on.is_separate and self.radial.mlp):
            raise ValueError(
                f"the radial weights of {type(late[0]).__name__} do not vanish with the radial features: energies would jump "
                "at the cutoff; set radial.envelope_on to OnWeights, with at least one hidden layer in radial.mlp"
            )

    @property
    def radial_weights_see_species(self) -> bool:
        return super().radial_weights_see_species or self.first.weights_see_species or self.others.weights_see_species

    @property
    def receptive_radius(self) -> float | None:
        return None if self.cutoff is None else self.layers * self.cutoff

    def each(self, name: str) -> tuple[int, ...]:
        """Return the value of a field for each layer."""
        value = self.channels if getattr(self, name) is None else getattr(self, name)
        return (value,) * self.layers if isinstance(value, int) else value

    def with_last_layer(self, params: Any, change: Float[np.ndarray, " features"]) -> Any:
        """See ``Network.with_last_layer``: the last linear layer of the readout of each layer."""
        out, begin = dict(params), 0
        for layer in range(self.layers):
            read = dict(out[f"readout{layer}"])
            name = f"w{len(self.readout)}" if layer == self.layers - 1 else "w0"
            w = np.asarray(read[name])
            read[name] = w + change[begin : begin + len(w), None].astype(w.dtype)
            begin += len(w)
            out[f"readout{layer}"] = read
        return out

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        count = len(self.elements)
        edges = self.embed(graph, vectors).with_harmonics(SphericalHarmonics(), self.l_max)
        avg_num_neighbors = self.variable("constants", "avg_num_neighbors", lambda: jnp.ones(())).value
        x, table = self.embed_species(self.channels, edges.species)
        kinds, kind = self.contraction.kinds(count, edges.species)
        latent = []
        for layer in range(self.layers):
            last = layer == self.layers - 1
            irreps = hidden_irreps(self.channels, 0 if last else self.hidden_l)
            choice = self.first if layer == 0 else self.others
            widths = self.channels, self.each("message_channels")[layer]
            made_of = irreps, *widths, self.l_max, self.radial, cutoff_of(self), count
            block = Interaction(choice, *made_of, name=f"interaction{layer}")
            a, skip = block(x, edges, avg_num_neighbors, graph, table if layer == 0 else None)
            b = SymmetricContraction(irreps, self.each("correlation")[layer], kinds, name=f"contraction{layer}")(a, kind)
            x = add(Linear(irreps, name=f"linear{layer}")(b), skip)
            if layer == 0:
                x, shares = self.feel_electrons(x, edges, graph)
            latent.append(scalars(x))
        descriptor = jnp.concatenate(latent, axis=-1)
        return self.answer(Readouts, latent, edges, graph, descriptor, shares, hidden=self.readout, bias=self.readout_bias)


class Readouts(nn.Module):
    """Read out the energy of each atom (eV) from the scalars of each layer [atoms, channels], with a readout for each layer."""

    hidden: tuple[int, ...]
    """Hidden widths of the last readout; the others are linear."""
    bias: bool
    """Whether the last readout adds constants."""
    count: int
    """Number of species."""

    @nn.compact
    def __call__(self, layers: list[Float[Array, "atoms channels"]], species: Int[Array, " atoms"]) -> ReadOut:
        energies, inputs = [], []
        for k, x in enumerate(layers):
            last = k == len(layers) - 1
            network = BiasedMLP if last and self.bias else MLP
            found, energy = network((*self.hidden, 1) if last else (1,), name=f"readout{k}").with_inputs(x)
            energies.append(energy[:, 0])
            inputs.append(found)
        return scaled(self, functools.reduce(jnp.add, energies), species, jnp.concatenate(inputs, axis=-1))


def hidden_irreps(channels: int, l_max: int) -> str:
    """Return irreps with ``channels`` of each l <= l_max in natural parity, such as 64x0e+64x1o."""
    return str(e3nn.Irreps([(channels, ir) for _, ir in e3nn.Irreps.spherical_harmonics(l_max)]))
