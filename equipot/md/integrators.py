"""One step of each ensemble: the integrators of ``jax_md.simulate``, and what they leave out.

An integrator is three functions. ``start`` fills ``State.extra``, given the virial (eV); ``step`` advances by one time step,
with a neighbour list that is complete at its start; ``reservoir`` is the energy that is not in the atoms, such that potential +
kinetic + reservoir is conserved. They are made inside of the compiled chunk, since they close over the potential.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.md import barostat
from equipot.md.config import NVE, NVTCSVR, NPTFlexible, NPTIsotropic, NVTLangevin, NVTNoseHoover
from equipot.md.field import Field
from equipot.md.state import Setup, State, kinetic_energy
from equipot.neighbors import DeviceList
from equipot.units import fs


class Integrator(NamedTuple):
    """How an ensemble moves (see the module)."""

    start: Callable[[State, Array], State]
    step: Callable[[State, DeviceList], State]
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


def unwrapped(position: Array, change: Array, neighbor: Any = None, box: Any = None) -> Array:
    """jax-md's shift function for positions that are not wrapped."""
    return position + change


def force_function(field: Field, cell: Array) -> Callable[..., Array]:
    """jax-md's force function; keyword arguments of a step reach it."""
    return lambda position, neighbor: field.forces(position, cell, neighbor)


def velocity_verlet(setup: Setup, field: Field) -> Callable[[State, DeviceList], State]:
    """One step of ``jax_md.simulate.nve``."""
    from jax_md import simulate

    def step(state: State, neighbor: DeviceList) -> State:
        _, apply = simulate.nve(force_function(field, state.cell), unwrapped, setup.dt)
        new = apply(simulate.NVEState(state.position, state.momentum, state.force, _mass(setup, state)), neighbor=neighbor)
        return state.replace(position=new.position, momentum=new.momentum, force=new.force)

    return step


def nve(ensemble: NVE, setup: Setup, field: Field) -> tuple:
    """Velocity Verlet."""
    return _same, velocity_verlet(setup, field), lambda state: jnp.zeros_like(state.heat)


def langevin(ensemble: NVTLangevin, setup: Setup, field: Field) -> tuple:
    """``jax_md.simulate.nvt_langevin`` (BAOAB).

    The heat of a step is the change of the kinetic energy in its O part, found again from the momenta before and after the step
    and the half kicks between.
    """
    from jax_md import simulate

    friction = ensemble.friction_per_ps / (1000 * fs)

    def step(state: State, neighbor: DeviceList) -> State:
        mass = _mass(setup, state)
        _, apply = simulate.nvt_langevin(force_function(field, state.cell), unwrapped, setup.dt, setup.kT, friction)
        old = simulate.NVTLangevinState(state.position, state.momentum, state.force, mass, state.key)
        new = apply(old, neighbor=neighbor)
        before = state.momentum + setup.dt / 2 * state.force
        after = new.momentum - setup.dt / 2 * new.force
        # The difference of the squares, taken atom by atom, keeps its digits in float32.
        heat = 0.5 * jnp.sum((after - before) * (after + before) / mass)
        return state.replace(position=new.position, momentum=new.momentum, force=new.force, key=new.rng, heat=state.heat + heat)

    return _same, step, lambda state: -state.heat


def csvr(ensemble: NVTCSVR, setup: Setup, field: Field) -> tuple:
    """Velocity rescaling of Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007), then a velocity Verlet step.

    ``jax_md.simulate.temp_csvr`` is not used: it draws both of its noises, and all later keys, from one key, and counts the
    degrees of freedom of the centre of mass, which its initial momenta do not have.
    """
    verlet = velocity_verlet(setup, field)

    def step(state: State, neighbor: DeviceList) -> State:
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
    """``jax_md.simulate.nvt_nose_hoover``, told the number of degrees of freedom that the momenta really have."""
    from jax_md import simulate

    steps = {"chain_length": ensemble.chain_length, "chain_steps": 2, "sy_steps": 3, "tau": ensemble.thermostat_fs * fs}

    def start(state: State, virial: Array) -> State:
        chain = simulate.nose_hoover_chain(setup.dt, **steps)
        return state.replace(extra=_as(_begin(chain, setup.dof, _kinetic(setup, state), setup.kT), state))

    def step(state: State, neighbor: DeviceList) -> State:
        _, apply = simulate.nvt_nose_hoover(force_function(field, state.cell), unwrapped, setup.dt, setup.kT, **steps)
        old = simulate.NVTNoseHooverState(state.position, state.momentum, state.force, _mass(setup, state), state.extra)
        new = apply(old, neighbor=neighbor)
        return state.replace(position=new.position, momentum=new.momentum, force=new.force, extra=_as(new.chain, state))

    return start, step, lambda state: chain_energy(state.extra, setup.kT)


