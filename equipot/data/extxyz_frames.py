"""Read structures with labels from extended XYZ."""

from __future__ import annotations

from pathlib import Path

from equipot import electric_field
from equipot.data import extxyz, stated
from equipot.data.converged import SCF_CONVERGED
from equipot.data.keys import SWITCHED_OFF, Keys, Units, setting
from equipot.data.labels import choose, frame, structure
from equipot.data.selection import frame_slice, no_frames
from equipot.data.spins import with_meaning
from equipot.electrons import KEYS as ELECTRONS
from equipot.structure import Structure


def read_extxyz(path: Path, keys: Keys, units: Units, index: str, label: str = "") -> list[Structure]:
    """Read frames of an extended XYZ file.

    Args:
        index: frames to read, such as ``:`` or ``0:100``.
        label: name of the file in messages; the path if empty.

    Raises:
        ValueError: a frame that cannot be read, two values of one label in a comment, or no frames.
    """
    label = label or str(path)
    wanted = frame_slice(index, label)
    forward = (wanted.start or 0) >= 0 and (wanted.stop or -1) >= 0 and (wanted.step or 1) > 0
    chunks = _first(path, wanted.stop) if forward else list(extxyz.chunks(path))
    frames, repeated = [], []
    for chunk in chunks[wanted]:
        source = f"{label}, frame {chunk.frame}"
        parsed = extxyz.parse(chunk, path)
        frames.append(frame(parsed.atoms, source, keys, _units_of(parsed, source, keys, units)))
        repeated += [(source, key) for key in parsed.comment.repeated]
    if not frames:
        raise ValueError(no_frames(label, index, len(chunks)))
    chosen = choose(frames, keys, label)
    for where, key in repeated:
        if key in chosen.values() or key.lower() in (*ELECTRONS, *electric_field.KEYS, SCF_CONVERGED) or stated.is_unit(key):
            raise ValueError(f"{where}: the comment states {key!r} twice, with different values; leave one of them out")
    units = with_meaning(units, frames, label)
    return [structure(f, chosen, keys, units) for f in frames]


def _units_of(parsed: extxyz.Parsed, source: str, keys: Keys, units: Units) -> list[tuple[str, str]]:
    """List the units that stand beside the entries of a frame or follow from its program, with the name of an entry or label.

    Raises:
        ValueError: positions of CP2K, which lack the cell, or energies of CP2K's extended XYZ, without an energy unit in the
            config; a charge without ``=``.
    """
    comment = parsed.comment
    charge = comment.after("charge")
    if charge is not None and float(charge) and "charge" not in parsed.atoms.info:
        raise ValueError(f"{source}: 'charge {charge}' in the comment is no entry; write charge={charge}, or take it out")
    beside = stated.of_words(comment)
    told = stated.tell_energy([*beside, *stated.of_entries(comment.values)])
    if parsed.of_cp2k and units.energy is None and not {"Lattice", "pbc"} & comment.values.keys():
        raise ValueError(
            f"{source}: looks like positions that CP2K wrote, with energies in Hartree and without a cell; write "
            'Lattice="..." (pbc="F F F" for an open cluster) and energy=... in eV into the comment line instead of E = ..., '
            f"or, to evaluate or train on an open cluster, set {setting('units.energy')} to Hartree"
        )
    if parsed.of_cp2k_extended and units.energy is None and not told and keys.named("energy") != SWITCHED_OFF:
        raise ValueError(
            f"{source}: has the entries Step, Time and Energy as CP2K writes them, in Hartree; write energy_unit=Hartree or "
            f"energy_unit=eV into the comment line, or set {setting('units.energy')}"
        )
    return [("E", "Hartree"), *beside] if parsed.of_cp2k and not told else beside


def _first(path: Path, stop: int) -> list[extxyz.Chunk]:
    """Read the frames before ``stop``, without reading the rest of the file, which may be cut short."""
    chunks = []
    for chunk in extxyz.chunks(path):
        if chunk.frame >= stop:
            break
        chunks.append(chunk)
        if chunk.frame == stop - 1:
            break
    return chunks
