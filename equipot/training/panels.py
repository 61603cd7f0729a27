"""Points of the plots of a report: learning curves and parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from equipot.hessian_labels import is_whole
from equipot.isolated_atoms import isolated_atom_energy
from equipot.quantities import LABELLED, Quantity, ordered
from equipot.structure import Structure


class LearningPanel(NamedTuple):
    """Loss or mean absolute error of a quantity in the course of a run."""

    label: str
    """Name with the unit."""
    training: np.ndarray
    """(lines, 2) epoch and value, above zero."""
    validation: np.ndarray
    """(lines, 2) epoch and value, above zero."""


def learning_data(rows: Sequence[Mapping[str, Any]], quantities: Sequence[Quantity] = LABELLED) -> list[LearningPanel]:
    """Make panels of the loss and of the mean absolute errors of ``quantities`` from the lines of metrics.jsonl."""
    sources = [("loss", "loss", "loss", 1.0)]
    for quantity in quantities:
        name, (unit, factor) = quantity.error_name.format("mae"), quantity.shown
        if any(f"{prefix}_{name}" in row for row in rows for prefix in ("train", "valid")):
            label = f"{quantity.name} MAE ({unit}{'/atom' * quantity.extensive})"
            sources.append((f"train_{name}", name, label, factor))
    points = lambda key, factor: np.array(
        [(row["epoch"], factor * row[key]) for row in rows if key in row and row[key] > 0], float
    ).reshape(-1, 2)
    return [
        LearningPanel(label, points(train, factor), points(f"valid_{name}", factor)) for train, name, label, factor in sources
    ]


class ParityPanel(NamedTuple):
    """Points of a parity plot."""

    title: str
    reference: np.ndarray
    """Reference values, (points,), in ``unit``."""
    predicted: np.ndarray
    """Predicted values, (points,), in ``unit``."""
    unit: str
    """Unit of the axes."""
    error_unit: str
    """Unit of the mean errors."""
    factor: float
    """Factor from ``unit`` to ``error_unit``."""


def parity_data(
    references: Sequence[Structure], predictions: Sequence[Structure], atomic_energies: Mapping[int, float] | None
) -> list[ParityPanel]:
    """Make a panel for each quantity that both have, with a point for each component of each value; see ``report.parity``."""
    pairs = [(references[k], p) for k, p in enumerate(predictions)]
    less = "" if atomic_energies is None else ", less isolated atoms"
    out = []
    for row in ordered(row for pair in pairs for row in pair[0].labels.keys() & pair[1].labels.keys()):
        unit, factor = row.drawn
        error_unit, error_factor = row.shown
        per = "/atom" * row.extensive

        def drawn(s: Structure, row: Quantity = row, factor: float = factor) -> np.ndarray:
            value = np.ravel(row.compared(s.labels[row])) * factor
            if row.from_isolated_atoms and atomic_energies is not None:
                value = value - isolated_atom_energy(s.numbers, atomic_energies).sum() * factor
            return value / len(s) if row.extensive else value

        both = alike([pair for pair in pairs if all(row in s.labels for s in pair)], row)
        reference, predicted = (np.concatenate([drawn(pair[side]) for pair in both]) for side in (0, 1))
        title = row.name + (" per atom" if row.extensive else "") + (", by component" if row.shape else "")
        title += less if row.from_isolated_atoms else ""
        out.append(ParityPanel(title, reference, predicted, unit + per, error_unit + per, error_factor / factor))
    return out


def alike(pairs: Sequence[tuple[Structure, Structure]], row: Quantity) -> Sequence[tuple[Structure, Structure]]:
    """Select pairs whose labels can be drawn in one plot: of Hessians whole matrices, or products where there is no matrix."""
    whole = [pair for pair in pairs if row.per == "pair" and is_whole(pair[0].labels[row])]
    return whole or pairs
