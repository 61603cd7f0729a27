"""Config of a molecular-dynamics run, read by ``equipot md``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from equipot.electric_field import checked
from equipot.md.ensembles import Ensemble, builtin
from equipot.md.ensembles.langevin import NVTLangevin
from equipot.md.gate import Gate
from equipot.md.trajectory import H5MD, ExtXYZ


@dataclass(frozen=True)
class MDConfig:
    """Molecular dynamics of one structure with one potential.

    Raises:
        ValueError: a value out of range, or values that contradict each other.
    """

    model: str
    """Potential: an .eqp file or the name of a published one, such as sevennet-0."""
    structure: str
    """Starting structure: a file that ASE reads, file@INDEX for one of its frames, or bundled:NAME."""
    ensemble: Ensemble = NVTLangevin()
    """Ensemble and integrator."""
    steps: int = 10_000
    """Length of the run, a multiple of log_every."""
    timestep_fs: float = 0.5
    """Time step, fs: at most about 1 with hydrogen, 2 to 5 without."""
    temperature_K: float = 300.0
    """Temperature, K; without a thermostat (NVE) that of the initial velocities."""
    initial_temperature_K: float | None = None
    """Temperature of the initial velocities, K; None for ``temperature_K``."""
    velocities: Literal["draw", "file"] = "draw"
    """Initial velocities: drawn at random for the temperature, or from the momenta in the structure file."""
    pressure_GPa: float = 0.0
    """External pressure, GPa, of an ensemble at constant pressure."""
    repeat: tuple[int, int, int] = (1, 1, 1)
    """Copies of the structure along each cell vector."""
    frame: int = 0
    """Frame of the structure file to start from; -1 is the last."""
    charge: float | None = None
    """Total charge of the simulated system, copies included, e; None for the charge that the structure file states."""
    spin: float | None = None
    """Number of unpaired electrons of the simulated system (multiplicity less one); None for what the structure file states."""
    field: tuple[float, float, float] | None = None
    """External electric field, V/Å, for a model that sees fields; None for the field that the structure file states."""
    types: tuple[str, ...] = ()
    """Element of each atom type, in the order of the types, for a structure file that numbers them, such as a LAMMPS dump."""
    log_every: int = 10
    """Steps between lines of the log."""
    gate: Gate | None = None
    """Thresholds on the uncertainty of forces, for a potential that has an estimate of it; None for no gate."""
    trajectory: ExtXYZ | H5MD | None = ExtXYZ()
    """Format of the trajectory, None for no trajectory; the interval of frames is a multiple of log_every."""
    chunk_steps: int = 200
    """Steps between checkpoints, rounded up to whole frames; a kill loses at most so many steps, and Ctrl-C waits for them."""
    skin: float = 0.5
    """Reach of the neighbour list beyond the cutoff, Å; a wider list is rebuilt less often but makes steps slower."""
    seed: int = 0
    """Seed of initial velocities and stochastic ensembles."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the model and of the integrator."""
    max_temperature_K: float = 20_000.0
    """Temperature (K) above which the run counts as exploded and stops."""
    min_distance: float = 0.3
    """Distance (Å) below which two atoms count as fused and the run stops."""
    method: str | None = None
    """Class package.module:Class of the ASE calculator that the potential was trained to correct, and which is called at every
    step; to be given only for one that ``data.subtract`` does not know by name."""

    def __post_init__(self) -> None:
        if self.field is not None:
            checked(self.field, "field")
        positive = ("timestep_fs", "temperature_K", "log_every", "chunk_steps", "max_temperature_K")
        for name in positive:
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above zero")
        for name in ("steps", "skin", "min_distance", "initial_temperature_K"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number that is not negative")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a whole number from 0 to 4294967295")
        if self.velocities == "file" and self.initial_temperature_K is not None:
            raise ValueError(
                f"initial_temperature_K is {self.initial_temperature_K}, but velocities is file: leave one of them out"
            )
        if min(self.repeat) < 1:
            raise ValueError(f"repeat is {self.repeat}; give three numbers of at least 1")
        if self.timestep_fs > LONGEST_STEP:
            raise ValueError(f"timestep_fs is {self.timestep_fs}: no atomic vibration survives that; 0.5 to 5 fs are usual")
        if self.steps % self.log_every:
            near = max(1, round(self.steps / self.log_every)) * self.log_every
            raise ValueError(f"steps ({self.steps}) is not a multiple of log_every ({self.log_every}); {near} would be")
        if self.trajectory is not None and (self.trajectory.every < 1 or self.trajectory.every % self.log_every):
            raise ValueError(f"trajectory: every ({self.trajectory.every}) must be a multiple of log_every ({self.log_every})")
        if self.gate is not None and self.gate.interval % self.log_every:
            raise ValueError(f"gate.every ({self.gate.interval}) must be a multiple of log_every ({self.log_every})")
        if not math.isfinite(self.pressure_GPa):
            raise ValueError(f"pressure_GPa is {self.pressure_GPa}; give a number")
        if self.pressure_GPa and not self.ensemble.has_pressure:
            kind = type(self.ensemble).__name__
            others = " or ".join(name for name, cls in builtin().items() if cls.has_pressure)
            raise ValueError(f"pressure_GPa is {self.pressure_GPa}, but {kind} has none; choose {others}")

    @property
    def chunk(self) -> int:
        """Steps per chunk, a multiple of the intervals of log, frames and checks of the gate."""
        unit = self.log_every if self.trajectory is None else self.trajectory.every
        unit = unit if self.gate is None or not self.gate.interval else math.lcm(unit, self.gate.interval)
        return unit * math.ceil(self.chunk_steps / unit)


LONGEST_STEP = 20.0
"""Longest time step, fs; a longer one is a mistake of units."""
