"""A reaction between two structures: the path, the saddle point, barrier, rate and the way down to both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipot.evaluation import as_structures
from equipot.isolated_atoms import isolated_atom_energy
from equipot.potential import Potential
from equipot.rigid_motions import LINEAR, masses_of, rigid_motions
from equipot.structure import Structure
from equipot.workflows.journal import Journal, packed, unpacked
from equipot.workflows.neb.band import Band, BandState, relax_band
from equipot.workflows.neb.config import NEBConfig
from equipot.workflows.neb.descent import Way, descend
from equipot.workflows.neb.rate import Rate, frequencies, vineyard
from equipot.workflows.neb.saddle import Saddle, SaddleConfig, find_saddle
from equipot.workflows.neb.surface import AtomsSurface
from equipot.workflows.relax.kept import relax_kept

HOLE = 1.0
"""Energy (eV) below both ends from which on an image lies in a hole, or in another minimum than those that were given."""
FAR = 0.1
"""Energy (eV) that a saddle point may differ by from the highest image, beside a fifth of the barrier."""
APART = 0.5
"""Distance (Å) of an atom from its place in both ends of a path from which on a minimum is another one."""
CLOSE = 0.6
"""Share of the sum of two covalent radii below which atoms are closer than in any bond."""
SHALLOW = 0.02
"""Depth (eV) from which on a minimum between the ends is told."""


@dataclass(frozen=True)
class Reaction:
    """What was found between two structures. Energies are in eV, those of the path relative to its first image."""

    images: tuple[Structure, ...]
    """Structures of the relaxed path, with total energies and forces as labels."""
    band: Band
    saddle: Saddle | None
    saddle_structure: Structure | None
    rate: Rate | None
    back: Rate | None
    """Rate from the last image to the first."""
    ways: tuple[Way, Way] | None
    """Ways down from the saddle point towards the first and the last image; None where not asked for."""
    failures: tuple[str, ...]

    @property
    def top(self) -> float:
        """Energy of the saddle point, or of the highest image without one, above the first image."""
        if self.saddle is not None and self.saddle.converged:
            return self.saddle.energy - float(self.band.energies[0])
        return float(self.band.energies.max() - self.band.energies[0])

    @property
    def barrier(self) -> float:
        """From the first image, eV."""
        return self.top

    @property
    def barrier_back(self) -> float:
        """From the last image, eV."""
        return self.top - float(self.band.energies[-1] - self.band.energies[0])

    def reaction_coordinate(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the intrinsic reaction coordinate as one curve, from the first side over the saddle point to the last.

        Returns:
            Length in coordinates weighted by masses, (points,), sqrt(amu) Å, negative on the first side and zero at the saddle
            point; and the energy above that of the first image, (points,), eV.

        Raises:
            ValueError: the coordinate was not followed.
        """
        if self.ways is None:
            raise ValueError("the reaction coordinate was not followed; set reaction_coordinate, and see failures")
        back, ahead = self.ways
        lengths = np.concatenate([-back.lengths[:0:-1], ahead.lengths])
        energies = np.concatenate([back.energies[:0:-1], ahead.energies])
        return lengths, energies - float(self.band.energies[0])


def reaction(
    potential: Potential,
    structures: Sequence[Any],
    settings: NEBConfig | None = None,
    say: Callable[[str], None] | None = None,
    journal: Journal | None = None,
) -> Reaction:
    """Find the path of least energy between two structures of the same atoms in the same order.

    Args:
        potential: Potential, best in double precision.
        structures: The two ends, or a whole first path, as ``ase.Atoms`` or ``Structure``.
        settings: How.
        say: Called with lines of progress.
        journal: Where finished stages, and the path every ``KEPT`` evaluations, are kept; None to keep none.

    Raises:
        ValueError: fewer than two structures, or ends with other atoms or cells.
    """
    settings, say, journal = settings or NEBConfig(), say or (lambda text: None), journal or Journal()
    structures, failures = with_ends_at_rest(potential, followed(as_structures(structures)), settings, say, journal)
    surface = AtomsSurface(potential, structures[0])
    band = relaxed_path(surface, structures, settings, say, journal)
    failures += unsound(band, surface)
    saddle = back = ahead = ways = None
    if settings.saddle is not None and 0 < band.highest < len(band.points) - 1:
        saddle = sound_saddle(saddle_of(surface, band, settings.saddle, say, journal), band)
        failures += [] if saddle.converged else [f"saddle point: {saddle.reason}"]
    elif settings.saddle is not None:
        failures.append("the highest image is an end: there is no barrier between, or too few images to see it")
    if saddle is not None and saddle.converged:
        mass = np.repeat(masses_of(structures[0]), 3)
        if settings.rate:
            say("frequencies")
            ahead, back, more = rates(surface, band, saddle, mass, journal)
            failures += more
        if settings.reaction_coordinate:
            say("intrinsic reaction coordinate")
            point, mode = saddle.point, saddle.mode
            ways = journal.once("reaction coordinate", tuple[Way, Way], lambda: descend(surface, point, mode, mass))
            ways = from_first_to_last(ways, band)
            short = [k for k, way in enumerate(ways) if not way.reached]
            failures += [f"reaction coordinate: side {k} ends before a minimum" for k in short]
            failures += elsewhere(ways, band)
    e0 = float(isolated_atom_energy(structures[0].numbers, potential.metadata.isolated_atom_energies(structures[0].head)).sum())
    images = tuple(
        surface.at(x).replace(labels={"energy": float(e) + e0, "forces": -g.reshape(-1, 3)}, source=f"image {k}")
        for k, (x, e, g) in enumerate(zip(band.points, *surface.everywhere(band.points), strict=True))
    )
    top = None if saddle is None else surface.at(saddle.point).replace(labels={"energy": saddle.energy + e0}, source="saddle")
    return Reaction(images, band, saddle, top, ahead, back, ways, tuple(failures))


