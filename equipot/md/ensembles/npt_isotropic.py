"""Constant temperature and pressure with a cell of fixed shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.chains import chain, chain_energy, check_chain, in_precision
from equipot.md.ensembles.steps import kinetic_of, mass_of, volume_of
from equipot.md.ensembles.strained import strained_drift, strained_kick
from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList
from equipot.units import fs


@dataclass(frozen=True)
class NPTIsotropic(Ensemble):
    """Constant temperature and pressure, cell of fixed shape: Martyna-Tobias-Klein with Nosé-Hoover chains.

    The steps are those of ``jax_md.simulate.npt_nose_hoover``, see Tuckerman et al., J. Phys. A 39, 5629 (2006); but the
    coordinates are real and not wrapped, and the cell may have any shape. With eps the logarithm of the scale of the cell,
    p_eps its momentum, v = p_eps / W and alpha = 1 + 1/N:

        dr/dt = p / m + v r,    dp/dt = F - alpha v p,    dp_eps/dt = alpha sum p^2 / m - tr dE/d(strain) - 3 P V
    """

    has_pressure: ClassVar[bool] = True
    thermostat_fs: float = 100.0
    """Period of the chain on the atoms, fs."""
    barostat_fs: float = 1000.0
    """Period of the cell and of the chain on the cell, fs."""
    chain_length: int = 3
    """Links of either chain."""

    def __post_init__(self) -> None:
        self.check_positive("thermostat_fs", "barostat_fs")
        check_chain(self.chain_length)

    def start(self, setup: Setup, state: State) -> State:
        thermostat, piston = self._chains(setup)
        zero = jnp.zeros_like(state.heat)
        extra = {
            "reference": state.cell,
            "log_scale": zero,
            "momentum": zero,
            "barostat": piston.initialize(1, zero, setup.kT),
            "thermostat": thermostat.initialize(setup.dof, kinetic_of(setup, state), setup.kT),
        }
        return state.replace(extra=in_precision(extra, state))

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        extra, weight, (thermostat, piston) = state.extra, self._weight(setup), self._chains(setup)
        links, cell_links = (c.update_mass(extra[k], setup.kT) for c, k in ((thermostat, "thermostat"), (piston, "barostat")))
        cell_momentum, cell_links = piston.half_step(extra["momentum"], cell_links, setup.kT)
        momentum, links = thermostat.half_step(state.momentum, links, setup.kT)
        state = state.replace(momentum=momentum)
        cell_momentum += _push(setup, state)
        rate = cell_momentum / weight
        state = _kicked(setup, state, rate)
        velocity = state.momentum / mass_of(setup, state)
        position, _ = strained_drift(state.position, state.cell, velocity, _isotropic(rate), setup.dt)
        # From the first cell, so that its shape stays exactly what it is.
        log_scale = extra["log_scale"] + rate * setup.dt
        cell = extra["reference"] * jnp.exp(log_scale)
        state, neighbor = forces.update(state.replace(position=position, cell=cell), neighbor)
        state = _kicked(setup, state, rate)
        cell_momentum += _push(setup, state)
        links = links.set(kinetic_energy=kinetic_of(setup, state))
        cell_links = cell_links.set(kinetic_energy=cell_momentum**2 / (2 * weight))
        momentum, links = thermostat.half_step(state.momentum, links, setup.kT)
        cell_momentum, cell_links = piston.half_step(cell_momentum, cell_links, setup.kT)
        extra = extra | {"log_scale": log_scale, "momentum": cell_momentum, "barostat": cell_links, "thermostat": links}
        return in_precision(state.replace(momentum=momentum, extra=extra), state), neighbor

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        extra = state.extra
        chains = chain_energy(extra["thermostat"], setup.kT) + chain_energy(extra["barostat"], setup.kT)
        return chains + setup.pressure * volume_of(state) + extra["momentum"] ** 2 / (2 * self._weight(setup))

    def _chains(self, setup: Setup) -> tuple[Any, Any]:
        """Make the chain on the atoms and the chain on the cell."""
        return tuple(chain(self.chain_length, tau, setup) for tau in (self.thermostat_fs, self.barostat_fs))

    def _weight(self, setup: Setup) -> float:
        """Compute the mass W of the cell, amu Å^2."""
        return 3 * (len(setup.numbers) + 1) * setup.kT * (self.barostat_fs * fs) ** 2


def _push(setup: Setup, state: State) -> Float[Array, ""]:
    """Compute the change of p_eps by half a time step of the force on the cell."""
    alpha = 1 + 1 / len(setup.numbers)
    force = 2 * alpha * kinetic_of(setup, state) - jnp.trace(state.virial) - 3 * setup.pressure * volume_of(state)
    return setup.dt / 2 * force


def _kicked(setup: Setup, state: State, rate: Float[Array, ""]) -> State:
    """Advance momenta by half a time step of constant forces and a constant strain rate v."""
    n = len(setup.numbers)
    return state.replace(momentum=strained_kick(state.momentum, state.force, _isotropic(rate), setup.dt / 2, n))


def _isotropic(rate: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Make the strain rate (3, 3) of an isotropic rate."""
    return rate * jnp.eye(3, dtype=rate.dtype)
