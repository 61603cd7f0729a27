"""``equipot bulk``: relaxation, order of polymorphs, equation of state, elastic tensor and stress-strain curve of crystals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equipot import config
from equipot.figures import BLUE, GREY, ORANGE, STYLE, new_figure, save_figure
from equipot.pages import Curve, Frame, Plot, Table, Text, Viewer, write_page
from equipot.structure import Structure
from equipot.workflows.bulk.config import BulkConfig
from equipot.workflows.bulk.elasticity import ElasticTensor, elastic_tensor, table_of
from equipot.workflows.bulk.equation_of_state import VolumeCurve, equation_of_state
from equipot.workflows.bulk.ranking import Ranking, rank
from equipot.workflows.bulk.tension import StressStrain, stress_strain
from equipot.workflows.journal import Journal
from equipot.workflows.relax import Relaxed
from equipot.workflows.relax.kept import Say, relax_kept
from equipot.workflows.results import write_json
from equipot.workflows.task import Outcome, Task

CONFIG = BulkConfig
NOISE = 1e-3
"""GPa below which a modulus counts as zero."""
UNITS = {
    "A3_per_atom": "Å^3/atom", "eV_per_atom": "eV/atom", "A3": "Å^3", "A": "Å", "deg": "°", "eV": "eV", "meV": "meV",
    "GPa": "GPa",
}  # fmt: skip
"""Units as they are shown, by the ends of keys."""


def run(task: Task, settings: BulkConfig) -> Outcome:
    """Examine the crystals of a file; write bulk.json, bulk.png, bulk.html and relaxed.extxyz.

    Relaxations and derivatives that an interrupted run has finished are not computed again.
    """
    for s in task.structures:
        if not s.pbc.all() or not s.volume:
            raise ValueError(f"{s.name} does not repeat in three directions: `equipot bulk` is for crystals")
    journal = Journal(task.out / "finished.jsonl", task.resume)
    say: Say = lambda done, count, text: task.console.progress(text, f"{done}/{count} relaxed")
    relaxed = relax_kept(journal, "structure", task.potential, task.structures, settings.relax, say)
    failures = [what for x in relaxed for what in x.failures]
    told: dict[str, Any] = {"model": task.model, "settings": config.dump(settings)}
    order = ranked(task, settings, relaxed, told) if len(relaxed) > 1 else None
    first = relaxed[order.order[0] if order else 0]
    told["structure"] = structure_facts(first)
    curve = tensor = pulled = None
    if first.converged and settings.equation_of_state is not None:
        task.console.say("equation of state")
        free = at_no_pressure(task, settings, first, journal)
        curve = equation_of_state(task.potential, free, settings.equation_of_state, settings.relax, journal, say)
        told["equation_of_state"], more = curve_facts(curve)
        failures += more
    if first.converged and settings.elasticity is not None:
        task.console.say("elastic tensor")
        tensor = elastic_tensor(task.potential, first.structure, settings.elasticity.check, journal)
        told["elasticity"], more = tensor_facts(tensor)
        failures += more
    if first.converged and settings.tension is not None:
        task.console.say("stress-strain curve")
        pulled = stress_strain(task.potential, first.structure, settings.tension, settings.relax, journal, say)
        told["tension"], more = tension_facts(pulled)
        failures += more
    told["failures"] = failures
    write_json(task.out / "bulk.json", told)
    if curve is not None or pulled is not None:
        draw(task, curve, pulled)
    blocks = page(told, relaxed, order, curve, tensor, pulled)
    write_page(task.out / "bulk.html", f"{first.structure.name} by {task.model}", blocks)
    return Outcome(summary(told, relaxed, order), tuple(failures))


def at_no_pressure(task: Task, settings: BulkConfig, first: Relaxed, journal: Journal) -> Structure:
    """Return the cell without a pressure, about which the volumes of an equation of state lie."""
    if not settings.relax.pressure_GPa:
        return first.structure
    free = dataclasses.replace(settings.relax, pressure_GPa=0.0)
    (found,) = relax_kept(journal, "without pressure", task.potential, [first.structure], free)
    return found.structure


def ranked(task: Task, settings: BulkConfig, relaxed: Sequence[Relaxed], told: dict[str, Any]) -> Ranking:
    """Rank structures and note the order."""
    order = rank(task.potential, relaxed, settings.relax.pressure_GPa)
    told["ranking"] = [
        {
            "structure": relaxed[k].structure.name, "above_first_meV_per_atom": 1e3 * order.enthalpies[place],
            "deviation_meV_per_atom": None if order.deviations is None else 1e3 * order.deviations[place],
            "chance_to_be_first": None if order.chances is None else order.chances[place],
            "volume_A3_per_atom": relaxed[k].structure.volume / len(relaxed[k].structure),
        }
        for place, k in enumerate(order.order)
    ]  # fmt: skip
    return order


def structure_facts(relaxed: Relaxed) -> dict[str, Any]:
    """List the lattice of a relaxed crystal."""
    from ase.geometry import cell_to_cellpar

    s = relaxed.structure
    lengths = cell_to_cellpar(s.cell)
    names = ("a_A", "b_A", "c_A", "alpha_deg", "beta_deg", "gamma_deg")
    return {
        "name": s.name, "atoms": len(s), **dict(zip(names, map(float, lengths), strict=True)),
        "volume_A3_per_atom": s.volume / len(s), "energy_eV_per_atom": relaxed.energy / len(s), "space_group": relaxed.group,
    }  # fmt: skip


def curve_facts(curve: VolumeCurve) -> tuple[dict[str, Any], list[str]]:
    """List what an equation of state says, and its failures."""
    facts = {
        "equation": curve.equation, "volume_A3": curve.volume, "energy_eV": curve.energy,
        "bulk_modulus_GPa": curve.bulk_modulus, "bulk_modulus_derivative": curve.derivative,
        "residual_meV": 1e3 * curve.residual, "volumes_A3": curve.volumes.tolist(),
        "energies_eV": curve.energies.tolist(), "pressures_GPa": curve.pressures.tolist(),
    }  # fmt: skip
    return facts, [f"equation of state: {what}" for what in curve.failures]


def tensor_facts(tensor: ElasticTensor) -> tuple[dict[str, Any], list[str]]:
    """List an elastic tensor and its averages, and what is not sound about it."""
    facts: dict[str, Any] = {
        "voigt_order": ["xx", "yy", "zz", "yz", "xz", "xy"], "tensor_GPa": tensor.relaxed.tolist(),
        "tensor_with_clamped_atoms_GPa": tensor.clamped.tolist(), "eigenvalues_GPa": tensor.eigenvalues.tolist(),
        "is_stable": tensor.is_stable, "asymmetry_GPa": tensor.asymmetry, "group_error_GPa": tensor.group_error,
        "stress_GPa": tensor.stress.tolist(),
    }  # fmt: skip
    failures = []
    if tensor.eigenvalues[0] > NOISE:
        facts |= tensor.moduli
    else:
        failures.append(
            f"elastic tensor: its lowest eigenvalue is {tensor.eigenvalues[0]:.3g} GPa: the crystal is not stable (Born)"
        )
    if tensor.soft_modes:
        failures.append(
            f"elastic tensor: {tensor.soft_modes} directions of the atoms lower the energy, so that the cell is no minimum; "
            "look at its phonons, or relax it without symmetry"
        )
    if tensor.finite_strains is not None:
        off = float(np.abs(tensor.finite_strains - tensor.relaxed).max())
        facts |= {"finite_strains_GPa": tensor.finite_strains.tolist(), "difference_to_finite_strains_GPa": off}
        if not off < 0.05 * np.abs(tensor.relaxed).max():
            failures.append(f"elastic tensor: finite strains differ by {off:.3g} GPa from the exact derivatives")
    return facts, failures


def tension_facts(pulled: StressStrain) -> tuple[dict[str, Any], list[str]]:
    """List a stress-strain curve, and the steps that did not relax."""
    facts = {
        "direction": pulled.direction, "strength_GPa": pulled.strength, "failed_at_strain": pulled.failed_at,
        "strains": pulled.strains.tolist(), "stresses_GPa": pulled.stresses.tolist(), "energies_eV": pulled.energies.tolist(),
    }  # fmt: skip
    return facts, [f"stress-strain curve: {what}" for what in pulled.failures]


def summary(told: Mapping[str, Any], relaxed: Sequence[Relaxed], order: Ranking | None) -> str:
    """Write the lines for the terminal."""
    lines = []
    for row in told.get("ranking", ()):
        sure = "" if row["deviation_meV_per_atom"] is None else f" +- {row['deviation_meV_per_atom']:.2f}"
        lines.append(f"{row['above_first_meV_per_atom']:9.2f}{sure} meV/atom  {row['structure']}")
    s = told["structure"]
    lines.append(f"{s['name']}: a {s['a_A']:.4f}, b {s['b_A']:.4f}, c {s['c_A']:.4f} Å, {s['volume_A3_per_atom']:.4f} Å^3/atom")
    if (eos := told.get("equation_of_state")) is not None:
        lines.append(f"bulk modulus {eos['bulk_modulus_GPa']:.2f} GPa, derivative {eos['bulk_modulus_derivative']:.2f}")
    if (c := told.get("elasticity")) is not None:
        t = np.array(c["tensor_GPa"])
        lines.append(f"C11 {t[0, 0]:.1f}, C12 {t[0, 1]:.1f}, C44 {t[3, 3]:.1f} GPa with relaxed atoms")
    if (pull := told.get("tension")) is not None:
        where = "none" if pull["failed_at_strain"] is None else f"{pull['failed_at_strain']:.3f}"
        lines.append(f"strength along {pull['direction']} {pull['strength_GPa']:.2f} GPa, failure at strain: {where}")
    return "\n".join(lines)


def draw(task: Task, curve: VolumeCurve | None, pulled: StressStrain | None) -> None:
    """Draw equation of state and stress-strain curve to bulk.png."""
    from matplotlib import rc_context

    panels = (curve is not None) + (pulled is not None)
    with rc_context(STYLE):
        figure, axes = new_figure(4.5 * panels, 3.2, panels)
        if curve is not None:
            grid = np.linspace(curve.volumes.min(), curve.volumes.max(), 200)
            axes[0].plot(grid, curve.fitted(grid), color=GREY, lw=1, label=curve.equation)
            axes[0].plot(curve.volumes, curve.energies, "o", color=BLUE, ms=4, label="relaxed at fixed volume")
            axes[0].set(xlabel="volume (Å³)", ylabel="energy (eV)")
            axes[0].legend()
        if pulled is not None:
            axes[-1].plot(pulled.strains, pulled.stresses, color=ORANGE, marker="o", ms=3, lw=1)
            axes[-1].set(xlabel=f"strain {pulled.direction}", ylabel="stress (GPa)")
        save_figure(figure, task.out / "bulk.png")


def named(facts: Mapping[str, Any]) -> list[list[str]]:
    """Write results as rows of quantity, value and unit; the units are those at the end of their keys."""
    rows = [["quantity", "value", "unit"]]
    for key, value in facts.items():
        unit = next((end for end in UNITS if key.endswith(f"_{end}")), "")
        name = key.removesuffix(f"_{unit}").replace("_", " ")
        rows.append([name, f"{value:.6g}" if isinstance(value, float) else str(value), UNITS.get(unit, "")])
    return rows


def page(
    told: Mapping[str, Any],
    relaxed: Sequence[Relaxed],
    order: Ranking | None,
    curve: VolumeCurve | None,
    tensor: ElasticTensor | None,
    pulled: StressStrain | None,
) -> list[Any]:
    """Collect the blocks of the page."""
    blocks: list[Any] = [Text("Failures", told["failures"], alarm=True)] if told["failures"] else []
    blocks.append(Table("Crystal", named(told["structure"])))
    if order is not None:
        head = ["structure", "above the first (meV/atom)", "deviation (meV/atom)", "chance to be first"]
        cell = lambda x, form: "" if x is None else format(x, form)
        rows = [
            [r["structure"], f"{r['above_first_meV_per_atom']:.3f}", cell(r["deviation_meV_per_atom"], ".3f"),
             cell(r["chance_to_be_first"], ".2f")]
            for r in told["ranking"]
        ]  # fmt: skip
        blocks.append(Table("Order", [head, *rows]))
    if curve is not None:
        grid = np.linspace(curve.volumes.min(), curve.volumes.max(), 100)
        curves = [Curve(curve.equation, grid, curve.fitted(grid)), Curve("relaxed", curve.volumes, curve.energies, points=True)]
        blocks.append(Plot("Equation of state", curves, "volume (Å³)", "energy (eV)"))
        fit = ("volume_A3", "energy_eV", "bulk_modulus_GPa", "bulk_modulus_derivative", "residual_meV")
        blocks.append(Table("Fit", named({key: told["equation_of_state"][key] for key in fit})))
    if tensor is not None:
        blocks.append(Table("Elastic tensor, atoms relaxed", table_of(tensor.relaxed)))
        blocks.append(Table("Elastic tensor, atoms clamped", table_of(tensor.clamped)))
        if tensor.eigenvalues[0] > NOISE:
            blocks.append(Table("Averages", named(tensor.moduli)))
    structures = [x.structure for x in relaxed]
    if pulled is not None:
        curves = [Curve("stress", pulled.strains, pulled.stresses, points=True)]
        blocks.append(Plot("Stress against strain", curves, f"strain {pulled.direction}", "stress (GPa)"))
        structures = list(pulled.structures)
    frames = [Frame(s.numbers, s.positions, s.cell, s.pbc, label=s.name) for s in structures]
    linked = {"stress (GPa)": pulled.stresses} if pulled is not None else {}
    return [*blocks, Viewer("Structures", frames, linked)]
