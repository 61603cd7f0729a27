"""The page of a finished run: results, the log as plots, the trajectory, and the config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from equipot.md.log import describe_drift
from equipot.md.plot import running_mean
from equipot.md.sampling import Sample, sampled
from equipot.md.summary import Summary, second_half
from equipot.pages import Block, Curve, Frame, Listing, Picture, Plot, Table, Viewer

NAME = "md.html"
"""Name of the page in the folder of a run."""
MOST_FRAMES = 200
"""Largest number of frames of the trajectory in the page."""
ENERGIES = ("potential_eV", "total_eV", "conserved_eV")
SERIES = {
    "temperature_K": "temperature (K)",
    "pressure_GPa": "pressure (GPa)",
    "volume_A3": "volume (Å³)",
    "energy_std_eV": "deviation of the energy (eV)",
    "max_forces_std_eV_A": "largest deviation of a force (eV/Å)",
    "max_novelty": "largest novelty",
}
"""Columns of the log that have a plot of their own, with their names there."""


def run_blocks(out: Path, table: Mapping[str, np.ndarray], summary: Summary) -> list[Block]:
    """Make the blocks of the page of a run.

    Args:
        out: Folder of the run, with its trajectory, recorded.png and config.yaml as far as the run has them.
        table: Columns of the log.
        summary: Results of the run.
    """
    blocks: list[Block] = [Table("Results", result_rows(table, summary)), *log_plots(table)]
    for path in (out / "trajectory.xyz", out / "trajectory.h5"):
        samples = sampled(path, MOST_FRAMES) if path.exists() else []
        blocks += [trajectory_viewer(samples, table)] if samples else []
    if (out / "recorded.png").exists():
        blocks.append(Picture("Last frame that the gate recorded", out / "recorded.png"))
    if (out / "config.yaml").exists():
        blocks.append(Listing("Config", (out / "config.yaml").read_text(encoding="utf-8")))
    return blocks


def result_rows(table: Mapping[str, np.ndarray], summary: Summary) -> list[tuple[str, str]]:
    """List the results with their units; means are those of the second half of the run."""
    half = second_half(table)
    rows = [("", ""), ("steps", f"{summary.steps}"), ("length", f"{np.ptp(table['time_ps']):.6g} ps")]
    rows.append(("mean temperature, second half", f"{summary.temperature_K:.2f} K"))
    if np.isfinite(half["pressure_GPa"]).all():
        rows.append(("mean pressure, second half", f"{half['pressure_GPa'].mean():.4g} GPa"))
        rows.append(("mean volume, second half", f"{half['volume_A3'].mean():.6g} Å³"))
    time = float(np.ptp(half["time_ps"]))
    rows.append(("conserved energy", describe_drift(summary.drift_meV_per_atom_per_ns, summary.drift_error, time)))
    if np.isfinite(summary.ns_per_day):
        rows.append(("speed", f"{summary.ns_per_day:.3g} ns/day"))
    return [*rows, ("sizes of the neighbour list", f"{summary.builds}")]


def log_plots(table: Mapping[str, np.ndarray]) -> list[Block]:
    """Plot energies from the initial total, and each other column of the log that has values and varies, against time."""
    time = table["time_ps"]
    start = {name: table["conserved_eV" if name == "conserved_eV" else "total_eV"][0] for name in ENERGIES}
    curves = [Curve(name.removesuffix("_eV"), time, table[name] - start[name]) for name in ENERGIES]
    plots: list[Block] = [Plot("Energies", curves, "time (ps)", "energy from the initial total (eV)")]
    for name, label in SERIES.items():
        values = table.get(name)
        if values is None or not np.isfinite(values).any() or (name == "volume_A3" and not np.ptp(values)):
            continue
        shown = [Curve("at the time", time, values)]
        if np.isfinite(values).all() and not name.startswith("max_"):
            shown.append(Curve("mean so far", time, running_mean(values)))
        plots.append(Plot(label[0].upper() + label.partition(" (")[0][1:], shown, "time (ps)", label))
    return plots


def trajectory_viewer(samples: list[Sample], table: Mapping[str, np.ndarray]) -> Viewer:
    """Show frames, with the values of the log at their steps; NaN where the log has no such step."""
    lines = {int(step): k for k, step in enumerate(table["step"])}
    places = [lines.get(sample.step) for sample in samples]
    at = lambda name: np.array([np.nan if k is None else table[name][k] for k in places])
    properties = {"time (ps)": np.array([sample.time_fs / 1000 for sample in samples])}
    properties |= {label: at(name) for name, label in SERIES.items() if name in table}
    properties |= {f"{name.removesuffix('_eV')} energy (eV)": at(name) for name in ENERGIES}
    frames = [Frame(s.numbers, s.position, s.cell, np.array(s.pbc)) for s in samples]
    return Viewer("Trajectory", frames, properties)
