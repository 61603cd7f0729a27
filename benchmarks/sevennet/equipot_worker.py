"""SevenNet-0 by equipot, in single precision."""

from __future__ import annotations

from typing import Any

import jax

import equipot
from benchmarks.peers.systems import silicon
from benchmarks.peers.worker import Ready, serve
from equipot.data.batch import pad
from equipot.isolated_atoms import isolated_atom_energy
from equipot.potential import evaluate
from equipot.structure import Structure


def prepare(job: dict[str, Any]) -> Ready:
    potential = equipot.load("sevennet-0", "float32")
    structure = Structure.from_ase(silicon(job["atoms"])[0])
    graph = jax.device_put(pad([structure], potential.cutoff))
    run = jax.jit(evaluate, static_argnames="want")
    e0 = float(isolated_atom_energy(structure.numbers, dict(potential.metadata.atomic_energies)).sum())

    def compute() -> Any:
        return jax.block_until_ready(run(potential, graph, want=("energy", "forces", "stress")))

    return Ready(compute, int(graph.slot_mask.sum()), lambda: {"energy": float(compute().interaction[0]) + e0})


if __name__ == "__main__":
    serve(prepare, ("equipot", "jax"))
