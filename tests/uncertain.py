"""Small potentials with random parameters, and frames, for tests of uncertainty."""

from __future__ import annotations

import functools

import jax
import numpy as np
from ase.build import bulk, molecule

import equipot
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.physics.charges import Predicted
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import Guarded
from equipot.physics.sum import Sum
from equipot.physics.zbl import ZBL
from equipot.posterior import LEVELS, Calibration
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure

SMALL = {"cutoff": 3.5, "elements": (1, 6, 8), "channels": 3, "l_max": 1, "radial": Radial(mlp=(4,))}
TERMS = {
    "mace": MACE(**SMALL, correlation=2),
    "mace-biased": MACE(**SMALL, correlation=1, readout_bias=True),
    "nequip": NequIP(**SMALL, layers=2),
    "nequip-direct": NequIP(**SMALL, layers=2, readout=None),
}
WITHIN = MACE(**SMALL, layers=1, correlation=1)
"""Of the terms that hold a network, which may be any."""
TERMS |= {
    "sum": Sum((WITHIN.clone(), ZBL(cutoff=2.0)), factors=(0.7, 1.0)),
    "frozen": Sum((TERMS["nequip"].clone(), ZBL(cutoff=2.0)), frozen=(0,)),
    "guarded": Guarded(base=WITHIN.clone()),
    "charged": Electrostatics(base=WITHIN.clone(), charges=Predicted()),
}


def rattled(atoms, seed, size=0.1):
    atoms = atoms.copy()
    atoms.positions += size * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    return Structure.from_ase(atoms)


NAMES = ["CH3CH2OH", "H2O", "CH4", "CH3OH", "CO2", "C2H6", "H2CO"]
FRAMES = [rattled(molecule(name), k) for k, name in enumerate(NAMES)]
MORE = [rattled(molecule(name), 10 + k) for k in range(4) for name in NAMES]
"""So that enough environments of each element are known."""
CRYSTAL = rattled(bulk("C", "diamond", a=3.57, cubic=True), 3)


@functools.cache
def made(name, seed=0):
    with jax.enable_x64(True):
        frames = [*FRAMES, CRYSTAL]
        graph = pad(frames, 3.5, dtype=np.float64, extent=extent_of(frames, TERMS[name].longest_wave))
        free = Metadata(tuple((z, 0.0) for z in SMALL["elements"]))
        return fresh(TERMS[name], graph, jax.random.key(seed), free, avg_num_neighbors=3.0).astype("float64")


def unit(potential, **scales):
    """Calibrations by factors that are given, 1 where none is."""
    known = {}
    for name, shape in (("energy_std", ()), ("forces_std", (119,)), ("stress_std", ())):
        scale, factors = np.full(shape, scales.get(name, 1.0)), np.full((*shape, len(LEVELS)), np.nan)
        known[name] = Calibration(scale, np.ones(()), np.zeros(shape), factors, (9,) * (shape or (1,))[0], "given")
    return potential.replace(posterior=potential.posterior.replace(calibrations=known).astype(potential.dtype))


def labelled(potential, frames, noise=0.0):
    """Frames with the energies and forces of a potential, and errors of known size."""
    rng, out = np.random.default_rng(0), []
    for frame, found in zip(frames, equipot.evaluate_each(potential, frames, want=("energy", "forces")), strict=True):
        labels = {ENERGY: float(found.energy), FORCES: found.forces + noise * rng.normal(size=found.forces.shape)}
        out.append(frame.replace(labels=labels))
    return out
