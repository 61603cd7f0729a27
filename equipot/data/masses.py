"""Elements of numbered atom types by their masses, only where a mass leaves no doubt.

Masses of 1 are placeholders, 14.027 and 16.043 are the united atoms CH2 and CH4, and hydrogens may be heavy: taken for the
nearest element these would be hydrogen, nitrogen, oxygen and helium.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from ase.formula import Formula

from equipot.data.keys import setting

TOLERANCE = 1e-3
"""Largest relative difference between a mass and the standard mass that it is: 14.0 is nitrogen, 14.027 (CH2) is not."""
ROUNDING = 2.5e-3
"""Largest difference (amu) where that is more: 1.01 is hydrogen, the placeholder 1.0 is not."""
NEAR = 1e-2
"""Largest relative difference between a mass and that of an element, or of a united atom, that a comment names."""
HEAVY_HYDROGEN = (1.1, 4.1)
"""Masses (amu) of isotopes of hydrogen, and of hydrogens that got mass from their neighbours."""


def element_of(mass: float) -> int | None:
    """Return the atomic number of the only element whose standard mass (amu) ``mass`` is; None without one."""
    allowed = {Z: max(TOLERANCE * atomic_masses[Z], ROUNDING) for Z in range(1, len(atomic_masses))}
    near = {Z for Z, tolerance in allowed.items() if abs(atomic_masses[Z] - mass) <= tolerance}
    # Polonium has no standard mass: that of its isotope 209 is bismuth's.
    near.discard(atomic_numbers["Po"])
    return near.pop() if len(near) == 1 else None


def named_by_mass(path: Path, mass: float, which: str = "") -> int:
    """Return the atomic number of the element that a mass (amu) names.

    Args:
        which: words behind the mass in the message, such as `` of atom type 1``.

    Raises:
        ValueError: none, or several.
    """
    found = element_of(mass)
    if found is None:
        raise ValueError(
            f"{path}: the mass {mass:g}{which} names no element (none, or not one alone, has it within {TOLERANCE:.1%}); "
            f"{_remedy()}"
        )
    return found


def elements_of_types(path: Path, masses: Mapping[int, float], comments: Mapping[int, str]) -> dict[int, int]:
    """Return the atomic numbers of atom types.

    Args:
        masses: mass (amu) by type.
        comments: text behind a mass by type, whose first word is used where it is an element of about this mass.

    Raises:
        ValueError: a mass and its comment name no element, or several.
    """
    elements: dict[int, int] = {}
    for k, mass in masses.items():
        word = next(iter(comments.get(k, "").split()), "")
        found = element_of(mass)
        if (word in chemical_symbols[1:] and not _agrees(mass, word, found)) or (found and _is_united_atom(mass, word)):
            raise ValueError(
                f"{path}: the mass and the comment of atom type {k} ({k} {mass:g} # {word}) do not agree; {_remedy()}"
            )
        if word in chemical_symbols[1:]:
            elements[k] = atomic_numbers[word]
            continue
        elements[k] = named_by_mass(path, mass, f" of atom type {k}" + (f" ({k} {mass:g} # {word})" if word else ""))
    return elements


def check_types(path: Path, masses: Mapping[int, float], types: Sequence[str]) -> None:
    """Check that no mass is that of another element than ``types`` names.

    Args:
        masses: mass (amu) by type; a mass that names no element, such as a placeholder, contradicts none.

    Raises:
        ValueError: one is.
    """
    # Atoms that gave mass to their hydrogens may have the mass of another element: O with two hydrogens of 3 amu has 12.
    low, high = HEAVY_HYDROGEN
    if any(types[k - 1] == "H" and low < mass < high for k, mass in masses.items()):
        return
    for k, mass in sorted(masses.items()):
        found = element_of(mass)
        if found and chemical_symbols[found] != types[k - 1]:
            raise ValueError(
                f"{path}: atom type {k} has the mass {mass:g} of {chemical_symbols[found]}, but {setting('types')} says "
                f"{types[k - 1]}; name the elements in the order of the types, or correct the mass"
            )


def _agrees(mass: float, symbol: str, found: int | None) -> bool:
    standard = atomic_masses[atomic_numbers[symbol]]
    return found in (None, atomic_numbers[symbol]) and abs(mass - standard) <= NEAR * standard


def _is_united_atom(mass: float, word: str) -> bool:
    """Whether a word such as CH2 is a formula of several atoms that have about this mass together."""
    try:
        count = Formula(word, strict=True).count()
    except ValueError:
        return False
    total = sum(n * atomic_masses[atomic_numbers[name]] for name, n in count.items())
    return sum(count.values()) > 1 and abs(total - mass) <= NEAR * total


def _remedy() -> str:
    return f"name the element of each atom type in {setting('types')}, such as [H, O]"
