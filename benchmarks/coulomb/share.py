"""What charges on a mesh and D3 add to a step of molecular dynamics of water by a network."""

from __future__ import annotations

import contextlib
from typing import Any

import jax

from benchmarks.cases import moving, of_step
from benchmarks.measure import in_turn
from benchmarks.peers.systems import water
from equipot import config
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.physics.dispersion import D3
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.mesh import ParticleMesh
from equipot.physics.sum import Sum
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Term, cutoff_of

STEPS = 10
"""Steps of a chunk, each of which builds the list anew."""
STILL_FS = 1e-3
"""Time step (fs) in which atoms that nothing holds together stay where they are."""
NETWORK = MACE(cutoff=5.0)


def models() -> dict[str, Term]:
    charged = Electrostatics(base=NETWORK.clone(), waves=ParticleMesh())
    d3 = D3(functional="pbe")
    return {
        "network": NETWORK,
        "network and charges": charged,
        "network and D3": Sum((NETWORK.clone(), d3)),
        "all": Sum((charged.clone(), d3.clone())),
    }


def share(atoms: int, seconds: float) -> dict[str, Any]:
    """Time a step of each model with the others in turn, list and files included: NVE in chunks of ``STEPS``."""
    structure = Structure.from_ase(water(atoms)[0])
    with contextlib.ExitStack() as stack:
        potentials = {name: untrained(term, structure) for name, term in models().items()}
        chunks = {n: (stack.enter_context(moving(p, structure, STEPS, STILL_FS)), 1) for n, p in potentials.items()}
        found = in_turn(chunks, seconds)
    return {
        "work": "water", "atoms": len(structure), "steps_per_chunk": STEPS,
        "models": {name: config.dump(p.term) for name, p in potentials.items()},
        "step": {name: of_step(figures, STEPS) for name, figures in found.items()},
    }  # fmt: skip


def untrained(term: Term, structure: Structure) -> Potential:
    """Make a potential with random parameters, whose network is weak."""
    elements = tuple(sorted({int(z) for z in structure.numbers}))
    term = term.clone(elements=elements)
    graph = pad([structure], cutoff_of(term), extent=extent_of([structure], term.longest_wave))
    metadata = Metadata(tuple((z, 0.0) for z in elements))
    return fresh(term, graph, jax.random.key(0), metadata, scale=1e-6, avg_num_neighbors=50.0)
