"""mlip in single precision on a graph without padding; runs where that is installed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mlip.data import ChemicalSystem
from mlip.data.dataset_info import DatasetInfo
from mlip.graph import Graph
from mlip.graph.batching_helpers import batch_graphs
from mlip.models import ForceField, Mace, Nequip
from mlip.typing.properties import Properties

from benchmarks.peers.adam import training
from benchmarks.peers.items import CUTOFF, ITEMS
from benchmarks.peers.systems import load
from benchmarks.peers.worker import Ready, serve


def graph_of(frames: list[Any]) -> Graph:
    graphs = []
    for atoms in frames:
        periodic = bool(atoms.pbc.any())
        system = ChemicalSystem(
            atomic_numbers=np.asarray(atoms.numbers), positions=atoms.positions.astype(np.float32), energy=0.0,
            forces=np.zeros((len(atoms), 3), np.float32), pbc=tuple(map(bool, atoms.pbc)) if periodic else None,
            cell=np.asarray(atoms.cell[:], np.float32) if periodic else None,
        )  # fmt: skip
        graphs.append(Graph.from_chemical_system(system, graph_cutoff_angstrom=CUTOFF))
    graph = graphs[0] if len(graphs) == 1 else batch_graphs(graphs)
    single = lambda x: jnp.asarray(x, jnp.float32 if np.asarray(x).dtype.kind == "f" else None)
    return jax.tree.map(single, graph)


def prepare(job: dict[str, Any]) -> Ready:
    item, frames = ITEMS[job["item"]], load(job["system"])
    graph, network = graph_of(frames), item.network
    pairs, atoms = int(graph.senders.shape[0]), sum(map(len, frames))
    info = DatasetInfo(
        atomic_energies_map={int(z): 0.0 for frame in frames for z in frame.numbers}, graph_cutoff_angstrom=CUTOFF,
        avg_num_neighbors=pairs / atoms, avg_r_min_angstrom=1.0,
    )  # fmt: skip
    c = network["channels"]
    if network["kind"] == "MACE":
        model = Mace(Mace.Config(
            num_layers=2, num_channels=c, l_max=3, node_symmetry=1, correlation=network["correlation"], num_rbf=8,
            radial_mlp_hidden=[64, 64, 64],
        ), info)  # fmt: skip
    else:
        model = Nequip(Nequip.Config(
            num_layers=4, target_irreps=f"{c}x0e+{c}x1o+{c}x2e", l_max=2, num_rbf=8, radial_mlp_hidden=[64, 64],
        ), info)  # fmt: skip
    wanted = Properties(energy=True, forces=True, stress=not item.training)
    field = ForceField.from_mlip_network(model, required_properties=wanted)
    facts = {"parameters": sum(x.size for x in jax.tree.leaves(field.params))}
    if item.training:

        def energy_forces(params: Any, graph: Graph) -> Any:
            out = field.predictor.apply(params, graph)
            return out.globals.energy[: len(frames)], out.nodes.forces

        return Ready(training(energy_forces, field.params, graph, len(frames[0])), pairs, facts=facts)

    @jax.jit
    def evaluate(params: Any, graph: Graph) -> Any:
        out = field.predictor.apply(params, graph)
        return out.globals.energy, out.nodes.forces, out.globals.stress

    return Ready(lambda: jax.block_until_ready(evaluate(field.params, graph)), pairs, facts=facts)


if __name__ == "__main__":
    serve(prepare, ("mlip", "jax", "e3nn-jax"))
