"""Built-in architectures, and new potentials with random parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from equipot import memory
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.geometry import Geometry, geometry_of
from equipot.graph import HEADS, Graph
from equipot.metadata import Metadata
from equipot.potential import Potential, initial, measure
from equipot.structure import Structure
from equipot.term import Term, cutoff_of

MOST_PAIR_BYTES = 2**17
"""More memory than a call of any network needs for one pair."""


def shapes(term: Term) -> dict[str, tuple[int, ...]]:
    """Return the shape of every variable, by path such as ``params/readout0/w0``, of a term with a table of elements.

    Shapes are evaluated abstractly: no array is made.
    """
    atom = Structure(np.array(term.elements[:1]), np.zeros((1, 3)), head=0)
    graph = pad([atom], cutoff_of(term), extent=extent_of([atom], term.longest_wave))

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
    electron_shift: Any = 0.0,
) -> Potential:
    """Make a potential with random parameters, in float32.

    Its energies are E0 + sum_i scale[s_i] net_i + shift[s_i], with E0 the sum of the energies of isolated atoms.

    Args:
        term: Architecture.
        graph: Some frames of the training set, from which ``UnitVariance`` computes its divisors.
        key: Random key of the parameters.
        metadata: Metadata of the potential, with the energies of isolated atoms (eV).
        scale: Factor of the network's output (eV), one number or one for each element of the term.
        shift: Constant added to each atom's energy (eV), one number or one for each element of the term.
        avg_num_neighbors: Mean number of neighbours of an atom in the training set.
        electron_shift: Constants (eV) for each unit of positive charge, of negative charge, and for each unpaired electron,
            added to the energies of a network with ``electrons``.

    Raises:
        ValueError: one call of the term with the graph does not fit into memory.
    """
    given = {"scale": scale, "shift": shift, "avg_num_neighbors": avg_num_neighbors, "electron_shift": electron_shift}
    graph = graph.replace(positions=jnp.asarray(graph.positions), positions_residual=graph.positions_residual)
    geometry = jax.jit(geometry_of, static_argnums=0)(term, graph)

    def start(key: Array, graph: Graph, geometry: Geometry) -> Any:
        variables = initial(term, key, graph, geometry)
        return {**variables, "constants": with_statistics(variables.get("constants", {}), given)}

    # It runs once, and XLA takes seconds to optimise as many random numbers as a network has parameters.
    first = jax.jit(start, compiler_options={"xla_backend_optimization_level": 0})
    variables = call_in_room(first, term, key, graph, geometry)
    # Constants computed from the activations of the network need all other constants.
    variables |= call_in_room(jax.jit(partial(measure, term)), term, variables, graph, geometry)
    return Potential(term, variables, metadata).astype("float32")


def call_in_room(function: Any, term: Term, first: Any, graph: Graph, geometry: Geometry) -> Any:
    """Call a function of (``first``, graph, geometry) if it fits into memory.

    Args:
        function: Jitted function that calls the term.
        term: Term, for the message.
        first: First argument of the function.
        graph: Graph on the device.
        geometry: Geometry of the graph.

    Raises:
        ValueError: the call does not fit into the memory that is free on the default device.
    """
    (device,) = jnp.zeros(()).devices()
    available = memory.available(device)
    # XLA's own estimate takes some memory, too, which a small graph need not pay.
    if available is None or graph.neighbors.size * MOST_PAIR_BYTES < available:
        return function(first, graph, geometry)
    compiled = function.lower(first, graph, geometry).compile()
    if (needed := memory.needed(compiled)) > available:
        atoms, slots = graph.neighbors.shape
        raise ValueError(
            f"cutoff {cutoff_of(term):g} Å: the constants of {type(term).__name__} are computed from {atoms} atoms with up to "
            f"{slots} neighbours each, which needs about {needed / 2**30:.3g} GiB, but {available / 2**30:.3g} GiB are free; "
            "a shorter cutoff or fewer channels take less"
        )
    return compiled(first, graph, geometry)


def with_statistics(constants: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Replace scale, shift and mean number of neighbours among the constants of a term.

    Constants that ``measure`` computes afterwards are dropped. Those of the ``base`` of a term are replaced, too.
    Among the terms of a ``Sum``, only the first network gets each of the shifts, and frozen terms keep their constants.

    Args:
        constants: Constants by name, nested by scope.
        given: New values by name.
    """
    of = lambda name: jnp.broadcast_to(jnp.asarray(given[name], constants[name].dtype), constants[name].shape)
    out: dict[str, Any] = {name: of(name) for name in given if name in constants}
    for scope in constants:
        if scope.startswith("frozen_"):
            out[scope] = constants[scope]
        elif scope in (HEADS, "base") or scope.startswith("terms_"):
            out[scope] = with_statistics(constants[scope], given)
            present = {path[-1] for path in flatten_dict(out[scope])}
            given = {**given, **dict.fromkeys(present & {"shift", "electron_shift"}, 0.0)}
    return out
