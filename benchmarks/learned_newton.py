"""Relaxation of molecules by GFN2-xTB with Newton steps of a learned Hessian, beside ASE's BFGS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import equipot

FMAX = 0.01
"""Largest force at the end (eV/Å)."""
MOST = 300
"""Gradients after which a relaxation is given up."""
SOFTEST = 1.0
"""Least curvature of a step (eV/Å^2): rotations have none, and a network may see less than there is."""
LONGEST = 0.2
"""Largest displacement of an atom in a step (Å), as in ASE's BFGS."""


def relaxations(geometries: Path, potential: Path) -> dict[str, Any]:
    """Relax the first displaced geometry of each sum formula; count gradients of GFN2-xTB.

    Returns:
        ``molecules``, and by method lists of the gradients until the largest force is below ``FMAX`` (None: not reached):
        ``BFGS`` of ASE, and ``Newton`` with the Hessian of the potential at every step.
    """
    from ase.io import read

    known = equipot.load(str(potential))
    firsts = {atoms.get_chemical_formula(): atoms for atoms in reversed(read(geometries, ":"))}
    return {
        "molecules": list(firsts),
        "BFGS": [by_bfgs(atoms) for atoms in firsts.values()],
        "Newton": [by_newton(atoms, known) for atoms in firsts.values()],
    }


def labelled_by_xtb(atoms: Any) -> Any:
    """Return a copy with the calculator of GFN2-xTB."""
    from tblite.ase import TBLite

    copy = atoms.copy()
    copy.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
    return copy


def by_bfgs(atoms: Any) -> int | None:
    """Count the gradients of ASE's BFGS."""
    from ase.optimize import BFGS

    optimizer = BFGS(labelled_by_xtb(atoms), logfile=None)
    return optimizer.nsteps + 1 if optimizer.run(fmax=FMAX, steps=MOST) else None


def by_newton(atoms: Any, potential: equipot.Potential) -> int | None:
    """Count the gradients of Newton steps whose Hessian is that of a potential, negative curvatures turned positive."""
    moving = labelled_by_xtb(atoms)
    for count in range(1, MOST + 1):
        forces = moving.get_forces()
        if np.linalg.norm(forces, axis=1).max() < FMAX:
            return count
        curvatures, modes = np.linalg.eigh(equipot.hessian_of(potential, moving).reshape(forces.size, -1))
        along = forces.ravel() @ modes / np.maximum(np.abs(curvatures), SOFTEST)
        step = (modes @ along).reshape(forces.shape)
        moving.positions += step * min(1.0, LONGEST / np.linalg.norm(step, axis=1).max())
    return None
