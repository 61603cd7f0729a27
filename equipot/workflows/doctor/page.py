"""The page of an examination: findings with their limits, and the curves behind them."""

from __future__ import annotations

import numpy as np

from equipot.pages import Block, Curve, Plot, Table, Text
from equipot.workflows.doctor.evidence import Curve as Pair
from equipot.workflows.doctor.evidence import Evidence
from equipot.workflows.doctor.findings import PAIRS, Report

LEAST_HIGHEST = 0.5
"""Least energy (eV) up to which curves of pairs are drawn."""
WELLS = 3.0
"""Height up to which curves of pairs are drawn, in depths of the deepest well; walls would hide the wells."""


def report_blocks(report: Report) -> list[Block]:
    """Make the blocks of the page: verdict, findings, remarks, and plots of what was measured."""
    broken = [finding for finding in report.findings if finding.verdict == "broken"]
    blocks: list[Block] = []
    if broken:
        lines = [f"{f.name}: {f.measured}{f'. {f.note}' if f.note else ''}" for f in broken]
        blocks.append(Text(f"Broken: {len(broken)} of {len(report.findings)} checks", lines, alarm=True))
    rows = [("check", "verdict", "measured", "sound if")]
    rows += [(f.name, f.verdict, f.measured, f.limit) for f in report.findings]
    blocks.append(Table("Findings", rows))
    notes = [f"{f.name}: {f.note}" for f in report.findings if f.note and f.verdict != "broken"]
    blocks += [Text("Remarks", notes)] if notes else []
    blocks.append(Text("Examined", [*report.systems, f"{report.seconds:.0f} s"]))
    blocks += plots(report.evidence)
    if report.evidence.dimers:
        blocks.append(Table("Pairs of elements", [PAIRS, *(curve.row() for curve in report.evidence.dimers)]))
    return blocks


def plots(shown: Evidence) -> list[Block]:
    """Plot pairs, passages through the cutoff, finite differences and dynamics, as far as they were examined."""
    found: list[Block] = []
    if shown.dimers:
        deepest = max((pair.depth for pair in shown.dimers if np.isfinite(pair.depth)), default=0.0)
        highest = max(WELLS * deepest, LEAST_HIGHEST)
        curves = [piece for pair in shown.dimers for piece in pieces(pair, highest)]
        holes = [(c.hole, f"hole {c.pair}") for c in shown.dimers if c.hole]
        found.append(Plot(f"Two atoms alone, up to {highest:.2g} eV", curves, "distance (Å)", "energy (eV)", holes[:3]))
    if shown.passages:
        curves = [Curve(p.label, p.offset, 1e3 * p.force) for p in shown.passages]
        labels = ("distance less the cutoff (Å)", "force on it (meV/Å)")
        found.append(Plot("An atom passes the cutoff", curves, *labels, [(0.0, "cutoff")]))
    if len(shown.slopes):
        both = np.concatenate([shown.slopes, shown.differences])
        ends = np.array([np.nanmin(both), np.nanmax(both)]) if np.isfinite(both).any() else np.zeros(2)
        curves = [Curve("random direction", shown.differences, shown.slopes, points=True), Curve("equal", ends, ends)]
        labels = ("finite difference of the energy (eV/Å)", "forces (eV/Å)")
        found.append(Plot("Forces along random directions", curves, *labels))
    if shown.runs:
        curves = [Curve(f"{run.label}, {run.temperature.mean():.0f} K", run.time, run.total) for run in shown.runs]
        found.append(Plot("Dynamics at constant energy", curves, "time (fs)", "total energy from the start (meV/atom)"))
    return found


def pieces(pair: Pair, highest: float) -> list[Curve]:
    """Cut the energy of two atoms into the pieces below ``highest`` (eV); energies that are not finite are kept, as gaps."""
    ends = np.flatnonzero(np.diff(pair.energy > highest)) + 1
    parts = np.split(np.arange(len(pair.energy)), ends)
    below = [part for part in parts if len(part) and not pair.energy[part[0]] > highest]
    return [Curve(pair.pair, pair.distance[part], pair.energy[part], group=pair.pair) for part in below]
