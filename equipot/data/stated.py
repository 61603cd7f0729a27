"""Units that a file states, in the comment of a frame or in the metadata of a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from equipot import units as unit

if TYPE_CHECKING:
    from equipot.data.keys import Units

_KEY = re.compile(r"(?:(.*?)[-_ ]?)units?\Z", re.IGNORECASE)
_NAMES = {
    "energy": ("energy", "energies", "e"),
    "forces": ("forces", "force", "f"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
    "length": ("length", "distance", "position", "positions", "pos", "cell", "lattice", "coordinate", "coordinates", "coord"),
}
"""Words before ``unit`` in the keys of a comment, by quantity."""
_KINDS = {"energy": "energy", "forces": "force", "stress": "stress", "virial": "energy", "length": "length"}


def of_comment(entries: Mapping[str, Any]) -> dict[str, str]:
    """Return stated units by quantity, from entries such as ``energy-unit=hartree``, ``force_units=kcal/mol/Ang`` or
    ``units=eV``."""
    found = {}
    for key, value in entries.items():
        match = _KEY.match(key)
        if not match or not isinstance(value, str):
            continue
        name = (match[1] or "").lower()
        quantity = next((label for label, names in _NAMES.items() if name in names), match[1] or "energy")
        if match[1] or unit.spelled(value, "energy"):
            found[quantity] = value
    return found


def factors(given: Units, stated: Mapping[str, str], chosen: Mapping[str, str], source: str) -> dict[str, float]:
    """Return the factor that converts each quantity of a frame to eV and Å, by name.

    Args:
        given: units from the config.
        stated: units from the file, by quantity or by the name of the entry.
        chosen: names of the labels in the file.
        source: file and frame, for messages.

    Raises:
        ValueError: the file states a unit that differs from the config, an unknown unit, or a unit of energies but not of
            forces.
    """
    found: dict[str, str] = {}
    for quantity, kind in _KINDS.items():
        text = stated.get(chosen.get(quantity, quantity), stated.get(quantity))
        if text is None or (quantity != "length" and quantity not in chosen):
            continue
        own = getattr(given, quantity, None)
        name = unit.spelled(text, kind)
        if name is None and own is None:
            raise ValueError(
                f"{source}: states the unit {text!r} of its {quantity}, which is unknown; set data.units.{quantity}"
            )
        if name is not None and own is not None and not _same(name, own, kind):
            raise ValueError(
                f"{source}: states the unit {text!r} of its {quantity}, but data.units.{quantity} is {own!r}; "
                "leave that out, or correct the file"
            )
        found[quantity] = own or text if name is None else own or name
    result = given.factors()
    if not found:
        return result
    energy, length = (found.get(name) or getattr(given, name) for name in ("energy", "length"))
    taken = [name for name in ("energy", "length") if name in found and getattr(given, name) is None]
    derived = type(given)(energy, length, found.get("forces") or given.forces, found.get("stress") or given.stress)
    for label, example in (("forces", "eV/Å or Hartree/bohr"), ("stress", "eV/Å^3 or GPa")):
        if taken and label in chosen and getattr(derived, label) is None and derived.factors()[label] != 1.0:
            what = f"{source}: states the unit of its {taken[0]}, {found[taken[0]]}, but not that of its {label}"
            raise ValueError(f"{what}; set data.units.{label}, such as {example}")
    result = derived.factors()
    if "virial" in found:
        result["virial"] = unit.energy(found["virial"])
    return result


def _same(a: str, b: str, kind: str) -> bool:
    size = {"energy": unit.energy, "length": unit.length, "force": unit.force, "stress": unit.stress}[kind]
    return size(a) == size(b)
