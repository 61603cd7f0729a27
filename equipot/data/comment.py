"""The comment line of an extended XYZ frame: which values it states, and which words merely stand there.

ASE's parser turns a bare word into the value True, so that ``Iteration 0 Energy -1.1`` would hold an energy of 1; it takes a
stress of nine numbers only, and tells ``lattice`` from ``Lattice``. Here a value is what follows an equals sign.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import numpy as np

_QUOTED = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|\{[^{}]*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]'
_ENTRY = re.compile(rf"((?:{_QUOTED}|[^\s=])+)(?:\s*=\s*((?:{_QUOTED}|\S)*))?")
_WHOLE = re.compile(rf"(?:{_QUOTED})\Z")
_NUMBER = re.compile(r"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?\Z")
_BOOLEANS = dict.fromkeys(("T", "true", "True", "TRUE"), True) | dict.fromkeys(("F", "false", "False", "FALSE"), False)
_SPELLED = {name.lower(): name for name in ("Lattice", "Properties", "pbc")}
"""Keys that say how to read the frame, in any case, and how ASE spells them."""
_COLUMNS = {"species": "species", "pos": "pos", "z": "Z"}
"""Names of columns, likewise."""
_CELLS = ("cell", "box", "unit_cell", "unitcell", "lattice_vectors")
"""Keys under which a lattice would be overlooked."""


class Comment(NamedTuple):
    """A comment line, taken apart."""

    values: dict[str, Any]
    """What follows an equals sign, by its key: a number, an array, a boolean, a list of booleans or a string."""
    words: tuple[str, ...]
    """Words without an equals sign, in their order."""

    def after(self, *names: str) -> str | None:
        """The number that follows one of the words, in any case and with or without a colon; None without one."""
        for word, following in zip(self.words, self.words[1:], strict=False):
            if word.lower().rstrip(":") in names and _NUMBER.match(following.rstrip(",;")):
                return following.rstrip(",;")
        return None


def parse(text: str) -> Comment:
    """Take the comment line of an extended XYZ frame apart.

    Keys that say how to read the frame (``Lattice``, ``Properties``, ``pbc``) are recognised in any case.

    Raises:
        ValueError: a lattice that is not nine numbers, or a cell under another name than ``Lattice``.
    """
    values: dict[str, Any] = {}
    words = []
    for key, value in ((match[1], match[2]) for match in _ENTRY.finditer(text)):
        if value is None:
            words.append(key)
        else:
            key = _unquoted(key)
            values[_SPELLED.get(key.lower(), key)] = _unquoted(value)
    values = {key: value if key == "Properties" else _value(value) for key, value in values.items()}
    if "Properties" in values:
        values["Properties"] = _properties(values["Properties"])
    if "Lattice" in values:
        values["Lattice"] = _lattice(values["Lattice"])
    else:
        _no_other_cell(values)
    return Comment(values, tuple(words))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if _WHOLE.match(text) else text


def _value(text: str) -> Any:
    if text.startswith("_JSON "):
        # ASE's way to write what is neither a number nor a string.
        held = json.loads(text.removeprefix("_JSON "))
        return np.array(held) if _is_numeric(held) else held
    parts = re.split(r"[\s,\[\]{}]+", text.strip(" ,[]{}"))
    for kind in (int, float):
        try:
            numbers = np.array(parts, kind)
        except (ValueError, OverflowError):
            continue
        return numbers if len(numbers) > 1 else numbers[0]
    if all(part in _BOOLEANS for part in parts):
        found = [_BOOLEANS[part] for part in parts]
        return found if len(found) > 1 else found[0]
    return text


def _is_numeric(held: Any) -> bool:
    try:
        return np.array(held).dtype.kind in "ifb"
    except ValueError:
        return False


def _properties(text: str) -> str:
    """``Properties`` with the columns that ASE must know in its own spelling."""
    parts = text.split(":")
    parts[::3] = [_COLUMNS.get(name.lower(), name) for name in parts[::3]]
    return ":".join(parts)


def _lattice(value: Any) -> np.ndarray:
    """Lattice vectors (Å) as ASE expects them from a parser: as columns."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "if" or numbers.size != 9:
        raise ValueError(f"Lattice is {str(value)[:60]!r}, not nine numbers: three vectors one after the other")
    return numbers.reshape(3, 3).T


def _no_other_cell(values: dict[str, Any]) -> None:
    """Whether a frame without a ``Lattice`` has its cell under another name, and nothing says that it is open."""
    if "pbc" in values and not np.any(values["pbc"]):
        return
    for key, value in values.items():
        if key.lower() in _CELLS and np.asarray(value).dtype.kind in "if" and np.size(value) in (3, 6, 9):
            raise ValueError(
                f'there is a {key!r} but no Lattice; name it Lattice="ax ay az bx by bz cx cy cz", or add pbc="F F F"'
            )
