"""Potentials in closed form, for tests of what is computed with potentials."""

from __future__ import annotations

import numpy as np

from equipot.metadata import Metadata
from equipot.physics.morse import Morse
from equipot.physics.stillinger_weber import StillingerWeber
from equipot.potential import Potential


def silicon(**parameters):
    """Stillinger-Weber silicon, in double precision."""
    term = StillingerWeber(**parameters)
    return Potential(term, {"constants": {"epsilon": np.float64(term.epsilon)}}, Metadata(((14, 0.0),)))


def morse(elements=(29,), **parameters):
    """A Morse potential in double precision; by default of nearest neighbours in close packing alone."""
    term = Morse(**{"cutoff": 3.87, "onset": 0.85} | parameters)
    return Potential(term, {"constants": {"depth": np.float64(term.depth)}}, Metadata(tuple((z, 0.0) for z in elements)))
