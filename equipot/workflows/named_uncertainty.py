"""Estimates of uncertainty of published potentials, whose training data are not at hand: from prototype structures, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from equipot import eqp, published
from equipot.uncertainty import fit
from equipot.uncertainty.prototypes import prototypes


class Estimate(NamedTuple):
    """What was made for a potential."""

    path: Path
    """File in the cache, from which ``equipot.load`` takes the estimate."""
    rests_on: str
    seconds: float


def estimate_named(name: str, say: Callable[[str], None]) -> Estimate:
    """Give a published potential an estimate of its uncertainty in the cache, not calibrated: novelty alone.

    Args:
        say: takes lines of progress.

    Raises:
        FileNotFoundError: no such name.
        LibraryError: the checkpoint cannot be fetched.
        ValueError: the potential has several heads, or no features of a last linear layer.
    """
    if name not in published.MODELS:
        remedy = "for a file: equipot uncertainty FILE --prototypes"
        raise FileNotFoundError(f"{name}: not the name of a published potential; {published.guess(name)}; {remedy}")
    potential = eqp.load(published.fetch(name, say))
    structures = prototypes(potential.elements)
    crystals = sum(bool(structure.pbc.any()) for structure in structures)
    molecules, elements = len(structures) - crystals, len(potential.elements)
    rests_on = f"{crystals} prototype crystals and {molecules} molecules of its {elements} elements, not on its training set"
    say(f"{name}: evaluating {len(structures)} prototype structures; this is done once and takes a few minutes")
    began = time.perf_counter()
    estimated = fit(potential, structures, rests_on=rests_on)
    path = published.uncertainty_path(name)
    eqp.save(estimated, path)
    return Estimate(path, rests_on, time.perf_counter() - began)
