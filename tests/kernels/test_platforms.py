"""Providers of the kernels are chosen where XLA lowers for a platform, not by the backend of the process."""

from __future__ import annotations

import ase
import jax
import jax.numpy as jnp
import numpy as np

from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn import blocked_map
from equipot.nn.radial import Radial
from equipot.potential import evaluate
from equipot.structure import Structure

KERNELS = ("equipot_convolution", "equipot_polynomial", "equipot_rows")


def test_one_process_lowers_for_cpu_with_machine_code_and_for_cuda_without(monkeypatch):
    monkeypatch.setattr(blocked_map, "BLOCK", 16)
    monkeypatch.setattr(blocked_map, "SINGLE_BLOCK_ROWS", 16)
    positions = np.random.default_rng(0).uniform(0, 4, (6, 3))
    crystal = Structure.from_ase(ase.Atoms("C4O2", positions=positions, cell=[4, 4.2, 4.5], pbc=True), source="test")
    graph = jax.tree.map(jnp.asarray, pad([crystal, crystal], 3.0))
    term = MACE(cutoff=3.0, channels=4, l_max=1, hidden_l=1, correlation=2, elements=(6, 8), radial=Radial(mlp=(5,)))
    potential = fresh(term, graph, jax.random.key(0), Metadata(atomic_energies=((6, 0.0), (8, 0.0))))
    traced = jax.jit(lambda graph: evaluate(potential, graph, ("energy", "forces", "stress"))).trace(graph)
    cpu, cuda = (traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda"))
    assert all(name in cpu for name in KERNELS) and "equipot_" not in cuda
    # Accelerators would round the products of float32 to 19 bits.
    products = [line for line in cuda.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 50 and all("precision = [HIGHEST, HIGHEST]" in line for line in products)
    # The first layer of the radial networks: in blocks on a CPU, else of all pairs at once.
    layer = lambda rows: f"(tensor<{rows}x8xf32>, tensor<8x5xf32>)"
    whole, block = layer(graph.num_atoms * graph.num_slots // 2), layer(16)
    assert (block in cpu, whole in cpu) == (True, False)
    assert (block in cuda, whole in cuda) == (False, True)
