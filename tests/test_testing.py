"""The laws as a library find the faults that they are there for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from equipot.physics.lennard_jones import LennardJones
from equipot.quantities import DIPOLE, Quantity
from equipot.term import Atomic
from equipot.testing import laws
from equipot.testing.subject import Subject

SIZE = {"cutoff": 4.0, "sigma": 1.2}


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


class Stepped(LennardJones):
    """Two atoms of copper gain energy where they come closer than 2.5 Å."""

    def __call__(self, graph, vectors):
        energy = super().__call__(graph, vectors).energy
        copper = (graph.numbers == 29)[:, None] & (graph.numbers[graph.neighbors] == 29) & graph.slot_mask
        return Atomic(energy - 0.01 * jnp.sum(copper & (jnp.sum(vectors**2, axis=-1) < 6.25), axis=1))


class Bent(LennardJones):
    """The energy of a pair has a corner at 3 Å."""

    def __call__(self, graph, vectors):
        energy = super().__call__(graph, vectors).energy
        within = jnp.maximum(9.0 - jnp.sum(vectors**2, axis=-1), 0)
        return Atomic(energy + 0.01 * jnp.sum(jnp.where(graph.slot_mask, within, 0), axis=1))


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


SPREAD = Quantity("spread", "atom")


def provider(row, values):
    """A term that provides ``values(graph, vectors)`` besides a sound energy."""

    class Provider(LennardJones):
        provides = (row,)

        def __call__(self, graph, vectors):
            return Atomic(super().__call__(graph, vectors).energy, others={row.name: values(graph, vectors)})

    return Provider(**SIZE)


def near(graph, vectors):
    """Number of neighbours, smooth up to the cutoff."""
    r2 = jnp.sum(vectors**2, axis=-1)
    return jnp.where(graph.slot_mask, jnp.maximum(1 - r2 / SIZE["cutoff"] ** 2, 0) ** 3, 0).sum(axis=1)


def pull(graph, vectors):
    """A dipole of each atom."""
    z = graph.numbers[graph.neighbors].astype(vectors.dtype)
    weight = jnp.maximum(1 - jnp.sum(vectors**2, axis=-1) / SIZE["cutoff"] ** 2, 0) ** 3
    return jnp.where(graph.slot_mask, z * weight, 0)[..., None] * vectors


class Charged(LennardJones):
    """Every system of a batch has the charge of the first one."""

    needs = ("charge",)

    def __call__(self, graph, vectors):
        energy = super().__call__(graph, vectors).energy
        return Atomic(jnp.where(graph.node_mask, energy + graph.charge[0], 0))


def broken(term, among=None):
    """Names of the laws, of all or of those in ``among``, that a term breaks."""
    found = set()
    for case in laws.cases(term):
        if among is not None and case.law.name not in among - found:
            continue
        try:
            case()
        except AssertionError:
            found.add(case.law.name)
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Tilted, {"rotation", "reflection"}),
        (Leaking, {"without jit"}),
        (Cut, {"smooth at the cutoff"}),
        (Stepped, {"smooth inside the cutoff"}),
        (Bent, {"smooth inside the cutoff"}),
        (Mean, {"two far copies", "repeated cell", "padding and batching"}),
        (Handed, {"reflection", "translation and permutation"}),
        (Frozen, {"forces", "stress", "Hessian"}),
        (Compass, {"rotation", "reflection"}),
        (Charged, {"padding and batching"}),
    ],
)
def test_a_fault_breaks_its_laws(kind, expected):
    assert broken(Subject(kind(**SIZE), vanishes=2), expected) == expected


@pytest.mark.parametrize(
    ("row", "values", "law"),
    [
        (SPREAD, lambda g, v: near(g, v) + near(g, v).max(), "padding and batching"),
        (SPREAD, lambda g, v: jnp.where(g.slot_mask & (jnp.sum(v**2, -1) < 16.0), 1.0, 0.0).sum(1), "smooth at the cutoff"),
        (SPREAD, lambda g, v: near(g, v) * jnp.ones((len(g.numbers), 1), jnp.float64).sum(1), "single precision"),
        (DIPOLE, lambda g, v: pull(g, v).sum(1) * v.shape[0], "without jit"),
        (DIPOLE, lambda g, v: pull(g, v).sum(1) * (jnp.arange(v.shape[0]) % 2)[:, None], "translation and permutation"),
    ],
    ids=["batch", "jump", "double", "rows", "order"],
)
def test_a_fault_of_a_further_quantity_breaks_its_law(row, values, law):
    assert broken(Subject(provider(row, values), vanishes=2), {law})


def test_sound_quantities_break_no_law():
    assert not broken(Subject(provider(SPREAD, near), vanishes=2))
    assert not broken(Subject(provider(DIPOLE, lambda g, v: pull(g, v).sum(1)), vanishes=2))


def test_a_sound_term_breaks_none():
    assert not broken(Subject(LennardJones(**SIZE), vanishes=2))


def test_a_term_needs_a_cutoff():
    with pytest.raises(ValueError, match="LennardJones has no cutoff; give one in Å"):
        next(iter(laws.cases(LennardJones())))()
