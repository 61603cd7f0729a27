"""A potential by equipot on one core, in single precision."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import equipot
from benchmarks.peers.crystal import silicon
from benchmarks.peers.worker import serve
from equipot.data.batch import pad
from equipot.potential import evaluate, free_atoms
from equipot.structure import Structure


def main() -> None:
    potential = equipot.load(sys.argv[1], "float32")
    run = jax.jit(evaluate, static_argnames="want")

    def prepare(atoms: int) -> tuple[Callable[[], Any], Callable[[Any], float], int]:
        structure = Structure.from_ase(silicon(atoms))
        graph = jax.device_put(pad([structure], potential.cutoff))
        free = free_atoms(potential.metadata, structure.numbers).sum()

        def compute() -> Any:
            return jax.block_until_ready(run(potential, graph, want=("energy", "forces", "stress")))

        return compute, lambda out: float(out.interaction[0]) + float(free), int(np.sum(graph.slot_mask))

    serve(prepare, {"equipot": equipot.__version__, "jax": importlib.metadata.version("jax")})


if __name__ == "__main__":
    main()
