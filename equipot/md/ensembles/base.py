"""What an ensemble is: its parameters, and how it moves a system by one time step.

The step functions of jax-md are not used, since they give away neither the energy nor the virial: these would have to be
computed once more for each line of the log, and the virial twice in each step at constant pressure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float

from equipot.md.forces import Forces
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList


@dataclass(frozen=True)
class Ensemble:
    """Parameters of an ensemble (the keys of a config's section), and its integrator.

    ``start``, ``step`` and ``reservoir`` are traced by JAX as parts of one compiled function; instances are compiled in, so
    that they must be hashable. A subclass anywhere can be used as ``kind: package.module:Class``.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "NVE": "equipot.md.ensembles.nve:NVE",
        "NVTNoseHoover": "equipot.md.ensembles.nose_hoover:NVTNoseHoover",
        "NVTLangevin": "equipot.md.ensembles.langevin:NVTLangevin",
        "NVTCSVR": "equipot.md.ensembles.csvr:NVTCSVR",
        "NPTIsotropic": "equipot.md.ensembles.npt_isotropic:NPTIsotropic",
        "NPTFlexible": "equipot.md.ensembles.npt_flexible:NPTFlexible",
    }
    """What ``kind`` may say in a config, besides ``package.module:Class``."""
    conserves_momentum: ClassVar[bool] = True
    """Whether the total momentum stays at zero, so that it is no degree of freedom of the thermostat."""
    has_thermostat: ClassVar[bool] = True
    """Whether the temperature of the config acts beyond the initial velocities."""
    has_pressure: ClassVar[bool] = False
    """Whether the cell changes under a pressure; the system must then be periodic along all three cell vectors."""
    is_stochastic: ClassVar[bool] = False
    """Whether random numbers move the system. The heat that they put in is known with the error of a time step, so that the
    conserved energy makes a random walk instead of a fluctuation about a constant."""
    needs_motion: ClassVar[bool] = False
    """Whether atoms at rest would stay at rest, so that a run cannot start from zero velocities."""

    def start(self, setup: Setup, state: State) -> State:
        """Set ``State.extra`` of the state at step zero, whose forces and virial are known.

        ``extra`` is any pytree of arrays (thermostat chains, momentum of the cell); its shapes and types must stay the same.
        """
        return state

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        """Move the system by one time step ``setup.dt`` (Å sqrt(amu/eV)).

        The potential is evaluated once, by ``forces.update``, where the atoms end; ``forces.update`` also rebuilds the
        neighbour list where necessary. Energies (eV) that stochastic forces put into the atoms and the cell are added to
        ``State.heat``.
        """
        raise NotImplementedError

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        """Energy outside of the atoms (eV), less ``State.heat``: potential + kinetic + reservoir is conserved."""
        raise NotImplementedError

    def check_positive(self, *names: str) -> None:
        """Check parameters by name.

        Raises:
            ValueError: a parameter that is not a finite number above zero.
        """
        for name in names:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; give a number above zero")
