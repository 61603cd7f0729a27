"""Packed pairs: the same numbers, whatever the list holds besides and however they are computed."""

from __future__ import annotations

import ase
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.data.batch import pad
from equipot.graph import Graph, edge_vectors
from equipot.kernels import convolution_code, polynomial_code, rows_code
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.neighbors import packed
from equipot.nn import blocked_map
from equipot.nn.interaction import NonLinear
from equipot.nn.radial import Agnesi, OnWeights, Radial
from equipot.potential import atomic, evaluate
from equipot.second_derivatives import hessian_vector_product
from equipot.structure import Structure

CUTOFF = 3.0
SMALL = {"cutoff": CUTOFF, "channels": 3, "l_max": 1}
TERMS = {
    "mace": MACE(correlation=1, hidden_l=0, layers=2, radial=Radial(mlp=(5,), transform=Agnesi()), **SMALL),
    "nonlinear": MACE(
        correlation=1, hidden_l=0, layers=1, first=NonLinear(), radial=Radial(mlp=(5,), envelope_on=OnWeights()), **SMALL
    ),
    "nequip": NequIP(layers=1, radial=Radial(mlp=(5,)), **SMALL),
}


def graph_within(radius: float) -> Graph:
    """Two systems of very different degrees, with the pairs of a radius (Å)."""
    rng = np.random.default_rng(0)
    crystal = ase.Atoms("C5O2", positions=rng.uniform(0, 4, (7, 3)), cell=[4, 4.2, 4.5], pbc=True)
    molecule = ase.Atoms("OC", positions=[[0, 0, 0], [1.2, 0.1, 0]])
    graph = pad([Structure.from_ase(x, source="test") for x in (crystal, molecule)], radius, dtype=np.float64)
    return jax.tree.map(jnp.asarray, graph)


def wide_graph() -> Graph:
    """With more pairs than are within the cutoff."""
    return graph_within(1.3 * CUTOFF)


def everything(term, graph: Graph, monkeypatch, native: bool, derivatives: bool) -> dict[str, np.ndarray]:
    """Of a fresh potential, by kernels and in blocks, or by the plain formulation and all pairs at once."""
    monkeypatch.setattr(blocked_map, "BLOCK", 16)
    monkeypatch.setattr(blocked_map, "SINGLE_BLOCK_ROWS", 16 if native else 10**6)
    if not native:
        for module in (convolution_code, polynomial_code, rows_code):
            monkeypatch.setattr(module, "possible", lambda *_: False)
    jax.clear_caches()
    try:
        term = term.clone(elements=(6, 8))
        metadata = Metadata(atomic_energies=((6, 0.0), (8, 0.0)))
        potential = fresh(term, graph, jax.random.key(0), metadata, avg_num_neighbors=10.0).astype("float64")
        out = jax.jit(evaluate, static_argnames="want")(potential, graph, want=("energy", "forces", "stress", "virials"))
        named = {"energy": out.interaction, "forces": out.forces, "stress": out.stress[0], "virials": out.virials}
        if not derivatives:
            return {key: np.asarray(x) for key, x in named.items()}
        direction = jnp.asarray(np.random.default_rng(1).normal(size=graph.positions.shape))
        product = jax.jit(hessian_vector_product)(potential, graph, direction)

        def loss(params):
            changed = potential.replace(variables={**potential.variables, "params": params})
            return jnp.sum(evaluate(changed, graph, ("forces",)).forces ** 2)

        gradient = jax.jit(jax.grad(loss))(potential.variables["params"])
        flat, _ = jax.flatten_util.ravel_pytree(gradient)
    finally:
        monkeypatch.undo()
        jax.clear_caches()
    return {name: np.asarray(x) for name, x in (named | {"product": product, "gradient": flat}).items()}


@pytest.mark.parametrize("name", TERMS)
def test_packed_pairs_give_the_same_energies_forces_and_higher_derivatives(name, monkeypatch, double_precision):
    """The reference has no pairs beyond the cutoff, knows nothing of reverse pairs, and is computed as on an accelerator."""
    alone = graph_within(CUTOFF).replace(reverse=None)
    packed = everything(TERMS[name], wide_graph(), monkeypatch, native=True, derivatives=name == "mace")
    plain = everything(TERMS[name], alone, monkeypatch, native=False, derivatives=name == "mace")
    for key, value in plain.items():
        assert np.abs(value).max() > 1e-6, key
        np.testing.assert_allclose(packed[key], value, rtol=0, atol=1e-11 * np.abs(value).max(), err_msg=key)


def test_every_pair_within_the_cutoff_is_there_once():
    graph = wide_graph()
    within = jnp.linalg.norm(edge_vectors(graph), axis=-1) < CUTOFF
    found = jax.jit(packed.find)(graph, within)
    used = np.asarray(found.slots[: found.count])
    assert np.array_equal(used, np.flatnonzero(np.asarray(within & graph.slot_mask)))
    assert np.all(found.slots[found.count :] == -1) and found.count < len(found.slots)
    starts = np.asarray(found.row_starts)
    assert np.array_equal(np.diff(starts[:-1]), np.asarray(within).sum(1)[:-1]) and starts[-1] == len(found.slots)
    width = graph.num_slots
    assert np.array_equal(found.centers[: found.count], used // width)
    assert np.array_equal(found.neighbors[: found.count], np.asarray(graph.neighbors).reshape(-1)[used])
    reverse = np.asarray(graph.reverse).reshape(-1)[used]
    assert np.array_equal(np.asarray(found.reverse_pair).reshape(-1)[used], np.asarray(found.pair_of_slot).reshape(-1)[reverse])
    undirected = found.undirected
    assert 2 * undirected.count == found.count
    assert sorted(np.asarray(undirected.directed[: undirected.count]).ravel()) == list(range(int(found.count)))


def test_a_model_sees_nothing_beyond_its_cutoff():
    """A wider list changes no bit of an atom's energy: the pairs and their order are the same."""
    rng = np.random.default_rng(2)
    structure = Structure.from_ase(
        ase.Atoms("C8", positions=rng.uniform(0, 6, (8, 3)), cell=[6, 6, 6], pbc=True), source="test"
    )
    term = TERMS["mace"].clone(elements=(6,))
    narrow, wide = (jax.tree.map(jnp.asarray, pad([structure], r)) for r in (CUTOFF, 1.5 * CUTOFF))
    potential = fresh(term, narrow, jax.random.key(0), Metadata(atomic_energies=((6, 0.0),)))
    run = jax.jit(lambda graph: atomic(potential, graph).energy)
    assert wide.num_slots > narrow.num_slots
    np.testing.assert_allclose(run(wide), run(narrow), rtol=2e-6)


def test_pairs_without_room_are_no_numbers(double_precision):
    graph = wide_graph()
    term = TERMS["nequip"].clone(elements=(6, 8))
    metadata = Metadata(atomic_energies=((6, 0.0), (8, 0.0)))
    potential = fresh(term, graph, jax.random.key(0), metadata, avg_num_neighbors=10.0).astype("float64")
    count = int(jnp.sum(graph.slot_mask & (jnp.linalg.norm(edge_vectors(graph), axis=-1) < CUTOFF)))
    energies = [
        evaluate(potential, graph.replace(pair_capacity=room), ("energy",)).interaction for room in (None, count, count - 1)
    ]
    assert np.all(np.isnan(evaluate(potential, graph.replace(pair_capacity=count - 1), ("forces",)).forces[graph.node_mask]))
    np.testing.assert_allclose(energies[1], energies[0], rtol=1e-12)
    assert np.all(np.isfinite(energies[0])) and np.all(np.isnan(energies[2]))
