"""nequip in single precision, without compilation; runs where that is installed."""

from __future__ import annotations

import os
from typing import Any

import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict
from nequip.data.ase import from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

from benchmarks.peers.items import CUTOFF, ITEMS
from benchmarks.peers.systems import load
from benchmarks.peers.worker import Ready, serve


def prepare(job: dict[str, Any]) -> Ready:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # Its default precision is that of inputs and outputs; the model has its own.
    torch.set_default_dtype(torch.float64)
    set_global_state()
    item, frames = ITEMS[job["item"]], load(job["system"])
    names = [chemical_symbols[z] for z in sorted({int(z) for atoms in frames for z in atoms.numbers})]
    graphs = []
    for atoms in frames:
        graph = ChemicalSpeciesToAtomTypeMapper(model_type_names=names)(from_ase(atoms))
        graphs.append(NeighborListTransform(r_max=CUTOFF)(graph))
    batch = AtomicDataDict.batched_from_list(graphs)
    pairs = batch["edge_index"].shape[1]
    model = NequIPGNNModel(
        seed=0, model_dtype="float32", compile_mode="eager", r_max=CUTOFF, type_names=names, num_layers=4, l_max=2,
        parity=False, num_features=item.network["channels"], radial_mlp_depth=2, radial_mlp_width=64, num_bessels=8,
        polynomial_cutoff_p=6, avg_num_neighbors=pairs / sum(map(len, frames)),
    )  # fmt: skip
    facts = {"parameters": sum(p.numel() for p in model.parameters())}
    if not item.training:
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return Ready(lambda: model(dict(batch)), pairs, facts=facts)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        out = model(dict(batch))
        loss = (out["total_energy"] / len(frames[0])).pow(2).mean() + 10 * out["forces"].pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Ready(step, pairs, facts=facts)


if __name__ == "__main__":
    serve(prepare, ("nequip", "torch", "e3nn"))
