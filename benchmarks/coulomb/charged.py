"""Point charges of rock salt as a potential of equipot."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks.coulomb.systems import salt
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.physics.charges import PerSpecies
from equipot.physics.coulomb import Points
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.ewald import WaveSum
from equipot.physics.mesh import ParticleMesh
from equipot.potential import Potential, evaluate, initial
from equipot.structure import Structure

EXACT = Points(smearing=1.2, tolerance=1e-12)
"""Kernel of the reference: what is left out at 9 Å and beyond the last wave is below 1e-12 of a pair's potential."""


def potential(atoms: int, cutoff: float, kernel: Points, waves: WaveSum | ParticleMesh, dtype: str) -> tuple[Potential, Graph]:
    """Make the potential of the charges alone, and the graph of the salt, whose list is exact."""
    structure = Structure.from_ase(salt(atoms))
    charges = PerSpecies((1.0, -1.0))
    term = Electrostatics(cutoff=cutoff, charges=charges, kernel=kernel, waves=waves, elements=(11, 17))
    extent = extent_of([structure], term.longest_wave)
    graph = jax.device_put(pad([structure], cutoff, dtype=np.dtype(dtype), extent=extent))
    variables = initial(term, jax.random.key(0), graph)
    return Potential(term, variables, Metadata(((11, 0.0), (17, 0.0)))).astype(dtype), graph


def reference(atoms: int, cutoff: float, file: str) -> dict[str, Any]:
    """Write the forces (eV/Å) by the sum over waves one by one, in float64; return their root mean square."""
    with jax.enable_x64(True):
        forces = np.asarray(evaluate(*potential(atoms, cutoff, EXACT, WaveSum(), "float64"), ("forces",)).forces)
    np.save(file, forces)
    return {"force_rms": float(np.sqrt(np.mean(forces**2)))}
