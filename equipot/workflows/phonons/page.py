"""The page of phonons: numbers, bands, densities of states, thermal properties and the modes at Gamma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from equipot.workflows.phonons.calculation import Phonons
from equipot.workflows.phonons.spectrum import marks_of


def write(found: Phonons, model: str, path: Path) -> Path:
    """Write the page; ``model`` is the name of the potential.

    Raises:
        OSError: the file cannot be written.
    """
    from equipot.pages import Text, write_page

    name = found.standard.primitive.source
    blocks: list[Any] = [Text("What is wrong", found.failures, alarm=True)] if found.failures else []
    blocks += [Text("Notes", found.notes), _numbers(found), *_plots(found), *_imaginary(found), *_quasi_harmonic(found)]
    blocks.append(_modes(found))
    return write_page(path, f"Phonons of {name} by {model}", blocks)


def _numbers(found: Phonons) -> Any:
    from equipot.pages import Table

    checks = found.crystal.checks
    rows = [
        ("quantity", "value", "unit"),
        ("space group", found.standard.space_group, ""),
        ("atoms in the primitive cell", str(len(found.standard.primitive)), ""),
        ("atoms in the supercell", str(found.atoms_of_supercell), ""),
        ("volume of the primitive cell", f"{found.standard.primitive.volume:.4f}", "Å^3"),
        ("largest force", f"{found.fmax:.2g}", "eV/Å"),
        ("pressure", f"{found.pressure:.4g}", "GPa"),
        ("acoustic sum rule violated by", f"{checks.sum_rule:.2g}", "eV/Å^2"),
        ("force constants left at the boundary", f"{checks.boundary:.2g}", "of the largest"),
        ("highest frequency", f"{max(s.frequencies.max() for s in found.bands):.4f}", "THz"),
        ("zero-point energy", f"{found.thermal.zero_point_energy:.4f}", "kJ/mol"),
    ]
    return Table("Numbers", rows)


def _plots(found: Phonons) -> list[Any]:
    from equipot.pages import Curve, Plot

    thermal, dos = found.thermal, found.dos
    bands = [
        Curve(f"band {band + 1}", segment.distance, segment.frequencies[:, band], group="bands")
        for segment in found.bands
        for band in range(segment.frequencies.shape[1])
    ]
    parts = dos.by_element if len(dos.by_element) > 1 else {}
    states = [Curve("total", dos.frequency, dos.total), *(Curve(name, dos.frequency, part) for name, part in parts.items())]
    heat = [
        Curve("entropy", thermal.temperature, thermal.entropy),
        Curve("heat capacity at constant volume", thermal.temperature, thermal.heat_capacity),
    ]
    return [
        Plot("Bands", bands, "wave vector (1/Å)", "frequency (THz)", marks=marks_of(found.bands)),
        Plot("Density of states", states, "frequency (THz)", "modes per THz"),
        Plot("Free energy", [Curve("free energy", thermal.temperature, thermal.free_energy)], "temperature (K)", "kJ/mol"),
        Plot("Entropy and heat capacity", heat, "temperature (K)", "J/K/mol"),
    ]


def _imaginary(found: Phonons) -> list[Any]:
    from equipot.pages import Table, Text

    if not found.imaginary:
        return []
    rows = [("frequency (THz)", "point", "wave vector", "movement")]
    for mode in found.imaginary:
        rows.append((f"{mode.frequency:.4f}", mode.name, ", ".join(f"{x:.4g}" for x in mode.point), mode.movement))
    blocks: list[Any] = [Table("Imaginary modes", rows)]
    if (end := found.followed) is not None:
        told = (
            f"The most unstable mode, {end.mode}, leads from {end.before} to {end.after}: {len(end.structure)} atoms, "
            f"{1e3 * end.gain:.3f} meV/atom lower. {end.reason}"
        )
        blocks.append(Text("Followed", [told], alarm=not end.converged))
    return blocks


def _quasi_harmonic(found: Phonons) -> list[Any]:
    from equipot.pages import Curve, Plot

    if found.qha is None:
        return []
    qha = found.qha
    over = lambda heading, values, unit: Plot(heading, [Curve(heading, qha.temperature, values)], "temperature (K)", unit)
    return [
        over("Volume", qha.volume, "Å^3"),
        over("Thermal expansion", 1e6 * qha.thermal_expansion, "1e-6/K"),
        over("Bulk modulus", qha.bulk_modulus, "GPa"),
        over("Heat capacity at constant pressure", qha.heat_capacity, "J/K/mol"),
    ]


def _modes(found: Phonons) -> Any:
    from equipot.pages import Frame, Viewer

    cell, gamma = found.standard.primitive, found.gamma
    frames = [
        Frame(cell.numbers, cell.positions, cell.cell, cell.pbc, vectors=moves, label=f"{frequency:.3f} THz {irrep}".strip())
        for frequency, moves, irrep in zip(gamma.frequencies, gamma.displacements, gamma.irreps, strict=True)
    ]
    properties = {"frequency (THz)": np.asarray(gamma.frequencies)}
    return Viewer("Modes at Gamma, without the splitting of LO and TO modes", frames, properties)
