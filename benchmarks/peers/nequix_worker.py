"""nequix in single precision; runs where that is installed."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from nequix.model import Nequix

from benchmarks.peers.adam import training
from benchmarks.peers.items import CUTOFF, ITEMS
from benchmarks.peers.systems import load, neighbors
from benchmarks.peers.worker import Ready, serve


def graph_of(frames: list[Any], elements: list[int], periodic: bool) -> jraph.GraphsTuple:
    """One graph of all frames, with one padding graph, which nequix expects."""
    graphs = []
    for atoms in frames:
        receivers, senders, shifts = neighbors(atoms)
        species = np.searchsorted(elements, atoms.numbers).astype(np.int32)
        graphs.append(
            jraph.GraphsTuple(
                nodes={"positions": atoms.positions.astype(np.float32), "species": species},
                edges={"shifts": shifts.astype(np.float32)},
                senders=senders.astype(np.int32),
                receivers=receivers.astype(np.int32),
                n_node=np.array([len(atoms)]),
                n_edge=np.array([len(senders)]),
                globals={"cell": np.asarray(atoms.cell[:], np.float32)[None]} if periodic else {},
            )
        )
    graph = jraph.batch_np(graphs)
    sizes = len(graph.nodes["species"]) + 1, len(graph.senders) + 1, len(frames) + 1
    padded = jraph.pad_with_graphs(graph, *sizes)
    return jax.tree.map(jnp.asarray, padded if periodic else padded._replace(globals={"cell": None}))


def prepare(job: dict[str, Any]) -> Ready:
    item, frames = ITEMS[job["item"]], load(job["system"])
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    graph = graph_of(frames, elements, not item.training)
    atoms, pairs, c = sum(map(len, frames)), len(graph.senders) - 1, item.network["channels"]
    model = Nequix(
        jax.random.key(0), n_species=len(elements), lmax=2, cutoff=CUTOFF, hidden_irreps=f"{c}x0e + {c}x1o + {c}x2e",
        n_layers=4, radial_basis_size=8, radial_mlp_size=64, radial_mlp_layers=2, radial_polynomial_p=6.0,
        avg_n_neighbors=pairs / atoms, layer_norm=False,
    )  # fmt: skip
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    facts = {"parameters": sum(x.size for x in jax.tree.leaves(params))}
    if item.training:

        def energy_forces(params: Any, graph: jraph.GraphsTuple) -> Any:
            energy, forces, _ = eqx.combine(params, rest)(graph)
            return energy[:-1], forces

        return Ready(training(energy_forces, params, graph, len(frames[0])), pairs, facts=facts)
    evaluate = jax.jit(lambda params, graph: eqx.combine(params, rest)(graph))
    return Ready(lambda: jax.block_until_ready(evaluate(params, graph)), pairs, facts=facts)


if __name__ == "__main__":
    serve(prepare, ("nequix", "jax", "e3nn-jax"))
