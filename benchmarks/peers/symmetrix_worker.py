"""symmetrix in single precision, with code compiled for this processor beforehand; runs where that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import all_changes
from symmetrix import Symmetrix

from benchmarks.peers.systems import load, neighbors
from benchmarks.peers.worker import Ready, serve

SKIN = 0.01
"""Å: enough to keep the neighbour list, too little to lengthen it."""


def prepare(job: dict[str, Any]) -> Ready:
    atoms = load(job["system"])[0]
    calculator = Symmetrix(job["extracted"], neighbor_skin=SKIN)
    rng, still = np.random.default_rng(1), atoms.positions.copy()
    wanted = ["energy", "forces", "stress"]

    def compute() -> None:
        # Something has moved, or it would not compute its edges anew.
        atoms.positions = still + rng.uniform(-1e-5, 1e-5, still.shape)
        calculator.calculate(atoms, wanted, all_changes)

    def answer() -> dict[str, Any]:
        atoms.positions = still
        calculator.calculate(atoms, wanted, all_changes)
        return {"energy": [float(calculator.results["energy"])], "forces": calculator.results["forces"].tolist()}

    return Ready(compute, len(neighbors(atoms)[0]), answer, {"jit": calculator.jit_status})


if __name__ == "__main__":
    serve(prepare, ("symmetrix-xl", "ase"))
