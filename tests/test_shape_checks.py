"""The checks of shapes that all other tests run under are on, and leave alone what JAX makes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from equipot.data.batch import pad
from equipot.graph import Graph, complete_cell
from equipot.structure import Structure


def graph() -> Graph:
    return pad([Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 1]]))], 2.0)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_wrong_shape_is_an_error(compiled):
    call = jax.jit(complete_cell) if compiled else complete_cell
    assert call(jnp.eye(3)[None]).shape == (1, 3, 3)
    with pytest.raises(TypeCheckError, match="cell"):
        call(jnp.eye(3))


def test_fields_must_fit_each_other():
    with pytest.raises(TypeCheckError, match="numbers"):
        graph().replace(numbers=np.zeros(3, np.int32))
    with pytest.raises(TypeCheckError, match="positions"):
        graph().replace(positions=np.zeros((2, 3), np.int32))


def test_what_jax_makes_may_hold_anything():
    made = graph()
    assert jax.tree.map(lambda x: "marker", made).numbers == "marker"
    assert jax.tree.map(lambda x: np.stack([x, x]), made).numbers.shape == (2, 2)
    assert jax.eval_shape(lambda x: x, made).numbers.shape == (2,)


def test_ranks_are_not_promoted_implicitly():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros((2, 3)) + jnp.zeros(3)
