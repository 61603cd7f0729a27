"""Potentials of terms without trained variables, such as Stillinger-Weber silicon, ready for use."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.potential import Potential, initial
from equipot.structure import Structure
from equipot.term import Term, cutoff_of


def closed_form(term: Term, *elements: str) -> Potential:
    """Make a potential, in double precision, of a term whose parameters are those of a publication and not trained.

    >>> potential = closed_form(StillingerWeber(), "Si")

    Energies of isolated atoms are zero. Double precision switches JAX to 64 bits, see ``Potential.astype``.

    Args:
        term: Term with a cutoff, such as StillingerWeber, LennardJones or Morse.
        elements: Symbols of the elements that the potential is for, at least one.

    Raises:
        ValueError: no element, an unknown symbol, or a term with trained variables.
    """
    from ase.data import atomic_numbers

    if not elements:
        raise ValueError(f"name the elements that {type(term).__name__} is for, as in closed_form(StillingerWeber(), 'Si')")
    if unknown := [symbol for symbol in elements if symbol not in atomic_numbers or symbol == "X"]:
        raise ValueError(f"{unknown[0]!r} is no element; give symbols such as 'Si'")
    numbers = sorted({int(atomic_numbers[symbol]) for symbol in elements})
    atom = Structure(np.array(numbers[:1]), np.zeros((1, 3)))
    with jax.enable_x64(True):
        graph = pad([atom], cutoff_of(term), dtype="float64", extent=extent_of([atom], term.longest_wave))
        variables = jax.jit(partial(initial, term))(jax.random.key(0), graph)
    if variables.get("params"):
        raise ValueError(f"{type(term).__name__} has variables that are trained: train it, or load a potential from a file")
    return Potential(term, variables, Metadata(tuple((z, 0.0) for z in numbers))).astype("float64")
