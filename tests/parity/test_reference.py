"""The fast models against their plain formulation: energies and forces, to rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from subjects import CUTOFF

from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NaturalParity, NequIP, Shared
from equipot.neighbors import neighbor_list
from equipot.nn.interaction import Plain, Residual
from equipot.nn.normalize import Density, MeanNeighbors
from equipot.nn.radial import Radial
from equipot.potential import atomic
from equipot.testing.subject import common_shape
from equipot.testing.systems import SYSTEMS

SMALL = Radial(mlp=(6, 5))


def graph(system):
    return pad([system], CUTOFF, common_shape(CUTOFF), np.float64)


MODELS = {
    "mace": MACE(cutoff=CUTOFF, channels=3, radial=SMALL),
    "mace-plain": MACE(
        cutoff=CUTOFF, channels=3, correlation=2, hidden_l=2, l_max=2, radial=SMALL,
        first=Plain(MeanNeighbors()), others=Plain(MeanNeighbors(0.5)),
    ),
    "mace-density": MACE(
        cutoff=CUTOFF, channels=2, l_max=2, correlation=2, layers=2, radial=SMALL,
        first=Plain(Density()), others=Residual(Density()),
    ),  # fmt: skip
    "mace-correlation-4": MACE(cutoff=CUTOFF, channels=2, l_max=1, correlation=4, layers=1, radial=SMALL),
    "nequip": NequIP(cutoff=CUTOFF, channels=3, layers=3, radial=SMALL),
    "nequip-natural": NequIP(
        cutoff=CUTOFF, channels=2, l_max=3, layers=3, parity=NaturalParity(), self_connection=Shared(), radial=SMALL,
        normalization=MeanNeighbors(1.0),
    ),
    "nequip-no-self": NequIP(cutoff=CUTOFF, channels=2, layers=3, l_max=1, self_connection=None, radial=SMALL),
}  # fmt: skip
# Few and many elements take different ways through the contraction and the first layer.
ELEMENTS = {"few": (1, 6, 8, 29), "many": (1, 6, 8, 13, 14, 29)}


@pytest.mark.parametrize(
    ("name", "count"), [*[(name, "few") for name in MODELS], ("mace", "many"), ("mace-plain", "many"), ("nequip", "many")]
)
def test_matches_the_plain_formulation(name, count):
    elements = ELEMENTS[count]
    term = MODELS[name].clone(elements=elements)
    made = fresh(
        term, graph(SYSTEMS[6]), jax.random.key(1), Metadata(tuple((z, 0.0) for z in elements)),
        scale=np.linspace(0.5, 1.5, len(elements)), shift=np.linspace(-1, 1, len(elements)), avg_num_neighbors=9.0,
    ).astype("float64")  # fmt: skip
    plain = reference.mace if isinstance(term, MACE) else reference.nequip
    system = SYSTEMS[1] if len(elements) == 4 else SYSTEMS[6]
    edges = neighbor_list(system.positions, system.cell, system.pbc, CUTOFF)
    expected = jax.jit(lambda variables: plain(term, variables, system, edges))(made.variables)
    padded = graph(system)
    got = jax.jit(atomic)(made, padded).energy[: len(system)]
    scale = float(jnp.abs(expected).max())
    assert np.abs(got - expected).max() < 1e-12 * max(1.0, scale)
    assert scale > 1e-3
