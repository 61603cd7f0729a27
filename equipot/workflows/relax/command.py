"""``equipot relax``: structures of a file to their minima, with a table, curves and the structures to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equipot import config
from equipot.figures import STYLE, new_figure, save_figure
from equipot.files import write_atomically
from equipot.pages import Curve, Frame, Plot, Table, Text, Viewer, write_page
from equipot.structure import Structure
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig, Relaxed, relax_each
from equipot.workflows.results import write_json
from equipot.workflows.task import Outcome, Task

CONFIG = RelaxConfig
CURVES = 24
"""Structures whose curves are drawn: those that took most evaluations."""


def run(task: Task, settings: RelaxConfig) -> Outcome:
    """Relax the structures of a file; write relaxed.extxyz, relax.json, relax.png and relax.html.

    Structures that an interrupted run has finished are not computed again.
    """
    journal = Journal(task.out / "finished.jsonl", task.resume)
    left = [k for k in range(len(task.structures)) if k not in journal.done]
    count = len(task.structures)

    def say(done: int, _: int, figures: str) -> None:
        task.console.progress(figures, f"{count - len(left) + done}/{count} finished")

    if left:
        for relaxed in relax_each(task.potential, [task.structures[k] for k in left], settings, say=say):
            journal.add(left[relaxed.index], record(relaxed))
    records = [journal.done[k] for k in range(count)]
    structures = [final(s, r) for s, r in zip(task.structures, records, strict=True)]
    write_results(task, settings, records, structures)
    failures = tuple(f"{s.name}: {r['reason']}" for s, r in zip(task.structures, records, strict=True) if not r["converged"])
    return Outcome(summary(records), failures)


def record(relaxed: Relaxed) -> dict[str, Any]:
    """Convert what was found of a structure to plain values."""
    s = relaxed.structure
    return {
        "converged": relaxed.converged,
        "reason": relaxed.reason,
        "energy_eV": relaxed.energy,
        "energy_per_atom_eV": relaxed.energy / len(s),
        "largest_force_eV_per_A": relaxed.fmax,
        "stress_error_GPa": relaxed.stress_error,
        "volume_A3": s.volume if s.pbc.all() else None,
        "space_group_kept": relaxed.group,
        "evaluations": relaxed.evaluations,
        "hessian_products": relaxed.products,
        "positions_A": s.positions.tolist(),
        "cell_A": s.cell.tolist(),
        "forces_eV_per_A": np.asarray(s.forces).tolist(),
        "stress_eV_per_A3": None if s.stress is None else s.stress.tolist(),
        "trace": relaxed.trace.tolist(),
    }


def final(given: Structure, found: Mapping[str, Any]) -> Structure:
    """Return a structure at the end of its relaxation, with labels."""
    labels = {"energy": found["energy_eV"], "forces": np.array(found["forces_eV_per_A"])}
    if found["stress_eV_per_A3"] is not None:
        labels["stress"] = np.array(found["stress_eV_per_A3"])
    return given.replace(positions=np.array(found["positions_A"]), cell=np.array(found["cell_A"]), labels=labels)


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """Say how many structures were relaxed, and by how many evaluations."""
    done = [r for r in records if r["converged"]]
    calls = [r["evaluations"] for r in records]
    lines = [f"{len(done)} of {len(records)} relaxed; evaluations: {np.median(calls):.0f} (median), {max(calls)} (most)"]
    if len(records) == 1:
        (r,) = records
        lines += [f"energy {r['energy_eV']:.6f} eV, largest force {r['largest_force_eV_per_A']:.2g} eV/Å"]
        if r["volume_A3"] is not None:
            lines += [f"volume {r['volume_A3']:.4f} Å^3, error of the stress {r['stress_error_GPa']:.2g} GPa"]
        if r["space_group_kept"]:
            lines += [f"space group {r['space_group_kept']} kept"]
    return "\n".join(lines)


def write_results(
    task: Task, settings: RelaxConfig, records: Sequence[Mapping[str, Any]], structures: Sequence[Structure]
) -> None:
    """Write structures, numbers, figure and page into the folder."""
    from ase.io import write

    text = io.StringIO()
    write(text, [s.to_ase() for s in structures], format="extxyz")
    write_atomically(task.out / "relaxed.extxyz", text.getvalue().encode())
    skipped = ("positions_A", "cell_A", "forces_eV_per_A", "stress_eV_per_A3", "trace")
    shown = [
        {"name": s.name} | {k: v for k, v in r.items() if k not in skipped} for s, r in zip(structures, records, strict=True)
    ]
    told = {"model": task.model, "settings": config.dump(settings), "structures": shown}
    write_json(task.out / "relax.json", told)
    curves = traces(records, structures)
    draw(curves, settings, task)
    write_page(task.out / "relax.html", f"Relaxation by {task.model}", page(settings, records, structures, curves))


def traces(records: Sequence[Mapping[str, Any]], structures: Sequence[Structure]) -> list[Curve]:
    """Return the largest force against evaluations, of the structures that took most."""
    order = sorted(range(len(records)), key=lambda k: -records[k]["evaluations"])[:CURVES]
    out = []
    for k in sorted(order):
        trace = np.array(records[k]["trace"])
        out.append(Curve(structures[k].name, trace[:, 0], np.maximum(trace[:, 2], 1e-12)))
    return out


def draw(curves: Sequence[Curve], settings: RelaxConfig, task: Task) -> None:
    """Draw forces against evaluations to relax.png."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure, (axis,) = new_figure(5, 3.2, 1)
        for curve in curves:
            axis.plot(curve.x, curve.y, lw=1, marker=".", ms=3, label=curve.name if len(curves) < 9 else None)
        axis.axhline(settings.fmax, color="#8a8f98", lw=0.8, ls="--")
        axis.set(yscale="log", xlabel="evaluations", ylabel="largest force (eV/Å)")
        if 1 < len(curves) < 9:
            axis.legend(fontsize=7)
        save_figure(figure, task.out / "relax.png")


def page(
    settings: RelaxConfig, records: Sequence[Mapping[str, Any]], structures: Sequence[Structure], curves: Sequence[Curve]
) -> list[Any]:
    """Collect the blocks of the page."""
    failures = [f"{s.name}: {r['reason']}" for s, r in zip(structures, records, strict=True) if not r["converged"]]
    head = [["structure", "atoms", "energy (eV/atom)", "largest force (eV/Å)", "stress error (GPa)", "evaluations", "relaxed"]]
    rows = []
    for s, r in zip(structures, records, strict=True):
        stress = f"{r['stress_error_GPa']:.2e}" if settings.moves_cells else ""
        figures = [f"{r['energy_per_atom_eV']:.6f}", f"{r['largest_force_eV_per_A']:.2e}", stress, str(r["evaluations"])]
        rows.append([s.name, str(len(s)), *figures, "yes" if r["converged"] else "no"])
    frames = [Frame(s.numbers, s.positions, s.cell if s.pbc.any() else None, s.pbc, label=s.name) for s in structures]
    per_atom = np.array([r["energy_per_atom_eV"] for r in records])
    return [
        *([Text("Not relaxed", failures, alarm=True)] if failures else []),
        Table("Structures", head + rows),
        Plot("Forces in the course of the relaxation", curves, "evaluations", "largest force (eV/Å)", log_y=True),
        Viewer("Relaxed structures", frames, {"energy (eV/atom)": per_atom} if len(frames) > 1 else {}),
    ]
