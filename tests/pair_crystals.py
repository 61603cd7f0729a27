"""A pair potential that compiles in no time, with clusters and crystals of it."""

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk

from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.structure import Structure


def make_argon(cutoff=5.0, epsilon=0.05, sigma=2.2):
    """A pair potential that compiles in no time, with E0 of -3 eV."""
    dimer = Structure.from_ase(Atoms("Ar2", positions=[[0, 0, 0], [2.5, 0, 0]]))
    variables = initial(LennardJones(cutoff, epsilon, sigma), jax.random.key(0), pad([dimer], cutoff))
    term = LennardJones(cutoff=cutoff, epsilon=epsilon, sigma=sigma)
    return Potential(term, variables, Metadata(atomic_energies=((18, -3.0),))).astype("float64")


def cluster(count, seed=0, spread=0.15):
    """Some atoms of a crystal, moved at random."""
    atoms = bulk("Ar", "fcc", a=3.5, cubic=True) * (3, 3, 3)
    order = np.argsort(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1))
    found = atoms[order[:count]]
    found.pbc, found.cell = False, None
    found.positions += np.random.default_rng(seed).normal(0, spread, found.positions.shape)
    return found


def crystal(seed=0, strain=0.05, rattle=0.1):
    """A cubic cell of four atoms that was strained and rattled."""
    atoms = bulk("Ar", "fcc", a=3.5, cubic=True)
    rng = np.random.default_rng(seed)
    turn = np.eye(3) + strain * rng.normal(size=(3, 3))
    atoms.set_cell(atoms.cell[:] @ turn, scale_atoms=True)
    atoms.positions += rng.normal(0, rattle, atoms.positions.shape)
    return atoms
