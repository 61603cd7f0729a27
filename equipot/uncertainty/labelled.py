"""Frames for estimates of uncertainty: with labels of ``ase.Atoms``, each once, and not the same to fit, calibrate and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipot.data.stats import is_isolated_atom
from equipot.data.subtract import key_of
from equipot.evaluation import as_structures
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure


def frames_of(systems: Any) -> list[Structure]:
    """Convert systems to structures with labels (see ``labelled_structures``), each once, without isolated atoms: these have no
    forces, and energies without an error."""
    found = [s for s in labelled_structures(systems) if not is_isolated_atom(s)]
    return list({key_of(s): s for s in reversed(found)}.values())[::-1]


def said_of_overlap(name: str, frames: Sequence[Structure], known: Sequence[Structure], what: str) -> str | None:
    """Say how many frames are among others, on which errors are smaller than elsewhere; None if there are none."""
    seen = {key_of(s) for s in known}
    shared = sum(key_of(s) in seen for s in frames)
    if not shared:
        return None
    return (
        f"{name}: {shared} of {len(frames)} frames are among those that {what}, where errors are smaller than on others; what "
        "is said of errors holds for such frames alone: give frames that were held out"
    )


def labelled_structures(systems: Any) -> list[Structure]:
    """Convert one ``ase.Atoms``, one ``Structure``, or a sequence of either to a list of structures with labels.

    Labels of a ``Structure`` are its own, those of ``ase.Atoms`` energy (eV), forces (eV/Å) and stress (eV/Å^3) of their
    ``SinglePointCalculator``, as ``ase.io.read`` attaches it. Results of other calculators are no labels. For files with names
    or units of their own use ``equipot.data.read.read``.

    Raises:
        ValueError: any other type, or atoms that are no longer those of their results.
    """
    if isinstance(systems, Structure) or hasattr(systems, "get_positions"):
        (structure,) = as_structures(systems)
        return [structure if isinstance(systems, Structure) else _with_results(structure, systems)]
    if not hasattr(systems, "__iter__") or isinstance(systems, str):
        return as_structures(systems)
    return [structure for system in systems for structure in labelled_structures(system)]


def _with_results(structure: Structure, atoms: Any) -> Structure:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import voigt_6_to_full_3x3_stress

    if not isinstance(atoms.calc, SinglePointCalculator):
        return structure
    if changed := atoms.calc.check_state(atoms):
        raise ValueError(
            f"{structure.name}: its {' and '.join(changed)} changed after the results of its calculator were computed; compute "
            "them again, or remove the calculator"
        )
    found = {row: atoms.calc.results[row.name] for row in (ENERGY, FORCES, STRESS) if row.name in atoms.calc.results}
    if STRESS in found:
        found[STRESS] = voigt_6_to_full_3x3_stress(found[STRESS])
    labels = {row: row.checked(value, len(structure), structure.name) for row, value in found.items()}
    return structure.replace(labels=labels)
