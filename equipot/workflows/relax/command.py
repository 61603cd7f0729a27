"""``equipot relax``: structures of a file to their minima, with a table, curves and the structures to look at."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equipot import config
from equipot.figures import STYLE, new_figure, save_figure
from equipot.files import write_atomically
from equipot.pages import Curve, Frame, Plot, Table, Text, Viewer, write_page
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig, Relaxed
from equipot.workflows.relax.kept import record, relax_kept
from equipot.workflows.results import write_json
from equipot.workflows.task import Outcome, Task

CONFIG = RelaxConfig
CURVES = 24
"""Structures whose curves are drawn: those that took most evaluations."""
CHANGES = 5
"""Changes of space groups that the terminal shows; the results list all of them."""


def run(task: Task, settings: RelaxConfig) -> Outcome:
    """Relax the structures of a file; write relaxed.extxyz, relax.json, relax.png and relax.html.

    Structures that an interrupted run has finished are not computed again.
    """
    journal = Journal(task.out / "finished.jsonl", task.resume)
    found = relax_kept(
        journal, "structure", task.potential, task.structures, settings,
        lambda done, count, figures: task.console.progress(figures, f"{done}/{count} finished"),
    )  # fmt: skip
    failures = tuple(what for relaxed in found for what in relaxed.failures)
    write_results(task, settings, found, failures)
    return Outcome(summary(found), failures)


def summary(found: Sequence[Relaxed]) -> str:
    """Say how many structures were relaxed, and by how many evaluations."""
    done, calls = sum(x.converged for x in found), [x.evaluations for x in found]
    lines = [f"{done} of {len(found)} relaxed; evaluations: {np.median(calls):.0f} (median), {max(calls)} (most)"]
    if len(found) == 1:
        (x,) = found
        lines += [f"energy {x.energy:.6f} eV, largest force {x.fmax:.2g} eV/Å"]
        if x.structure.pbc.all():
            lines += [f"volume {x.structure.volume:.4f} Å^3, error of the stress {x.stress_error:.2g} GPa"]
        if x.group:
            lines += [f"space group {x.group} kept"]
    changed = [f"space group of {x.structure.name}: {x.group_change}" for x in found if x.group_change]
    return "\n".join([*lines, *changed[:CHANGES], *([f"and {len(changed) - CHANGES} more"] if len(changed) > CHANGES else [])])


def write_results(task: Task, settings: RelaxConfig, found: Sequence[Relaxed], failures: Sequence[str]) -> None:
    """Write structures, numbers, figure and page into the folder."""
    from ase.io import write

    text = io.StringIO()
    write(text, [x.structure.to_ase() for x in found], format="extxyz")
    write_atomically(task.out / "relaxed.extxyz", text.getvalue().encode())
    skipped = ("positions_A", "cell_A", "forces_eV_per_A", "stress_eV_per_A3", "trace")
    shown = [{"name": x.structure.name} | {k: v for k, v in record(x).items() if k not in skipped} for x in found]
    told = {"model": task.model, "settings": config.dump(settings), "failures": list(failures), "structures": shown}
    write_json(task.out / "relax.json", told)
    curves = traces(found)
    draw(curves, settings, task)
    write_page(task.out / "relax.html", f"Relaxation by {task.model}", page(settings, found, failures, curves))


def traces(found: Sequence[Relaxed]) -> list[Curve]:
    """Return the largest force against evaluations, of the structures that took most."""
    most = sorted(found, key=lambda x: -x.evaluations)[:CURVES]
    shown = sorted(most, key=lambda x: x.index)
    return [Curve(x.structure.name, x.trace[:, 0], np.maximum(x.trace[:, 2], 1e-12)) for x in shown]


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


def page(settings: RelaxConfig, found: Sequence[Relaxed], failures: Sequence[str], curves: Sequence[Curve]) -> list[Any]:
    """Collect the blocks of the page."""
    columns: list[tuple[str, Callable[[Relaxed], str]]] = [
        ("structure", lambda x: x.structure.name),
        ("atoms", lambda x: str(len(x.structure))),
        ("energy (eV/atom)", lambda x: f"{x.energy / len(x.structure):.6f}"),
        ("largest force (eV/Å)", lambda x: f"{x.fmax:.2e}"),
    ]
    if settings.moves_cells:
        columns.append(("stress error (GPa)", lambda x: f"{x.stress_error:.2e}"))
    if any(x.group or x.group_change for x in found):
        columns.append(("space group", lambda x: x.group_change or x.group))
    columns += [("evaluations", lambda x: str(x.evaluations)), ("relaxed", lambda x: "yes" if x.converged else "no")]
    rows = [[name for name, _ in columns], *([cell(x) for _, cell in columns] for x in found)]
    at = lambda s, name: Frame(s.numbers, s.positions, s.cell if s.pbc.any() else None, s.pbc, label=name)
    frames = [at(x.structure, x.structure.name) for x in found]
    per_atom = np.array([x.energy / len(x.structure) for x in found])
    course = [Plot("Forces in the course of the relaxation", curves, "evaluations", "largest force (eV/Å)", log_y=True)]
    if all(len(curve.x) == 1 for curve in curves):
        # Relaxations of a few evaluations leave single points.
        course = []
    return [
        *([Text("Failures", list(failures), alarm=True)] if failures else []),
        Table("Structures", rows),
        *course,
        Viewer("Relaxed structures", frames, {"energy (eV/atom)": per_atom} if len(frames) > 1 else {}),
    ]
