"""Point charges on a mesh by torch-pme (P3M), in single precision on one thread; runs where that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchpme import CoulombPotential, P3MCalculator
from vesin import NeighborList

from benchmarks.coulomb.systems import salt
from benchmarks.peers.worker import Ready, serve

KE = 14.399645478
"""eV Å / e^2."""


def prepare(job: dict[str, Any]) -> Ready:
    torch.set_num_threads(1)
    atoms = salt(job["atoms"])
    tensor = lambda x: torch.tensor(np.asarray(x), dtype=torch.float32)
    positions, cell, charges = tensor(atoms.positions), tensor(atoms.cell[:]), tensor(atoms.get_initial_charges())[:, None]
    found = NeighborList(cutoff=job["cutoff"], full_list=False).compute(
        points=atoms.positions, box=atoms.cell[:], periodic=True, quantities="ijS"
    )
    pairs = torch.tensor(np.stack(found[:2], axis=1).astype(np.int64))
    shifts = tensor(found[2]) @ cell
    calculator = P3MCalculator(
        CoulombPotential(smearing=job["smearing"]), mesh_spacing=job["spacing"], interpolation_nodes=job["nodes"]
    ).to(dtype=torch.float32)

    def forces() -> torch.Tensor:
        r = positions.clone().requires_grad_(True)
        distances = torch.linalg.norm(r[pairs[:, 1]] - r[pairs[:, 0]] + shifts, dim=1)
        potential = calculator(charges, cell, r, pairs, distances)
        (gradient,) = torch.autograd.grad(KE * torch.sum(charges * potential), r)
        return -gradient

    # Its potential of an atom is half of that of all others: the sum of charge times potential is the energy.
    return Ready(forces, 2 * len(pairs), lambda: {"forces": forces().tolist()})


if __name__ == "__main__":
    serve(prepare, ("torch-pme", "torch"))
