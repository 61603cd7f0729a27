"""Add ``electrons`` to a network that sees neither charge nor spin: its numbers are the same before the first step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from equipot.data.batch import pad
from equipot.models.network import Network
from equipot.nn.electrons import Electrons
from equipot.potential import Potential, initial
from equipot.structure import Structure
from equipot.term import Term


def with_electrons(potential: Potential, electrons: Electrons, seed: int) -> Potential:
    """Return a potential that sees charge and spin and, as yet, gives all states the energies of the given one.

    The variables of the electrons are random but for the last layer, which is zero.

    Raises:
        ValueError: the potential sees electrons already, or its term is not, or is not made of, one network that can.
    """
    term = potential.term
    if not isinstance(term, Network):
        able = [name for name, member in term.trained_members.items() if _has_network(member)]
        if len(able) != 1:
            what = "is made of several networks" if able else "is no network"
            raise ValueError(f"model.electrons: {type(term).__name__} {what} that electrons could be added to; leave it out")
        return potential.with_member(able[0], with_electrons(potential.member(able[0]), electrons, seed))
    if term.electrons is not None:
        raise ValueError("model.electrons: the base sees charge and spin already; leave it out")
    seeing = term.clone(electrons=electrons)
    atom = Structure(np.array(term.elements[:1]), np.zeros((1, 3)), head=0)
    drawn = flatten_dict(initial(seeing, jax.random.key(seed), pad([atom], potential.cutoff)), sep="/")
    leaves = flatten_dict(potential.variables, sep="/")
    added = {path: jnp.asarray(value, potential.dtype) for path, value in drawn.items() if path not in leaves}
    added |= {path: jnp.zeros_like(value) for path, value in added.items() if path == LAST}
    assert LAST in added, sorted(added)
    return potential.replace(term=seeing, variables=unflatten_dict(leaves | added, sep="/"))


def _has_network(term: Term) -> bool:
    """Whether a term is, or is made of, a network that is trained."""
    return isinstance(term, Network) or any(map(_has_network, term.trained_members.values()))


LAST = "params/electrons/update/w1"
"""Path of the layer whose output is added to the features."""
