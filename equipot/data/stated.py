"""Units that a file states, in the comment of a frame or in the metadata of a database."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from equipot import units as unit
from equipot.quantities import Quantity

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


def is_unit(key: str) -> bool:
    """Whether a key of a comment states a unit."""
    return _KEY.match(key) is not None


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


def further_factors(
    given: Units, stated: Mapping[str, str], chosen: Mapping[str, str], rows: Sequence[Quantity], factors: Mapping[str, float],
    source: str,
) -> dict[Quantity, float]:  # fmt: skip
    """Return the factor that converts each further quantity of a frame to its unit in the package.

    Args:
        given, stated, chosen, source: as for ``factors``.
        rows: further quantities that are read.
        factors: factors of energy and length, from which units that are not stated follow.

    Raises:
        ValueError: a unit that is unknown, or differs between file and config; a unit of energy or length in the file, but none
            of a quantity that depends on it; a unit in the config of a quantity that is not read.
    """
    known = {row.name for row in rows}
    for name in given.others:
        if name not in known:
            there = f"choose from {', '.join(sorted(known))}" if known else "leave it out"
            raise ValueError(f"data.units.others.{name}: no such quantity is read; {there}")
    texts = {name.lower(): text for name, text in stated.items()}
    result = {}
    for row in rows:
        names = (chosen.get(row.name, row.name), row.name, *row.keys)
        text = next((texts[name.lower()] for name in names if name.lower() in texts), None)
        energy, length, _ = row.dimension
        powers = {"energy": energy, "length": length}
        result[row] = factors["energy"] ** energy * factors["length"] ** length
        if text is not None or row.name in given.others:
            result[row] = _further(row, given.others.get(row.name), text if row.name in chosen else None, source)
            continue
        # The unit of the energy is that of every energy in a file, as of the virial, but says nothing certain of derived units.
        open_ones = [name for name, power in powers.items() if power and name in stated and getattr(given, name) is None]
        if row.name in chosen and open_ones and result[row] != 1.0 and row.dimension not in ((1, 0, 0), (0, 1, 0)):
            what = f"{source}: states the unit of its {open_ones[0]}, but not that of its {row.name}"
            raise ValueError(f"{what}; set data.units.others.{row.name}, such as {row.unit}")
    return result


def _further(row: Quantity, own: str | None, text: str | None, source: str) -> float:
    """Return the size of the unit of a further quantity, from the config (``own``) or from the file (``text``).

    Raises:
        ValueError: a unit that is unknown, or differs between the two.
    """
    size = lambda name: 1.0 if name == row.unit else unit.parsed(name, row.dimension)
    setting, example = f"data.units.others.{row.name}", row.unit or "none"
    chosen, seen = (None if name is None else size(name) for name in (own, text))
    if own is not None and chosen is None:
        raise ValueError(f"{setting}: {own!r} is not understood; give a unit such as {example}")
    if seen is not None and chosen is not None and not math.isclose(seen, chosen):
        what = f"{source}: states the unit {text!r} of its {row.name}, but {setting} is {own!r}"
        raise ValueError(f"{what}; leave that out, or correct the file")
    found = seen if chosen is None else chosen
    if text is not None and found is None:
        what = f"{source}: states the unit {text!r} of its {row.name}, which is unknown"
        raise ValueError(f"{what}; convert it to {example}, or set {setting} to a unit such as {example}")
    return 1.0 if found is None else found


def _same(a: str, b: str, kind: str) -> bool:
    size = {"energy": unit.energy, "length": unit.length, "force": unit.force, "stress": unit.stress}[kind]
    return size(a) == size(b)
