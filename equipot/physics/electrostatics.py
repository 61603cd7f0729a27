"""Charges of atoms and their Coulomb energy, beside the energy of a network."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph, sum_graphs, to_atoms
from equipot.nn.features import species_index
from equipot.physics.charges import Charged, ChargeSource, Predicted, Surroundings
from equipot.physics.coulomb import Coulomb, Gaussians, Points
from equipot.physics.ewald import WaveSum, longest_wave
from equipot.physics.mesh import ParticleMesh
from equipot.physics.response import held
from equipot.physics.sum import filled
from equipot.quantities import ATOMIC_DIPOLES, CHARGES, DIPOLE, ELECTROSTATIC_ENERGY, QUADRUPOLE, Quantity
from equipot.structure import Structure
from equipot.term import NEEDS, Atomic, Space, Term, call, cutoff_of

__all__ = ["Electrostatics"]


class Electrostatics(Term):
    """The energy of ``base`` and the Coulomb energy of charges, (1/2) sum_i q_i phi_i, at any distance and in any cell.

    The potentials phi are sums over all atoms of an open system, over all images of those of a crystal or a slab. Charges and
    their moments are predictions that can be trained on; where ``base`` has several heads, all share the charges. The dipole
    moment is about the mean position in an open system; of a system that repeats, only charges that flow along pairs have one:
    from other sources it is not a number. An external field F adds -F . mu, with mu the dipole moment, which all charges that
    respond to a field respond to.
    """

    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å, of ``base`` and of flows; that of ``base`` where left out."""
    base: Term | None = None
    """What is learned beside the charges, and whose features predict them; nothing where left out."""
    charges: ChargeSource = Predicted()
    """Source of the charges."""
    kernel: Gaussians | Points = Gaussians()
    """How two charges interact."""
    waves: WaveSum | ParticleMesh = WaveSum()
    """How waves are summed: one by one, or on a mesh, which is faster from about a thousand atoms on."""
    uniform_background: bool = False
    """Whether a charged crystal or slab is allowed, with a uniform background that neutralises it."""
    elements: tuple[int, ...] = ()
    """Atomic numbers; taken from ``base``, else from the data, where left out."""

    def __post_init__(self) -> None:
        if self.base is not None:
            elements = self.elements or (tuple(self.base.elements) if self.base.has_elements else ())
            base = filled(self.base, self.cutoff, elements)
            for name, value in (("elements", elements), ("base", base), ("cutoff", base.cutoff)):
                object.__setattr__(self, name, value)
        if self.base is not None and CHARGES in self.base.provides:
            raise ValueError("base has charges already, whose Coulomb energy would be counted twice; keep one Electrostatics")
        super().__post_init__()

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # of an object, where others have it of a class
        """Space, the total charge, the electric field, and what ``base`` needs."""
        found = {"space", "charge", "field", *(self.base.needs if self.base else ())}
        return tuple(name for name in NEEDS if name in found)

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``needs``
        """Charges, their moments and their energy, and what ``base`` provides."""
        own = (*self.charges.provides, ELECTROSTATIC_ENERGY)
        return (*own, *(row for row in (self.base.provides if self.base else ()) if row not in own))

    @property
    def learns_from(self) -> tuple[Quantity, ...]:
        """Charges and dipole moments, of which training needs some where the network predicts charges."""
        return (CHARGES, DIPOLE) if self.charges.supervised else ()

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # as ``needs``
        """Whether ``base`` has a correction for dispersion."""
        return self.base is not None and self.base.has_dispersion

    @property
    def has_three_body_dispersion(self) -> bool:  # type: ignore[override]  # as ``needs``
        """Whether ``base`` corrects the dispersion of triples."""
        return self.base is not None and self.base.has_three_body_dispersion

    @property
    def averaging_cutoff(self) -> float | None:
        """That of ``base``."""
        return self.base.averaging_cutoff if self.base else None

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Those of ``base``."""
        return self.base.inner_cutoffs if self.base else ()

    @property
    def longest_wave(self) -> float:
        own = longest_wave(self.kernel.smearing, self.kernel.tolerance)
        return max(own, (self.base.longest_wave if self.base else None) or 0.0)

    def check(self, structure: Structure) -> None:
        """Check that charges in a structure have an energy.

        Raises:
            ValueError: a system that repeats along one vector only, a charged one that repeats and has no background, or a
                field along a vector that repeats where charges do not flow.
        """
        repeats = int(structure.pbc.sum())
        if repeats == 1:
            raise ValueError(
                f"{structure.name} repeats along one lattice vector only: there is no sum over waves for a wire; give a cell "
                "with vacuum that repeats along all three"
            )
        if repeats and abs(structure.charge) > 1e-6 and not self.uniform_background:
            raise ValueError(
                f"{structure.name} repeats and has a total charge of {structure.charge:g} e, whose energy is infinite; set "
                "uniform_background: true to neutralise it by a uniform background, or correct the charge"
            )
        along = np.abs(structure.cell[structure.pbc] @ structure.field)
        if np.any(along > 1e-9) and not (self.charges.flow and abs(structure.charge) < 1e-6):
            size = np.linalg.norm(structure.field)
            raise ValueError(
                f"{structure.name} is in a field of {size:g} V/Å along a lattice vector that repeats, where these charges have "
                "no energy; take charges that flow (Flows or Polarizable) in a neutral system, or a field along a slab's normal"
            )
        if self.base is not None:
            self.base.check(structure)

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"], space: Space | None = None) -> Atomic:
        assert space is not None, "a term that needs space"
        nothing = Atomic(jnp.zeros(graph.num_atoms, vectors.dtype))
        answer = nothing if self.base is None else call(self.base, graph, vectors, space)
        species, known = species_index(graph.numbers, self.elements)
        coulomb = Coulomb(self.kernel, self.waves, graph, vectors, space)
        cutoff, count = cutoff_of(self), len(self.elements)
        around = Surroundings(graph, vectors, species, count, answer.latent, cutoff, coulomb)
        source = self.charges(self, around)
        energies = lambda variables: energies_of(source.charged(variables), around)
        own = held(energies, source.variables) if self.charges.minimises else energies(source.variables)
        found = source.charged(source.variables)
        others = {**answer.others, **moments(found, around, jnp.any(space.repeats, axis=-1))}
        own = jnp.where(graph.node_mask, own, 0) * known
        others[ELECTROSTATIC_ENERGY.name] = own
        return answer._replace(energy=answer.energy * known + own, charges=found.charges, others=others)


def energies_of(found: Charged, around: Surroundings) -> Float[Array, " atoms"]:
    """Compute the energy of charges and dipoles of each atom (eV): their own, in each other's field, and in an external one."""
    energy = found.energy - jnp.sum(found.moment(around.positions) * around.field, axis=1)
    if found.dipoles is None:
        return energy + 0.5 * found.charges * around.coulomb(found.charges)
    felt = around.coulomb.felt(found.charges, found.dipoles)
    return energy + 0.5 * (found.charges * felt.potential - jnp.sum(found.dipoles * felt.field, axis=1))


