"""Units that a file states, in the comment of a frame or in the metadata of a database."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ase.data import chemical_symbols

from equipot import units as unit
from equipot.data.comment import Comment
from equipot.data.keys import KNOWN, Units, setting
from equipot.quantities import Quantity

# A unit cell is no unit: ase.spacegroup notes unit_cell="conventional".
_KEY = re.compile(
    r"(?:(.*?)[-_ .]?units?|units?(?![-_ .]?cells?\Z)(?:[-_ .](?:of[-_ .])?(.+)|((?-i:[A-Z]).*)))\Z", re.IGNORECASE
)
_ASSIGNED = re.compile(r"""['"]?([A-Za-z]\w*)['"]?\s*[:=]\s*['"]?([^\s,;'"]+)['"]?""")
_NAMES = {
    "energy": ("energy", "energies", "e"),
    "forces": ("forces", "force", "f"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
    "length": ("length", "distance", "position", "positions", "pos", "cell", "lattice", "coordinate", "coordinates", "coord"),
}
"""Words before or after ``unit`` in the keys of a comment, by quantity."""
_KINDS = {"energy": "energy", "forces": "force", "stress": "stress", "virial": "energy", "length": "length"}
_ALL = ""
"""Name under which a system of units is stated, or a text that is not understood, for all quantities."""
_ATOMIC = "a.u."
_ATOMIC_NAMES = ("a.u.", "au", "atomic", "atomic units", "atomic_units")
_SYSTEMS = {
    "ase": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3", "virial": "eV"},
    "metal": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "bar or eV/Å^3", "virial": "eV"},
    "real": {
        "energy": "kcal/mol",
        "length": "Å",
        "forces": "kcal/mol/Å",
        "stress": "atm or kcal/mol/Å^3",
        "virial": "kcal/mol",
    },
}
"""Units of each label in a system of units; LAMMPS has pressures in a unit of their own, so that a stress is a question."""
_NO_UNIT = re.compile(r"none|units?|lammps|(?!1/)\d.*|[^a-zà-ÿ]*", re.IGNORECASE)
"""Words of an entry ``units`` that say nothing; ``unit=2x2x2`` is a supercell."""
_OTHER_ENERGIES = ("mev", "kev", "kj", "kcal", "cal", "erg", "cm-1", "cm^-1", "mha", "mhartree", "mry")
"""Units of energies, in lower case, that are recognised but not converted."""
_ELEMENTS = frozenset(symbol for symbol in chemical_symbols if len(symbol) > 1)
"""Symbols of elements that may be spelled as a unit is, as gold (Au) and protactinium (Pa) are."""
_PER_ATOM = re.compile(
    r"(?:(\S+?)(?:\s*/\s*|\s+per\s+|[ *·]+(?=atoms?(?:\^|\*\*)?-1))|/\s*|per\s+)atoms?(?:(?:\^|\*\*)?-1)?(?!\w)", re.IGNORECASE
)
"""Unit of an energy divided by the number of atoms."""


def is_unit(key: str) -> bool:
    """Whether a key of a comment states a unit."""
    return _KEY.match(key) is not None


def of_entries(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the units that entries state, such as ``energy-unit=hartree``, ``unit_forces=kcal/mol/Ang``, ``units=eV`` or
    ``units="energy: hartree"``; each with the label, or the name of the entry, to which it belongs."""
    found, present = [], {key.lower() for key in entries}
    for key, value in entries.items():
        match = _KEY.match(key)
        if not match:
            continue
        name = match[1] or match[2] or match[3]
        if name:
            found.append((name if name.lower() in present else _label(name), str(value)))
        elif isinstance(value, Mapping):
            found += [(_label(str(of)), str(text)) for of, text in value.items()]
        elif isinstance(value, str):
            found += _of_all(value)
    return found


def _label(name: str) -> str:
    """Return the label that a name stands for, else the name itself."""
    known = lambda label: (*_NAMES[label], *(common.lower() for common in KNOWN.get(label, ())))
    return next((label for label in _NAMES if name.lower() in known(label)), name)


def _of_all(text: str) -> list[tuple[str, str]]:
    """List the units in the text of an entry ``units``: assignments, such as ``energy: eV``, units, such as ``eV Å fs``, or a
    system of units, such as ``metal``."""
    text = re.sub(r"\A[{(](.*)[})]\Z", r"\1", text.strip()).strip()
    assigned = [(_label(match[1]), match[2]) for match in _ASSIGNED.finditer(text)]
    if assigned and not _ASSIGNED.sub("", text).strip(" ,;"):
        return assigned
    words = [word for word in re.split(r"[\s,;]+", text) if not _NO_UNIT.fullmatch(word)]
    if not words or (len(words) == 1 and words[0].lower() in _SYSTEMS):
        return [(_ALL, word.lower()) for word in words]
    labels = [_label_of_unit(word) for word in words]
    known = {label: word for label, word in zip(labels, words, strict=True) if label != _ALL}
    others = [word for label, word in zip(labels, words, strict=True) if label == _ALL]
    # Units of time and mass do not matter, but only beside the two that others could be meant for.
    clear = len(known) + len(others) == len(words) and not any(word.lower() in _ATOMIC_NAMES for word in words)
    if others:
        clear = clear and {"energy", "length"} <= known.keys()
        clear = clear and not any(_is_bare_unit(word) or unit.parsed(word, (0, 1, 1)) for word in others)
    return list(known.items()) if clear else [(_ALL, text)]


def _label_of_unit(word: str) -> str:
    """Return the first label of which a word may be the unit, else the name of a unit that is not understood."""
    if _PER_ATOM.fullmatch(word):
        return "energy"
    return next((label for label, kind in _KINDS.items() if unit.spelled(word, kind)), _ALL)


def of_words(comment: Comment) -> list[tuple[str, str]]:
    """List the units that bare words of a comment state: ``energy=-1.5 Hartree`` and ``units: Hartree``."""
    after = [(key, found) for key, words in comment.following.items() if (found := _first_unit(words, _label(key)))]
    pairs = zip(comment.words, comment.words[1:], strict=False)
    said = {word[:-1]: following for word, following in pairs if word.endswith(":") and is_unit(word[:-1])}
    return [*after, *of_entries(said)]


def _first_unit(text: str, label: str) -> str | None:
    """Return the unit with which the bare words after a value of the label begin, or None.

    The words are ``Hartree``, ``(in Hartree)``, ``eV / atom`` or ``kcal mol^-1 A^-1``, with others after these.
    """
    words = [word if "(" in word else word.rstrip(")]}") for word in (w.strip(",;").lstrip("([{") for w in text.split())]
    while words and words[0].lower() in ("in", "unit", "units"):
        del words[0]
    match = _PER_ATOM.match(" ".join(words))
    if match and (match[1] is None or unit.spelled(match[1], "energy")):
        return match[0]
    for count in range(min(3, len(words)), 0, -1):
        if _is_bare_unit(found := " ".join(words[:count])):
            return _unclear(found)
    return f"{words[0]} (pascal or protactinium)" if label == "stress" and words[:1] == ["Pa"] else None


def _is_bare_unit(text: str) -> bool:
    """Whether bare words are a unit; words of one letter, and symbols of elements such as ``Au`` and ``Pa``, are not."""
    if all(len(word) < 2 for word in text.split()) or not _ELEMENTS.isdisjoint(re.split(r"[\s/*·]+", text)):
        return False
    lower, above = text.lower(), text.rpartition("/")[0]
    if lower in ("atomic units", "atomic_units") or re.split(r"[/*·]", lower)[0] in _OTHER_ENERGIES:
        return True
    if len(above) > 1 and unit.spelled(above, "energy"):
        return True
    return any(unit.spelled(text, kind) for kind in ("energy", "force", "stress")) or unit.parsed(text, (0, 1, 1)) is not None


def _unclear(text: str) -> str:
    """Return a unit of a bare word or of the ending of a name; ``AU`` may be gold, and becomes no known unit."""
    return "AU (atomic units or gold)" if text == "AU" else text


def tell_energy(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether one of the units, see ``of_entries``, is of the energy or of all quantities."""
    return any(_label(name) == "energy" or name == _ALL for name, _ in pairs)


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Collect units by the name to which they belong, in lower case; two different units of one name become no known unit."""
    found: dict[str, str] = {}
    for name, text in pairs:
        name = name.lower()
        held = found.get(name, text)
        found[name] = held if held == text or _alike(held, text) else f"{held} and {text}"
    return found


def _text(stated: Mapping[str, str], label: str, names: Sequence[str]) -> str | None:
    """Return the unit that a file states of a label whose entry has one of the names, or None.

    A unit of the entry itself counts before one of the label, one in the name, as in ``energy_Ha``, and one of all quantities.
    """
    atomic = lambda text: text.lower() in _ATOMIC_NAMES
    for key in (*names, label):
        if (text := stated.get(key.lower())) is not None:
            return _ATOMIC if atomic(text) else text
    ending = re.search(r"[-_ (\[]([^-_ ()\[\]]+)[)\]]?\Z", names[0]) if label in _KINDS else None
    if ending and _ELEMENTS.isdisjoint([ending[1]]) and unit.spelled(ending[1], _KINDS[label]):
        return _unclear(ending[1])
    if ending and _PER_ATOM.fullmatch(ending[1]):
        return ending[1]
    system = stated.get(_ALL, "")
    return _ATOMIC if label != "length" and atomic(system) else _SYSTEMS.get(system, {}).get(label)


def _check_all(given: Units, stated: Mapping[str, str], source: str) -> None:
    """Check that units which a file states for all quantities together are understood.

    Raises:
        ValueError: they are not, or are atomic units, which says nothing certain of the positions.
    """
    text = stated.get(_ALL)
    if text is None or text in _SYSTEMS:
        return
    atomic = text.lower() in _ATOMIC_NAMES
    if atomic and given.length is None and "length" not in stated:
        raise ValueError(
            f"{source}: states the units {text!r}, but positions may be in Å all the same; write length_unit=bohr or "
            f"length_unit=Å beside it, or set {setting('units.length')}"
        )
    if not atomic and None in (given.energy, given.length):
        raise ValueError(
            f"{source}: states the units {text!r}, which are not understood; write energy_unit=..., forces_unit=... and "
            "length_unit=... into the file instead, or set units.energy and units.length (data.units in training)"
        )


def factors(given: Units, stated: Mapping[str, str], chosen: Mapping[str, str], source: str) -> dict[str, float]:
    """Return the factor that converts each quantity of a frame to eV and Å, by name.

    Args:
        given: units from the config.
        stated: units from the file, by label or by the name of an entry, see ``joined``.
        chosen: names of the labels in the file.
        source: file and frame, for messages.

    Raises:
        ValueError: the file states a unit that differs from the config, an unknown unit, one of energies per atom, or a unit of
            energies but not of forces.
    """
    _check_all(given, stated, source)
    found: dict[str, str] = {}
    for quantity, kind in _KINDS.items():
        text = _text(stated, quantity, [chosen.get(quantity, quantity)])
        if text is None or (quantity != "length" and quantity not in chosen):
            continue
        if kind == "energy" and _PER_ATOM.fullmatch(text.strip()):
            raise ValueError(
                f"{source}: states the unit {text!r} of its {quantity}, which is divided by the number of atoms; multiply it "
                f"by the number of atoms, and write {quantity}_unit=eV, or what it is then, into the file"
            )
        own = getattr(given, quantity, None)
        name = unit.spelled(text, kind)
        if name is None and own is None:
            raise ValueError(
                f"{source}: states the unit {text!r} of its {quantity}, which is unknown; set {setting(f'units.{quantity}')}"
            )
        if name is not None and own is not None and not _same(name, own, kind):
            raise ValueError(
                f"{source}: states the unit {text!r} of its {quantity}, but {setting(f'units.{quantity}')} is {own!r}; "
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
            raise ValueError(f"{what}; set {setting(f'units.{label}')}, such as {example}")
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
            raise ValueError(f"{setting(f'units.others.{name}')}: no such quantity is read; {there}")
    result = {}
    for row in rows:
        text = _text(stated, row.name, (chosen.get(row.name, row.name), row.name, *row.keys))
        energy, length, _ = row.dimension
        powers = {"energy": energy, "length": length}
        result[row] = factors["energy"] ** energy * factors["length"] ** length
        if text is not None or row.name in given.others:
            result[row] = _further(row, given.others.get(row.name), text if row.name in chosen else None, source)
            continue
        # The unit of the energy is that of every energy in a file, as of the virial, but says nothing certain of derived units.
        told = [name for name, power in powers.items() if power and _text(stated, name, [chosen.get(name, name)]) is not None]
        open_ones = [name for name in told if getattr(given, name) is None]
        if row.name in chosen and open_ones and result[row] != 1.0 and row.dimension not in ((1, 0, 0), (0, 1, 0)):
            what = f"{source}: states the unit of its {open_ones[0]}, but not that of its {row.name}"
            raise ValueError(f"{what}; set {setting(f'units.others.{row.name}')}, such as {row.unit}")
    return result


def _further(row: Quantity, own: str | None, text: str | None, source: str) -> float:
    """Return the size of the unit of a further quantity, from the config (``own``) or from the file (``text``).

    Raises:
        ValueError: a unit that is unknown, or differs between the two.
    """
    size = lambda name: 1.0 if name == row.unit else unit.parsed(name, row.dimension)
    option, example = setting(f"units.others.{row.name}"), row.unit or "none"
    chosen, seen = (None if name is None else size(name) for name in (own, text))
    if own is not None and chosen is None:
        raise ValueError(f"{option}: {own!r} is not understood; give a unit such as {example}")
    if seen is not None and chosen is not None and not math.isclose(seen, chosen):
        what = f"{source}: states the unit {text!r} of its {row.name}, but {option} is {own!r}"
        raise ValueError(f"{what}; leave that out, or correct the file")
    found = seen if chosen is None else chosen
    if text is not None and found is None:
        what = f"{source}: states the unit {text!r} of its {row.name}, which is unknown"
        raise ValueError(f"{what}; convert it to {example}, or set {option} to a unit such as {example}")
    return 1.0 if found is None else found


def _alike(a: str, b: str) -> bool:
    """Whether two texts are spellings of one unit."""
    spelled = [(unit.spelled(a, kind), unit.spelled(b, kind), kind) for kind in _KINDS.values()]
    return any(one is not None and other is not None and _same(one, other, kind) for one, other, kind in spelled)


def _same(a: str, b: str, kind: str) -> bool:
    size = {"energy": unit.energy, "length": unit.length, "force": unit.force, "stress": unit.stress}[kind]
    return size(a) == size(b)
