"""What compression changes: energies, forces and stress of a potential and of its compressed form, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from equipot.data.batch import pad
from equipot.potential import Potential, evaluate
from equipot.structure import Structure

UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å^3"}


def deviations(original: Potential, compressed: Potential, structures: Sequence[Structure]) -> dict[str, float]:
    """Largest difference of energy for each atom, force and, where there is a cell, stress; in double precision."""
    worst = dict.fromkeys(UNITS, 0.0)
    run = jax.jit(evaluate, static_argnames="want")
    with jax.enable_x64(True):
        pair = [potential.astype("float64") for potential in (original, compressed)]
        for structure in structures:
            one = structure.replace(head=0) if original.heads else structure
            graph = pad([one], original.cutoff, dtype=np.float64)
            want = tuple(UNITS) if structure.pbc.all() else ("energy", "forces")
            found = [run(potential, graph, want=want) for potential in pair]
            for name in want:
                values = "interaction" if name == "energy" else name
                difference = float(jnp.max(jnp.abs(getattr(found[0], values) - getattr(found[1], values))))
                worst[name] = max(worst[name], difference / (len(structure.numbers) if name == "energy" else 1))
    return worst
