"""Below the inner radius any two atoms repel; above the outer one nothing changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.data import covalent_radii

from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.guard import Guarded
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import evaluate
from equipot.structure import Structure

FALLING = LennardJones(cutoff=5.0, epsilon=-0.5, sigma=2.0)
"""The closer, the lower: atoms fuse."""
PAIRS = [(1, 1), (1, 8), (8, 14), (29, 29), (92, 1)]


def potential(term, numbers):
    graph = pad([Structure(numbers, np.eye(3)[: len(numbers)] * 2)], 5.0, dtype=np.float64)
    return fresh(term, graph, jax.random.key(0), Metadata(tuple((int(z), 0.0) for z in sorted(set(numbers))))).astype("float64")


def forces(model, numbers, r):
    """Force that pushes two atoms apart, eV/Å, and the energy, eV."""
    at = jax.jit(lambda graph: evaluate(model, graph, ("energy", "forces")))
    out = [at(pad([Structure(numbers, [[0, 0, 0], [0, 0, x]])], 5.0, dtype=np.float64)) for x in r]
    return np.array([float(o.forces[1, 2]) for o in out]), np.array([float(o.interaction[0]) for o in out])


@pytest.mark.parametrize("numbers", PAIRS, ids=str)
def test_a_pair_below_the_inner_radius_repels_and_one_above_is_unchanged(numbers, double_precision):
    inner = 0.5 * covalent_radii[list(numbers)].sum()
    model, bare = potential(Guarded(FALLING), numbers), potential(FALLING, numbers)
    below = np.linspace(0.15, 1, 30)[:-1] * inner
    assert (forces(bare, numbers, below)[0] < 0).all()
    push, energy = forces(model, numbers, below)
    assert (push > 0).all() and (np.diff(energy) < 0).all()
    above = np.linspace(1.1501 * inner, 4.9, 10)
    for changed, same in zip(forces(model, numbers, above), forces(bare, numbers, above), strict=True):
        np.testing.assert_allclose(changed, same, rtol=1e-13, atol=1e-15)


def test_a_network_keeps_its_variables(double_precision):
    term = MACE(cutoff=5.0, elements=(1, 8), channels=3, l_max=1, correlation=2, layers=1, radial=Radial(mlp=(4,)))
    guarded = potential(Guarded(term), (1, 8))
    assert set(guarded.params) == {"base"}
    push, _ = forces(guarded, (1, 8), [0.2, 0.3, 0.4])
    assert (push > 0).all()


@pytest.mark.parametrize(("field", "value"), [("share", 0.0), ("share", 1.5), ("width", 0.0)])
def test_what_is_no_wall_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Guarded(FALLING, **{field: value})


def test_the_clamp_is_smooth():
    from equipot.physics.guard import clamped

    one = lambda r: clamped(r.reshape(1, 1), jnp.full((1, 1), 1.0), jnp.full((1, 1), 1.2))[0, 0]
    with jax.enable_x64(True):
        for order in range(4):
            for edge in (1.0, 1.2):
                assert float(one(jnp.float64(edge - 1e-9))) == pytest.approx(float(one(jnp.float64(edge + 1e-9))), abs=1e-4), (
                    order
                )
            one = jax.grad(one)
