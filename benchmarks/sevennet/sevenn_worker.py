"""SevenNet-0 by sevenn on one thread, in single precision; runs where that is installed, and needs nothing of equipot."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

here = str(Path(__file__).parent)
sys.path = [*(path for path in sys.path if path != here), here]

import sevenn._keys as KEY  # noqa: E402
import torch  # noqa: E402
from crystal import silicon  # noqa: E402
from sevenn.atom_graph_data import AtomGraphData  # noqa: E402
from sevenn.calculator import SevenNetCalculator  # noqa: E402
from sevenn.train.dataload import unlabeled_atoms_to_graph  # noqa: E402
from worker import serve  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    calculator = SevenNetCalculator(sys.argv[1], device="cpu")

    def prepare(atoms: int) -> tuple[Callable[[], Any], Callable[[Any], float], int]:
        graph = unlabeled_atoms_to_graph(silicon(atoms), calculator.cutoff)

        def compute() -> Any:
            return calculator.model(AtomGraphData.from_numpy_dict(dict(graph)))

        return compute, lambda out: out[KEY.PRED_TOTAL_ENERGY].item(), graph[KEY.EDGE_IDX].shape[1]

    serve(prepare, {name: importlib.metadata.version(name) for name in ("sevenn", "torch", "e3nn")})


if __name__ == "__main__":
    main()
