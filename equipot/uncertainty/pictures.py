"""Pictures of structures whose atoms are coloured by how unsure a potential is of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.evaluation import as_structures
from equipot.figures import GREY, ORANGE, STYLE, new_figure, save_figure
from equipot.quantities import FORCES_STD
from equipot.structure import Structure, symbols

__all__ = ["draw_deviations"]

TILT = (-0.22, 0.13)
"""Angles (radians) about the axes to the right and up by which a thick structure is turned: rows of atoms come apart."""
THICK = 0.25
"""Thickness over width from which on a structure is turned."""
SIZE = 0.6
"""Radius of a drawn atom over its covalent radius: neighbours do not touch."""
BOND = 1.2
"""Longest distance of two atoms with a bond, over the sum of their covalent radii."""
FEW = 60
"""Number of atoms up to which symbols and bonds are drawn."""
PANEL = 4.6
"""Largest width and height of the drawn structure, inches."""
SCALE = 0.75
"""Largest scale, inches per Å."""
SMALLEST = 5.0
"""Radius of an atom, in points, below which its symbol is left out."""


class View(NamedTuple):
    """A structure as it is seen on paper."""

    atoms: Float[np.ndarray, "atoms 3"]
    """Positions (Å): to the right, up, and towards the eye."""
    edges: Float[np.ndarray, "edges ends 2"]
    """Edges of the cell (Å); none without a cell."""


def view_of(structure: Structure) -> View:
    """Turn a structure so that it is seen along its least extent, with a lattice vector to the right if there is one.

    Atoms are moved into the cell along lattice vectors that repeat. A thick structure, as crystals are, is turned by ``TILT``.
    """
    from ase.geometry import wrap_positions

    positions, cell = structure.positions, structure.cell
    edges = np.zeros((0, 2, 3))
    if structure.pbc.any() and structure.volume > 0:
        positions = wrap_positions(positions, cell, structure.pbc)
        corners = np.indices((2, 2, 2)).reshape(3, -1).T
        pairs = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 and (b - a).min() == 0]
        edges = np.array(pairs, float) @ cell
        axes = cell_axes(cell, positions)
    else:
        axes = principal_axes(positions - positions.mean(axis=0))
    centre = positions.mean(axis=0)
    extent = np.ptp((positions - centre) @ axes.T, axis=0)
    if extent[2] > THICK * extent[:2].max():
        axes = turn(TILT[0], 0) @ turn(TILT[1], 1) @ axes
    return View((positions - centre) @ axes.T, ((edges - centre) @ axes.T)[..., :2])


def cell_axes(cell: Float[np.ndarray, "3 3"], positions: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "3 3"]:
    """Return three axes in rows, a right-handed set: along a lattice vector, up, and normal to the plane of two of them.

    The plane is that across which atoms have least extent: a and c where several are alike.
    """
    normals = np.linalg.inv(cell).T
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    extent = np.ptp(positions @ normals.T, axis=0)
    k = min((1, 2, 0), key=lambda k: round(float(extent[k]), 1))
    right = cell[0 if k else 1] / np.linalg.norm(cell[0 if k else 1])
    # Of the two sides of the plane, the one from which the other vector points up.
    up = np.cross(normals[k], right)
    up *= np.sign(up @ cell[2 if k < 2 else 1])
    return np.stack([right, up, np.cross(right, up)])


def principal_axes(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "3 3"]:
    """Return three axes in rows, a right-handed set: along the largest spread of points about the origin, the next, and the
    least."""
    _, vectors = np.linalg.eigh(points.T @ points)
    first, second = (np.sign(v[np.argmax(np.abs(v))]) * v for v in vectors.T[:0:-1])
    return np.stack([first, second, np.cross(first, second)])


def turn(angle: float, axis: int) -> Float[np.ndarray, "3 3"]:
    """Return the rotation by an angle (radians) about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[i, i] = out[j, j] = np.cos(angle)
    out[i, j], out[j, i] = -np.sin(angle), np.sin(angle)
    return out