def moments(found: Charged, around: Surroundings, periodic: Bool[Array, " graphs"]) -> dict[str, Float[Array, "atoms ..."]]:
    """Compute the contributions of each atom to dipole and quadrupole moment about the mean position, and its own dipole, by
    the names of quantities.

    Not a number where a moment is not defined: that of second order in a system that repeats, and that of first order there,
    unless it is known how charges have moved.

    Args:
        found: charges and dipoles.
        around: positions, and which atoms are real.
        periodic: whether each system repeats.
    """
    real = around.graph.node_mask[:, None]
    count = jnp.maximum(sum_graphs(jnp.ones_like(found.charges), around.graph), 1)[:, None]
    # A constant: an ion that moves in a field takes its charge along.
    mean = jax.lax.stop_gradient(to_atoms(sum_graphs(around.positions, around.graph) / count, around.graph))
    r = around.positions - mean
    repeats = periodic[around.graph.node_graph][:, None]
    dipole = jnp.where(repeats & (found.moved is None), jnp.nan, found.moment(r))
    second = found.charges[:, None, None] * r[:, :, None] * r[:, None, :]
    out = {DIPOLE.name: jnp.where(real, dipole, 0)}
    if found.dipoles is not None:
        mixed = found.dipoles[:, :, None] * r[:, None, :]
        second += mixed + jnp.swapaxes(mixed, 1, 2)
        out[ATOMIC_DIPOLES.name] = jnp.where(real, found.dipoles, 0)
    second -= jnp.trace(second, axis1=1, axis2=2)[:, None, None] * jnp.eye(3, dtype=r.dtype)[None] / 3
    out[QUADRUPOLE.name] = jnp.where(real[..., None], jnp.where(repeats[..., None], jnp.nan, second), 0)
    return out
