"""Console messages of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipot.console import Console, duration
from equipot.quantities import Quantity


def errors_text(row: Mapping[str, Any], quantities: Sequence[Quantity], prefix: str = "") -> str:
    """Format mean absolute errors of the quantities, such as ``E 1.2 meV/atom  F 34.5 meV/Å``.

    Args:
        row: Errors by name, as in a line of metrics.jsonl.
        quantities: Quantities to show; those without an error in ``row`` are left out.
        prefix: Prefix of the names of the errors.
    """
    found = []
    for quantity in quantities:
        key, (unit, factor) = prefix + quantity.error_name.format("mae"), quantity.shown
        if key in row:
            found.append(f"{quantity.symbol or quantity.name} {row[key] * factor:.3g} {unit}{'/atom' * quantity.extensive}")
    return "  ".join(found)


def show_epoch(console: Console, row: Mapping[str, Any], share: float, left: float, quantities: Sequence[Quantity]) -> None:
    """Print the figures of an epoch.

    Args:
        console: Console to print on.
        row: Figures by name, as in a line of metrics.jsonl.
        share: Share of the schedule that is done.
        left: Estimated time until the end of the run (s).
        quantities: Quantities whose errors are printed.
    """
    figures = f"epoch {row['epoch']:4d} ({share:4.0%})  loss {row['loss']:.4g}"
    if "valid_loss" in row:
        figures += f"  valid {row['valid_loss']:.4g}  MAE {errors_text(row, quantities, 'valid_')}"
    rest = f"lr {row['learning_rate']:.2g}  {duration(left)} left"
    console.progress(figures, after=rest, always=share == 1)
