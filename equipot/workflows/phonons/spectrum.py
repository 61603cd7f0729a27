"""Bands along a path, densities of states, thermal properties and the modes at Gamma of a harmonic crystal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from equipot.workflows.phonons.cell import Standard
from equipot.workflows.phonons.config import PhononsConfig


@dataclass(frozen=True)
class Segment:
    """Frequencies along a straight line through the Brillouin zone."""

    ends: tuple[str, str]
    """Names of the first and last point."""
    points: Float[np.ndarray, "points 3"]
    """Wave vectors, in reciprocal vectors of the primitive cell."""
    distance: Float[np.ndarray, " points"]
    """Length of the whole path up to each point, 1/Å without the factor 2 pi."""
    frequencies: Float[np.ndarray, "points bands"]
    """THz; imaginary frequencies are negative."""


@dataclass(frozen=True)
class DensityOfStates:
    """Number of modes per frequency of a primitive cell, by the tetrahedron method."""

    frequency: Float[np.ndarray, " frequencies"]
    """THz."""
    total: Float[np.ndarray, " frequencies"]
    """Modes per THz; the integral is three times the number of atoms."""
    by_element: dict[str, Float[np.ndarray, " frequencies"]]
    """Part of each element, by the squared eigenvectors."""


@dataclass(frozen=True)
class Thermal:
    """Thermal properties of harmonic phonons at a fixed volume, for one mole of primitive cells; imaginary modes left out."""

    temperature: Float[np.ndarray, " temperatures"]
    """K."""
    free_energy: Float[np.ndarray, " temperatures"]
    """Of the phonons, zero-point energy included, kJ/mol."""
    entropy: Float[np.ndarray, " temperatures"]
    """J/K/mol."""
    heat_capacity: Float[np.ndarray, " temperatures"]
    """At constant volume, J/K/mol."""
    zero_point_energy: float
    """kJ/mol."""
    imaginary_share: float
    """Share of the modes of the mesh that are imaginary beyond the tolerance, and left out."""


@dataclass(frozen=True)
class GammaModes:
    """Modes without a phase between cells, without the splitting of LO and TO modes."""

    frequencies: Float[np.ndarray, " bands"]
    """THz, ascending; imaginary frequencies are negative."""
    displacements: Float[np.ndarray, "bands atoms 3"]
    """Displacements of the atoms; the atom that moves most moves by one."""
    irreps: tuple[str, ...]
    """Irreducible representation of each mode; empty where phonopy has no name for it."""


def bands_of(phonon: Any, standard: Standard, settings: PhononsConfig) -> tuple[Segment, ...]:
    """Compute frequencies along the path of a standard cell."""
    reciprocal = np.linalg.inv(standard.primitive.cell).T
    at = lambda name: np.asarray(standard.points[name])
    ends = [(at(a), at(b)) for a, b in standard.path]
    lengths = [float(np.linalg.norm((b - a) @ reciprocal)) for a, b in ends]
    step = max(lengths) / (settings.band_points - 1)
    counts = [max(2, round(length / step) + 1) for length in lengths]
    lines = [np.linspace(a, b, n) for (a, b), n in zip(ends, counts, strict=True)]
    found = phonon.run_band_structure(lines)
    shown = [(named(a), named(b)) for a, b in standard.path]
    parts = zip(shown, lines, found.distances, found.frequencies, strict=True)
    return tuple(Segment(names, line, np.array(x), np.array(f)) for names, line, x, f in parts)


def named(point: str) -> str:
    """Return the usual name of a special point."""
    return "Γ" if point == "GAMMA" else point


def marks_of(bands: tuple[Segment, ...]) -> list[tuple[float, str]]:
    """Return distance and name of every end of a segment; two names where the path jumps."""
    marks: list[tuple[float, str]] = []
    for segment in bands:
        first, last = segment.ends
        if marks and marks[-1][1] != first:
            marks[-1] = (marks[-1][0], f"{marks[-1][1]}|{first}")
        elif not marks:
            marks.append((float(segment.distance[0]), first))
        marks.append((float(segment.distance[-1]), last))
    return marks


def run_mesh(phonon: Any, settings: PhononsConfig) -> Any:
    """Compute frequencies and eigenvectors on the wave vectors of a mesh centred at Gamma that differ by symmetry.

    phonopy centres a mesh given by a length at Gamma; half-shifted meshes lose symmetry since its version 4.
    """
    return phonon.run_mesh(settings.mesh_length, with_eigenvectors=True)


def density_of_states(phonon: Any) -> DensityOfStates:
    """Compute densities of states of a crystal whose mesh has been run.

    The part of an element, the squared eigenvector of all its atoms, is the same at equivalent wave vectors; that of one atom
    is not, for which phonopy's projected density takes the whole mesh and a hundred times as long.
    """
    from phonopy.phonon.spectrum import TetrahedronDOSAccumulator

    mesh, symbols = phonon.mesh, np.array(phonon.primitive.symbols)
    squares = np.abs(np.asarray(mesh.eigenvectors).reshape(len(mesh.qpoints), len(symbols), 3, -1)) ** 2
    names = list(dict.fromkeys(symbols.tolist()))
    parts = np.stack([squares[:, symbols == name].sum(axis=(1, 2)) for name in names], axis=-1)
    found = np.asarray(mesh.frequencies)
    grid = np.linspace(min(found.min(), 0.0), 1.02 * max(found.max(), 1e-3), 401)
    result = TetrahedronDOSAccumulator(
        found, mesh.bz_grid, mode_property=parts[None], ir_grid_points=mesh.ir_grid_points, ir_grid_weights=mesh.weights,
        ir_grid_map=mesh.grid_mapping_table, sampling_points=grid,
    ).result  # fmt: skip
    density = np.asarray(result.density)[0]
    return DensityOfStates(grid, density.sum(axis=1), {name: density[:, k] for k, name in enumerate(names)})


def temperatures_of(settings: PhononsConfig) -> Float[np.ndarray, " temperatures"]:
    """Return the temperatures of thermal properties, K."""
    return np.arange(0.0, settings.max_temperature_K + 0.5 * settings.temperature_step_K, settings.temperature_step_K)


def thermal_properties(phonon: Any, settings: PhononsConfig) -> Thermal:
    """Compute thermal properties of a crystal whose mesh has been run."""
    found = phonon.run_thermal_properties(temperatures=temperatures_of(settings), exclude_gamma_acoustic=True)
    below = (np.asarray(phonon.mesh.frequencies) < -settings.imaginary_tolerance_THz).mean(axis=1)
    return Thermal(
        np.array(found.temperatures), np.array(found.free_energy), np.array(found.entropy), np.array(found.heat_capacity),
        float(found.zero_point_energy), float(np.average(below, weights=phonon.mesh.weights)),
    )  # fmt: skip


def gamma_modes(phonon: Any) -> GammaModes:
    """Compute the modes at Gamma, where the dynamical matrix is real, and so are its eigenvectors."""
    found = phonon.run_qpoints(np.zeros((1, 3)), with_dynamical_matrices=True)
    values, columns = np.linalg.eigh(np.asarray(found.dynamical_matrices)[0].real)
    frequencies = np.sign(values) * np.sqrt(np.abs(values)) * phonon.unit_conversion_factor
    moves = columns.T.reshape(len(values), -1, 3) / np.sqrt(np.asarray(phonon.primitive.masses))[None, :, None]
    moves = moves / np.linalg.norm(moves, axis=2).max(axis=1)[:, None, None]
    return GammaModes(frequencies, moves, irreps_at_gamma(phonon, len(values)))


def irreps_at_gamma(phonon: Any, bands: int) -> tuple[str, ...]:
    """Return the irreducible representation of each mode at Gamma; empty names where phonopy has no character table."""
    from phonopy.phonon.irreps import IrRepLabels

    found = phonon.run_irreps(np.zeros(3))
    group = phonon.primitive_symmetry.pointgroup_symbol
    names = [""] * bands
    try:
        labels = IrRepLabels(found.characters, found.conventional_rotations, group, False).irrep_labels
    except RuntimeError:
        labels = None
    for label, members in zip(labels or [], found.band_indices, strict=False):
        for band in members:
            names[band] = label or ""
    return tuple(names)
