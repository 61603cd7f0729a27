"""Potentials with several heads: levels of theory that share one network up to its readouts.

Which variables each head has for itself follows from the shapes of the same term with heads and without: it holds for any term
with a field ``heads``. They are stacked along their first axis, in the order of the names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from equipot.eqp import flatten, unflatten
from equipot.models import shapes
from equipot.potential import Head, Potential, Term


def can_have_heads(term: Term) -> bool:
    """Whether a term has a field for them."""
    return any(field.name == "heads" for field in dataclasses.fields(term))


def own(term: Term) -> frozenset[str]:
    """Paths of the variables that every head has for itself.

    Raises:
        ValueError: a term that cannot have heads.
    """
    if not can_have_heads(term):
        raise ValueError(f"{type(term).__name__} cannot have several heads")
    single, several = (shapes(term.clone(heads=heads)) for heads in ((), ("one", "two")))
    return frozenset(path for path, shape in single.items() if several[path] != shape)


def join(potentials: Mapping[str, Potential]) -> Potential:
    """One potential of several by the names of their heads; everything but what follows the last features must be the same.

    It counts energies from the free atoms of each head, whose E0 are in its metadata; all else there is that of the first.

    Raises:
        ValueError: they differ in more; the message says where.
    """
    names, all_of_them = tuple(potentials), tuple(potentials.values())
    first = all_of_them[0]
    for name, other in potentials.items():
        if other.term != first.term:
            raise ValueError(f"{name} and {names[0]} are not the same model; heads share everything but their readouts")
    apart = own(first.term)
    leaves = [flatten(potential.variables) for potential in all_of_them]
    joined = {}
    for path, value in leaves[0].items():
        values = [np.asarray(part[path]) for part in leaves]
        different = [name for name, other in zip(names, values, strict=True) if not np.array_equal(other, values[0])]
        if path not in apart and different:
            raise ValueError(f"{different[0]} and {names[0]} differ in {path}; heads share everything but their readouts")
        # Not arrays of JAX, which would round double precision where 64 bits are not switched on.
        joined[path] = np.stack(values) if path in apart else value
    heads = tuple(Head(name, p.metadata.atomic_energies, p.metadata.level_of_theory) for name, p in potentials.items())
    zero = tuple((z, 0.0) for z in sorted({z for potential in all_of_them for z in potential.elements}))
    metadata = dataclasses.replace(first.metadata, atomic_energies=zero, level_of_theory="", heads=heads)
    return Potential(first.term.clone(heads=names), unflatten(joined), metadata)


def pick(potential: Potential, name: str) -> Potential:
    """The potential of one head, with the E0 and the level of theory of that head.

    Raises:
        ValueError: no such head.
    """
    names = potential.heads
    if name not in names:
        there = f"its heads are {', '.join(names)}" if names else "it has only one level of theory"
        raise ValueError(f"the potential has no head {name!r}: {there}")
    k, apart = names.index(name), own(potential.term)
    leaves = {path: value[k] if path in apart else value for path, value in flatten(potential.variables).items()}
    head = potential.metadata.heads[k]
    metadata = dataclasses.replace(
        potential.metadata, atomic_energies=head.atomic_energies, level_of_theory=head.level_of_theory, heads=()
    )
    return Potential(potential.term.clone(heads=()), unflatten(leaves), metadata)
