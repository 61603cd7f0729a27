"""Report of a finished run: an error table, learning curves and parity plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipot.figures import BLUE, GREY, STYLE, new_figure, save_figure
from equipot.files import write_atomically
from equipot.pages import try_to_write_page
from equipot.quantities import LABELLED, ordered
from equipot.structure import Structure
from equipot.training.errors import Table, table_text
from equipot.training.page import NAME, run_blocks
from equipot.training.panels import LearningPanel, learning_data, parity_data

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


def learning_curves(panels: Sequence[LearningPanel], path: Path) -> None:
    """Plot loss and mean absolute errors of training and validation against the epoch to a PNG file."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.1 * len(panels), 2.7, len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            for points, colour, legend in ((panel.training, GREY, "training"), (panel.validation, BLUE, "validation")):
                if len(points):
                    axis.plot(*points.T, color=colour, lw=1.2, label=legend, marker="." if len(points) < 3 else "")
            if len(axis.lines):
                plain_log_scale(axis)
            axis.set(xlabel="epoch", title=panel.label)
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


def write_report(
    out: Path,
    facts: Mapping[str, str],
    sets: Mapping[str, tuple[Table, Sequence[Structure], Sequence[Structure]]],
    say: Callable[[str], object],
    atomic_energies: Mapping[int, float] | None = None,
    before: Mapping[str, Table] | None = None,
) -> str:
    """Write report.md, its plots and the page train.html into the folder of a run.

    Args:
        out: Folder of the run.
        facts: Entries of the list at the top of the report.
        sets: Error table, references and predictions of each set, by name.
        say: Function that shows a line to the user: why the page could not be written.
        atomic_energies: Isolated-atom energies (eV by Z), subtracted from energies in parity plots.
        before: Error tables of the base of a fine-tuning, by set.

    Returns:
        The error table as text.
    """
    rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
    lines = ["# Training report", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    quantities = ordered(row for _, _, predictions in sets.values() for s in predictions for row in s.labels)
    tables = {name: table for name, (table, _, _) in sets.items()}
    text = table_text(tables, quantities) if sets else ""
    learning = learning_data(rows, quantities or LABELLED) if rows else []
    if text:
        lines += ["## Errors of best.eqp", "", text, ""]
    if before is not None:
        lines += ["## Before and after", "", "The base, and what became of it.", ""]
        for name, (table, _, _) in sets.items():
            lines += [f"### {name}", "", table_text({"before": before[name], "after": table}, quantities), ""]
    if rows:
        learning_curves(learning, out / "learning.png")
        lines += ["## Learning curves", "", "![learning curves](learning.png)", ""]
    for name, (_, references, predictions) in sets.items():
        parity(references, predictions, out / f"parity-{name}.png", name, atomic_energies)
        lines += [f"## Parity, {name}", "", f"![parity](parity-{name}.png)", ""]
    write_atomically(out / "report.md", "\n".join(lines).encode())
    blocks = lambda: run_blocks(out, facts, tables, quantities, learning, before)
    try_to_write_page(out / NAME, f"Training: {out.name}", blocks, say)
    return text
