"""Sums over the atoms of a graph: exact, free of other graphs, and in a fixed order."""

from __future__ import annotations

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.data.batch import Shape, pad
from equipot.graph import Graph, _sum_masked, gather, scatter, sum_graphs, sum_segments
from equipot.structure import Structure

SIZES = (3, 1, 4)


def graph_of(sizes: tuple[int, ...]) -> Graph:
    """Molecules, with two rows of padding."""
    rng = np.random.default_rng(0)
    structures = [Structure.from_ase(ase.Atoms("H" * n, positions=rng.uniform(0, 3, (n, 3))), source="test") for n in sizes]
    graph = pad(structures, 5.0, Shape(sum(sizes) + 2, 7, len(sizes)))
    return jax.tree.map(jnp.asarray, graph)


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES], ids=str)
@pytest.mark.parametrize("shape", [(), (3, 3)], ids=str)
def test_sums_over_the_atoms_of_each_graph(sizes, shape):
    graph = graph_of(sizes)
    values = np.random.default_rng(1).normal(size=(graph.num_atoms, *shape)).astype(np.float32)
    values[sum(sizes) :] = np.nan
    ends = np.cumsum(sizes)
    expected = [values[end - n : end].sum(axis=0) for n, end in zip(sizes, ends, strict=True)]
    np.testing.assert_allclose(jax.jit(sum_graphs)(values, graph), expected, rtol=1e-5)
    assert jax.vmap(lambda v: sum_graphs(v, graph))(jnp.stack([values, values])).shape == (2, len(sizes), *shape)
    slope = jax.grad(lambda v: jnp.sum(sum_graphs(v, graph) * 2))(jnp.asarray(values))
    np.testing.assert_array_equal(slope, 2 * np.broadcast_to(graph.node_mask.reshape(-1, *[1] * len(shape)), values.shape))


@pytest.mark.parametrize(
    "implementation", [sum_segments, lambda values, segment, count: _sum_masked(count, values, segment)], ids=["cpu", "masked"]
)
def test_what_is_not_a_number_stays_in_its_graph(implementation):
    graph = graph_of(SIZES)
    values = jnp.where(graph.node_graph == 1, jnp.nan, 1.0) * graph.node_mask
    np.testing.assert_array_equal(implementation(values, graph.node_graph, len(SIZES)), [3, np.nan, 4])


def test_accelerators_sum_without_a_scatter():
    """Their scatter adds in an order that differs from run to run."""
    for sizes in (SIZES[:1], SIZES):
        graph = graph_of(sizes)
        traced = jax.jit(lambda values, graph=graph: sum_graphs(values, graph)).trace(jnp.ones((graph.num_atoms, 3, 3)))
        assert "scatter" not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_graph_counts_its_atoms_where_positions_are_hidden_from_a_term():
    graph = graph_of(SIZES)
    assert graph.replace(positions=None, cell=None).num_atoms == sum(SIZES) + 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_gather_and_scatter_take_arrays_of_the_host(symmetric):
    rng = np.random.default_rng(0)
    structure = Structure.from_ase(ase.Atoms("H4", positions=rng.uniform(0, 3, (4, 3))), source="test")
    graph = pad([structure], 5.0)
    graph = graph if symmetric else graph.replace(reverse=None)
    x = rng.normal(size=(4, 2)).astype(np.float32)
    found = gather(x, graph)
    np.testing.assert_array_equal(found, np.where(graph.slot_mask[..., None], x[graph.neighbors], 0))
    others = [[j for j in range(4) if j != i] for i in range(4)]
    np.testing.assert_allclose(scatter(np.asarray(found), graph), [3 * x[i] for i in range(4)], rtol=1e-6)
    assert all(sorted(row) == other for row, other in zip(graph.neighbors.tolist(), others, strict=True))
