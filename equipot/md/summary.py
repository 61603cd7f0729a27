"""Results of a finished run of molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from equipot.md import log
from equipot.md.config import MDConfig


class Summary(NamedTuple):
    """Results of a finished run."""

    steps: int
    temperature_K: float
    """Mean temperature of the second half of the run."""
    drift_meV_per_atom_per_ns: float
    """Slope of the conserved energy by a straight line through the second half of the run."""
    drift_error: float
    """Standard error of the drift, meV/atom/ns; NaN if the run is too short."""
    ns_per_day: float
    builds: int
    """Number of sizes of the neighbour list, the first included."""


def summarise(table: Mapping[str, np.ndarray], config: MDConfig, atoms: int, ns_per_day: float, builds: int) -> Summary:
    """Compute the results of a run from the columns of its log."""
    half, per_atom = second_half(table), 1e6 / atoms
    drift, error = log.slope(half["time_ps"], half["conserved_eV"], config.ensemble.is_stochastic)
    temperature = float(half["temperature_K"].mean())
    return Summary(config.steps, temperature, drift * per_atom, error * per_atom, ns_per_day, builds)


def second_half(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a log from the middle on."""
    return {name: column[len(column) // 2 :] for name, column in table.items()}
