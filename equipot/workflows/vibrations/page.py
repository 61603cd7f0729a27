"""The page of vibrations: modes, spectrum, thermochemistry and a viewer of the modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from equipot import units
from equipot.workflows.vibrations.calculation import Vibrations
from equipot.workflows.vibrations.infrared import broadened


def write(found: Vibrations, model: str, width: float, path: Path) -> Path:
    """Write the page; ``model`` is the name of the potential, ``width`` that of the lines of the spectrum, 1/cm.

    Raises:
        OSError: the file cannot be written.
    """
    from equipot.pages import Curve, Plot, Text, write_page

    blocks: list[Any] = [Text("What is wrong", found.failures, alarm=True)] if found.failures else []
    blocks += [Text("Notes", found.notes)] if found.notes else []
    blocks += [_modes(found), _thermochemistry(found)]
    if found.infrared is not None and len(found.infrared):
        curve = Curve("absorption", *broadened(found.modes, found.infrared, width))
        blocks.append(Plot("Infrared spectrum", [curve], "wavenumber (1/cm)", "km/mol per 1/cm"))
    if len(found.modes.frequencies):
        blocks.append(_viewer(found))
    return write_page(path, f"Vibrations of {found.structure.name} by {model}", blocks)


def _modes(found: Vibrations) -> Any:
    from equipot.pages import Table

    modes = found.modes
    rows = [("mode", "wavenumber (1/cm)", "frequency (THz)", "reduced mass (amu)", "infrared intensity (km/mol)")]
    for k, wavenumber in enumerate(modes.wavenumbers):
        strength = "" if found.infrared is None else f"{found.infrared[k]:.3f}"
        shown = f"{abs(wavenumber):.2f}{'i' if wavenumber < 0 else ''}"
        rows.append((str(k + 1), shown, f"{modes.frequencies[k]:.4f}", f"{modes.reduced_masses[k]:.4f}", strength))
    return Table("Normal modes", rows)


def _thermochemistry(found: Vibrations) -> Any:
    from equipot.pages import Table

    thermo = found.thermochemistry
    energy = lambda name, value: (name, f"{value:.6f} eV", f"{value / units.kJ_per_mol:.4f} kJ/mol")
    entropy = lambda name, value: (name, f"{1e3 * value:.6f} meV/K", f"{1e3 * value / units.kJ_per_mol:.4f} J/K/mol")
    gas = thermo.pressure is not None
    rows = [
        ("quantity", "of a molecule" if gas else "of a cell", "of a mole"),
        ("temperature", f"{thermo.temperature:g} K", ""),
        *([("pressure", f"{thermo.pressure:g} Pa", ""), ("symmetry number", f"{thermo.symmetry_number}", "")] if gas else []),
        energy("potential energy", found.energy),
        energy("zero-point energy", thermo.zero_point_energy),
        energy("internal energy", thermo.internal_energy),
        energy("enthalpy", thermo.enthalpy),
        *(entropy(f"entropy of {name}", value) for name, value in thermo.entropies.items()),
        entropy("entropy", thermo.entropy),
        energy("Gibbs energy" if gas else "Helmholtz energy", thermo.gibbs_energy),
    ]
    return Table("Thermochemistry", rows)


def _viewer(found: Vibrations) -> Any:
    from equipot.pages import Frame, Viewer

    at, modes = found.structure, found.modes
    cell = at.cell if at.pbc.any() else None
    frames = []
    for moves, wavenumber in zip(modes.displacements, modes.wavenumbers, strict=True):
        vectors = moves / np.linalg.norm(moves, axis=1).max()
        frames.append(Frame(at.numbers, at.positions, cell, at.pbc, vectors=vectors, label=f"{wavenumber:.1f} 1/cm"))
    properties = {"wavenumber (1/cm)": modes.wavenumbers}
    if found.infrared is not None:
        properties["infrared intensity (km/mol)"] = found.infrared
    return Viewer("Modes", frames, properties)
