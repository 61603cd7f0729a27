"""The pages of a finished run of training and of an evaluation on labelled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equipot.pages import Block, Curve, Listing, Picture, Plot, Table, Text
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.training.errors import Table as Errors
from equipot.training.errors import table_rows
from equipot.training.panels import LearningPanel, ParityPanel, parity_data

NAME = "train.html"
"""Name of the page in the folder of a run."""


def run_blocks(
    out: Path,
    facts: Mapping[str, str],
    tables: Mapping[str, Errors],
    quantities: Sequence[Quantity],
    learning: Sequence[LearningPanel],
    before: Mapping[str, Errors] | None = None,
) -> list[Block]:
    """Make the blocks of the page.

    Args:
        out: Folder of the run, with parity-SET.png of each set and config.yaml.
        facts: What is told of the run, by name.
        tables: Errors of best.eqp by set.
        quantities: Quantities in the tables.
        learning: Learning curves.
        before: Errors of the base of a fine-tuning, by set.
    """
    blocks: list[Block] = [Table("Run", [("", ""), *facts.items()])]
    if tables:
        blocks.append(Table("Errors of best.eqp", table_rows(tables, quantities)))
    for name in tables if before is not None else ():
        assert before is not None
        pair = {"before": before[name], "after": tables[name]}
        blocks.append(Table(f"Base and result, {name}", table_rows(pair, quantities)))
    blocks += [learning_plot(panel) for panel in learning if panel.training.size or panel.validation.size]
    blocks += [Picture(f"Parity, {name}", out / f"parity-{name}.png") for name in tables]
    config = out / "config.yaml"
    if config.exists():
        blocks.append(Listing("Config", config.read_text(encoding="utf-8")))
    return blocks


def learning_plot(panel: LearningPanel) -> Plot:
    """Plot values of training and validation against the epoch, on a logarithmic axis."""
    named = {"training": panel.training, "validation": panel.validation}
    curves = [Curve(name, points[:, 0], points[:, 1], points=len(points) < 3) for name, points in named.items() if points.size]
    return Plot(panel.label[0].upper() + panel.label[1:], curves, "epoch", panel.label, log_y=True)


def evaluation_blocks(
    references: Sequence[Structure],
    predictions: Sequence[Structure],
    tables: Mapping[str, Errors],
    quantities: Sequence[Quantity],
    remarks: Sequence[str],
) -> list[Block]:
    """Make the blocks of the page of an evaluation: errors, remarks, and a parity plot of each quantity.

    Args:
        references: Structures with reference labels.
        predictions: These structures with predictions as labels.
        tables: Errors by the name of the data.
        quantities: Quantities in the table.
        remarks: What was evaluated, what was left out, and how large deviations are.
    """
    plots = [parity_plot(panel) for panel in parity_data(references, predictions, None)]
    return [Table("Errors", table_rows(tables, quantities)), Text("Remarks", remarks), *plots]


def parity_plot(panel: ParityPanel) -> Plot:
    """Plot predicted against reference values, with the line on which they are equal."""
    ends = np.array([min(panel.reference.min(), panel.predicted.min()), max(panel.reference.max(), panel.predicted.max())])
    error = (panel.predicted - panel.reference) * panel.factor
    mae, rmse = np.mean(np.abs(error)), np.sqrt(np.mean(error**2))
    curves = [Curve("prediction", panel.reference, panel.predicted, points=True), Curve("equal", ends, ends)]
    heading = f"{panel.title}: MAE {mae:.3g}, RMSE {rmse:.3g} {panel.error_unit}"
    return Plot(heading, curves, f"reference ({panel.unit})", f"predicted ({panel.unit})")
