"""mace-torch in single precision; runs where that is installed."""

from __future__ import annotations

import os
from typing import Any

import torch

from benchmarks.peers.items import ITEMS
from benchmarks.peers.mace_models import batch_of
from benchmarks.peers.systems import load
from benchmarks.peers.worker import Ready, serve


def prepare(job: dict[str, Any]) -> Ready:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_default_dtype(torch.float32)
    item, frames = ITEMS[job["item"]], load(job["system"])
    model = torch.load(job["model"], weights_only=False).to(torch.float32)
    batch = batch_of(frames, model.atomic_numbers.tolist())
    pairs, parameters = batch["edge_index"].shape[1], sum(p.numel() for p in model.parameters())

    def evaluate() -> dict[str, torch.Tensor]:
        return model(batch, compute_force=True, compute_stress=True)

    def answer() -> dict[str, Any]:
        out = evaluate()
        return {"energy": out["energy"].tolist(), "forces": out["forces"].tolist()}

    if not item.training:
        # As the calculator of mace-torch does.
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return Ready(evaluate, pairs, answer, {"parameters": parameters})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    sizes = torch.bincount(batch["batch"])

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        out = model(batch, training=True, compute_force=True)
        loss = (out["energy"] / sizes).pow(2).mean() + 10 * out["forces"].pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Ready(step, pairs, facts={"parameters": parameters})


if __name__ == "__main__":
    serve(prepare, ("mace-torch", "torch", "e3nn"))
