"""Base class of ensembles: parameters, and an integrator for one time step.

The step functions of jax-md are not used, because they return neither energy nor virial: both would be computed again for each
line of the log, and the virial twice in each step at constant pressure.
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
    """Parameters of an ensemble, which are the keys of a config's section, and its integrator.

    JAX traces ``start``, ``step`` and ``reservoir`` in one compiled function; instances are static arguments and must be
    hashable. A config selects a subclass of another package by ``kind: package.module:Class``.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "NVE": "equipot.md.ensembles.nve:NVE",
        "NVTNoseHoover": "equipot.md.ensembles.nose_hoover:NVTNoseHoover",
        "NVTLangevin": "equipot.md.ensembles.langevin:NVTLangevin",
        "NVTCSVR": "equipot.md.ensembles.csvr:NVTCSVR",
        "NPTIsotropic": "equipot.md.ensembles.npt_isotropic:NPTIsotropic",
        "NPTFlexible": "equipot.md.ensembles.npt_flexible:NPTFlexible",
    }
    """Built-in ensembles by the value of ``kind`` in a config; ``equipot.md`` offers the classes by these names."""
    conserves_momentum: ClassVar[bool] = True
    """Whether the total momentum stays zero, so that the thermostat has three degrees of freedom less."""
    has_thermostat: ClassVar[bool] = True
    """Whether a thermostat keeps the temperature of the config."""
    has_pressure: ClassVar[bool] = False
    """Whether the cell changes under a pressure; the system must then be periodic along all three cell vectors."""
    is_stochastic: ClassVar[bool] = False
    """Whether random forces act. Their heat has the error of a time step, so that the conserved energy is a random walk instead
    of a fluctuation about a constant."""
    needs_motion: ClassVar[bool] = False
    """Whether a run cannot start from zero velocities, because atoms at rest would stay at rest."""

    def start(self, setup: Setup, state: State) -> State:
        """Set ``State.extra`` of the state at step zero, whose forces and virial are known.

        ``extra`` is any pytree of arrays (thermostat chains, momentum of the cell), of constant shapes and dtypes.
        """
        return state

    def step(self, setup: Setup, forces: Forces, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        """Move the system by one time step ``setup.dt`` (Å sqrt(amu/eV)).

        Call ``forces.update`` once, at the final positions: it evaluates the potential, and rebuilds the neighbour list if
        necessary. Add the energy (eV) that stochastic forces put into atoms and cell to ``State.heat``.
        """
        raise NotImplementedError

    def reservoir(self, setup: Setup, state: State) -> Float[Array, ""]:
        """Compute the energy (eV) outside the atoms less ``State.heat``: potential + kinetic + reservoir is conserved.

        NVE: 0, since nothing outside the atoms exchanges energy with them.
        NVTLangevin and NVTCSVR: ``-State.heat``, the energy that the thermostat has taken out.
        NVTNoseHoover: kinetic and potential energy of the links of the chain, which nothing stochastic acts on.
        NPTIsotropic and NPTFlexible: besides, the kinetic energy of the cell and pressure times volume.
        """
        raise NotImplementedError

    def check_positive(self, *names: str) -> None:
        """Check that parameters are positive and finite.

        Raises:
            ValueError: a parameter that is not a finite number above zero.
        """
        for name in names:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; give a number above zero")