def draw_deviations(
    system: Any,
    forces_std: Float[np.ndarray, " atoms"] | None = None,
    novelty: Float[np.ndarray, " atoms"] | None = None,
    title: str = "",
) -> Any:
    """Draw the atoms of a structure, coloured by the deviations of their forces, by their novelty, or by both side by side.

    The atom of the largest value is in front of all others and has a ring. Atoms of infinite novelty are orange.

    Args:
        system: ``Structure`` or ``ase.Atoms``, seen as ``view_of`` turns it; radii are those of covalent bonds.
        forces_std: Standard deviation of a component of the force on each atom, eV/Å; None for no such panel.
        novelty: Novelty of each atom; None for no such panel.
        title: Text above the panels.

    Returns:
        A figure of matplotlib, see ``figures.save_figure``.

    Raises:
        ValueError: neither, values that are not one for each atom, or a deviation that is not finite.
    """
    import matplotlib

    (structure,), panels = as_structures(system), []
    if forces_std is not None:
        forces_std = np.asarray(forces_std, np.float64)
        if forces_std.shape != (len(structure),) or not np.isfinite(forces_std).all():
            raise ValueError(f"{structure.name}: {len(structure)} atoms need as many finite deviations of their forces")
        unit, factor = FORCES_STD.shown if forces_std.max() < 1 else (FORCES_STD.unit, 1.0)
        panels.append((factor * forces_std, f"deviation of forces ({unit})", unit))
    if novelty is not None:
        panels.append((np.asarray(novelty, np.float64), "novelty", ""))
    if not panels:
        raise ValueError(f"{structure.name}: there is nothing to colour the atoms by; give forces_std or novelty")
    view = view_of(structure)
    span = np.ptp(np.concatenate([view.atoms[:, :2], view.edges.reshape(-1, 2)]), axis=0) + 2.0
    scale = min(SCALE, PANEL / span.max())
    width, height = np.maximum(scale * span, PANEL / 3)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = new_figure((width + 1.1) * len(panels), height + (0.7 if title else 0.4), len(panels))
        for axis, (values, label, unit) in zip(axes, panels, strict=True):
            colours = _draw(axis, structure, view, values, unit, 72 * scale)
            label = label if np.isfinite(values).all() else f"{label}; orange: infinite"
            figure.colorbar(colours, ax=axis, shrink=0.8, label=label)
        if title:
            figure.suptitle(title)
    return figure


def picture(
    structure: Structure,
    path: Path,
    forces_std: Float[np.ndarray, " atoms"] | None = None,
    novelty: Float[np.ndarray, " atoms"] | None = None,
    title: str = "",
) -> None:
    """Write ``draw_deviations`` to a PNG file.

    Raises:
        ValueError, OSError: as ``draw_deviations`` and ``figures.save_figure``.
    """
    save_figure(draw_deviations(structure, forces_std, novelty, title), path)


def _draw(axis: Any, structure: Structure, view: View, values: Float[np.ndarray, " atoms"], unit: str, points: float) -> Any:
    """Draw the atoms coloured by values, back to front, with so many typographic points per Å; return the scale of colours."""
    from ase.data import covalent_radii
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.colors import Normalize, to_rgba
    from matplotlib.patches import Circle

    finite = np.isfinite(values)
    colours = ScalarMappable(Normalize(0, max(values[finite], default=0) or 1.0), colormaps["viridis"])
    shown = colours.to_rgba(np.where(finite, values, 0))
    shown[~finite] = to_rgba(ORANGE)
    radii, worst = SIZE * covalent_radii[structure.numbers], int(np.argmax(values))
    order = np.argsort(np.where(np.arange(len(values)) == worst, np.inf, view.atoms[:, 2]), kind="stable")
    axis.add_collection(LineCollection(list(view.edges), colors=GREY, linewidths=0.8, zorder=1))
    axis.add_collection(LineCollection(list(_bonds(structure, view)), colors=GREY, linewidths=min(3, 0.1 * points), zorder=1))
    circles = [Circle(view.atoms[k, :2].tolist(), radii[k]) for k in order]
    border = min(0.7, 0.03 * points)
    axis.add_collection(PatchCollection(circles, facecolors=shown[order], edgecolors="white", linewidths=border, zorder=2))
    for n, k in enumerate(order if len(structure) <= FEW else ()):
        before = order[n + 1 :]
        away = np.linalg.norm(view.atoms[before, :2] - view.atoms[k, :2], axis=1)
        # No symbol that is larger than its atom, or of which a part would be on an atom before it.
        if radii[k] * points > SMALLEST and (away > radii[before] + 0.3 * radii[k]).all():
            colour = "white" if shown[k, :3] @ (0.3, 0.59, 0.11) < 0.5 else "black"
            text = symbols([int(structure.numbers[k])])
            axis.text(*view.atoms[k, :2], text, ha="center", va="center", fontsize=7, color=colour, zorder=3)
    gap = 0.01 * np.ptp(view.atoms[:, :2], axis=0).max() + 0.05
    ring = Circle(view.atoms[worst, :2].tolist(), radii[worst] + gap, fill=False, edgecolor=ORANGE, linewidth=1.8, zorder=4)
    axis.add_patch(ring)
    where = f"atom {worst}, {symbols([int(structure.numbers[worst])])}"
    axis.set_title(f"largest: {values[worst]:.3g} {unit} ({where})".replace("  ", " "), fontsize=8)
    axis.set(aspect="equal")
    axis.autoscale_view()
    axis.margins(0.05)
    axis.set_axis_off()
    return colours


def _bonds(structure: Structure, view: View) -> Float[np.ndarray, "bonds ends 2"]:
    """Find the bonds of a structure of few atoms, but for those that cross the border of the cell."""
    from ase.data import covalent_radii

    if len(structure) > FEW:
        return np.zeros((0, 2, 2))
    radii = covalent_radii[structure.numbers]
    apart = np.linalg.norm(view.atoms[:, None] - view.atoms[None], axis=2)
    first, second = np.nonzero(np.triu(apart < BOND * (radii[:, None] + radii[None]), 1))
    return np.stack([view.atoms[first, :2], view.atoms[second, :2]], axis=1)
