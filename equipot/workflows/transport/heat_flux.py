"""Heat flux of potentials that pass messages, in the unfolded form of Langer, Frank and Knoop."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from equipot.data.batch import Shape, find_slots, pad, smallest_shape
from equipot.graph import Graph
from equipot.md.state import masses
from equipot.neighbors import neighbor_list
from equipot.potential import Potential, atomic
from equipot.structure import Structure
from equipot.units import fs

SPARE = 1.1
"""Room for further atoms and neighbours, as a factor, so that frames share a compiled program."""


class Flux(NamedTuple):
    """Heat flux of one frame, J = d/dt sum_i r_i E_i, with E_i the potential energy of an atom, without E0, and the kinetic."""

    potential: Float[np.ndarray, " 3"]
    """Part of energy that passes from atom to atom, sum_ij (r_i - r_j) (dU_i/dr_j . v_j), eV Å/fs."""
    convective: Float[np.ndarray, " 3"]
    """Part of energy that atoms carry with them, sum_i E_i v_i, eV Å/fs."""
    energy: float
    """Interaction energy, eV."""
    virial: Float[np.ndarray, "3 3"]
    """dE/d(strain), symmetric, eV."""

    @property
    def total(self) -> Float[np.ndarray, " 3"]:
        """eV Å/fs."""
        return self.potential + self.convective


class UnfoldedFlux:
    """Heat flux of a potential, frame by frame.

    The energies U_i of the atoms of the cell are functions of the positions of all images within the receptive radius of the
    potential: of the unfolded system, which is open. In it, with v_j the velocity of an atom for all of its images,

        J_potential = sum_i r_i dU_i/dt - sum_j r_j (dU/dr_j . v_j),  U = sum_i U_i,

    with i over the cell and j over the unfolded system, takes one forward derivative, of all U_i along the velocities, and one
    backward pass (Langer, Frank and Knoop, J. Chem. Phys. 159, 174105 (2023), arXiv:2303.14434; Langer et al., Phys. Rev. B
    108, L100302 (2023), arXiv:2305.01401). Fluxes from the virials of atoms are another thing, and wrong for more than pairs.

    Raises:
        ValueError: the range of the potential is not bounded, or not known.
    """

    def __init__(self, potential: Potential) -> None:
        radius, kind = potential.term.receptive_radius, type(potential.term).__name__
        if "space" in potential.term.needs:
            raise ValueError(
                f"{kind}: the energy of an atom depends on all others at any distance, so that no unfolded system is large "
                "enough for a heat flux; take a potential without long-range terms"
            )
        if radius is None:
            raise ValueError(
                f"{kind} does not say its receptive radius, from which the unfolded system of a heat flux follows; give the "
                "term, and terms that it is made of, the property receptive_radius: cutoff times layers"
            )
        self.potential, self.radius = potential, float(radius)
        self.shape: Shape | None = None

    def __call__(self, structure: Structure, velocities: Float[np.ndarray, "atoms 3"]) -> Flux:
        """Compute the heat flux of a structure.

        Args:
            structure: Neutral, without unpaired electrons and without an electric field.
            velocities: Å/fs.

        Raises:
            ValueError: the potential does not apply to the structure, a charge, spin or field, or a result that is not finite.
        """
        if structure.charge or structure.spin or structure.field.any():
            raise ValueError(
                f"{structure.name} is charged, has unpaired electrons or is in a field: energies of its atoms depend on the "
                "whole system, and there is no heat flux of an unfolded one"
            )
        self.potential.check([structure])
        n, unfolded, origin = len(structure), *unfold(structure, self.radius)
        slots = find_slots(unfolded, self.potential.cutoff)
        need = smallest_shape([slots])
        if self.shape is None or need.atoms > self.shape.atoms or need.slots > self.shape.slots:
            old = self.shape or Shape(0, 0, 1)
            roomy = lambda now, before: before if now <= before else int(np.ceil(SPARE * now))
            self.shape = Shape(roomy(need.atoms, old.atoms), roomy(need.slots, old.slots), 1)
        graph = pad([unfolded], self.potential.cutoff, self.shape, np.dtype(self.potential.dtype), [slots])
        moving = np.zeros((self.shape.atoms, 3), graph.dtype)
        moving[: len(origin)] = velocities[origin]
        inside = np.arange(self.shape.atoms) < n
        energies, potential, virial = jax.device_get(_flux(self.potential, graph, moving, inside))
        own = energies[:n].astype(np.float64)
        kinetic = 0.5 * masses(structure)[:, 0] * np.sum(velocities**2, axis=1) / fs**2
        convective = (own + kinetic) @ velocities
        found = Flux(potential.astype(np.float64), convective, float(own.sum()), virial.astype(np.float64))
        if not (np.isfinite(found.total).all() and np.isfinite(found.virial).all()):
            raise ValueError(f"{structure.name}: the heat flux is not finite; look at energies and forces there")
        return found


@jax.jit
def _flux(
    potential: Potential, graph: Graph, velocities: Float[Array, "atoms 3"], inside: Bool[Array, " atoms"]
) -> tuple[Float[Array, " atoms"], Float[Array, " 3"], Float[Array, "3 3"]]:
    """Return energies of the atoms (eV), the potential part of the flux (eV Å/fs) and the virial (eV) of those ``inside``."""
    energies = partial(_energies, potential, graph, inside)
    positions = jnp.asarray(graph.positions)
    values, rates = jax.jvp(energies, (positions,), (velocities,))
    gradient = jax.grad(lambda r: jnp.sum(energies(r)))(positions)
    power = jnp.sum(gradient * velocities, axis=1)
    flux = jnp.sum(positions * (rates - power)[:, None], axis=0)
    virial = jnp.sum(positions[:, :, None] * gradient[:, None, :], axis=0)
    return values, flux, (virial + virial.T) / 2


def _energies(
    potential: Potential, graph: Graph, inside: Bool[Array, " atoms"], positions: Float[Array, "atoms 3"]
) -> Float[Array, " atoms"]:
    moved = graph.replace(positions=positions, positions_residual=graph.positions_residual)
    return jnp.where(inside, atomic(potential, moved).energy, 0)


def unfold(structure: Structure, radius: float) -> tuple[Structure, np.ndarray]:
    """Make the open system of the atoms of a cell and of all images within a distance of any of them.

    Args:
        structure: n atoms; positions inside or outside the cell.
        radius: Å.

    Returns:
        The atoms of the cell first, then the images, and for each the index of its atom.
    """
    n = len(structure)
    found = neighbor_list(structure.positions, structure.cell, structure.pbc, radius)
    key = np.concatenate([found.neighbors[:, None], found.shifts], axis=1)
    images = np.unique(key[np.any(found.shifts != 0, axis=1)], axis=0).reshape(-1, 4)
    origin = np.concatenate([np.arange(n), images[:, 0]])
    shifts = np.concatenate([np.zeros((n, 3)), images[:, 1:]])
    positions = structure.positions[origin] + shifts @ structure.cell
    return Structure(structure.numbers[origin], positions, head=structure.head, source=structure.source), origin


def mass_fluxes(
    numbers: np.ndarray, mass: Float[np.ndarray, " atoms"], velocities: Float[np.ndarray, "atoms 3"]
) -> Float[np.ndarray, "fluxes 3"]:
    """Compute the momentum of all atoms of each element but the last, amu Å/fs: the fluxes that a mixture has besides heat."""
    elements = np.unique(numbers)[:-1]
    return np.array([mass[numbers == z] @ velocities[numbers == z] for z in elements]).reshape(-1, 3)
