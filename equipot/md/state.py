"""State of a run, fixed quantities, observations for the log, and initial velocities.

Units are those of ASE: eV, Å, amu and, for time, Å sqrt(amu/eV), about 10.18 fs.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from equipot.structure import Structure
from equipot.units import kB


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["position", "momentum", "force", "interaction", "virial", "cell", "images", "key", "heat", "extra", "novelty"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class State:
    """Everything that the next step depends on, except the neighbour list, which follows from the state."""

    position: Float[Array, "atoms 3"]
    """Å; may lie outside the cell, but not far: each chunk begins by subtracting whole lattice vectors."""
    momentum: Float[Array, "atoms 3"]
    """sqrt(eV amu)."""
    force: Float[Array, "atoms 3"]
    """eV/Å."""
    interaction: Float[Array, ""]
    """Potential energy, eV, without E0 of the isolated atoms."""
    virial: Float[Array, "3 3"]
    """dE/d(strain), eV; zeros where the system is not periodic along all three axes."""
    cell: Float[Array, "3 3"]
    """Å, rows; zeros for an isolated system."""
    images: Int[Array, "atoms 3"]
    """Number of lattice vectors subtracted so far: position + images . cell is continuous in time."""
    key: Any
    """Random key of the stochastic ensembles."""
    heat: Float[Array, ""]
    """Energy that stochastic forces have added since the beginning of the chunk, eV."""
    extra: Any
    """Further arrays of the ensemble: thermostat chains, momentum of the cell; see ``Ensemble.start``."""
    novelty: Any = ()
    """Novelty of the environment of each atom [atoms]; an empty tuple where it is not watched, and between two chunks."""

    def replace(self, **changes: Any) -> State:
        """Return a copy with other fields."""
        return dataclasses.replace(self, **changes)


class Setup(NamedTuple):
    """Quantities that stay fixed during a run."""

    dt: float
    """Time step, Å sqrt(amu/eV)."""
    kT: float
    """Thermal energy, eV."""
    pressure: float
    """External pressure, eV/Å^3."""
    dof: int
    """Degrees of freedom that the thermostat acts on."""
    mass: Float[np.ndarray, "atoms 1"]
    """amu."""
    numbers: Int[np.ndarray, " atoms"]
    pbc: tuple[bool, bool, bool]
    charge: float
    spin: float
    field: tuple[float, float, float]
    """V/Å."""


class Observation(NamedTuple):
    """Values computed on the device for a line of the log."""

    interaction: Float[Array, ""]
    """Potential energy, eV, without E0 of the isolated atoms."""
    kinetic: Float[Array, ""]
    """Kinetic energy, eV."""
    reservoir: Float[Array, ""]
    """Energy in the thermostat, in the barostat and in p V, less the heat taken from stochastic forces, eV."""
    stress: Float[Array, "3 3"]
    """(1/V) dE/d(strain), without the kinetic part, eV/Å^3; NaN without a volume."""
    volume: Float[Array, ""]
    """Å^3."""
    closest: Float[Array, ""]
    """Shortest distance between two atoms, Å."""
    dipole: Float[Array, " 3"]
    """Dipole moment, e Å; NaN for a model without."""
    energy_std: Float[Array, ""]
    """Standard deviation of the energy, eV; NaN where it was not estimated, and so of the forces."""
    forces_std: Float[Array, " atoms"]
    """Standard deviation of a component of the force on each atom, eV/Å."""


def masses(structure: Structure) -> Float[np.ndarray, "atoms 1"]:
    """Return the masses of the structure, else standard ones, amu."""
    from ase.data import atomic_masses

    return (atomic_masses[structure.numbers] if structure.masses is None else structure.masses)[:, None]


def kinetic_energy(momentum: Array, mass: Array) -> Array:
    """Compute the kinetic energy sum p^2 / 2m (eV) of momenta (sqrt(eV amu)) and masses (amu)."""
    return 0.5 * jnp.sum(momentum**2 / mass)


def degrees_of_freedom(structure: Structure, conserves_momentum: bool) -> int:
    """Count independent momenta: 3 N, less 3 if total momentum is conserved, less rotations if the system is also isolated; 3
    for a single atom."""
    n = len(structure)
    if not conserves_momentum or n == 1:
        return 3 * n
    return 3 * n - 3 - (0 if structure.pbc.any() else rotations(structure))


def rotations(structure: Structure) -> int:
    """Count rotational degrees of freedom of an isolated system: 3, 2 if linear, 0 for an atom."""
    moments = np.linalg.eigvalsh(_inertia(structure.positions, masses(structure)))
    return int((moments > 1e-6 * max(moments.max(), 1e-12)).sum()) if len(structure) > 1 else 0


def thermal_momenta(structure: Structure, temperature: float, seed: int) -> Float[np.ndarray, "atoms 3"]:
    """Draw Maxwell-Boltzmann momenta (sqrt(eV amu)) without total momentum and, if isolated, without angular momentum.

    The momenta are scaled to the exact temperature (K). A single atom keeps its random momentum.
    """
    mass = masses(structure)
    momentum = np.random.default_rng(seed).normal(size=(len(structure), 3)) * np.sqrt(kB * temperature * mass)
    if len(structure) == 1 or temperature == 0:
        return momentum
    momentum = at_rest(structure, momentum)
    wanted = 0.5 * degrees_of_freedom(structure, True) * kB * temperature
    found = 0.5 * (momentum**2 / mass).sum()
    return momentum * np.sqrt(wanted / found) if found > 0 else momentum


def at_rest(structure: Structure, momentum: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
    """Subtract translation and, if the system is isolated, rotation of the whole system from momenta (sqrt(eV amu))."""
    mass = masses(structure)
    momentum = momentum - mass * momentum.sum(axis=0) / mass.sum()
    if not structure.pbc.any():
        arm = structure.positions - (mass * structure.positions).sum(axis=0) / mass.sum()
        spin = np.linalg.pinv(_inertia(structure.positions, mass), rcond=1e-6) @ np.cross(arm, momentum).sum(axis=0)
        momentum = momentum - mass * np.cross(spin, arm)
    return momentum


def _inertia(positions: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Compute the inertia tensor (3, 3), amu Å^2, about the centre of mass."""
    arm = positions - (mass * positions).sum(axis=0) / mass.sum()
    return (mass * arm**2).sum() * np.eye(3) - (mass * arm).T @ arm
