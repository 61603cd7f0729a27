"""SevenNet-0 by sevenn on one thread, in single precision; runs where that is installed."""

from __future__ import annotations

from typing import Any

import sevenn._keys as KEY
import torch
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.train.dataload import unlabeled_atoms_to_graph

from benchmarks.peers.systems import silicon
from benchmarks.peers.worker import Ready, serve


def prepare(job: dict[str, Any]) -> Ready:
    torch.set_num_threads(1)
    calculator = SevenNetCalculator(job["checkpoint"], device="cpu")
    graph = unlabeled_atoms_to_graph(silicon(job["atoms"])[0], calculator.cutoff)

    def compute() -> Any:
        return calculator.model(AtomGraphData.from_numpy_dict(dict(graph)))

    answer = lambda: {"energy": compute()[KEY.PRED_TOTAL_ENERGY].item()}
    return Ready(compute, graph[KEY.EDGE_IDX].shape[1], answer)


if __name__ == "__main__":
    serve(prepare, ("sevenn", "torch", "e3nn"))
