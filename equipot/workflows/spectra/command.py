"""``equipot spectra``: vibrational density of states and infrared spectrum of a trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from equipot import config
from equipot.figures import BLUE, GREY, STYLE, new_figure, save_figure
from equipot.pages import Curve, Plot, Table, Text, write_page
from equipot.workflows.results import write_json
from equipot.workflows.spectra.config import SpectraConfig
from equipot.workflows.spectra.infrared import PER_CM, Infrared, has_dipoles, infrared
from equipot.workflows.spectra.vibrations import VibrationalDOS, density_of_states
from equipot.workflows.statistics.trajectory import open_trajectory
from equipot.workflows.task import Analysis, Outcome

CONFIG = SpectraConfig


def run(task: Analysis, settings: SpectraConfig) -> Outcome:
    """Analyse a trajectory; write spectra.json, spectra.png and spectra.html."""
    trajectory = open_trajectory(task.source, settings.interval_fs).skipping(settings.skip_ps * 1e3)
    task.console.say("velocities")
    dos = density_of_states(trajectory, settings.resolution_THz)
    absorbed, failures = None, list(dos.failures)
    if has_dipoles(trajectory):
        task.console.say("dipole moments")
        try:
            absorbed = infrared(trajectory, settings.resolution_THz, settings.temperature_K or dos.temperature_K)
            failures += absorbed.failures
        except ValueError as error:
            # What the velocities say is not lost with it.
            failures.append(f"infrared spectrum: {error}")
    told = {"trajectory": task.source, "settings": config.dump(settings), **facts(dos, absorbed), "failures": failures}
    write_json(task.out / "spectra.json", told)
    draw(task, dos, absorbed)
    write_page(task.out / "spectra.html", f"Spectra of {task.source}", page(dos, absorbed, failures))
    return Outcome(summary(dos, absorbed), tuple(failures))


def facts(dos: VibrationalDOS, absorbed: Infrared | None) -> dict[str, Any]:
    """List the spectra with their errors; an error that is not known is NaN."""
    found = dos.correlations
    told: dict[str, Any] = {
        "temperature_K": dos.temperature_K, "window": "Parzen", "segments": found.segments,
        "degrees_of_freedom": dict(dos.degrees_of_freedom), "degrees_of_freedom_expected": dict(dos.expected),
        "frequency_THz": dos.frequencies_THz, "time_fs": found.times_fs,
    }  # fmt: skip
    told["density_per_THz"] = dict(zip(dos.elements, dos.density, strict=True))
    told["density_error_per_THz"] = dict(zip(dos.elements, dos.error, strict=True))
    told["velocity_autocorrelation_eV"] = dict(zip(dos.elements, found.functions, strict=True))
    if absorbed is not None:
        told["infrared"] = {
            "wavenumber_per_cm": absorbed.wavenumbers_cm, "absorption": absorbed.absorption,
            "absorption_error": absorbed.error, "absorption_unit": absorbed.unit, "segments": absorbed.segments,
        }  # fmt: skip
    return told


def summary(dos: VibrationalDOS, absorbed: Infrared | None) -> str:
    """Write the lines for the terminal."""
    total = dos.density.sum(axis=0)
    peak = dos.frequencies_THz[int(np.argmax(total))]
    count, segments = sum(dos.degrees_of_freedom.values()), dos.correlations.segments
    lines = [
        f"{dos.temperature_K:.1f} K, {count:.1f} degrees of freedom, {segments} segments",
        f"density of states: highest at {peak:.2f} THz ({PER_CM * peak:.0f} cm^-1)",
    ]
    if absorbed is not None:
        at = absorbed.wavenumbers_cm[int(np.argmax(absorbed.absorption))]
        lines.append(f"infrared: strongest absorption at {at:.0f} cm^-1")
    return "\n".join(lines)


def draw(task: Analysis, dos: VibrationalDOS, absorbed: Infrared | None) -> None:
    """Draw the spectra to spectra.png."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure, axes = new_figure(4.5 * (2 if absorbed else 1), 3.2, 2 if absorbed else 1)
        for name, rows, error in zip(dos.elements, dos.density, dos.error, strict=True):
            (line,) = axes[0].plot(dos.frequencies_THz, rows, lw=1, label=name)
            axes[0].fill_between(dos.frequencies_THz, rows - error, rows + error, color=line.get_color(), alpha=0.2, lw=0)
        axes[0].set(xlabel="frequency (THz)", ylabel="density of states (1/THz)", xlim=(0, shown(dos)), ylim=(0, None))
        axes[0].legend()
        if absorbed is not None:
            x, y = absorbed.wavenumbers_cm, absorbed.absorption
            axes[1].fill_between(x, y - absorbed.error, y + absorbed.error, color=GREY, alpha=0.3, lw=0)
            axes[1].plot(x, y, color=BLUE, lw=1)
            axes[1].set(xlabel="wavenumber (cm$^{-1}$)", ylabel=f"absorption ({absorbed.unit})", xlim=(0, PER_CM * shown(dos)))
        save_figure(figure, task.out / "spectra.png")


def shown(dos: VibrationalDOS) -> float:
    """Return the frequency (THz) up to which there is anything to see."""
    total = dos.density.sum(axis=0)
    return float(1.1 * dos.frequencies_THz[np.flatnonzero(total > 2e-3 * total.max())[-1]])


def page(dos: VibrationalDOS, absorbed: Infrared | None, failures: list[str]) -> list[Any]:
    """Collect the blocks of the page."""
    blocks: list[Any] = [Text("Failures", failures, alarm=True)] if failures else []
    count: Mapping[str, float] = dos.degrees_of_freedom
    rows = [[name, f"{count[name]:.2f}", f"{dos.expected[name]:.2f}"] for name in dos.elements]
    blocks.append(Table("Degrees of freedom", [["element", "integral of the density of states", "expected"], *rows]))
    part = dos.frequencies_THz <= shown(dos)
    curves = [
        Curve(name, dos.frequencies_THz[part], y[part], error=e[part])
        for name, y, e in zip(dos.elements, dos.density, dos.error, strict=True)
    ]
    blocks.append(Plot("Vibrational density of states", curves, "frequency (THz)", "density of states (1/THz)"))
    if absorbed is not None:
        part = absorbed.wavenumbers_cm <= PER_CM * shown(dos)
        curve = Curve("absorption", absorbed.wavenumbers_cm[part], absorbed.absorption[part], error=absorbed.error[part])
        blocks.append(Plot("Infrared spectrum", [curve], "wavenumber (cm^-1)", f"absorption ({absorbed.unit})"))
    found = dos.correlations
    curves = [Curve(name, found.times_fs / 1e3, y / y[0]) for name, y in zip(dos.elements, found.functions, strict=True)]
    blocks.append(Plot("Velocity autocorrelation", curves, "time (ps)", "C(t) / C(0), mass-weighted"))
    notes = [
        f"Window: Parzen, of lags up to {found.times_fs[-1] / 1e3:.3g} ps. Errors are standard errors of {found.segments} "
        "segments. The density of states is of mass-weighted velocities, and integrates to the degrees of freedom."
    ]
    return [*blocks, Text("Method", notes)]
