"""Draw the report as one figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipot.figures import BLUE, GREY, ORANGE, STYLE, empty_figure, save_figure
from equipot.workflows.doctor.evidence import Curve, Evidence
from equipot.workflows.doctor.findings import Report

COLOURS = {"sound": "#2e8b57", "look": "#c58a00", "broken": "#c0392b"}
MOST_NAMES = 12
"""Largest number of curves in a legend: the first pairs, and the strongest forces at the cutoff."""
WIDE = 78
"""Characters per line of the table."""


def draw_report(report: Report, path: Path) -> None:
    """Draw verdicts, pairs, cutoff, finite differences and dynamics to a PNG file."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = empty_figure(13, 8)
        axes = figure.subplot_mosaic([["dimers", "cutoff", "forces"], ["dynamics", "table", "table"]], height_ratios=[1, 1.15])
        shown = report.evidence
        _dimers(axes["dimers"], shown)
        _cutoff(axes["cutoff"], shown)
        _forces(axes["forces"], shown)
        _dynamics(axes["dynamics"], shown)
        _table(axes["table"], report)
        figure.suptitle(f"{report.model}: {report.verdict}", color=COLOURS[report.verdict], fontsize=12)
        save_figure(figure, path)


def _colours(count: int) -> Any:
    """Return ``count`` colours of a colour map."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.92, max(count, 1)))


def _dimers(axis: Any, shown: Evidence) -> None:
    """Draw the energies of all pairs of elements."""
    curves = shown.dimers
    for k, (curve, colour) in enumerate(zip(curves, _colours(len(curves)), strict=False)):
        label = curve.pair if k < MOST_NAMES else None
        axis.plot(curve.distance, curve.energy, color=colour, lw=1, label=label)
        if curve.hole:
            place = int(np.argmin(np.abs(curve.distance - curve.hole)))
            axis.plot(curve.hole, curve.energy[place], "v", color=COLOURS["broken"], ms=5)
    axis.set_yscale("symlog", linthresh=1)
    axis.set(title="two atoms alone (▾: top before a hole)", xlabel="distance (Å)", ylabel="energy (eV), linear up to 1")
    if curves:
        _set_limits(axis, curves)
        axis.legend(ncols=2, fontsize=7)


def _set_limits(axis: Any, curves: Sequence[Curve]) -> None:
    """Set limits of the energy axis that show wells and walls, but not the bottom of every hole."""
    deepest = np.nanmax([0.0, *(curve.depth for curve in curves)])
    highest = np.nanmax([1.0, *(curve.energy[np.isfinite(curve.energy)].max(initial=0) for curve in curves)])
    axis.set_ylim(-1.5 * deepest - 1, min(2 * highest, 1e4))


def _cutoff(axis: Any, shown: Evidence) -> None:
    """Draw the forces on atoms that pass the cutoff."""
    strength = lambda passage: np.abs(np.nan_to_num(passage.force)).max()
    passages = sorted(shown.passages, key=strength, reverse=True)
    for k, (passage, colour) in enumerate(zip(passages, _colours(len(passages)), strict=False)):
        label = passage.label if k < MOST_NAMES else None
        axis.plot(passage.offset, 1e3 * passage.force, color=colour, lw=0.9, marker=".", ms=3, label=label)
    axis.axvline(0, color=GREY, lw=0.8)
    axis.set(title="an atom passes the cutoff", xlabel="distance less the cutoff (Å)", ylabel="force on it (meV/Å)")
    if passages:
        axis.legend(ncols=2, fontsize=7)


def _forces(axis: Any, shown: Evidence) -> None:
    """Draw forces against finite differences."""
    axis.set(title="forces along random directions", xlabel="finite difference of the energy (eV/Å)", ylabel="forces (eV/Å)")
    slopes, differences = shown.slopes, shown.differences
    if not len(slopes):
        return
    span = [min(slopes.min(), differences.min()), max(slopes.max(), differences.max())]
    axis.plot(span, span, color=GREY, lw=0.8)
    axis.plot(differences, slopes, "o", color=BLUE, ms=4, alpha=0.8)
    error = 1e3 * np.abs(slopes - differences).max()
    axis.text(0.04, 0.96, f"largest difference {error:.2g} meV/Å", transform=axis.transAxes, va="top")
    axis.locator_params(nbins=5)


def _dynamics(axis: Any, shown: Evidence) -> None:
    """Draw the total energies of the runs."""
    axis.set(title="dynamics at constant energy", xlabel="time (fs)", ylabel="total energy from the start (meV/atom)")
    for run, colour in zip(shown.runs, (BLUE, ORANGE), strict=False):
        mean = run.temperature.mean()
        axis.plot(run.time, run.total, color=colour, lw=1, label=f"{run.label}, {mean:.0f} K")
    if shown.runs:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.25 * (high - low))
        axis.legend(loc="upper left")


def _table(axis: Any, report: Report) -> None:
    """Draw verdict, name, measures and limits of each finding as a table."""
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    wrap = lambda text: textwrap.wrap(text, WIDE) or [""]
    rows = [(f, wrap(f.measured)) for f in report.findings]
    lines = 2 + sum(len(measured) for _, measured in rows)
    y, step = 0.98, 0.96 / max(lines, 16)
    for x, text in ((0.0, "verdict"), (0.08, "check"), (0.22, "measured"), (0.78, "sound if")):
        axis.text(x, y, text, va="top", weight="bold", fontsize=8)
    for finding, measured in rows:
        y -= step
        axis.text(0.0, y, finding.verdict, va="top", color=COLOURS[finding.verdict], weight="bold", fontsize=8)
        axis.text(0.08, y, finding.name, va="top", fontsize=8)
        axis.text(0.78, y, finding.limit, va="top", fontsize=8, color="#555")
        for k, line in enumerate(measured):
            y -= step if k else 0
            axis.text(0.22, y, line, va="top", fontsize=8)
    axis.text(0.0, y - step, "; ".join(report.systems), va="top", fontsize=7, color=GREY)
