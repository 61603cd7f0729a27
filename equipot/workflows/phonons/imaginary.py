"""Imaginary modes of a crystal: found, named, and followed downhill to a structure of lower symmetry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Complex, Float

from equipot import units
from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.phonons.cell import Standard, as_structure
from equipot.workflows.phonons.config import PhononsConfig
from equipot.workflows.phonons.harmonic import HarmonicCrystal
from equipot.workflows.phonons.spectrum import Segment, named

LONGEST_PERIOD = 12
"""Most primitive cells along a vector after which a mode that can be followed repeats."""
CLOSE = 1e-4
"""Frequencies (THz) and wave vectors that differ by less are those of equivalent points."""
SAME_SYMMETRY = 1e-2
"""Distance (Å) up to which atoms of a structure that a mode led to count as equivalent."""


@dataclass(frozen=True)
class ImaginaryMode:
    """A mode along which the energy falls."""

    point: tuple[float, float, float]
    """Wave vector, in reciprocal vectors of the primitive cell."""
    name: str
    """Name of the special point; empty for another one."""
    band: int
    """Index of the mode at its wave vector, ascending in frequency."""
    frequency: float
    """THz, negative."""
    movement: str
    """Which atoms move most, and where to."""

    def __str__(self) -> str:
        at = ", ".join(f"{x:.4g}" for x in self.point)
        where = f"{self.name} ({at})" if self.name else f"({at})"
        return f"{abs(self.frequency):.3f}i THz at {where}, {self.movement}"


@dataclass(frozen=True)
class Followed:
    """Where an imaginary mode leads to."""

    mode: ImaginaryMode
    structure: Structure
    """Relaxed structure, a supercell of the primitive cell."""
    before: str
    """Space group of the crystal with the imaginary mode."""
    after: str
    """Space group of the relaxed structure."""
    gain: float
    """Fall of the energy, eV/atom."""
    converged: bool
    """Whether the relaxation came to its end."""
    reason: str
    """How the relaxation ended."""


def imaginary_modes(
    crystal: HarmonicCrystal, standard: Standard, bands: tuple[Segment, ...], settings: PhononsConfig
) -> tuple[ImaginaryMode, ...]:
    """Find the imaginary modes at special points, at wave vectors that the supercell holds, and the lowest of path and mesh.

    Of equivalent wave vectors, which have equal frequencies, the first is named. The mesh of the crystal has been run.

    Returns:
        Modes in the order of their frequencies, the most unstable first.
    """
    limit = -settings.imaginary_tolerance_THz
    found: list[ImaginaryMode] = []
    seen: list[Float[np.ndarray, " bands"]] = []
    for name, point in _points(crystal.phonon, standard, bands):
        values, vectors = modes_at(crystal.phonon, point)
        if values[0] >= limit or any(np.abs(values - old).max() < CLOSE for old in seen):
            continue
        seen.append(values)
        where = tuple(float(x) for x in point)
        assert len(where) == 3, "a wave vector"
        for band in np.flatnonzero(values < limit):
            text = movement(vectors[band], crystal.primitive)
            found.append(ImaginaryMode(where, name, int(band), float(values[band]), text))
    return tuple(sorted(found, key=lambda mode: mode.frequency))


def modes_at(
    phonon: Any, point: Float[np.ndarray, " 3"]
) -> tuple[Float[np.ndarray, " bands"], Complex[np.ndarray, "bands atoms 3"]]:
    """Compute frequencies (THz), imaginary ones as negative numbers, and eigenvectors at a wave vector."""
    found = phonon.run_qpoints(point[None], with_eigenvectors=True)
    values = np.array(found.frequencies)[0]
    return values, np.array(found.eigenvectors)[0].T.reshape(len(values), -1, 3)


def _points(phonon: Any, standard: Standard, bands: tuple[Segment, ...]) -> Iterator[tuple[str, Float[np.ndarray, " 3"]]]:
    """Iterate over names and wave vectors at which imaginary modes are looked for, special points first."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    for name, point in standard.points.items():
        yield named(name), np.asarray(point)
    for point in get_commensurate_points(phonon.supercell_matrix):
        yield "", point
    lowest = min(bands, key=lambda segment: segment.frequencies.min())
    yield "", lowest.points[lowest.frequencies.min(axis=1).argmin()]
    yield "", np.asarray(phonon.mesh.qpoints[np.asarray(phonon.mesh.frequencies).min(axis=1).argmin()])


