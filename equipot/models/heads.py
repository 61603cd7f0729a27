"""Potentials with several heads: levels of theory that share one network up to its readouts.

Variables that differ between heads are in a scope ``graph.HEADS`` of their network, stacked along their first axis in the order
of the heads' names; ``Potential.head`` selects one head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from equipot.graph import HEADS
from equipot.metadata import Head
from equipot.models import shapes
from equipot.potential import Potential

__all__ = ["join"]


def in_heads(path: str) -> bool:
    """Return whether the variable at a path such as ``params/heads/readout0/w0`` differs between heads."""
    return HEADS in path.split("/")


def join(potentials: Mapping[str, Potential]) -> Potential:
    """Join potentials that differ only in their readouts, scales and shifts to one potential with several heads.

    Args:
        potentials: Potentials by the name of the head that each becomes. The metadata of the result are those of the first
            potential, with isolated-atom energies and level of theory of each head.

    Raises:
        ValueError: the term cannot have heads, or the potentials differ in another variable, which is named.
    """
    names, all_of_them = tuple(potentials), tuple(potentials.values())
    first = all_of_them[0]
    for name, other in potentials.items():
        if other.term != first.term:
            raise ValueError(f"{name} and {names[0]} are not the same model; heads share everything but their readouts")
    term = first.term.with_heads(names)
    own = {path.replace(f"/{HEADS}/", "/"): path for path in shapes(term) if in_heads(path)}
    leaves = [flatten_dict(potential.variables, sep="/") for potential in all_of_them]
    joined = {}
    for path, value in leaves[0].items():
        values = [np.asarray(part[path]) for part in leaves]
        if path in own:
            # Not arrays of JAX, which would round double precision where 64 bits are not switched on.
            joined[own[path]] = np.stack(values)
            continue
        for name, array in zip(names, values, strict=True):
            if not np.array_equal(array, values[0]):
                raise ValueError(f"{name} and {names[0]} differ in {path}; heads share everything but their readouts")
        joined[path] = value
    heads = tuple(Head(name, p.metadata.atomic_energies, p.metadata.level_of_theory) for name, p in potentials.items())
    zero = tuple((z, 0.0) for z in sorted({z for potential in all_of_them for z in potential.elements}))
    metadata = dataclasses.replace(first.metadata, atomic_energies=zero, level_of_theory="", heads=heads)
    return Potential(term, unflatten_dict(joined, sep="/"), metadata)
