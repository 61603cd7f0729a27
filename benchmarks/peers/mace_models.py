"""A random MACE of mace-torch for an item, and what it says in double precision. Runs where mace-torch is installed.

The model is scaled so that the root mean square of its forces on the item's structures is 1 eV/Å.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from e3nn import o3
from mace import modules
from mace.modules import interaction_classes
from mace.tools import torch_geometric, utils

from benchmarks.peers.items import CUTOFF, ITEMS, Item
from benchmarks.peers.systems import load, neighbors


def batch_of(frames: list[Any], elements: list[int]) -> dict[str, torch.Tensor]:
    """All frames as one graph, in the default precision."""
    from mace import data

    table = utils.AtomicNumberTable(elements)
    graphs = [data.AtomicData.from_config(data.config_from_atoms(atoms), z_table=table, cutoff=CUTOFF) for atoms in frames]
    return torch_geometric.batch.Batch.from_data_list(graphs).to_dict()


def build(item: Item, frames: list[Any], scale: float) -> torch.nn.Module:
    """With the parameters that mace-torch draws from seed 0."""
    channels, elements = item.network["channels"], sorted({int(z) for atoms in frames for z in atoms.numbers})
    pairs = sum(len(neighbors(atoms)[0]) for atoms in frames)
    torch.manual_seed(0)
    return modules.ScaleShiftMACE(
        r_max=CUTOFF, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, num_elements=len(elements),
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        hidden_irreps=o3.Irreps(f"{channels}x0e+{channels}x1o"), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)), avg_num_neighbors=pairs / sum(map(len, frames)), atomic_numbers=elements,
        correlation=item.network["correlation"], gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64],
        atomic_inter_scale=scale, atomic_inter_shift=0.0,
    )  # fmt: skip


def main() -> None:
    """``mace_models.py ITEM SYSTEM.xyz MODEL REFERENCE.json``; an existing model is kept, and only evaluated."""
    item, system, model, reference = ITEMS[sys.argv[1]], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    torch.set_default_dtype(torch.float64)
    frames = load(system)
    batch = batch_of(frames, sorted({int(z) for atoms in frames for z in atoms.numbers}))
    if not model.exists():
        forces = build(item, frames, 1.0)(batch)["forces"]
        torch.save(build(item, frames, float(1 / forces.pow(2).mean().sqrt())), model)
    out = torch.load(model, weights_only=False)(batch, compute_stress=not item.training)
    stress = None if item.training else out["stress"].tolist()
    answer = {"energy": out["energy"].tolist(), "forces": out["forces"].tolist(), "stress": stress}
    reference.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
