"""Report of a finished run: an error table, learning curves and parity plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot.figures import BLUE, GREY, STYLE, new_figure, save_figure
from equipot.files import write_atomically
from equipot.hessian_labels import is_whole
from equipot.isolated_atoms import isolated_atom_energy
from equipot.quantities import LABELLED, Quantity, ordered
from equipot.structure import Structure
from equipot.training.errors import Table, table_text

MOST_POINTS = 20000
"""Largest number of points of a parity plot; of more points, an even selection is drawn."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain_log_scale(axis: Any) -> None:
    """Make the y axis logarithmic, with labels 1, 2 and 5 per decade as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def learning_curves(rows: Sequence[Mapping[str, Any]], path: Path, quantities: Sequence[Quantity] = LABELLED) -> None:
    """Plot loss and mean absolute errors of training and validation against the epoch.

    Args:
        rows: Lines of metrics.jsonl.
        path: File of the figure.
        quantities: Quantities whose errors are plotted.
    """
    import matplotlib

    panels = [("loss", "loss", 1.0)]
    for quantity in quantities:
        name, (unit, factor) = quantity.error_name.format("mae"), quantity.shown
        if any(f"{prefix}_{name}" in row for row in rows for prefix in ("train", "valid")):
            panels.append((name, f"{quantity.name} MAE ({unit}{'/atom' * quantity.extensive})", factor))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.1 * len(panels), 2.7, len(panels))
        for axis, (name, label, factor) in zip(axes, panels, strict=True):
            train = "loss" if name == "loss" else f"train_{name}"
            for key, colour, legend in ((train, GREY, "training"), (f"valid_{name}", BLUE, "validation")):
                points = [(row["epoch"], factor * row[key]) for row in rows if key in row and row[key] > 0]
                if points:
                    marker = "." if len(points) < 3 else ""
                    axis.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=legend, marker=marker)
            if len(axis.lines):
                plain_log_scale(axis)
            axis.set(xlabel="epoch", title=label)
        axes[0].legend()
        save_figure(figure, path)


def parity(
    references: Sequence[Structure],
    predictions: Sequence[Structure],
    path: Path,
    title: str = "",
    atomic_energies: Mapping[int, float] | None = None,
) -> None:
    """Plot predicted against reference values of every quantity that both have.

    Args:
        references: Structures with reference labels.
        predictions: These structures with predictions as labels.
        path: File of the figure.
        title: Title of the figure.
        atomic_energies: Isolated-atom energies (eV by Z), which are subtracted from energies; else the range of the plot is
            dominated by differences between elements.
    """
    import matplotlib

    panels = parity_data(references, predictions, atomic_energies)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.2 * max(1, len(panels)), 3.2, max(1, len(panels)))
        for axis, (label, reference, predicted, unit, unit_text, factor) in zip(axes, panels, strict=False):
            error = predicted - reference
            mae, rmse = np.mean(np.abs(error)), np.sqrt(np.mean(error**2))
            low, high = min(reference.min(), predicted.min()), max(reference.max(), predicted.max())
            margin = 0.04 * (high - low) or 0.1
            limits = (low - margin, high + margin)
            axis.plot(limits, limits, color=GREY, lw=0.8, zorder=1)
            step = -(-len(reference) // MOST_POINTS)
            size, alpha = (4, 0.35) if len(reference) > 500 else (12, 0.7)
            axis.scatter(reference[::step], predicted[::step], s=size, alpha=alpha, color=BLUE, lw=0, zorder=2)
            axis.set(xlim=limits, ylim=limits, aspect="equal", title=label)
            axis.set(xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})")
            axis.text(
                0.04, 0.96, f"MAE {mae * factor:.3g} {unit_text}\nRMSE {rmse * factor:.3g} {unit_text}",
                transform=axis.transAxes, va="top",
            )  # fmt: skip
            axis.locator_params(nbins=5)
        if title:
            figure.suptitle(title)
        save_figure(figure, path)


class Panel(NamedTuple):
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
) -> list[Panel]:
    """Make a panel for each quantity that both have, with a point for each component of each value; see ``parity``."""
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
        out.append(Panel(title, reference, predicted, unit + per, error_unit + per, error_factor / factor))
    return out


def alike(pairs: Sequence[tuple[Structure, Structure]], row: Quantity) -> Sequence[tuple[Structure, Structure]]:
    """Select pairs whose labels can be drawn in one plot: of Hessians whole matrices, or products where there is no matrix."""
    whole = [pair for pair in pairs if row.per == "pair" and is_whole(pair[0].labels[row])]
    return whole or pairs


def write_report(
    out: Path,
    facts: Mapping[str, str],
    sets: Mapping[str, tuple[Table, Sequence[Structure], Sequence[Structure]]],
    atomic_energies: Mapping[int, float] | None = None,
    before: Mapping[str, Table] | None = None,
) -> str:
    """Write report.md and its plots into the folder of a run.

    Args:
        out: Folder of the run.
        facts: Entries of the list at the top of the report.
        sets: Error table, references and predictions of each set, by name.
        atomic_energies: Isolated-atom energies (eV by Z), subtracted from energies in parity plots.
        before: Error tables of the base of a fine-tuning, by set.

    Returns:
        The error table as text.
    """
    rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
    lines = ["# Training report", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    quantities = ordered(row for _, _, predictions in sets.values() for s in predictions for row in s.labels)
    text = table_text({name: table for name, (table, _, _) in sets.items()}, quantities) if sets else ""
    if text:
        lines += ["## Errors of best.eqp", "", text, ""]
    if before is not None:
        lines += ["## Before and after", "", "The base, and what became of it.", ""]
        for name, (table, _, _) in sets.items():
            lines += [f"### {name}", "", table_text({"before": before[name], "after": table}, quantities), ""]
    if rows:
        learning_curves(rows, out / "learning.png", quantities or LABELLED)
        lines += ["## Learning curves", "", "![learning curves](learning.png)", ""]
    for name, (_, references, predictions) in sets.items():
        parity(references, predictions, out / f"parity-{name}.png", name, atomic_energies)
        lines += [f"## Parity, {name}", "", f"![parity](parity-{name}.png)", ""]
    write_atomically(out / "report.md", "\n".join(lines).encode())
    return text
