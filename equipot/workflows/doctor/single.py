"""Check the error of single precision."""

from __future__ import annotations

import numpy as np

from equipot.potential import Potential
from equipot.units import GPa
from equipot.workflows.doctor.bench import Subject, precision
from equipot.workflows.doctor.findings import Finding, Measure
from equipot.workflows.doctor.laws import largest_differences

LIMITS = {
    "energy": ("meV/atom", 1e3, 1e-4, 1e-2),
    "forces": ("meV/Å", 1e3, 2e-3, 1e-1),
    "stress": ("GPa", 1 / GPa, 1e-4, 1e-2),
}
"""Unit in the report, factor to that unit, and limits of look and broken in eV/atom, eV/Å and eV/Å^3.

Rounding is noise that averages out: 2 meV/Å on forces of 1 eV/Å heats a run far less than the time step does.
"""


def single_precision(subject: Subject, potential: Potential) -> Finding:
    """Compare energies, forces and stress of the potential in float32 with the predictions of the subject in float64."""
    with precision("float32"):
        rounded = subject.bench._replace(potential=potential.astype("float32")).predict(subject.structures)
    measures = largest_differences(subject, rounded, _measure)
    finding = Finding("float32", measures)
    if finding.verdict == "sound":
        return finding
    return Finding("float32", measures, "single precision is noisy here: run dynamics in float64 (dtype: float64)")


def _measure(name: str, exact: np.ndarray, rounded: np.ndarray) -> Measure:
    unit, factor, look, broken = LIMITS[name]
    return Measure(name, factor * float(np.abs(rounded - exact).max()), unit, factor * look, factor * broken)
