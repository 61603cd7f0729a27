"""One small solid for all tests of this folder, so that each ensemble is compiled once."""

import dataclasses

import jax
import pytest
from ase.build import bulk

from equipot import md
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.structure import Structure

CUTOFF = 7.0
TEMPERATURE = 40.0


@pytest.fixture(scope="session")
def solid():
    """32 atoms, half neon and half argon for what the masses are concerned, in a crystal of argon."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    atoms.numbers[::2] = 10
    return Structure.from_ase(atoms, source="solid")


@pytest.fixture(scope="session")
def potential(solid):
    term = LennardJones(cutoff=CUTOFF)
    variables = initial(term, jax.random.key(0), pad([solid], CUTOFF))
    return Potential(term, variables, Metadata(atomic_energies=((10, -3.0), (18, -500.0))))


@pytest.fixture
def configure():
    """A config for the solid; keyword arguments change fields."""

    def make(ensemble, /, **changes):
        pressure = 0.05 if ensemble.has_pressure else 0.0
        config = md.MDConfig(
            "-", "-", ensemble, 400, 4.0, TEMPERATURE, pressure_GPa=pressure, skin=0.8, dtype="float64", chunk_steps=200
        )
        return dataclasses.replace(config, **changes)

    return make
