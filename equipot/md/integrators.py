"""One step of each ensemble.

Three functions make an integrator. ``start`` fills ``State.extra`` of a state whose forces and virial are known; ``step`` goes
on by one time step, evaluates the potential once, where the atoms end, and brings the neighbour list along; ``reservoir`` is
the energy that is not in the atoms, so that potential + kinetic + reservoir is conserved. They are made inside of the compiled
chunk, since they close over the potential.

NVE, Nosé-Hoover, Langevin and the isotropic barostat take the steps of ``jax_md.simulate``, with its Nosé-Hoover chains. Its
own step functions are not used, since they give away neither the energy nor the virial: these would have to be computed once
more for each line of the log, and the virial twice in each step at constant pressure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md import barostat
from equipot.md.config import NVE, NVTCSVR, NPTFlexible, NPTIsotropic, NVTLangevin, NVTNoseHoover
from equipot.md.forces import Field
from equipot.md.state import Setup, State, kinetic_energy
from equipot.neighbors import DeviceList
from equipot.units import fs


class Integrator(NamedTuple):
    """How an ensemble moves (see the module)."""

    start: Callable[[State], State]
    step: Callable[[State, DeviceList], tuple[State, DeviceList]]
    reservoir: Callable[[State], Array]


def conserves_momentum(ensemble: Any) -> bool:
    """Whether the total momentum stays at zero."""
    return not isinstance(ensemble, NVTLangevin | NPTFlexible)


def integrator(ensemble: Any, setup: Setup, field: Field) -> Integrator:
    """The integrator of an ensemble."""
    makers = {
        NVE: nve,
        NVTNoseHoover: nose_hoover,
        NVTLangevin: langevin,
        NVTCSVR: csvr,
        NPTIsotropic: isotropic,
        NPTFlexible: barostat.flexible,
    }
    return Integrator(*makers[type(ensemble)](ensemble, setup, field))


def velocity_verlet(setup: Setup, field: Field) -> Callable[[State, DeviceList], tuple[State, DeviceList]]:
    """One step of velocity Verlet, as of ``jax_md.simulate.velocity_verlet``."""

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        state, neighbor = field.follow(_drifted(setup, _kicked(setup, state), setup.dt), neighbor)
        return _kicked(setup, state), neighbor

    return step


def nve(ensemble: NVE, setup: Setup, field: Field) -> tuple:
    """Velocity Verlet."""
    return _same, velocity_verlet(setup, field), lambda state: jnp.zeros_like(state.heat)


def langevin(ensemble: NVTLangevin, setup: Setup, field: Field) -> tuple:
    """BAOAB, as of ``jax_md.simulate.nvt_langevin`` (Davidchack, Ouldridge and Tretyakov, J. Chem. Phys. 142, 144114, 2015)."""
    friction = ensemble.friction_per_ps / (1000 * fs)

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        state = _drifted(setup, _kicked(setup, state), setup.dt / 2)
        key, now = jax.random.split(state.key)
        mass = _mass(setup, state)
        momentum, heat = barostat.ornstein_uhlenbeck(now, state.momentum, mass, setup.kT, friction * setup.dt)
        state = _drifted(setup, state.replace(momentum=momentum, key=key, heat=state.heat + heat), setup.dt / 2)
        state, neighbor = field.follow(state, neighbor)
        return _kicked(setup, state), neighbor

    return _same, step, lambda state: -state.heat


def csvr(ensemble: NVTCSVR, setup: Setup, field: Field) -> tuple:
    """Velocity rescaling of Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007), then a velocity Verlet step.

    ``jax_md.simulate.temp_csvr`` is not used: it draws both of its noises, and all later keys, from one key, and counts the
    degrees of freedom of the centre of mass, which its initial momenta do not have.
    """
    verlet = velocity_verlet(setup, field)

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        key, now = jax.random.split(state.key)
        kinetic = kinetic_energy(state.momentum, _mass(setup, state))
        scale = rescaling(now, kinetic, setup, setup.dt / (ensemble.thermostat_fs * fs))
        heat = state.heat + (scale**2 - 1) * kinetic
        return verlet(state.replace(momentum=scale * state.momentum, key=key, heat=heat), neighbor)

    return _same, step, lambda state: -state.heat


def rescaling(key: Array, kinetic: Float[Array, ""], setup: Setup, interval: float) -> Float[Array, ""]:
    """Factor of the momenta, eq. A7 of Bussi et al. 2007, after ``interval`` relaxation times.

    alpha^2 = c + (1 - c) K0 / (Nf K) (R1^2 + S) + 2 R1 sqrt(c (1 - c) K0 / (Nf K)) with c = exp(-interval), K0 = Nf kT / 2,
    R1 normal and S a sum of Nf - 1 squared normals; the sign of alpha is that of R1 + sqrt(c Nf K / ((1 - c) K0)).
    """
    first, rest = jax.random.split(key)
    dtype = kinetic.dtype
    normal = jax.random.normal(first, (), dtype)
    others = 2 * jax.random.gamma(rest, (setup.dof - 1) / 2, (), dtype) if setup.dof > 1 else jnp.zeros((), dtype)
    keep = jnp.exp(jnp.asarray(-interval, dtype))
    share = (1 - keep) * setup.kT / (2 * kinetic)
    # alpha^2 is written as a square and a rest, so that rounding cannot make it negative.
    first_part = jnp.sqrt(keep) + normal * jnp.sqrt(share)
    return jnp.sqrt(first_part**2 + share * others) * jnp.where(first_part < 0, -1, 1).astype(dtype)


def nose_hoover(ensemble: NVTNoseHoover, setup: Setup, field: Field) -> tuple:
    """A Nosé-Hoover chain about velocity Verlet, as of ``jax_md.simulate.nvt_nose_hoover``.

    It is told the number of degrees of freedom that the momenta really have.
    """
    chain, verlet = _chain(ensemble.chain_length, ensemble.thermostat_fs, setup), velocity_verlet(setup, field)

    def start(state: State) -> State:
        return state.replace(extra=_as(chain.initialize(setup.dof, _kinetic(setup, state), setup.kT), state))

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        momentum, links = chain.half_step(state.momentum, chain.update_mass(state.extra, setup.kT), setup.kT)
        state, neighbor = verlet(state.replace(momentum=momentum), neighbor)
        momentum, links = chain.half_step(state.momentum, links.set(kinetic_energy=_kinetic(setup, state)), setup.kT)
        return _as(state.replace(momentum=momentum, extra=links), state), neighbor

    return start, step, lambda state: chain_energy(state.extra, setup.kT)


def isotropic(ensemble: NPTIsotropic, setup: Setup, field: Field) -> tuple:
    """The barostat of Martyna, Tobias and Klein between two Nosé-Hoover chains, as of ``jax_md.simulate.npt_nose_hoover``.

    See Tuckerman et al., J. Phys. A 39, 5629 (2006); the coordinates are real and not wrapped, the cell may have any shape.
    With eps the logarithm of the scale of the cell, p_eps its momentum, v = p_eps / W and alpha = 1 + 1/N:

        dr/dt = p / m + v r,    dp/dt = F - alpha v p,    dp_eps/dt = alpha sum p^2 / m - tr dE/d(strain) - 3 P V
    """
    n, half = len(setup.numbers), setup.dt / 2
    every_way = lambda rate: rate * jnp.eye(3, dtype=rate.dtype)
    weight = 3 * (n + 1) * setup.kT * (ensemble.barostat_fs * fs) ** 2
    thermostat, piston = (_chain(ensemble.chain_length, tau, setup) for tau in (ensemble.thermostat_fs, ensemble.barostat_fs))
    volume = lambda state: jnp.abs(jnp.linalg.det(state.cell))

    def start(state: State) -> State:
        zero = jnp.zeros_like(state.heat)
        extra = {
            "reference": state.cell,
            "log_scale": zero,
            "momentum": zero,
            "barostat": piston.initialize(1, zero, setup.kT),
            "thermostat": thermostat.initialize(setup.dof, _kinetic(setup, state), setup.kT),
        }
        return state.replace(extra=_as(extra, state))

    def push(state: State) -> Array:
        """Half a time step of the force on the cell."""
        force = 2 * (1 + 1 / n) * _kinetic(setup, state) - jnp.trace(state.virial) - 3 * setup.pressure * volume(state)
        return half * force

    def kicked(state: State, rate: Array) -> State:
        return state.replace(momentum=barostat.kick(state.momentum, state.force, every_way(rate), half, n))

    def step(state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        extra = state.extra
        links, cell_links = (c.update_mass(extra[k], setup.kT) for c, k in ((thermostat, "thermostat"), (piston, "barostat")))
        cell_momentum, cell_links = piston.half_step(extra["momentum"], cell_links, setup.kT)
        momentum, links = thermostat.half_step(state.momentum, links, setup.kT)
        state = state.replace(momentum=momentum)
        cell_momentum += push(state)
        rate = cell_momentum / weight
        state = kicked(state, rate)
        velocity = state.momentum / _mass(setup, state)
        position, _ = barostat.drift(state.position, state.cell, velocity, every_way(rate), setup.dt)
        # From the first cell, so that its shape stays exactly what it is.
        log_scale = extra["log_scale"] + rate * setup.dt
        cell = extra["reference"] * jnp.exp(log_scale)
        state, neighbor = field.follow(state.replace(position=position, cell=cell), neighbor)
        state = kicked(state, rate)
        cell_momentum += push(state)
        links = links.set(kinetic_energy=_kinetic(setup, state))
        cell_links = cell_links.set(kinetic_energy=cell_momentum**2 / (2 * weight))
        momentum, links = thermostat.half_step(state.momentum, links, setup.kT)
        cell_momentum, cell_links = piston.half_step(cell_momentum, cell_links, setup.kT)
        extra = extra | {"log_scale": log_scale, "momentum": cell_momentum, "barostat": cell_links, "thermostat": links}
        return _as(state.replace(momentum=momentum, extra=extra), state), neighbor

    def reservoir(state: State) -> Array:
        extra = state.extra
        chains = chain_energy(extra["thermostat"], setup.kT) + chain_energy(extra["barostat"], setup.kT)
        return chains + setup.pressure * volume(state) + extra["momentum"] ** 2 / (2 * weight)

    return start, step, reservoir


def chain_energy(chain: Any, kT: float) -> Array:
    """Energy of a Nosé-Hoover chain coupled to its own number of degrees of freedom, eV."""
    dof = jnp.ones_like(chain.position).at[0].set(chain.degrees_of_freedom)
    return jnp.sum(chain.momentum**2 / (2 * chain.mass) + kT * dof * chain.position)


def _chain(length: int, tau: float, setup: Setup) -> Any:
    """jax-md's Nosé-Hoover chain of so many links with a period of ``tau`` fs."""
    from jax_md import simulate

    return simulate.nose_hoover_chain(setup.dt, length, chain_steps=2, sy_steps=3, tau=tau * fs)


def _kicked(setup: Setup, state: State) -> State:
    """Momenta after half a time step."""
    return state.replace(momentum=state.momentum + setup.dt / 2 * state.force)


def _drifted(setup: Setup, state: State, time: float) -> State:
    """Positions after so much time (Å sqrt(amu/eV))."""
    return state.replace(position=state.position + time * state.momentum / _mass(setup, state))


def _as(tree: Any, state: State) -> Any:
    """Reals in the state's precision: jax-md makes some float32 whatever it is given."""
    real = lambda x: jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, state.position.dtype) if real(x) else x, tree)


def _same(state: State) -> State:
    return state


def _mass(setup: Setup, state: State) -> Array:
    return jnp.asarray(setup.mass, state.position.dtype)


def _kinetic(setup: Setup, state: State) -> Array:
    return kinetic_energy(state.momentum, _mass(setup, state))
