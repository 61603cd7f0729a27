"""Figures of phonons: bands beside the density of states, thermal properties, and those at constant pressure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipot.figures import BLUE, GREY, ORANGE, STYLE, empty_figure, new_figure, save_figure
from equipot.workflows.phonons.calculation import Phonons
from equipot.workflows.phonons.quasiharmonic import QuasiHarmonic
from equipot.workflows.phonons.spectrum import Thermal, marks_of

COLOURS = (BLUE, ORANGE, "#5b8c5a", "#8d5a97", "#b8912f")


def draw_bands(found: Phonons, path: Path) -> None:
    """Write ``bands_figure`` to a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    save_figure(bands_figure(found), path)


def bands_figure(found: Phonons) -> Any:
    """Draw bands beside the density of states, total and by element; returns the figure of matplotlib, which notebooks show."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = empty_figure(8.0, 4.0)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        for segment in found.bands:
            left.plot(segment.distance, segment.frequencies, color=BLUE, linewidth=1.0)
        marks = marks_of(found.bands)
        left.set_xticks([x for x, _ in marks], [name for _, name in marks])
        left.grid(axis="y", visible=False)
        left.set_xlim(marks[0][0], marks[-1][0])
        left.axhline(0, color=GREY, linewidth=0.8)
        left.set_ylabel("frequency (THz)")
        right.plot(found.dos.total, found.dos.frequency, color=GREY, linewidth=1.0, label="total")
        if len(found.dos.by_element) > 1:
            for k, (name, part) in enumerate(found.dos.by_element.items()):
                right.plot(part, found.dos.frequency, color=COLOURS[k % len(COLOURS)], linewidth=1.0, label=name)
            right.legend()
        right.set_xlabel("modes per THz")
        right.set_xlim(left=0)
    return figure


def draw_thermal(thermal: Thermal, path: Path) -> None:
    """Write ``thermal_figure`` to a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    save_figure(thermal_figure(thermal), path)


def thermal_figure(thermal: Thermal) -> Any:
    """Draw free energy, entropy and heat capacity of a primitive cell over temperature; returns the figure of matplotlib."""
    panels = (
        ("free energy (kJ/mol)", thermal.free_energy),
        ("entropy (J/K/mol)", thermal.entropy),
        ("heat capacity (J/K/mol)", thermal.heat_capacity),
    )
    return _panels(thermal.temperature, panels)


def draw_quasi_harmonic(qha: QuasiHarmonic, path: Path) -> None:
    """Write ``quasi_harmonic_figure`` to a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    save_figure(quasi_harmonic_figure(qha), path)


def quasi_harmonic_figure(qha: QuasiHarmonic) -> Any:
    """Draw volume, thermal expansion and bulk modulus over temperature; returns the figure of matplotlib."""
    panels = (
        ("volume (Å$^3$)", qha.volume),
        ("thermal expansion (1e-6/K)", 1e6 * qha.thermal_expansion),
        ("bulk modulus (GPa)", qha.bulk_modulus),
    )
    return _panels(qha.temperature, panels)


def _panels(temperature: Any, panels: Any) -> Any:
    """Draw curves over temperature side by side; returns the figure."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(9.0, 3.0, len(panels))
        for axis, (name, values) in zip(axes, panels, strict=True):
            axis.plot(temperature, values, color=BLUE)
            axis.set_xlabel("temperature (K)")
            axis.set_ylabel(name)
    return figure
