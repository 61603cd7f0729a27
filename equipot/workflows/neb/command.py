"""``equipot neb``: the path between two structures, its saddle point, barrier and rate."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from equipot import config
from equipot.figures import BLUE, ORANGE, STYLE, new_figure, save_figure
from equipot.files import write_atomically
from equipot.pages import Curve, Frame, Plot, Table, Text, Viewer, write_page
from equipot.structure import Structure
from equipot.workflows.journal import Journal
from equipot.workflows.neb.config import NEBConfig
from equipot.workflows.neb.path import Reaction, reaction
from equipot.workflows.results import write_json
from equipot.workflows.task import Outcome, Task

CONFIG = NEBConfig


def run(task: Task, settings: NEBConfig) -> Outcome:
    """Find the path between the first and the last structure of a file, or relax the path that the file holds.

    Writes path.extxyz, saddle.extxyz, neb.json, neb.png and neb.html. An interrupted run goes on from the stages that it has
    finished, and within the relaxation of the path.
    """
    journal = Journal(task.out / "finished.jsonl", task.resume)
    found = reaction(task.potential, list(task.structures), settings, lambda text: task.console.progress(text), journal)
    told = facts(found, settings) | {"model": task.model, "settings": config.dump(settings)}
    write_json(task.out / "neb.json", told)
    _write_structures(task, "path.extxyz", list(found.images))
    if found.saddle_structure is not None:
        _write_structures(task, "saddle.extxyz", [found.saddle_structure])
    draw(task, found)
    write_page(task.out / "neb.html", f"{task.structures[0].name} by {task.model}", page(found, told))
    return Outcome(summary(told), found.failures)


def _write_structures(task: Task, name: str, structures: list[Structure]) -> None:
    from ase.io import write

    text = io.StringIO()
    write(text, [s.to_ase() for s in structures], format="extxyz")
    write_atomically(task.out / name, text.getvalue().encode())


def facts(found: Reaction, settings: NEBConfig) -> dict[str, Any]:
    """List barrier, saddle point, rates and path as plain values."""
    band, saddle = found.band, found.saddle
    out: dict[str, Any] = {
        "barrier_eV": found.barrier, "barrier_back_eV": found.barrier_back,
        "reaction_energy_eV": float(band.energies[-1] - band.energies[0]),
        "path": {
            "converged": band.converged, "force_eV_per_A": band.force, "evaluations": band.evaluations,
            "lengths_A": band.lengths.tolist(), "energies_eV": (band.energies - band.energies[0]).tolist(),
            "climbing_image": band.climbing,
        },
        "failures": list(found.failures),
    }  # fmt: skip
    if saddle is not None:
        out["saddle"] = {
            "converged": saddle.converged, "reason": saddle.reason, "energy_above_first_eV": saddle.energy - band.energies[0],
            "largest_force_eV_per_A": saddle.force, "lowest_curvature_eV_per_A2": saddle.curvature,
            "second_lowest_curvature_eV_per_A2": saddle.second, "order_checked": not np.isnan(saddle.second),
            "gradients": saddle.gradients, "hessian_products": saddle.products,
        }  # fmt: skip
    for name, rate in (("rate", found.rate), ("rate_back", found.back)):
        if rate is not None:
            at = {f"{t:g}_K": rate.at(t) for t in settings.temperatures}
            out[name] = {"prefactor_THz": rate.prefactor_THz, "imaginary_THz": rate.imaginary_THz, "rates_per_s": at}
    return out


def summary(told: Mapping[str, Any]) -> str:
    """Write the lines for the terminal."""
    lines = [f"barrier {told['barrier_eV']:.4f} eV, back {told['barrier_back_eV']:.4f} eV"]
    if "saddle" in told:
        s = told["saddle"]
        how = "found" if s["converged"] else "not found"
        how += ", whose order was not checked" if s["converged"] and not s["order_checked"] else ""
        lines.append(f"saddle point {how}: curvature {s['lowest_curvature_eV_per_A2']:.3f} eV/Å^2, "
                     f"{s['gradients']} gradients and {s['hessian_products']} Hessian products")  # fmt: skip
    if "rate" in told:
        rates = ", ".join(f"{value:.3g}/s at {name.replace('_', ' ')}" for name, value in told["rate"]["rates_per_s"].items())
        lines.append(f"prefactor {told['rate']['prefactor_THz']:.2f} THz; {rates}")
    return "\n".join(lines)


def draw(task: Task, found: Reaction) -> None:
    """Draw energies along the path to neb.png."""
    from matplotlib import rc_context

    band = found.band
    with rc_context(STYLE):
        figure, (axis,) = new_figure(5, 3.4, 1)
        axis.plot(band.lengths, band.energies - band.energies[0], color=BLUE, marker="o", ms=4, lw=1)
        if found.saddle is not None and found.saddle.converged:
            axis.axhline(found.barrier, color=ORANGE, lw=0.9, ls="--", label=f"saddle point, {found.barrier:.3f} eV")
            axis.legend()
        axis.set(xlabel="length of the path (Å)", ylabel="energy above the first image (eV)")
        save_figure(figure, task.out / "neb.png")


def page(found: Reaction, told: Mapping[str, Any]) -> list[Any]:
    """Collect the blocks of the page."""
    band = found.band
    relative = band.energies - band.energies[0]
    curves = [Curve("path", band.lengths, relative), Curve("images", band.lengths, relative, points=True)]
    blocks: list[Any] = [Text("Failures", list(found.failures), alarm=True)] if found.failures else []
    rows = [["", ""], ["barrier (eV)", f"{found.barrier:.4f}"], ["barrier back (eV)", f"{found.barrier_back:.4f}"]]
    if (saddle := found.saddle) is not None and saddle.converged:
        second = "not found" if np.isnan(saddle.second) else f"{saddle.second:.4f}"
        rows += [
            ["lowest curvature of the saddle point (eV/Å²)", f"{saddle.curvature:.4f}"],
            ["second-lowest curvature (eV/Å²)", second],
        ]
    for name in ("rate", "rate_back"):
        if name in told:
            label, rates = name.replace("_", " "), told[name]["rates_per_s"]
            rows.append([f"{label}: prefactor (THz)", f"{told[name]['prefactor_THz']:.3f}"])
            rows += [[f"{label} at {t.replace('_', ' ')} (1/s)", f"{value:.3e}"] for t, value in rates.items()]
    blocks += [Table("Barrier", rows), Plot("Path", curves, "length of the path (Å)", "energy (eV)")]
    if found.ways is not None:
        back, ahead = found.ways
        lengths = np.concatenate([-back.lengths[::-1], ahead.lengths[1:]])
        energies = np.concatenate([back.energies[::-1], ahead.energies[1:]]) - band.energies[0]
        coordinate = [Curve("intrinsic reaction coordinate", lengths, energies)]
        blocks.append(Plot("Way down from the saddle point", coordinate, "sqrt(amu) Å", "energy (eV)"))
    frames = [Frame(s.numbers, s.positions, s.cell if s.pbc.any() else None, s.pbc, label=s.name) for s in found.images]
    if found.saddle_structure is not None and found.saddle is not None:
        s = found.saddle_structure
        mode = found.saddle.mode.reshape(-1, 3)
        cell = s.cell if s.pbc.any() else None
        blocks.append(Viewer("Saddle point and its mode", [Frame(s.numbers, s.positions, cell, s.pbc, mode, "saddle point")]))
    return [*blocks, Viewer("Images", frames, {"energy (eV)": relative})]
