"""The kernel of the convolution against the formula written out, differentiated by JAX, and against the plain formulation."""

from __future__ import annotations

import dataclasses
from functools import partial

import ase
import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equipot.data.batch import pad
from equipot.kernels import convolution, convolution_code, ffi_check
from equipot.kernels.convolution_forms import Layout, coupling
from equipot.neighbors.packed import Pairs, find
from equipot.nn.tensor_product import arrange, find_paths
from equipot.structure import Structure

NATURAL = {e3nn.Irrep(0, 1): 5, e3nn.Irrep(1, -1): 3}
BOTH = {e3nn.Irrep(0, 1): 16, e3nn.Irrep(0, -1): 16, e3nn.Irrep(1, -1): 16, e3nn.Irrep(1, 1): 16, e3nn.Irrep(2, 1): 16}
WIDE = {e3nn.Irrep(0, 1): 37, e3nn.Irrep(2, 1): 20}
CASES = [
    (NATURAL, 2, 2, 6),
    (BOTH, 2, 1, 7),
    (WIDE, 2, 1, 13),
    ({e3nn.Irrep(1, -1): 1}, 1, 0, 1),
    ({e3nn.Irrep(0, 1): 9}, 2, 2, 9),
]
"""Input irreps and widths, l_max of the harmonics and of the messages, hidden features."""
BANDED = 2
"""The case with splines: every pair has its own rows of the last layer."""
DIRECT = 4
"""The case whose hidden features are the radial weights of all paths."""
ROWS = 23


def graph_of(symbols: str = "H13O7"):
    rng = np.random.default_rng(0)
    atoms = ase.Atoms(symbols, positions=rng.uniform(0, 5, (20, 3)), cell=[5, 5, 9], pbc=[True, True, False])
    structure = Structure.from_ase(atoms, source="test")
    graph = jax.device_put(pad([structure], 2.8))
    return graph.replace(positions=jnp.asarray(graph.positions, jnp.float64))


def problem(case: int, dtype: str = "float64"):
    """Layout, pairs and operands."""
    widths, l_max, l_out, hidden = CASES[case]
    wanted = [e3nn.Irrep(l, p) for l in range(l_out + 1) for p in (1, -1)]
    paths = find_paths(sorted(widths), l_max, wanted)
    layout, _ = arrange(paths, {ir: widths[ir] for ir in sorted(widths)}, l_max, hidden)
    graph = graph_of()
    rng = np.random.default_rng(case)
    n, k = graph.neighbors.shape
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    # Some pairs are beyond the cutoff, and so are their reverses.
    flat = np.ones(n * k, bool)
    flat[rng.choice(n * k, 7, replace=False)] = False
    pairs = find(graph, jnp.asarray(flat.reshape(n, k)))
    rows = n * k
    operands = make(rows, hidden), make(hidden, layout.numel), make(rows, layout.harmonics), make(n, layout.features)
    start = None
    if case == BANDED:
        start = jnp.asarray(rng.integers(0, ROWS - hidden + 1, rows), jnp.int32)
        operands = operands[0], make(ROWS, layout.numel), *operands[2:]
        layout = dataclasses.replace(layout, rows=ROWS)
    if case == DIRECT:
        shared = tuple(dataclasses.replace(r, column=0) for r in layout.paths)
        operands = operands[0], jnp.zeros((0, hidden), dtype), *operands[2:]
        layout = dataclasses.replace(layout, paths=shared, direct=True)
    return (layout, pairs, start), operands, make(n, layout.messages)


def formula(layout: Layout, pairs: Pairs, start, hidden, last, harmonics, nodes):
    """Written out, path by path, differentiated by JAX."""
    active = (pairs.slots >= 0)[:, None]
    if start is not None:
        dense = jnp.zeros((len(hidden), ROWS), hidden.dtype)
        for j in range(hidden.shape[-1]):
            dense += hidden[:, j : j + 1] * jax.nn.one_hot(start + j, ROWS, dtype=hidden.dtype)
        hidden = dense
    senders = jnp.where(active, nodes[pairs.neighbors], 0)
    out = jnp.zeros((nodes.shape[0], layout.messages), nodes.dtype)
    for r in layout.paths:
        columns = slice(r.column, r.column + r.channels)
        w = hidden[:, columns] if layout.direct else hidden @ last[:, columns]
        index = r.sender + np.arange(2 * r.l_in + 1)[:, None] * r.sender_stride + np.arange(r.channels)
        y = harmonics[:, r.l_edge**2 : (r.l_edge + 1) ** 2]
        value = jnp.einsum("abm,kc,kac,kb->kmc", jnp.asarray(coupling(*r.degrees), w.dtype), w, senders[:, index], y)
        index = r.message + np.arange(2 * r.l_out + 1)[:, None] * r.message_stride + np.arange(r.channels)
        out = out.at[jnp.where(active, pairs.centers[:, None], len(out))[:, :, None], index].add(value, mode="drop")
    return out


def kernel(layout, pairs, start, *operands):
    return convolution.convolve(*operands, pairs.indices, layout, start)


def close(x, y, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(float(jnp.abs(b).max(initial=0)), 1e-300))


