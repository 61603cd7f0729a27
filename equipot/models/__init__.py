"""Built-in architectures, and fresh potentials made of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from equipot.graph import Graph, edge_vectors
from equipot.potential import Metadata, Potential, Term


def fresh(
    term: Term,
    graph: Graph,
    key: Array,
    metadata: Metadata,
    *,
    scale: Any = 1.0,
    shift: Any = 0.0,
    avg_num_neighbors: float = 1.0,
) -> Potential:
    """A potential with random parameters, in float32.

    ``graph`` is any example (only its shape matters); ``scale`` and ``shift`` (eV) are one number or one for each of the
    term's elements. Energies are E0 + sum_i scale[s_i] net_i + shift[s_i], with the free-atom energies E0 in ``metadata``.
    """
    # Under jit only the variables are computed, not the network.
    variables = jax.jit(term.init)(key, graph.replace(positions=None), edge_vectors(graph))
    given = {"scale": scale, "shift": shift, "avg_num_neighbors": avg_num_neighbors}
    constants = dict(variables.get("constants", {}))
    for name, value in given.items():
        if name in constants:
            constants[name] = jnp.broadcast_to(jnp.asarray(value, jnp.float32), constants[name].shape)
    return Potential(term, {**variables, "constants": constants}, metadata).astype("float32")
