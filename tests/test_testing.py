"""The laws as a library find the faults that they are there for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Atomic
from equipot.quantities import DIPOLE
from equipot.testing import laws
from equipot.testing.subject import Subject


class Tilted(LennardJones):
    """The x axis is longer than the others."""

    def __call__(self, graph, vectors):
        return super().__call__(graph, vectors * jnp.array([[[1.01, 1.0, 1.0]]], vectors.dtype))


class Leaking(LennardJones):
    """Slots that hold no neighbour count."""

    def __call__(self, graph, vectors):
        energy = super().__call__(graph, vectors).energy
        return Atomic(jnp.where(graph.node_mask, energy + 1e-6 * (~graph.slot_mask).sum(axis=1), 0))


class Cut(LennardJones):
    """No switch brings the energy to zero at the cutoff."""

    def __call__(self, graph, vectors):
        squared = jnp.sum(vectors**2, axis=-1)
        inside = graph.slot_mask & (squared < self.cutoff**2)
        return Atomic(0.5 * jnp.sum(jnp.where(inside, 1 / squared, 0), axis=-1))


class Mean(LennardJones):
    """The energy is divided by the number of atoms in the batch."""

    def __call__(self, graph, vectors):
        return Atomic(super().__call__(graph, vectors).energy / graph.node_mask.sum())


class Handed(LennardJones):
    """The first neighbours in the list make a triple product."""

    def __call__(self, graph, vectors):
        out = super().__call__(graph, vectors).energy
        three = jnp.pad(jnp.where(graph.slot_mask[..., None], vectors, 0), ((0, 0), (0, 3), (0, 0)))[:, :3]
        triple = jnp.linalg.det(three)
        return Atomic(out + jnp.where(graph.node_mask, triple, 0))


class Frozen(LennardJones):
    """Half of the force is lost."""

    def __call__(self, graph, vectors):
        return super().__call__(graph, vectors / 2 + jax.lax.stop_gradient(vectors) / 2)


class Compass(LennardJones):
    """Every dipole points to the north."""

    provides = (DIPOLE,)

    def __call__(self, graph, vectors):
        out = super().__call__(graph, vectors).energy
        return Atomic(out, others={"dipole": jnp.where(graph.node_mask, 1.0, 0.0)[:, None] * jnp.array([[0.0, 1.0, 0.0]])})


def broken(term):
    """Names of the laws that a term breaks."""
    found = set()
    for case in laws.cases(term):
        try:
            case()
        except AssertionError:
            found.add(case.law.name)
    return found


SIZE = {"cutoff": 4.0, "sigma": 1.2}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Tilted, {"rotation", "reflection"}),
        (Leaking, {"without jit"}),
        (Cut, {"smooth at the cutoff"}),
        (Mean, {"two far copies", "repeated cell", "padding and batching"}),
        (Handed, {"reflection", "translation and permutation"}),
        (Frozen, {"forces", "stress", "Hessian"}),
        (Compass, {"rotation", "reflection"}),
    ],
)
def test_a_fault_breaks_its_laws(kind, expected):
    assert expected <= broken(Subject(kind(**SIZE), vanishes=2))


def test_a_sound_term_breaks_none():
    assert not broken(Subject(LennardJones(**SIZE), vanishes=2))


def test_a_term_needs_a_cutoff():
    with pytest.raises(ValueError, match="LennardJones has no cutoff; give one in Å"):
        next(iter(laws.cases(LennardJones())))()
