"""Terms of a sum that see less far than others are called with fewer slots, and say the same."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.data.batch import find_slots, pad
from equipot.data.loader import prepare
from equipot.graph import Shell, edge_vectors
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.neighbors import allocate, grow, plan, to_graph, update
from equipot.neighbors.shells import narrowed
from equipot.nn.radial import Radial
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum
from equipot.potential import evaluate
from equipot.testing.systems import ELEMENTS, MOLECULE, SLAB, SYSTEMS, TRICLINIC

INNER, OUTER, SKIN = 2.8, 5.0, 0.4
WANT = ("energies", "forces", "virials")
SMALL = MACE(cutoff=INNER, channels=3, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,)))
TERM = Sum((SMALL, LennardJones(cutoff=OUTER, sigma=1.2)))
evaluated = jax.jit(evaluate, static_argnames="want")


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Sums in another order agree to rounding."""


@pytest.fixture(scope="module")
def potential():
    term = TERM.clone(elements=ELEMENTS)
    made = fresh(term, pad([TRICLINIC, MOLECULE], OUTER), jax.random.key(0), Metadata(tuple((z, 0.0) for z in ELEMENTS)))
    return made.astype("float64")


def same(one, other, atoms):
    for name, value in (("interactions", 1), ("forces", 1), ("virials", 1)):
        a, b = np.asarray(getattr(one, name))[:atoms], np.asarray(getattr(other, name))[:atoms]
        np.testing.assert_allclose(a, b, atol=1e-11 * max(value, np.abs(a).max()))


def test_a_batch_with_shells_has_the_energies_of_one_without(potential):
    structures = [s for s in SYSTEMS if len(s) > 1]
    frames = prepare(structures, OUTER, TERM.inner_cutoffs)
    assert TERM.inner_cutoffs == (INNER,) and frames.shells[0].slots < frames.sizes[:, 1].max()
    narrow = pad(structures, OUTER, dtype=np.float64, found=list(frames.found), shells=frames.shells)
    wide = pad(structures, OUTER, dtype=np.float64)
    same(evaluated(potential, narrow, WANT), evaluated(potential, wide, WANT), wide.num_atoms)


def test_the_narrowed_graph_is_a_symmetric_list_of_the_pairs_within():
    wide = pad([TRICLINIC, SLAB], OUTER, dtype=np.float64)
    slots = prepare([TRICLINIC, SLAB], OUTER, (INNER,)).shells[0].slots
    graph = pad([TRICLINIC, SLAB], OUTER, dtype=np.float64, shells=(Shell(INNER, slots),))
    near, vectors, lost = narrowed(graph, edge_vectors(graph), INNER)
    assert near.num_slots == slots and not near.shells and not bool(lost)
    within = lambda v, mask: np.sort(np.linalg.norm(v, axis=-1)[np.asarray(mask) & (np.linalg.norm(v, axis=-1) < INNER)])
    np.testing.assert_array_equal(within(vectors, near.slot_mask), within(edge_vectors(wide), wide.slot_mask))
    mask, reverse = np.asarray(near.slot_mask), np.asarray(near.reverse)
    np.testing.assert_array_equal(mask.reshape(-1)[reverse], mask)
    np.testing.assert_array_equal(reverse.reshape(-1)[reverse], np.arange(mask.size).reshape(mask.shape))
    back = np.asarray(vectors).reshape(-1, 3)[reverse]
    np.testing.assert_allclose(back[mask], -np.asarray(vectors)[mask], atol=1e-12)


def test_a_shell_that_is_too_small_makes_energies_nan(potential):
    graph = pad([TRICLINIC], OUTER, dtype=np.float64, shells=(Shell(INNER, 3),))
    assert np.isnan(evaluated(potential, graph, WANT).interaction[0])
    unsorted = pad([TRICLINIC], OUTER, dtype=np.float64, found=[find_slots(TRICLINIC, OUTER)], shells=(Shell(INNER, 12),))
    assert np.isnan(evaluated(potential, unsorted, WANT).interaction[0])


@pytest.mark.parametrize("structure", [TRICLINIC, SLAB, MOLECULE], ids=lambda s: s.source)
def test_a_list_for_dynamics_has_shells(potential, structure):
    numbers = jnp.asarray(structure.numbers)
    place = structure.positions, structure.cell, structure.pbc
    spec = plan(*place, OUTER, SKIN, inner_cutoffs=TERM.inner_cutoffs)
    assert [s.cutoff for s in spec.shells] == [INNER] and spec.shells[0].slots <= spec.slots
    positions, cell = jnp.asarray(structure.positions), jnp.asarray(structure.cell)
    made = jax.jit(allocate, static_argnums=0)(spec, positions, cell)
    moved = positions + 0.1 * jnp.asarray(np.random.default_rng(0).uniform(-1, 1, positions.shape))
    kept = update(spec, made, moved, cell)
    assert not bool(kept.overflow)
    there = structure.replace(positions=np.asarray(moved))
    found = evaluated(potential, to_graph(kept, moved, numbers, cell), WANT)
    same(found, evaluated(potential, pad([there], OUTER, dtype=np.float64), WANT), len(structure))


def test_a_shell_that_overflows_is_told_and_grows():
    place = TRICLINIC.positions, TRICLINIC.cell, TRICLINIC.pbc
    spec = plan(*place, OUTER, SKIN, inner_cutoffs=(INNER,))
    tight = dataclasses.replace(spec, shells=(spec.shells[0]._replace(slots=2),))
    assert bool(allocate(tight, *map(jnp.asarray, place[:2])).overflow)
    grown = grow(tight, *place[:2])
    assert grown.shells[0].slots >= spec.shells[0].slots
    assert not bool(allocate(grown, *map(jnp.asarray, place[:2])).overflow)


def test_ase_and_evaluation_agree(potential):
    import equipot

    atoms = TRICLINIC.to_ase()
    atoms.calc = potential.calculator()
    [expected] = [equipot.evaluate(potential, atoms, want=("energy", "forces"))]
    assert atoms.get_potential_energy() == pytest.approx(float(np.ravel(expected.energy)[0]), abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), np.asarray(expected.forces).reshape(-1, 3), atol=1e-9)
    assert atoms.calc._graph.shells[0].cutoff == INNER
