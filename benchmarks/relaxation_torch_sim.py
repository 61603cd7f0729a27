"""Relax clusters by FIRE of torch-sim on one core, all in one batch; run by an interpreter that has torch-sim-atomistic.

Usage: PYTHON relaxation_torch_sim.py JOB.json; prints one line of JSON.
"""

import json
import os
import sys
import time
from importlib.metadata import version

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch  # noqa: E402
import torch_sim as ts  # noqa: E402
from ase import Atoms  # noqa: E402
from torch_sim.models.lennard_jones import LennardJonesModel  # noqa: E402

LIMIT = 0.01
"""Largest force at the end, epsilon/sigma."""


class Counting(LennardJonesModel):
    """The model, with the number of its calls."""

    calls = 0

    def forward(self, *arguments, **options):
        Counting.calls += 1
        return super().forward(*arguments, **options)


def main():
    """Relax twice, and report the second time."""
    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        job = json.load(file)
    # An open box that no cluster reaches the end of.
    systems = [Atoms(f"Ar{len(p)}", p, cell=[300.0] * 3, pbc=False) for p in job["clusters"]]
    found = {}
    for listed in (False, True):
        model = Counting(
            sigma=job["sigma"], epsilon=job["epsilon"], cutoff=job["cutoff"], dtype=torch.float64,
            device=torch.device("cpu"), compute_forces=True, compute_stress=False, use_neighbor_list=listed,
        )  # fmt: skip
        for _ in range(2):
            Counting.calls, wall, cpu = 0, time.perf_counter(), time.process_time()
            state = ts.optimize(
                system=systems, model=model, optimizer=ts.optimizers.fire, max_steps=20_000,
                convergence_fn=ts.runners.generate_force_convergence_fn(
                    LIMIT * job["epsilon"] / job["sigma"], include_cell_forces=False
                ),
                steps_between_swaps=5, autobatcher=False,
            )  # fmt: skip
            times = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        if not found or times["cpu_s"] < found["cpu_s"]:
            found = result(state, systems, job) | times | {"batch_calls": Counting.calls, "neighbor_list": listed}
    print(json.dumps(found))


def result(state, systems, job):
    """Collect energies and forces at the end."""
    forces = torch.linalg.norm(state.forces, dim=1)
    largest = [float(forces[state.system_idx == k].max()) for k in range(len(systems))]
    done = [f <= LIMIT * job["epsilon"] / job["sigma"] for f in largest]
    return {
        "converged": sum(done), "not_converged": [str(k) for k, ok in enumerate(done) if not ok],
        "energies_eV": [float(e) for e in state.energy], "names": [str(k) for k in range(len(systems))],
        "atoms": [len(a) for a in systems],
        "versions": {name: version(name) for name in ("torch-sim-atomistic", "torch")},
    }  # fmt: skip


if __name__ == "__main__":
    main()
