"""Read the reference sets in the package; ``sets/README.md`` and ``sets/water.md`` describe their calculation."""

from __future__ import annotations

from pathlib import Path

from equipot.data.extxyz_frames import read_extxyz
from equipot.data.keys import Keys, Units
from equipot.quantities import CHARGES, DIPOLE
from equipot.structure import Structure

__all__ = ["load", "names"]

PREFIX = "bundled:"
FOLDER = Path(__file__).parent / "sets"
ENDING = ".xyz.xz"


def names() -> list[str]:
    """List the bundled sets, by the names that ``load`` takes."""
    return sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}"))


def load(name: str) -> list[Structure]:
    """Read a whole set, such as ``ethanol``, or one part: ``ethanol/train`` (with the isolated atoms) or ``ethanol/test``.

    Raises:
        ValueError: no such set or part.
    """
    name, _, part = name.removeprefix(PREFIX).partition("/")
    if name not in names():
        raise ValueError(f"there is no bundled set {name!r}; choose from {', '.join(names())}")
    keys = Keys().also((CHARGES, DIPOLE))
    frames = read_extxyz(FOLDER / f"{name}{ENDING}", keys, Units(), ":", label=f"{PREFIX}{name}")
    chosen = [frame for frame in frames if part in ("", frame.info["split"])]
    if not chosen:
        parts = sorted({frame.info["split"] for frame in frames})
        raise ValueError(f"the bundled set {name!r} has no part {part!r}; choose from {', '.join(parts)}")
    return chosen
