"""Constant temperature by a Nosé-Hoover chain."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.chains import chain, chain_energy, check_chain, in_precision
from equipot.md.ensembles.steps import kinetic_of, velocity_verlet
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList


@dataclass(frozen=True)
class NVTNoseHoover(Ensemble):
    """Constant temperature: Nosé-Hoover chains (Martyna et al. 1992); deterministic, not for small or stiff systems.

    The chain acts before and after a step of velocity Verlet, as in ``jax_md.simulate.nvt_nose_hoover``, but with the number
    of degrees of freedom that the momenta really have.
    """

    thermostat_fs: float = 100.0
    """Period of the chain, fs."""
    chain_length: int = 3
    """Links of the chain."""

    def __post_init__(self) -> None:
        self.check_positive("thermostat_fs")
        check_chain(self.chain_length)

    def start(self, setup: Setup, state: State) -> State:
        thermostat = chain(self.chain_length, self.thermostat_fs, setup)
        links = thermostat.initialize(setup.dof, kinetic_of(setup, state), setup.kT)
        return state.replace(extra=in_precision(links, state))

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        thermostat = chain(self.chain_length, self.thermostat_fs, setup)
        momentum, links = thermostat.half_step(state.momentum, thermostat.update_mass(state.extra, setup.kT), setup.kT)
        state, neighbor = velocity_verlet(setup, forces, state.replace(momentum=momentum), neighbor)
        links = links.set(kinetic_energy=kinetic_of(setup, state))
        momentum, links = thermostat.half_step(state.momentum, links, setup.kT)
        return in_precision(state.replace(momentum=momentum, extra=links), state), neighbor

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        return chain_energy(state.extra, setup.kT)