def movement(vector: Complex[np.ndarray, "atoms 3"], primitive: Structure) -> str:
    """Describe a mode by the atom with the largest part of the eigenvector, the atom's direction, and the parts of elements."""
    part = np.sum(np.abs(vector) ** 2, axis=1)
    atom = int(part.argmax())
    largest = vector[atom, np.abs(vector[atom]).argmax()]
    direction = (vector[atom] * largest.conj() / abs(largest)).real
    direction = direction / np.linalg.norm(direction)
    shown = " ".join(f"{x:.2f}" for x in direction)
    numbers = dict.fromkeys(primitive.numbers.tolist())
    shares = ", ".join(f"{chemical_symbols[z]} {part[primitive.numbers == z].sum() / part.sum():.0%}" for z in numbers)
    return f"atom {atom} ({chemical_symbols[primitive.numbers[atom]]}) along [{shown}], parts {shares}"


def noise(crystal: HarmonicCrystal, settings: PhononsConfig) -> str:
    """Say that frequencies of the mesh are negative but within the tolerance; empty where none are."""
    found = np.asarray(crystal.phonon.mesh.frequencies)
    lowest = float(found.min())
    if not -settings.imaginary_tolerance_THz <= lowest < -CLOSE:
        return ""
    at = ", ".join(f"{x:.3g}" for x in crystal.phonon.mesh.qpoints[found.min(axis=1).argmin()])
    return (
        f"the lowest frequency, {lowest:.4f} THz at ({at}), is negative but counts as noise of acoustic modes "
        f"(imaginary_tolerance_THz {settings.imaginary_tolerance_THz:g})"
    )


def period(mode: ImaginaryMode) -> tuple[int, int, int] | None:
    """Return the primitive cells along each vector after which a mode repeats; None beyond ``LONGEST_PERIOD``."""
    parts = [Fraction(x).limit_denominator(LONGEST_PERIOD) for x in mode.point]
    if any(abs(float(part) - x) > CLOSE for part, x in zip(parts, mode.point, strict=True)):
        return None
    return parts[0].denominator, parts[1].denominator, parts[2].denominator


def displaced(crystal: HarmonicCrystal, mode: ImaginaryMode, amplitude: float) -> Structure:
    """Move the atoms of a supercell in which a mode repeats along that mode: the farthest by ``amplitude`` (Å).

    Raises:
        ValueError: the mode does not repeat within ``LONGEST_PERIOD`` cells.
    """
    size = period(mode)
    if size is None:
        raise ValueError(f"{mode}: does not repeat within {LONGEST_PERIOD} cells, and cannot be followed in a supercell")
    found = crystal.phonon.run_modulations(size, [[mode.point, mode.band, 1.0, 0.0]])
    moves = np.asarray(found.modulations[0]).real
    moves = amplitude * moves / np.linalg.norm(moves, axis=1).max()
    perfect = as_structure(found.supercell, crystal.primitive)
    return perfect.replace(positions=perfect.positions + moves)


def follow(
    potential: Potential, crystal: HarmonicCrystal, standard: Standard, mode: ImaginaryMode, settings: PhononsConfig
) -> Followed:
    """Follow an imaginary mode: displace atoms along it, then relax them without keeping any symmetry.

    The cell is relaxed as far as ``settings.relax`` relaxes that of the crystal.

    Raises:
        ValueError: the mode does not repeat within ``LONGEST_PERIOD`` cells.
    """
    import spglib

    from equipot.workflows.relax import RelaxConfig, relax

    start = displaced(crystal, mode, settings.follow_amplitude)
    cell = "fixed" if settings.relax == "none" else settings.relax
    how = RelaxConfig(
        cell=cell,
        fmax=max(settings.fmax, 1e-4),
        pressure_GPa=0.0 if cell == "fixed" else settings.pressure_GPa,
        symmetry=False,
        max_steps=settings.max_steps,
    )
    (found,) = relax(potential, [start], how)
    work = settings.pressure_GPa * units.GPa
    parent, end = crystal.primitive, found.structure
    energy = float(np.asarray(evaluate(potential, [parent], ("energy",)).energy)[0])
    high, low = (energy + work * parent.volume) / len(parent), (found.energy + work * end.volume) / len(end)
    crystal_cell: Any = (end.cell, end.positions @ np.linalg.inv(end.cell), end.numbers)
    group = spglib.get_symmetry_dataset(crystal_cell, symprec=SAME_SYMMETRY)
    after = "unknown" if group is None else f"{group.international} ({group.number})"
    return Followed(mode, end, standard.space_group, after, high - low, found.converged, found.reason)
