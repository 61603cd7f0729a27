"""Convolutions of features of a few species, whose nodes are one-hot, inside whole models."""

import ase
import jax
import numpy as np
import pytest

from equipot.data.batch import Shape, pad
from equipot.kernels import ffi_check
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.potential import evaluate
from equipot.structure import Structure

OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""Compilation as for users, while tests otherwise compile without optimisation."""


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("float64", 2)])
def test_energies_depend_neither_on_padding_nor_on_kernels_nor_on_compilation(dtype, width, monkeypatch):
    """XLA compiles some one-hot arrays of two species wrongly if they fill whole vectors."""
    atoms = ase.Atoms("OH2" * 4, positions=np.random.default_rng(0).uniform(0, 5, (12, 3)))
    structures = [Structure.from_ase(atoms)]
    term = NequIP(cutoff=4.0, channels=3, l_max=1, layers=1, elements=(1, 8), radial=Radial(mlp=(width,)))
    metadata = Metadata(((1, -1.0), (8, -8.0)), "")
    potential = fresh(term, pad(structures, 4.0), jax.random.key(0), metadata, avg_num_neighbors=3.0).astype(dtype)
    graphs = [pad(structures, 4.0, shape, dtype=np.dtype(dtype)) for shape in (None, Shape(16, 20, 2))]
    energy = lambda p, graph: evaluate(p, graph, ("energy",)).interaction[0]
    compiled = jax.jit(energy, compiler_options=OPTIMISED)
    reference = energy(potential, graphs[0])
    jax.clear_caches()
    found = [compiled(potential, graph) for graph in graphs]
    monkeypatch.setattr(ffi_check, "available", lambda: False)
    jax.clear_caches()
    found += [compiled(potential, graph) for graph in graphs]
    np.testing.assert_allclose(found, [reference] * 4, rtol=1e-5)
