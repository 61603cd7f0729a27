"""Built-in architectures, and fresh potentials made of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from equipot.data.batch import pad
from equipot.graph import HEADS, Graph
from equipot.potential import Geometry, Metadata, Potential, Term, geometry_of, initial, measure
from equipot.structure import Structure


def shapes(term: Term) -> dict[str, tuple[int, ...]]:
    """Shape of every variable of a term with a table of elements, by path, such as ``params/readout0/w0``.

    Nothing is computed.
    """
    atom = Structure(np.array(term.elements[:1]), np.zeros((1, 3)), head=0)
    graph = pad([atom], term.cutoff)

    variables = jax.eval_shape(partial(initial, term), jax.random.key(0), graph)
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}


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

    ``graph`` holds some frames of the training set: ``UnitVariance`` measures the messages there. ``scale`` and ``shift`` (eV)
    are one number or one for each of the term's elements. Energies are E0 + sum_i scale[s_i] net_i + shift[s_i], with the
    energies E0 of isolated atoms in ``metadata``.
    """
    given = {"scale": scale, "shift": shift, "avg_num_neighbors": avg_num_neighbors}
    graph = graph.replace(positions=jnp.asarray(graph.positions), positions_residual=graph.positions_residual)
    geometry = geometry_of(term, graph)

    def start(key: Array, graph: Graph, geometry: Geometry) -> Any:
        variables = initial(term, key, graph, geometry)
        return {**variables, "constants": with_statistics(variables.get("constants", {}), given)}

    # It runs once, and XLA takes seconds to optimise as many random numbers as a network has parameters.
    variables = jax.jit(start, compiler_options={"xla_backend_optimization_level": 0})(key, graph, geometry)
    # Constants that are measured on the network are measured once the others stand.
    variables |= jax.jit(partial(measure, term))(variables, graph, geometry)
    return Potential(term, variables, metadata).astype("float32")


def with_statistics(constants: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the constants of a term that the training set sets by those of ``given``, and drop what is measured afterwards.

    Of the terms of a ``Sum`` only the first network gets the shift; what is frozen there stays.
    """
    of = lambda name: jnp.broadcast_to(jnp.asarray(given[name], constants[name].dtype), constants[name].shape)
    out: dict[str, Any] = {name: of(name) for name in given if name in constants}
    for scope in constants:
        if scope.startswith("frozen_"):
            out[scope] = constants[scope]
        elif scope == HEADS or scope.startswith("terms_"):
            out[scope] = with_statistics(constants[scope], given)
            if any(path[-1] == "shift" for path in flatten_dict(out[scope])):
                given = {**given, "shift": 0.0}
    return out
