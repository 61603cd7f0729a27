"""``equipot transport``: averages, radial distributions, diffusion, and with a model conductivity and viscosity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equipot import config
from equipot.data.read import read_one
from equipot.figures import BLUE, STYLE, new_figure, save_figure
from equipot.pages import Curve, Plot, Table, Text, write_page
from equipot.workflows.results import write_json
from equipot.workflows.statistics.blocking import Average
from equipot.workflows.statistics.trajectory import Trajectory, open_trajectory
from equipot.workflows.task import Analysis, Outcome
from equipot.workflows.transport.averages import averages
from equipot.workflows.transport.config import Diffusion, HeatFlux, TransportConfig
from equipot.workflows.transport.diffusion import (
    Displacements,
    SelfDiffusion,
    displacements,
    finite_size_correction,
    self_diffusion,
)
from equipot.workflows.transport.dynamics import make_trajectory
from equipot.workflows.transport.fluxes import fluxes_along
from equipot.workflows.transport.green_kubo import GreenKubo, conductivity, viscosity
from equipot.workflows.transport.radial import RadialDistribution, radial_distribution

CONFIG = TransportConfig
MOST_DECOUPLED = 3
"""Most elements whose mass fluxes the heat flux can be freed from."""


@dataclass(frozen=True)
class Found:
    """What was computed; None for what was left out."""

    averages: dict[str, Average]
    moved: Displacements | None = None
    diffusion: tuple[SelfDiffusion, ...] = ()
    radial: RadialDistribution | None = None
    conductivity: GreenKubo | None = None
    viscosity: GreenKubo | None = None
    not_viscous: str = ""
    """Why there is no viscosity; empty if there is one, or none was asked for."""

    @property
    def failures(self) -> list[str]:
        """What is not to be relied on, one sentence each. That atoms of a crystal stay where they are is no failure."""
        told = [f"{name}: {x.reason}" for name, x in self.averages.items() if x.reason]
        told += [f"diffusion: {x.reason}" for x in self.diffusion if x.reason and not np.isfinite(x.coefficient)]
        for found in (self.conductivity, self.viscosity):
            told += [] if found is None else found.failures
        return told


def run(task: Analysis, settings: TransportConfig) -> Outcome:
    """Analyse a trajectory, or make it first; write transport.json, transport.png, transport.html, and fluxes to flux.csv."""
    trajectory = prepared(task, settings).skipping(settings.skip_ps * 1e3)
    elements = len(set(trajectory.numbers.tolist()))
    if settings.heat is not None and task.potential is not None and settings.heat.decouple and elements > MOST_DECOUPLED:
        raise ValueError(
            f"the mass fluxes of {elements} elements are more than three components can be freed from; set heat.decouple=false"
        )
    stopped: tuple[str, ...] = ()
    task.console.say("averages")
    found = Found(averages(trajectory, settings.skip_ps))
    if settings.radial is not None and all(trajectory.pbc):
        task.console.say("radial distribution functions")
        found = replace(found, radial=radial_distribution(trajectory, settings.radial))
    if settings.diffusion is not None:
        task.console.say("diffusion")
        moved = displacements(trajectory)
        found = replace(found, moved=moved, diffusion=tuple(corrected(moved, settings.diffusion)))
    if settings.heat is not None and task.potential is not None:
        try:
            found = with_fluxes(task, settings.heat, trajectory, found)
        except ValueError as error:
            # What the trajectory alone says is not lost with it.
            stopped = (f"heat flux: {error}; heat=null leaves it out",)
    failures = (*found.failures, *stopped)
    told = {"trajectory": task.source, "model": task.model, "settings": config.dump(settings), **facts(found)}
    told["failures"] = list(failures)
    write_json(task.out / "transport.json", told)
    draw(task, found)
    write_page(task.out / "transport.html", f"Transport: {task.source}", page(found))
    return Outcome(summary(found), failures)


def prepared(task: Analysis, settings: TransportConfig) -> Trajectory:
    """Open the trajectory, or make it.

    Raises:
        ValueError: a run without a model, or as ``open_trajectory`` and ``make_trajectory``.
    """
    if settings.run is None:
        return open_trajectory(task.source, settings.interval_fs)
    if task.potential is None:
        raise ValueError("run asks for dynamics, which need a potential; give --model, or leave run out")
    structure = read_one(task.source, -1)
    task.potential.check([structure])
    return open_trajectory(str(make_trajectory(task.potential, structure, settings.run, task.out)))


def corrected(moved: Displacements, settings: Diffusion) -> list[SelfDiffusion]:
    """Compute diffusion coefficients, with the correction for the finite cell where a viscosity is given.

    Raises:
        ValueError: a viscosity, but no cell or no temperature.
    """
    found = self_diffusion(moved)
    if settings.viscosity_mPa_s is None:
        return found
    if moved.length is None or moved.temperature_K is None:
        raise ValueError(
            "viscosity_mPa_s: the correction for the finite cell needs a periodic cell and velocities; leave it out"
        )
    more = finite_size_correction(moved.temperature_K, settings.viscosity_mPa_s, moved.length)
    return [x if x.reason else replace(x, coefficient=x.coefficient + more, correction=more) for x in found]


def with_fluxes(task: Analysis, settings: HeatFlux, trajectory: Trajectory, found: Found) -> Found:
    """Compute fluxes along the trajectory, and conductivity and viscosity from them."""
    assert task.potential is not None, "asked before"
    task.console.say("heat flux")
    say = lambda done: task.console.progress(f"{done} frames")
    fluxes = fluxes_along(task.potential, trajectory, settings.every, task.out / "flux.csv", say)
    volume, temperature = (float(fluxes.table[name].mean()) for name in ("volume_A3", "temperature_K"))
    others = fluxes.momenta if settings.decouple else []
    at = (fluxes.interval_fs, volume, temperature)
    heat = conductivity(fluxes.heat, *at, others=others, cutoff_THz=settings.cutoff_THz)
    if not found.diffusion or not all(np.isfinite(x.coefficient) and not x.reason for x in found.diffusion):
        why = "not all elements diffuse: a viscosity would mean nothing" if found.diffusion else "diffusion was left out"
        return replace(found, conductivity=heat, not_viscous=why)
    return replace(found, conductivity=heat, viscosity=viscosity(fluxes.pressure, *at, cutoff_THz=settings.cutoff_THz))


def facts(found: Found) -> dict[str, Any]:
    """List all results with their errors; null for what is not known."""
    told: dict[str, Any] = {
        "averages": {
            name: {"mean": x.mean, "error": x.error, "samples": x.samples, "independent": x.independent}
            for name, x in found.averages.items()
        }
    }
    if found.moved is not None:
        told["diffusion"] = {x.element: of_element(x, found.moved, k) for k, x in enumerate(found.diffusion)}
    if (g := found.radial) is not None:
        told["radial_distribution"] = {
            "distance_A": g.centers.tolist(), "frames": g.frames,
            "pairs": {
                name: {
                    "g": g.values[k].tolist(), "error": g.error[k],
                    "coordination": g.coordination[k].tolist(),
                }
                for k, name in enumerate(g.pairs)
            },
        }  # fmt: skip
    for name, unit, result in (
        ("thermal_conductivity", "W_per_mK", found.conductivity),
        ("viscosity", "mPa_s", found.viscosity),
    ):
        if result is not None:
            told[name] = {
                f"value_{unit}": result.value, f"error_{unit}": result.error, "coefficients": result.cepstral.coefficients,
                "cutoff_THz": result.cepstral.cutoff_THz, f"direct_integral_{unit}": result.direct,
                f"direct_integral_error_{unit}": result.direct_error, "time_fs": result.times_fs.tolist(),
                f"running_integral_{unit}": result.running.tolist(),
                f"running_integral_error_{unit}": result.running_error.tolist(),
                f"components_{unit}": [list(x) for x in result.components],
                "components_are_with_mass_fluxes": result.freed,
            }  # fmt: skip
    if found.not_viscous:
        told["viscosity"] = {"value_mPa_s": None, "reason": found.not_viscous}
    return told | {"failures": found.failures}


def of_element(x: SelfDiffusion, moved: Displacements, k: int) -> dict[str, Any]:
    """List the diffusion of an element."""
    times, squared = moved.curve(k)
    return {
        "coefficient_cm2_per_s": x.coefficient, "error_cm2_per_s": x.error, "reason": x.reason,
        "finite_size_correction_cm2_per_s": x.correction, "spacing_fs": x.spacing_fs,
        "quality": x.quality, "time_fs": times.tolist(), "mean_squared_displacement_A2": squared.tolist(),
    }  # fmt: skip


def lines(found: Found) -> list[list[str]]:
    """List results as rows of name, value, error and unit."""
    rows = []
    for name, x in found.averages.items():
        label, _, unit = name.rpartition("_") if name != "density_g_cm3" else ("density", "", "g/cm^3")
        rows.append([label, f"{x.mean:.6g}", f"{x.error:.2g}", unit])
    for d in found.diffusion:
        value, error = (f"{d.coefficient:.3g}", f"{d.error:.2g}") if not d.reason else (d.reason, "")
        rows.append([f"diffusion of {d.element}", value, error, "cm^2/s"])
    for title, r in (("thermal conductivity", found.conductivity), ("viscosity", found.viscosity)):
        if r is not None:
            rows.append([title, f"{r.value:.3g}", f"{r.error:.2g}", r.unit])
            rows.append([f"{title}, direct integral", f"{r.direct:.3g}", f"{r.direct_error:.2g}", r.unit])
    return rows


def summary(found: Found) -> str:
    """Write the lines for the terminal."""
    return "\n".join(
        f"{name}: {value} +- {error} {unit}" if error else f"{name}: {value}" for name, value, error, unit in lines(found)
    )


def draw(task: Analysis, found: Found) -> None:
    """Draw radial distributions, displacements and running integrals to transport.png."""
    from matplotlib import rc_context

    results = [r for r in (found.conductivity, found.viscosity) if r is not None]
    panels = (found.radial is not None) + (found.moved is not None) + len(results)
    if not panels:
        return
    with rc_context(STYLE):
        figure, axes = new_figure(4 * panels, 3.2, panels)
        left = list(axes)
        if (g := found.radial) is not None:
            axis = left.pop(0)
            for name, values in zip(g.pairs, g.values, strict=True):
                axis.plot(g.centers, values, lw=1, label=name)
            axis.set(xlabel="distance (Å)", ylabel="g(r)")
            axis.legend()
        if found.moved is not None:
            axis = left.pop(0)
            for k, name in enumerate(found.moved.elements):
                times, squared = found.moved.curve(k)
                axis.loglog(times / 1e3, squared, ".-", lw=0.8, ms=3, label=name)
            axis.set(xlabel="time (ps)", ylabel="mean squared displacement (Å²)")
            axis.legend()
        for axis, r in zip(left, results, strict=True):
            axis.axhspan(r.value - r.error, r.value + r.error, color=BLUE, alpha=0.2, lw=0, label="cepstral analysis")
            axis.errorbar(r.times_fs / 1e3, r.running, r.running_error, lw=0.8, elinewidth=0.2, label="running integral")
            axis.set(xlabel="time (ps)", ylabel=r.unit)
            axis.legend()
        save_figure(figure, task.out / "transport.png")


def page(found: Found) -> list[Any]:
    """Collect the blocks of the page."""
    blocks: list[Any] = [Text("Failures", found.failures, alarm=True)] if found.failures else []
    blocks.append(Table("Results", [["", "value", "standard error", "unit"], *lines(found)]))
    if (g := found.radial) is not None:
        curves = [Curve(name, g.centers, y, error=e) for name, y, e in zip(g.pairs, g.values, g.error, strict=True)]
        blocks.append(Plot("Radial distribution functions", curves, "distance (Å)", "g(r)"))
    if (m := found.moved) is not None:
        curves = [Curve(name, m.curve(k)[0] / 1e3, m.curve(k)[1], points=True) for k, name in enumerate(m.elements)]
        blocks.append(Plot("Mean squared displacement", curves, "time (ps)", "Å^2", log_x=True, log_y=True))
    for title, r in (("Thermal conductivity", found.conductivity), ("Viscosity", found.viscosity)):
        if r is None:
            continue
        curve = Curve("direct integral", r.times_fs / 1e3, r.running, error=r.running_error)
        level = Curve("cepstral analysis", r.times_fs[[0, -1]] / 1e3, np.full(2, r.value), error=np.full(2, r.error))
        blocks.append(Plot(title, [curve, level], "time (ps)", r.unit))
        f, c = r.cepstral.frequencies_THz, r.cepstral
        spectra = [Curve("periodogram", f[1:], c.periodogram[1:]), Curve("cepstral analysis", f[1:], c.smooth[1:])]
        blocks.append(Plot(f"{title}: spectrum of the flux", spectra, "frequency (THz)", "power", log_y=True))
    if found.not_viscous:
        blocks.append(Text("Viscosity", [found.not_viscous]))
    return blocks