DERIVATIVES = {
    "value": lambda f, x, g: f(*x),
    "gradient": lambda f, x, g: jax.vjp(f, *x)[1](g),
    "tangent": lambda f, x, g: jax.jvp(f, x, tuple(2 * v + 1 for v in x))[1],
    "hessian": lambda f, x, g: jax.jvp(lambda *y: jax.vjp(f, *y)[1](g), x, tuple(2 * v + 1 for v in x))[1],
    "training": lambda f, x, g: jax.grad(lambda x, g: sum(jnp.sum(jnp.sin(v)) for v in jax.vjp(f, *x)[1](g)), argnums=(0, 1))(
        x, g
    ),
    "third": lambda f, x, g: jax.jvp(
        lambda *y: jax.grad(lambda z: sum(jnp.sum(jnp.sin(v)) for v in jax.vjp(f, *z)[1](g)))(y), x, x
    )[1],
}


@pytest.fixture(params=["native", "plain"])
def lowering(request, monkeypatch):
    """Either the kernel or, as on other devices, the plain formulation in several blocks."""
    if request.param == "native":
        assert ffi_check.available()
    else:
        monkeypatch.setattr(convolution_code, "possible", lambda dtype: False)
        monkeypatch.setattr(convolution, "CPU_BLOCK_BYTES", 2**15)
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


FIRST = [name for name in DERIVATIVES if name != "third"]
SECOND = ["hessian", "training"]
"""Both contain values and gradients."""


@pytest.mark.parametrize(
    ("case", "lowering", "names"),
    [(0, "native", FIRST), (1, "native", ["training"]), (BANDED, "native", SECOND), (3, "native", DERIVATIVES),
     (DIRECT, "native", SECOND), (0, "plain", ["gradient", "training"]), (BANDED, "plain", ["training"]),
     (DIRECT, "plain", ["training"])],
    indirect=["lowering"],
)  # fmt: skip
def test_derivatives_of_every_order_are_those_of_the_formula(case, lowering, names):
    static, operands, message = problem(case)
    for name in names:
        ours, theirs = (jax.jit(partial(DERIVATIVES[name], partial(f, *static)))(operands, message) for f in (kernel, formula))
        close(ours, theirs, 1e-11 if name == "third" else 1e-12)


def test_lists_that_are_not_symmetric(lowering):
    (layout, pairs, start), operands, message = problem(BANDED)
    static = layout, pairs._replace(reverse_pair=None), start
    ours, theirs = (jax.jit(lambda x, f=f: jax.vjp(partial(f, *static), *x)[1](message))(operands) for f in (kernel, formula))
    close(ours, theirs)


@pytest.mark.parametrize(
    ("which", "lowering"),
    [*[(which, "native") for which in ((3,), (0, 2), (1,), ())], ((0, 1, 2, 3), "plain"), ((), "plain")],
    indirect=["lowering"],
)
def test_batches_are_many_systems(which, lowering):
    static, operands, message = problem(0)
    many = tuple(jnp.stack([x, 2 * x, x + 1]) if k in which else x for k, x in enumerate(operands))
    axes = tuple(0 if k in which else None for k in range(4)), 0 if not which else None
    messages = jnp.stack([message] * 3) * jnp.arange(3)[:, None, None] if not which else message
    pulled = lambda f: jax.jit(jax.vmap(lambda x, g: jax.vjp(partial(f, *static), *x)[1](g), in_axes=axes))
    close(pulled(kernel)(many, messages), pulled(formula)(many, messages))


def test_single_precision_and_eager_calls(lowering):
    static, operands, _ = problem(1, "float32")
    close(kernel(*static, *operands), formula(*static, *operands), 3e-6)


def test_what_is_mixed_in_precision_is_computed_in_the_higher_one(lowering):
    static, operands, _ = problem(0)
    mixed = [x.astype("float32") if k in (0, 2) else x for k, x in enumerate(operands)]
    ours, theirs = (jax.jit(partial(f, *static))(*mixed) for f in (kernel, formula))
    assert ours.dtype == jnp.float64
    close(ours, theirs, 1e-6)


def test_results_do_not_depend_on_what_was_in_memory():
    """Empty rows and atoms without neighbours are written, not left as they were found."""
    (layout, _, start), operands, message = problem(0)
    graph = graph_of()
    run = partial(kernel, layout, find(graph, jnp.zeros_like(graph.slot_mask)), start)
    junk = [jax.jit(lambda x: jnp.full_like(x, jnp.nan))(x) for x in operands]
    del junk
    for value in jax.tree.leaves((jax.jit(lambda x: jax.vjp(run, *x)[1](message))(operands), run(*operands))):
        assert not np.any(np.asarray(value))


def test_an_operand_that_no_result_depends_on_has_no_derivative(lowering):
    static, (hidden, last, harmonics, nodes), _ = problem(DIRECT)
    assert last.size == 0
    value, tangent = jax.jvp(lambda x: kernel(*static, hidden, x, harmonics, nodes), (last,), (last,))
    close(value, formula(*static, hidden, last, harmonics, nodes))
    np.testing.assert_array_equal(tangent, np.zeros_like(value))
