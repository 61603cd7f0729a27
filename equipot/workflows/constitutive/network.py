"""Networks from invariants to a scalar: a free one, and one that is convex and not decreasing in the invariants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float


class Weights:
    """Names of a layer's arrays, which training, export and the exported function share."""

    INPUT, VOLUME, HIDDEN, BIAS = "input", "volume", "hidden", "bias"


class Network(nn.Module):
    """Softplus layers, each of which sees the layer below, all invariants, and J; the last layer is linear.

    z_1 = softplus(x A_1 + J a_1 + b_1), z_k = softplus(z_k-1 B_k + x A_k + J a_k + b_k), and the value is z B + x A + J a. All
    derivatives exist.

    Raises:
        ValueError: no layers, or one without units.
    """

    widths: tuple[int, ...] = (16, 16)
    """Units of each layer."""

    def weight(self, raw: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """Make a weight of invariants or layers from a trained array."""
        raise NotImplementedError

    def start(self, key: Array, rows: int, columns: int) -> Float[Array, "rows columns"]:
        """Draw a trained array whose weights are of the size 1 / rows, or its root."""
        raise NotImplementedError

    @nn.compact
    def layers(self, invariants: int) -> list[dict[str, Float[Array, "..."]]]:
        """Return the weights of all layers, for so many invariants beside J."""
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths} must be positive integers, at least one")
        found, below = [], 0
        normal = nn.initializers.normal(0.5)
        for k, width in enumerate((*self.widths, 1)):
            layer = {
                Weights.INPUT: self.weight(self.param(f"input_{k}", self.start, invariants, width)),
                Weights.VOLUME: self.param(f"volume_{k}", normal, (1, width), jnp.float64),
            }
            if k:
                layer[Weights.HIDDEN] = self.weight(self.param(f"hidden_{k}", self.start, below, width))
            if k < len(self.widths):
                layer[Weights.BIAS] = self.param(f"bias_{k}", normal, (1, width), jnp.float64)
            found.append(layer)
            below = width
        return found


def value(
    layers: list[dict[str, Float[Array, "..."]]], x: Float[Array, "channels invariants"], volume: Float[Array, "channels 1"]
) -> Float[Array, " channels"]:
    """Compute the value of a network of such layers: invariants and J, each less its value in the reference and scaled."""
    z = jnp.zeros((len(x), 0))
    for k, layer in enumerate(layers):
        y = x @ layer[Weights.INPUT] + volume @ layer[Weights.VOLUME]
        if k:
            y = y + z @ layer[Weights.HIDDEN]
        z = y if k == len(layers) - 1 else jax.nn.softplus(y + layer[Weights.BIAS])
    return z[:, 0]


class Unconstrained(Network):
    """A network without constraints on its weights."""

    def weight(self, raw: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        return raw

    def start(self, key: Array, rows: int, columns: int) -> Float[Array, "rows columns"]:
        return jax.random.normal(key, (rows, columns), jnp.float64) / np.sqrt(rows)


class Convex(Network):
    """An input-convex network (Amos, Xu and Kolter, arXiv:1609.07152): convex, and not decreasing in the invariants.

    Weights of invariants and layers are softplus of the trained arrays, and so positive; those of J have any sign. With
    invariants that are convex in F or in cof F, the energy is polyconvex: convex as a function of F, cof F and J together.
    """

    def weight(self, raw: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        return jax.nn.softplus(raw)

    def start(self, key: Array, rows: int, columns: int) -> Float[Array, "rows columns"]:
        # softplus(x) is exp(x) where it is small.
        return -np.log(rows) + 0.5 * jax.random.normal(key, (rows, columns), jnp.float64)
