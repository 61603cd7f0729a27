"""Point charges on a mesh by equipot, in single precision."""

from __future__ import annotations

from typing import Any

import jax

from benchmarks.coulomb.charged import potential
from benchmarks.peers.worker import Ready, serve
from equipot.physics.coulomb import Points
from equipot.physics.mesh import ParticleMesh
from equipot.potential import evaluate


def prepare(job: dict[str, Any]) -> Ready:
    mesh = ParticleMesh(job["order"], job["oversampling"])
    made, graph = potential(job["atoms"], job["cutoff"], Points(job["smearing"], job["tolerance"]), mesh, "float32")
    run = jax.jit(evaluate, static_argnames="want")
    compute = lambda: jax.block_until_ready(run(made, graph, want=("forces",)).forces)
    points = mesh.shape(graph.extent.waves)
    return Ready(compute, int(graph.slot_mask.sum()), lambda: {"forces": compute().tolist()}, {"mesh": points})


if __name__ == "__main__":
    serve(prepare, ("equipot", "jax"))