def with_ends_at_rest(
    potential: Potential, structures: list[Structure], settings: NEBConfig, say: Callable[[str], None], journal: Journal
) -> tuple[list[Structure], list[str]]:
    """Relax both ends of a path where the settings ask for it; returns the path, and what went wrong."""
    if settings.ends is None:
        return structures, []
    told: Callable[[int, int, str], None] = lambda done, count, text: say(f"ends {done}/{count}  {text}")
    first, last = relax_kept(journal, "end", potential, [structures[0], structures[-1]], settings.ends, told)
    failures = [f"{name} end: {x.reason}" for name, x in (("first", first), ("last", last)) if not x.converged]
    return followed([first.structure, *structures[1:-1], last.structure]), failures


def relaxed_path(
    surface: AtomsSurface, structures: Sequence[Structure], settings: NEBConfig, say: Callable[[str], None], journal: Journal
) -> Band:
    """Relax the path, from the state that was kept last where there is one."""
    state = unpacked(BandState, journal.done.get("path"))
    points = first_path(structures, settings.images) if state is None else state.points
    told = lambda count, force: say(f"path {count:4d}  {force:.4f} eV/Å")
    return relax_band(surface, points, settings.band, told, lambda state: journal.add("path", packed(state)), state)


def saddle_of(
    surface: AtomsSurface, band: Band, settings: SaddleConfig, say: Callable[[str], None], journal: Journal
) -> Saddle:
    """Search the saddle point from the highest image, or take the one that was kept."""
    k = band.highest
    told = lambda step, force: say(f"saddle point {step:4d}  {force:.5f} eV/Å")
    tangent = band.points[k + 1] - band.points[k - 1]
    search = lambda: find_saddle(surface, band.points[k], settings, tangent, told, surface.free)
    return journal.once("saddle point", Saddle, search)


def rates(
    surface: AtomsSurface, band: Band, saddle: Saddle, mass: np.ndarray, journal: Journal
) -> tuple[Rate | None, Rate | None, list[str]]:
    """Compute the rates to and fro, and why one is missing."""
    modes_at = lambda name, x: journal.once(
        f"frequencies of the {name}", np.ndarray, lambda: frequencies(surface, x, mass, surface.free)
    )
    top = modes_at("saddle point", saddle.point)
    found: list[Rate | None] = []
    failures = []
    for name, k in (("first", 0), ("last", -1)):
        below = modes_at(f"{name} end", band.points[k])
        try:
            zeros = zero_modes(surface, band.points[k]), zero_modes(surface, saddle.point)
            found.append(vineyard(below, top, saddle.energy - float(band.energies[k]), zeros))
        except ValueError as error:
            found.append(None)
            failures.append(f"rate from the {name} end: {error}")
    return found[0], found[1], failures


def zero_modes(surface: AtomsSurface, point: np.ndarray) -> int:
    """Count the rigid motions that leave fixed components where they are: translations, and rotations where nothing repeats."""
    basis = rigid_motions(surface.at(point))
    held = basis[:, ~surface.free]
    return len(basis) - (int(np.linalg.matrix_rank(held, tol=LINEAR)) if held.size else 0)


def sound_saddle(saddle: Saddle, band: Band) -> Saddle:
    """Refuse a saddle point that is not the top of the band: one below an end, or far from the highest image."""
    ends, top = max(band.energies[0], band.energies[-1]), float(band.energies.max())
    if not saddle.converged:
        return saddle
    if saddle.energy <= ends:
        reason = "its energy is not above those of both ends"
    elif abs(saddle.energy - top) > FAR + 0.2 * (top - ends):
        reason = (
            f"its energy is {saddle.energy - top:+.3f} eV from that of the highest image: it is another one; take more images"
        )
    else:
        return saddle
    return dataclasses.replace(saddle, converged=False, reason=reason)


def from_first_to_last(ways: tuple[Way, Way], band: Band) -> tuple[Way, Way]:
    """Put the way whose end is nearer to the first image first."""
    off = lambda way, k: float(np.linalg.norm(way.points[-1] - band.points[k]))
    one, other = ways
    return ways if off(one, 0) + off(other, -1) <= off(other, 0) + off(one, -1) else (other, one)