def isotropic(ensemble: NPTIsotropic, setup: Setup, field: Field) -> tuple:
    """``jax_md.simulate.npt_nose_hoover`` (Tuckerman et al., J. Phys. A 39, 5629, 2006), in real, unwrapped coordinates.

    The box that jax-md sees is a cube of the cell's volume, of which only the scale is used: so the cell may have any shape and
    either handedness, and no convention of rows or columns comes in.
    """
    from jax_md import simulate

    chain = lambda tau: {"chain_length": ensemble.chain_length, "chain_steps": 2, "sy_steps": 3, "tau": tau * fs}
    couplings = {"thermostat_kwargs": chain(ensemble.thermostat_fs), "barostat_kwargs": chain(ensemble.barostat_fs)}

    def start(state: State, virial: Array) -> State:
        begin = lambda tau: simulate.nose_hoover_chain(setup.dt, **chain(tau))
        zero = jnp.zeros_like(state.heat)
        side = jnp.abs(jnp.linalg.det(state.cell)) ** (1 / 3)
        weight = 3 * (len(state.position) + 1) * setup.kT * (ensemble.barostat_fs * fs) ** 2
        extra = {
            "reference": state.cell,
            "box": side * jnp.eye(3, dtype=side.dtype),
            "log_scale": zero,
            "momentum": zero,
            "mass": zero + weight,
            "barostat": _begin(begin(ensemble.barostat_fs), 1, zero, setup.kT),
            "thermostat": _begin(begin(ensemble.thermostat_fs), setup.dof, _kinetic(setup, state), setup.kT),
        }
        return state.replace(extra=_as(extra, state))

    def step(state: State, neighbor: DeviceList) -> State:
        extra = state.extra
        cell_of = lambda box: extra["reference"] * (box[0, 0] / extra["box"][0, 0])

        def energy(position: Array, box: Array, neighbor: DeviceList, perturbation: Any = 1.0) -> Array:
            return field.energy(position, cell_of(box), neighbor, perturbation)

        _, apply = simulate.npt_nose_hoover(energy, unwrapped, setup.dt, setup.pressure, setup.kT, **couplings)
        old = simulate.NPTNoseHooverState(
            state.position, state.momentum, state.force, _mass(setup, state), extra["box"], extra["log_scale"],
            extra["momentum"], extra["mass"], extra["barostat"], extra["thermostat"],
        )  # fmt: skip
        new = apply(old, neighbor=neighbor)
        extra = extra | {
            "log_scale": new.box_position, "momentum": new.box_momentum, "mass": new.box_mass, "barostat": new.barostat,
            "thermostat": new.thermostat,
        }  # fmt: skip
        moved = state.replace(position=new.position, momentum=new.momentum, force=new.force, cell=cell_of(new.box))
        return _as(moved.replace(extra=extra), state)

    def reservoir(state: State) -> Array:
        extra = state.extra
        chains = chain_energy(extra["thermostat"], setup.kT) + chain_energy(extra["barostat"], setup.kT)
        volume = jnp.abs(jnp.linalg.det(state.cell))
        return chains + setup.pressure * volume + extra["momentum"] ** 2 / (2 * extra["mass"])

    return start, step, reservoir


def chain_energy(chain: Any, kT: float) -> Array:
    """Energy of a Nosé-Hoover chain coupled to its own number of degrees of freedom, eV."""
    dof = jnp.ones_like(chain.position).at[0].set(chain.degrees_of_freedom)
    return jnp.sum(chain.momentum**2 / (2 * chain.mass) + kT * dof * chain.position)


def _begin(chain: Any, dof: int, kinetic: Array, kT: float) -> Any:
    return chain.initialize(dof, kinetic, kT)


def _as(tree: Any, state: State) -> Any:
    """Reals in the state's precision: jax-md makes some float32 whatever it is given."""
    real = lambda x: jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, state.position.dtype) if real(x) else x, tree)


def _same(state: State, virial: Array) -> State:
    return state


def _mass(setup: Setup, state: State) -> Array:
    return jnp.asarray(setup.mass, state.position.dtype)


def _kinetic(setup: Setup, state: State) -> Array:
    return kinetic_energy(state.momentum, _mass(setup, state))
