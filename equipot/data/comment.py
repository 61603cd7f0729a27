"""Parse the comment line of an extended XYZ frame into values, which follow an equals sign, and bare words.

ASE's parser turns a bare word into the value True, so that ``Iteration 0 Energy -1.1`` would hold an energy of 1. ASE also
accepts a stress only as nine numbers, and does not recognise ``lattice`` as ``Lattice``.
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
"""Keys that control the reading of a frame, in lower case, and ASE's spelling of each."""
_COLUMNS = {"species": "species", "pos": "pos", "z": "Z"}
"""Names of columns in lower case, and ASE's spelling of each."""
_CELLS = ("cell", "box", "unit_cell", "unitcell", "lattice_vectors")
"""Keys of a cell that ASE ignores."""


class Comment(NamedTuple):
    """Content of a comment line."""

    values: dict[str, Any]
    """Values by key: a number, an array, a boolean, a list of booleans or a string."""
    words: tuple[str, ...]
    """Bare words in the order of the line."""
    repeated: tuple[str, ...]
    """Keys that the line states again with another value; ``values`` holds the last."""
    following: dict[str, str]
    """Bare words between the value of a key and the next entry, as in ``energy=-1.5 (in Hartree)``, by key."""

    def after(self, *names: str) -> str | None:
        """Return the text of the number after one of the words (in lower case, matched in any case), or None."""
        for word, following in zip(self.words, self.words[1:], strict=False):
            if word.lower().rstrip(":") in names and _NUMBER.match(following.rstrip(",;")):
                return following.rstrip(",;")
        return None


def parse(text: str) -> Comment:
    """Parse the comment line of an extended XYZ frame.

    The keys ``Lattice``, ``Properties`` and ``pbc`` are recognised in any case. Without ``pbc``, directions whose lattice
    vector is zero are open.

    Raises:
        ValueError: a lattice that is not nine numbers, a cell under another name than ``Lattice``, or two different values of a
            key that controls the reading.
    """
    values: dict[str, Any] = {}
    words, repeated = [], []
    following: dict[str, str] = {}
    before = None
    for key, value in ((match[1], match[2]) for match in _ENTRY.finditer(text)):
        if value is None:
            words.append(key)
            if before is not None:
                following[before] = f"{following.get(before, '')} {key}".strip()
        else:
            key, value = _unquoted(key), _unquoted(value)
            key = _SPELLED.get(key.lower(), key)
            if values.get(key, value) != value and not np.array_equal(_value(values[key]), _value(value)):
                repeated.append(key)
            values[key], before = value, key
    for key in repeated:
        if key in _SPELLED.values():
            raise ValueError(f"{key} is stated twice, with different values; leave one of them out")
    values = {key: value if key == "Properties" else _value(value) for key, value in values.items()}
    if "Properties" in values:
        values["Properties"] = _properties(values["Properties"])
    if "Lattice" in values:
        values["Lattice"] = _lattice(values["Lattice"])
        given = values["Lattice"].any(axis=0).tolist()
        if not all(given):
            values.setdefault("pbc", given)
    else:
        _no_other_cell(values)
    return Comment(values, tuple(words), tuple(repeated), following)


def _unquoted(text: str) -> str:
    """Remove enclosing quotes or brackets, and escapes within them."""
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if _WHOLE.match(text) else text


def _value(text: str) -> Any:
    """Convert text to a number, an array, a boolean or a list of booleans; other text stays a string."""
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
    """Whether a value is all numbers or all booleans; numpy would turn booleans among numbers into numbers."""
    try:
        kind = np.array(held).dtype.kind
    except ValueError:
        return False
    return kind == "b" or (kind in "if" and not is_boolean(held))


def is_boolean(value: Any) -> bool:
    """Whether a value is or holds a boolean, into which ASE turns bare words."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.kind == "b"
    return any(isinstance(part, bool | np.bool_) for part in np.ravel(np.array(value, object)))


def _properties(text: str) -> str:
    """Return ``Properties`` with the names of species and positions in ASE's spelling."""
    parts = text.split(":")
    parts[::3] = [_COLUMNS.get(name.lower(), name) for name in parts[::3]]
    return ":".join(parts)


def _lattice(value: Any) -> np.ndarray:
    """Convert nine numbers to lattice vectors in columns (3, 3), Å, as ASE expects from a parser."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "if" or numbers.size != 9:
        raise ValueError(f"Lattice is {str(value)[:60]!r}, not nine numbers: three vectors one after the other")
    return numbers.reshape(3, 3).T


def _no_other_cell(values: dict[str, Any]) -> None:
    """Check that a frame without a ``Lattice`` has no cell under another name.

    Raises:
        ValueError: there is such a cell, and ``pbc`` does not mark the frame as open.
    """
    if "pbc" in values and not np.any(values["pbc"]):
        return
    for key, value in values.items():
        if key.lower() in _CELLS and np.asarray(value).dtype.kind in "if" and np.size(value) in (3, 6, 9):
            raise ValueError(
                f'there is a {key!r} but no Lattice; name it Lattice="ax ay az bx by bz cx cy cz", or add pbc="F F F"'
            )
