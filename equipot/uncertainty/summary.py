"""Summary of the deviations among predictions: means, the largest and where, and how many errors their intervals hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equipot.posterior import LEVELS, Calibration
from equipot.potential import Potential
from equipot.quantities import BY_NAME, Quantity
from equipot.structure import Structure, symbols

LEVEL = 0.9
"""Coverage of the intervals that errors are compared with, one of ``LEVELS``."""


class Overview(NamedTuple):
    """Values of one estimate of uncertainty over a set of structures, in the unit of ``row``."""

    row: Quantity
    mean: float
    """Mean over systems or atoms, without infinite values; NaN where all are infinite."""
    largest: float
    where: str
    """Name of the structure of the largest value, and the atom."""
    infinite: tuple[int, ...]
    """Atomic numbers of the infinite values."""

    @property
    def text(self) -> str:
        """A line of the printed summary."""
        unit, factor = self.row.shown
        show = lambda value: f"{value * factor:.3g} {unit}".rstrip()
        line = f"{self.row.name}: mean {show(self.mean)}, largest {show(self.largest)} ({self.where})"
        return f"{line}; infinite for {symbols(self.infinite)}, of which too little is known" if self.infinite else line


def spread_of(row: Quantity, predictions: Sequence[Structure]) -> Overview | None:
    """Find mean and largest value of an estimate among structures with predictions as their labels; None where none has it."""
    having = [structure for structure in predictions if row in structure.labels]
    if not having:
        return None
    values = [np.atleast_1d(structure.labels[row]) for structure in having]
    frame = int(np.argmax([value.max() for value in values]))
    atom = int(np.argmax(values[frame]))
    where = having[frame].name
    if row.per == "atom":
        where += f", atom {atom}, {symbols(having[frame].numbers[[atom]].tolist())}"
    every = np.concatenate(values)
    finite = every[np.isfinite(every)]
    infinite: set[int] = set()
    if row.per == "atom":
        infinite = {z for s, value in zip(having, values, strict=True) for z in s.numbers[np.isinf(value)].tolist()}
    mean = float(finite.mean()) if len(finite) else float("nan")
    return Overview(row, mean, float(every.max()), where, tuple(sorted(infinite)))


def held_within(
    row: Quantity, calibration: Calibration, references: Sequence[Structure], predictions: Sequence[Structure]
) -> float | None:
    """Compute the share of errors, component by component, within the intervals of ``LEVEL`` about predictions.

    Args:
        row: A deviation, such as ``FORCES_STD``.
        calibration: Calibration of the deviation.
        references: Structures with labels.
        predictions: These structures with predictions as labels, deviations among them.

    Returns:
        The share; None without labels, or where too few frames calibrated an interval of ``LEVEL``.
    """
    of = BY_NAME[row.deviation_of]
    factors = np.asarray(calibration.quantiles)[..., LEVELS.index(LEVEL)]
    within = []
    for k, predicted in enumerate(predictions):
        reference = references[k]
        if of not in reference.labels or row not in predicted.labels or of not in predicted.labels:
            continue
        factor = factors[reference.numbers] if of.per == "atom" else factors
        half = np.atleast_1d(factor * predicted.labels[row])
        error = np.subtract(predicted.labels[of], reference.labels[of]).reshape(len(half), -1)
        within.append((np.abs(error) <= half[:, None])[np.isfinite(half)].ravel())
    known = np.concatenate(within) if within else np.zeros(0)
    return float(known.mean()) if len(known) else None


def summary(
    potential: Potential, references: Sequence[Structure], predictions: Sequence[Structure]
) -> tuple[list[str], dict[str, float]]:
    """Summarise the deviations among predictions of a potential.

    Args:
        potential: Potential that made the predictions.
        references: Structures, with labels or without.
        predictions: These structures with predictions as labels.

    Returns:
        Lines of text: one for each estimate, and with labels one of how many errors are within intervals of ``LEVEL``; and the
        numbers by name, in eV and Å: ``forces_std_mean``, ``forces_std_max``, ``forces_within_90``, and so on. None of either
        for a potential without an estimate of its uncertainty.
    """
    posterior = potential.posterior
    if posterior is None:
        return [], {}
    lines: list[str] = []
    shares: list[str] = []
    numbers: dict[str, float] = {}
    for row in potential.deviations:
        if (found := spread_of(row, predictions)) is not None:
            lines.append(found.text)
            # An infinite novelty is no number of JSON.
            both = {f"{row.name}_mean": found.mean, f"{row.name}_max": found.largest}
            numbers |= {name: value for name, value in both.items() if np.isfinite(value)}
        if row.deviation_of:
            calibration = posterior.calibrations[row.name]
            lines += _left_out(row, calibration, predictions)
            if (held := held_within(row, calibration, references, predictions)) is not None:
                numbers[f"{row.deviation_of}_within_{100 * LEVEL:.0f}"] = held
                shares.append(f"{held:.1%} of {row.deviation_of}")
    if shares:
        lines.append(f"errors within their {LEVEL:.0%} intervals: {', '.join(shares)}")
    return lines, numbers


def _left_out(row: Quantity, calibration: Calibration, predictions: Sequence[Structure]) -> list[str]:
    """Say for which elements a deviation of atoms was not calibrated, so that their frames have none."""
    if row.per != "atom":
        return []
    scale = np.broadcast_to(np.asarray(calibration.scale), 119)
    without = [set(structure.numbers[np.isnan(scale[structure.numbers])].tolist()) for structure in predictions]
    if not (elements := sorted(set().union(*without))):
        return []
    return [
        f"{row.name}: left out of {sum(map(bool, without))} frames with {symbols(elements)}, for which it is not calibrated"
    ]
