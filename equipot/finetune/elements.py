"""Add elements to a potential: a new row in every variable with one row per species.

The axis of species is found by comparing shapes with those of a clone with one element more, so that every term with a field
``elements`` can be extended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from flax.traverse_util import flatten_dict, unflatten_dict

from equipot.models import shapes
from equipot.potential import Potential
from equipot.structure import symbols
from equipot.term import Term, walk


def species_axes(term: Term) -> dict[str, int | None]:
    """Find the axis of species of each variable by path; None if the shape depends on the number of species in another way."""
    if not term.has_elements:
        return {}
    count = len(term.elements)
    spare = next(z for z in range(1, 119) if z not in term.elements)
    found: dict[str, int | None] = {}
    larger = shapes(term.clone(elements=(*term.elements, spare)))
    for path, shape in shapes(term).items():
        grown = [k for k, (n, m) in enumerate(zip(shape, larger[path], strict=True)) if n != m]
        if grown:
            rows = len(grown) == 1 and (shape[grown[0]], larger[path][grown[0]]) == (count, count + 1)
            found[path] = grown[0] if rows else None
    return found


def choose_parents(
    known: Sequence[int], present: Sequence[int], choice: str | Mapping[str, str], name: str
) -> dict[int, int | None]:
    """Choose for each new element of the data the known element whose rows are copied; None for the mean of all.

    Args:
        known: atomic numbers of the potential.
        present: atomic numbers of the training frames.
        choice: ``model.elements``.
        name: name of the potential, for messages.

    Raises:
        ValueError: new elements without a choice, or a choice for an element that is not new.
    """
    new = [z for z in present if z not in known]
    if choice == "known":
        if new:
            raise ValueError(
                f"the data contain {symbols(new)}, but {name} knows only {symbols(known)}; leave these frames out, or set "
                f"model.elements to extend, or to what each begins as, such as {{{chemical_symbols[new[0]]}: "
                f"{chemical_symbols[known[0]]}}}"
            )
        return {}
    if choice == "extend":
        return dict.fromkeys(new)
    assert not isinstance(choice, str), choice
    for symbol in (*choice, *choice.values()):
        if atomic_numbers.get(symbol, 0) < 1:
            raise ValueError(f"model.elements: {symbol!r} is not the symbol of an element")
    parents = {atomic_numbers[child]: atomic_numbers[parent] for child, parent in choice.items()}
    for child, parent in parents.items():
        if child not in new:
            why = "is known already" if child in known else "is in no training frame"
            raise ValueError(f"model.elements: {chemical_symbols[child]} {why}; leave it out")
        if parent not in known:
            raise ValueError(f"model.elements: {chemical_symbols[parent]} is not known ({symbols(known)})")
    if missing := [z for z in new if z not in parents]:
        raise ValueError(f"model.elements does not say what {symbols(missing)} begins as; name a known element, or use extend")
    return dict(parents)


def extend(potential: Potential, parents: Mapping[int, int | None]) -> Potential:
    """Add new elements to a potential, with E0 = 0; predictions for known elements do not change.

    Args:
        parents: for each new element (Z) the known element whose rows are copied, or None for the mean of all.

    Raises:
        ValueError: a term whose variables do not have a row for each element.
    """
    if not parents:
        return potential
    term, kind = potential.term, type(potential.term).__name__
    if not term.has_elements:
        raise ValueError(f"{kind} has no table of elements that could grow; leave out frames with {symbols(parents)}")
    held = [part.members[name] for part in walk(term) for name in part.members if part.scope_of(name).constant]
    if any(z not in other.elements for other in held if other.has_elements for z in parents):
        raise ValueError(f"{kind} has a frozen term that does not know {symbols(parents)}; leave out frames with them")
    leaves = flatten_dict(potential.variables, sep="/")
    try:
        axes = species_axes(term)
    except ValueError as error:
        raise ValueError(f"{kind} cannot take new elements ({error}); train it anew, or leave out their frames") from None
    for path, axis in axes.items():
        if axis is None:
            raise ValueError(f"{kind} cannot take new elements: {path} does not have a row for each; train it anew")
        rows = dict(zip(term.elements, np.moveaxis(np.asarray(leaves[path]), axis, 0), strict=True))
        mean = np.mean([rows[z] for z in potential.elements], axis=0, dtype=np.float64)
        rows |= {z: mean if parent is None else rows[parent] for z, parent in parents.items()}
        leaves[path] = jnp.asarray(np.stack(list(rows.values()), axis), leaves[path].dtype)
    more = lambda energies: tuple(sorted((*energies, *((z, 0.0) for z in parents))))
    old = potential.metadata
    heads = tuple(dataclasses.replace(head, atomic_energies=more(head.atomic_energies)) for head in old.heads)
    return Potential(
        term.clone(elements=tuple(dict.fromkeys((*term.elements, *parents)))),
        unflatten_dict(leaves, sep="/"),
        dataclasses.replace(old, atomic_energies=more(old.atomic_energies), heads=heads),
    )
