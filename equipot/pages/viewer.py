"""Structures and trajectories in three dimensions, beside a plot of their properties in which the shown frame is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from equipot.pages import chemiscope
from equipot.pages.block import Block
from equipot.pages.markup import json_text, packed, script
from equipot.pages.plot import Curve, Plot

MOST_FRAMES = 500
"""Largest number of frames in a viewer."""
MOST_POSITIONS = 200_000
"""Largest number of atoms in all frames of a viewer."""
LONGEST_ARROW = 1.5
"""Length (Å) at which the longest vector is drawn."""
VIEW = (0.55, -2.2, 0.7)
"""Direction from a crystal to the viewer."""
TIME = "time"
"""Beginning of the name of a property that is the horizontal axis of the plot of properties."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Atoms and cell of one structure.

    Raises:
        ValueError: an array of the wrong shape, or positions, cell or vectors that are not finite.
    """

    numbers: np.ndarray
    """(n,) atomic numbers."""
    positions: np.ndarray
    """(n, 3) Å."""
    cell: np.ndarray | None
    """(3, 3) Å, rows are lattice vectors; None without a cell."""
    pbc: np.ndarray
    """(3,) whether each lattice vector repeats."""
    vectors: np.ndarray | None = None
    """(n, 3) arrows at the atoms, such as a mode; of any unit, drawn to a common scale."""
    label: str = ""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)
        put("numbers", np.array(self.numbers, int).reshape(-1))
        put("pbc", np.broadcast_to(np.asarray(self.pbc, bool), (3,)).copy())
        count = len(self.numbers)
        for name, shape in {"positions": (count, 3), "cell": (3, 3), "vectors": (count, 3)}.items():
            value = getattr(self, name)
            if value is None and name != "positions":
                continue
            put(name, np.array(value, np.float64))
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"frame {self.label!r}: {name} has shape {getattr(self, name).shape}, {count} atoms need {shape}"
                )
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"frame {self.label!r}: {name} has a value that is not finite; leave the frame out")

    @property
    def shown_cell(self) -> np.ndarray | None:
        """(3, 3) Å; None where there is no periodic direction, or the cell has no volume."""
        if self.cell is None or not self.pbc.any() or abs(np.linalg.det(self.cell)) < 1e-6:
            return None
        return self.cell


@dataclass(frozen=True, eq=False)
class Viewer(Block):
    """Structures, or the frames of a trajectory, whose numbers of atoms may differ.

    Raises:
        ValueError: no frames, or a property without one value for each frame.
    """

    frames: Sequence[Frame]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(frames,) values by name, with the unit in the name. They are plotted against the first whose name begins with ``TIME``;
    without one, against the number of the frame."""

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise ValueError(f"viewer {self.heading!r}: there are no frames; leave the viewer out")
        for name, values in self.properties.items():
            if np.shape(values) != (len(self.frames),):
                raise ValueError(
                    f"viewer {self.heading!r}: {name} has shape {np.shape(values)}, but there are {len(self.frames)} frames"
                )

    @property
    def kept(self) -> np.ndarray:
        """(shown,) indices of the frames that are shown: an even selection with the first and the last."""
        largest = max(len(frame.numbers) for frame in self.frames)
        count = min(len(self.frames), MOST_FRAMES, max(1, MOST_POSITIONS // max(1, largest)))
        # Of a single frame that is shown, the last: the end of a relaxation, the newest of a run.
        ends = np.linspace(0, len(self.frames) - 1, count) if count > 1 else np.array([len(self.frames) - 1])
        return np.unique(ends.round().astype(int))

    @property
    def unshown(self) -> str:
        """Why no structure is shown, as a sentence; empty where structures are shown."""
        atoms = len(self.frames[self.kept[-1]].numbers)
        if atoms > MOST_POSITIONS:
            return f"{atoms} atoms are too many to be shown; the limit is {MOST_POSITIONS}."
        return chemiscope.missing()

    @property
    def scripts(self) -> tuple[str, ...]:
        """Script elements that a page with such blocks needs once."""
        if self.unshown:
            return (script("plot.js"),)
        return (*chemiscope.elements(), script("viewer.js"))

    def html(self) -> str:
        """Write the structures, or where they cannot be shown the reason and plots of the properties."""
        if self.unshown:
            return "\n".join([f'<p class="note">{escape(self.unshown)}</p>', *(plot.html() for plot in self.plots())])
        notes = "".join(f'\n<p class="note">{escape(note)}</p>' for note in self.notes())
        return f'<script type="text/plain" data-viewer>{packed(json_text(self.content()))}</script>{notes}'

    def notes(self) -> list[str]:
        """Say how to use the viewer, and what it does not show."""
        notes = ["Drag to turn, scroll to zoom."]
        if len(self.kept) > 1 and self.drawn_properties():
            notes = ["Drag to turn, scroll to zoom; a click on a point of the plot shows its frame."]
        if len(self.kept) < len(self.frames):
            notes.append(f"{len(self.kept)} of {len(self.frames)} frames are shown, evenly chosen.")
        if any(frame.vectors is not None for frame in self.frames):
            notes.append(f"Arrows are to scale among each other; the longest is drawn {LONGEST_ARROW} Å long.")
        return notes

    @property
    def axis(self) -> str:
        """Name of the property on the horizontal axis."""
        return next((name for name in self.properties if name.lower().startswith(TIME)), "frame")

    def drawn_properties(self) -> dict[str, np.ndarray]:
        """Properties beside that of the horizontal axis which have a finite value, (frames,)."""
        others = {name: np.asarray(values, float) for name, values in self.properties.items() if name != self.axis}
        return {name: values for name, values in others.items() if np.isfinite(values).any()}

    def plots(self) -> list[Plot]:
        """Plot each property by itself, for a page without the viewer."""
        numbers = np.arange(len(self.frames))
        along = np.asarray(self.properties.get(self.axis, numbers), float)
        return [Plot(name, [Curve(name, along, values)], self.axis, name) for name, values in self.drawn_properties().items()]

    def content(self) -> dict[str, Any]:
        """Make what chemiscope reads: structures, properties, arrows and settings."""
        kept, drawn = self.kept, self.drawn_properties()
        properties: dict[str, Any] = {"frame": per_structure(kept.astype(float))}
        shown = {self.axis: self.properties[self.axis], **drawn} if self.axis in self.properties else drawn
        properties |= {safe(name): per_structure(np.asarray(values, float)[kept]) for name, values in shown.items()}
        if any(self.frames[k].label for k in kept):
            properties["label"] = {"target": "structure", "values": [safe(self.frames[k].label) for k in kept]}
        has_map = len(kept) > 1 and bool(drawn)
        content: dict[str, Any] = {
            "meta": {"name": safe(self.heading)},
            "structures": [structure(self.frames[k]) for k in kept],
            "properties": properties,
            "hasMap": has_map,
        }
        settings: dict[str, Any] = {"bonds": True, "unitCell": any(self.frames[k].shown_cell is not None for k in kept)}
        settings |= {"keepOrientation": True, "playbackDelay": 100}
        first = self.frames[kept[0]]
        if first.shown_cell is not None:
            settings["camera"] = oblique_view(first.positions, first.shown_cell)
        if any(self.frames[k].vectors is not None for k in kept):
            content["shapes"] = {"vectors": self.arrows()}
            settings["shape"] = "vectors"
        content["settings"] = {"target": "structure", "structure": [settings]}
        if has_map:
            axes = {"x": {"property": safe(self.axis)}, "y": {"property": safe(next(iter(drawn)))}}
            content["settings"]["map"] = {**axes, "color": {"property": ""}, "joinPoints": True, "markerOutline": False}
        return content

    def arrows(self) -> dict[str, Any]:
        """Make arrows of the vectors; atoms without one have an arrow of no length."""
        shown = [self.frames[k] for k in self.kept]
        vectors = [np.zeros((len(f.numbers), 3)) if f.vectors is None else f.vectors for f in shown]
        every = np.concatenate(vectors)
        longest = float(np.linalg.norm(every, axis=1).max(initial=0))
        scaled = (every * (LONGEST_ARROW / longest if longest else 0.0)).round(4)
        form = {"baseRadius": 0.08, "headRadius": 0.18, "headLength": 0.3}
        return {"kind": "arrow", "parameters": {"global": form, "atom": [{"vector": vector} for vector in scaled]}}


def per_structure(values: np.ndarray) -> dict[str, Any]:
    """Write a property with a value for each frame, (frames,)."""
    return {"target": "structure", "values": values}


def structure(frame: Frame) -> dict[str, Any]:
    """Write a frame."""
    from ase.data import chemical_symbols

    x, y, z = frame.positions.T.round(4)
    names = [chemical_symbols[number] if 0 < number < len(chemical_symbols) else "X" for number in frame.numbers]
    written = {"size": len(names), "names": names, "x": x, "y": y, "z": z}
    return written if frame.shown_cell is None else written | {"cell": frame.shown_cell.round(6).ravel()}


def oblique_view(positions: np.ndarray, cell: np.ndarray) -> dict[str, Any]:
    """Place the camera so that a crystal is seen from the side and a little from above.

    chemiscope hands the place on to 3Dmol.js, for which ``center`` is the negative of the point in the middle of the picture;
    ``up`` and ``eye`` less ``center`` are columns of the rotation from the axes of the crystal to those of the picture. From
    ``radius`` (Å), that of a sphere around atoms and cell, the script finds the distance.

    Args:
        positions: (n, 3) Å.
        cell: (3, 3) Å.

    Returns:
        The setting.
    """
    points = np.concatenate([positions, np.array(list(np.ndindex(2, 2, 2))) @ cell])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    towards = np.array(VIEW) / np.linalg.norm(VIEW)
    right = np.cross([0, 0, 1], towards)
    right /= np.linalg.norm(right)
    rotation = np.array([right, np.cross(towards, right), towards])
    vector = lambda values: dict(zip("xyz", map(float, values), strict=True))
    radius = float(np.linalg.norm(points - middle, axis=1).max()) + 0.5
    return {"center": vector(-middle), "eye": vector(rotation[:, 2] - middle), "up": vector(rotation[:, 1]), "radius": radius}


def safe(text: str) -> str:
    """Replace the characters of tags and entities, which chemiscope reads as HTML, by ones that look alike."""
    return text.translate({ord("<"): "‹", ord(">"): "›", ord("&"): "＆"})