def elsewhere(ways: tuple[Way, Way], band: Band) -> list[str]:
    """List sides of the reaction coordinate whose end is neither end of the path, or that of the other side."""
    off = lambda x, y: float(np.linalg.norm((x - y).reshape(-1, 3), axis=1).max())
    apart = [[off(way.points[-1], end) for end in (band.points[0], band.points[-1])] for way in ways]
    out = [
        f"reaction coordinate: side {k} ends {min(apart[k]):.2f} Å from both ends of the path"
        for k, way in enumerate(ways)
        if way.reached and min(apart[k]) > APART
    ]
    if len({int(np.argmin(both)) for both in apart}) < len(apart):
        out.append("reaction coordinate: both sides lead to one end of the path; lower saddle.fmax")
    return out


def followed(structures: Sequence[Structure]) -> list[Structure]:
    """Check that structures can be images of one path, and take the image of each atom that is nearest to the one before.

    Raises:
        ValueError: fewer than two structures, or other atoms, cells or fixed atoms.
    """
    from ase.geometry import find_mic

    if len(structures) < 2:
        raise ValueError("a path has two ends; give a file with two structures, or with a whole path")
    first, out = structures[0], [structures[0]]
    fixed = lambda s: np.zeros((len(s), 3), bool) if s.fixed is None else s.fixed
    for s in structures[1:]:
        if len(s) != len(first) or (s.numbers != first.numbers).any():
            raise ValueError(f"{s.name} has other atoms than {first.name}, or in another order: a path needs the same")
        if not np.allclose(s.cell, first.cell, atol=1e-6) or (s.pbc != first.pbc).any():
            raise ValueError(f"{s.name} has another cell than {first.name}; the images of a path share one")
        if (fixed(s) != fixed(first)).any():
            raise ValueError(f"{s.name} has other fixed atoms than {first.name}")
        s = aligned(s, out[-1])
        moved, _ = find_mic(s.positions - out[-1].positions, first.cell, first.pbc) if first.pbc.any() else (
            s.positions - out[-1].positions, None
        )  # fmt: skip
        nearest = s.replace(positions=out[-1].positions + moved)
        if np.abs(nearest.positions - first.positions)[fixed(first)].max(initial=0) > 1e-3:
            raise ValueError(f"{s.name} has fixed atoms at other places than {first.name}: no path leads there")
        out.append(nearest)
    return out


def aligned(structure: Structure, before: Structure) -> Structure:
    """Turn and shift a free molecule upon the one before, so that the path has no rigid motion."""
    if structure.pbc.any() or (structure.fixed is not None and structure.fixed.any()):
        return structure
    from ase.build import minimize_rotation_and_translation

    target, atoms = before.without_labels().to_ase(), structure.without_labels().to_ase()
    minimize_rotation_and_translation(target, atoms)
    return structure.replace(positions=atoms.positions)


def first_path(structures: Sequence[Structure], images: int) -> np.ndarray:
    """Return the first path (images, 3 n): the given one, or between two ends by the image dependent pair potential."""
    if len(structures) > 2:
        return np.array([s.positions.reshape(-1) for s in structures])
    from ase.mep import NEB

    first, last = (dataclasses.replace(s, labels={}).to_ase() for s in structures)
    for atoms in (first, last):
        atoms.set_constraint()
    band = [first, *(first.copy() for _ in range(images - 2)), last]
    NEB(band, method="improvedtangent").interpolate("idpp")
    points = np.array([atoms.positions.reshape(-1) for atoms in band])
    fixed = structures[0].fixed
    if fixed is not None:
        points[:, fixed.reshape(-1)] = points[0, fixed.reshape(-1)]
    return points


def unsound(band: Band, surface: AtomsSurface) -> list[str]:
    """List what a path's images show that a path should not have."""
    from ase.data import covalent_radii

    from equipot.neighbors import neighbor_list

    out = []
    if not band.converged:
        out.append(f"path: {band.evaluations} evaluations were not enough: the largest force is {band.force:.3g} eV/Å")
    energies = band.energies - band.energies[0]
    inner = energies[1:-1]
    if inner.min() < min(0.0, energies[-1]) - HOLE:
        out.append(
            f"path: image {int(np.argmin(inner)) + 1} lies {-inner.min():.2f} eV below the first: a hole, or a lower minimum"
        )
    radii = covalent_radii[surface.structure.numbers]
    for k, point in enumerate(band.points):
        s = surface.at(point)
        pairs = neighbor_list(s.positions, s.cell, s.pbc, 2 * CLOSE * float(radii.max()))
        vectors = s.positions[pairs.neighbors] + pairs.shifts @ s.cell - s.positions[pairs.centers]
        share = np.linalg.norm(vectors, axis=1) / (radii[pairs.centers] + radii[pairs.neighbors])
        if len(share) and share.min() < CLOSE:
            out.append(f"path: in image {k} atoms are at {share.min():.2f} of the sum of their covalent radii")
            break
    minima = [k for k in range(1, len(energies) - 1) if energies[k] < min(energies[k - 1], energies[k + 1]) - SHALLOW]
    if minima:
        out.append(f"path: image {minima[0]} is a minimum between the ends; take it as an end of its own")
    return out
