"""Structures with their labels from extended XYZ."""

from __future__ import annotations

from pathlib import Path

from equipot.data import extxyz
from equipot.data.labels import Keys, Units, choose, frame, structure
from equipot.data.selection import frame_slice, no_frames
from equipot.structure import Structure


def read_extxyz(path: Path, keys: Keys, units: Units, index: str, label: str = "") -> list[Structure]:
    """Frames of an extended XYZ file; ``label`` is what messages call it."""
    label = label or str(path)
    wanted = frame_slice(index, label)
    forward = (wanted.start or 0) >= 0 and (wanted.stop or -1) >= 0 and (wanted.step or 1) > 0
    chunks = _first(path, wanted.stop) if forward else list(extxyz.chunks(path))
    frames = []
    for chunk in chunks[wanted]:
        source = f"{label}, frame {chunk.frame}"
        parsed = extxyz.parse(chunk, path)
        frames.append(frame(parsed.atoms, source, keys, _units_of(parsed, source, units)))
    if not frames:
        raise ValueError(no_frames(label, index, len(chunks)))
    chosen = choose(frames, keys, label)
    return [structure(f, chosen, keys, units) for f in frames]


def _units_of(parsed: extxyz.Parsed, source: str, units: Units) -> dict[str, str]:
    """Units that an extended XYZ frame has without stating them: those of CP2K.

    Raises:
        ValueError: positions of CP2K, whose cell is elsewhere, without units in the config; a charge in words.
    """
    charge = parsed.comment.after("charge")
    if charge is not None and float(charge) and "charge" not in parsed.atoms.info:
        raise ValueError(f"{source}: 'charge {charge}' in the comment is no entry; write charge={charge}, or take it out")
    if not parsed.of_cp2k:
        return {}
    if units.energy is None:
        raise ValueError(
            f"{source}: looks like positions that CP2K wrote, with energies in Hartree and without a cell; write extended XYZ "
            'with Lattice="..." and energy=... instead, or set data.units.energy to Hartree if the system is an open cluster'
        )
    return {"energy": "Hartree"}


def _first(path: Path, stop: int) -> list[extxyz.Chunk]:
    """The frames before ``stop``; what follows may be cut short."""
    chunks = []
    for chunk in extxyz.chunks(path):
        if chunk.frame >= stop:
            break
        chunks.append(chunk)
        if chunk.frame == stop - 1:
            break
    return chunks
