"""Read extended XYZ frame by frame with ASE's parser; errors name file, frame and line."""

from __future__ import annotations

import gzip
import lzma
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from equipot.data import comment
from equipot.data.comment import is_boolean

SUFFIXES = (".xyz", ".extxyz")
OPENERS: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open}
CP2K = (("i", "time", "E"), ("i", "E"))
"""First keys of the comment line in CP2K's file of positions, of a trajectory and of an optimisation."""
CP2K_EXTENDED = ("Step", "Time", "Energy")
"""Keys of the comment line in CP2K's extended XYZ, besides those that ``GEOMETRY`` lists."""
GEOMETRY = ("Lattice", "Properties", "pbc")
"""Keys that control the reading of a frame."""
TENSORS = ("stress", "virial")
"""Keys whose values ASE accepts as nine numbers only."""


class Chunk(NamedTuple):
    """Text of one frame."""

    frame: int
    line: int
    """Number of the frame's first line in the file, from 1."""
    lines: list[str]


def is_extxyz(path: Path) -> bool:
    """Whether the suffix is .xyz or .extxyz (also .gz, .xz), or a file without a suffix is extended XYZ according to ASE."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not suffixes and path.is_file():
        return _ase_says_so(path)
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _ase_says_so(path: Path) -> bool:
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        return filetype(str(path)) == "extxyz"
    except UnknownFileTypeError:
        return False


def chunks(path: Path) -> Iterator[Chunk]:
    """Iterate over the text of the frames, one frame in memory at a time.

    Raises:
        ValueError: the file is cut short, or a frame does not begin with its number of atoms.
    """
    opener: Callable[..., IO[str]] = OPENERS.get(path.suffix.lower(), open)
    frame, line = 0, 1
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            while header := stream.readline():
                if not header.strip():
                    line += 1
                    continue
                atoms = _count(header, path, frame, line)
                lines = [header, *(stream.readline() for _ in range(atoms + 1))]
                _check_complete(lines, atoms, path, frame)
                yield Chunk(frame, line, lines)
                frame, line = frame + 1, line + len(lines)
    except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}, frame {frame}: cannot be read ({error}); fetch or write the file again") from None


class Parsed(NamedTuple):
    """One parsed frame."""

    atoms: Any
    """``ase.Atoms``; stress and virial, with the numbers of the file, and booleans are in ``info`` and ``arrays``."""
    comment: comment.Comment

    @property
    def of_cp2k(self) -> bool:
        """Whether the frame is from CP2K's file of positions, with the energy ``E`` in Hartree and, unless added, no cell."""
        return any(self._keys[: len(first)] == first for first in CP2K)

    @property
    def of_cp2k_extended(self) -> bool:
        """Whether the frame has the entries of CP2K's extended XYZ, with ``Energy`` in Hartree."""
        return self._keys == CP2K_EXTENDED

    @property
    def _keys(self) -> tuple[str, ...]:
        return tuple(key for key in self.comment.values if key not in GEOMETRY)


def parse(chunk: Chunk, path: Path) -> Parsed:
    """Parse one frame.

    Raises:
        ValueError: a frame that ASE cannot parse; the message names file, frame, line and reason.
    """
    from ase.io.extxyz import read_xyz

    try:
        found = comment.parse(chunk.lines[1])
        # ASE would turn booleans of its calculators' results, such as a dipole, into numbers.
        own = {key: value for key, value in found.values.items() if key in TENSORS or (key != "pbc" and is_boolean(value))}
        stated = {key: value for key, value in found.values.items() if key not in own}
        atoms = next(read_xyz(StringIO("".join(chunk.lines)), index=0, properties_parser=lambda _: dict(stated)))
    except Exception as error:
        # Whatever ASE's parser raises, from KeyError to TypeError, the user needs the place in the file.
        otherwise = f"{path}, frame {chunk.frame} (line {chunk.line}): {_first_line(error)}"
        raise ValueError(_diagnose(chunk, path) or otherwise) from None
    atoms.info |= own
    _restore_booleans(atoms, found.values.get("Properties", ""))
    if found.words:
        atoms.info.setdefault("comment", " ".join(found.words))
    return Parsed(atoms, found)


def _restore_booleans(atoms: Any, properties: str) -> None:
    """Move logical columns, which ASE turned into numbers, from the calculator's results to ``arrays``, as booleans."""
    parts = properties.split(":")
    results = {} if atoms.calc is None else atoms.calc.results
    for name, kind in zip(parts[::3], parts[1::3], strict=False):
        if kind == "L" and name in results:
            atoms.set_array(name, results.pop(name).astype(bool))


def _count(header: str, path: Path, frame: int, line: int) -> int:
    """Parse the number of atoms in the first line of a frame.

    Raises:
        ValueError: no positive whole number.
    """
    try:
        atoms = int(header)
    except ValueError:
        before = "; the frame before may state a wrong number of atoms" if frame else "; is this an extended XYZ file?"
        raise ValueError(
            f"{path}, frame {frame} (line {line}): expected the number of atoms, got {header.strip()[:40]!r}{before}"
        ) from None
    if atoms < 1:
        raise ValueError(f"{path}, frame {frame} (line {line}): states {atoms} atoms")
    return atoms


def _check_complete(lines: list[str], atoms: int, path: Path, frame: int) -> None:
    """Check that the file does not end inside a frame; warn if the last number may be cut short.

    Raises:
        ValueError: missing atoms, or a last line that is cut short.
    """
    remedy = f"it was cut short: fetch or write it again, or read only what is whole with {path.name}@:{frame}"
    if not lines[-1].strip():
        have = max(0, sum(bool(text.strip()) for text in lines[2:]))
        if lines[-1] == "":
            raise ValueError(f"{path}, frame {frame}: the file ends after {have} of {atoms} atoms; {remedy}")
        raise ValueError(f"{path}, frame {frame}: states {atoms} atoms but has {have} before an empty line")
    if not lines[-1].endswith("\n"):
        decimals = [len(text.split()[-1].partition(".")[2]) for text in lines[2:] if text.strip()]
        columns = [len(text.split()) for text in lines[2:]]
        fixed = len(decimals) > 1 and len(set(decimals[:-1])) == 1 and decimals[0] > 0
        if columns[-1] < columns[0] or (fixed and decimals[-1] < decimals[0]):
            raise ValueError(f"{path}, frame {frame}: the file ends inside the line of its last atom; {remedy}")
        if not fixed:
            warnings.warn(
                f"{path}, frame {frame}: the last line has no newline, so its last number may be cut short; "
                "fetch or write the file again, or end it with a newline if it is whole",
                stacklevel=3,
            )


def _diagnose(chunk: Chunk, path: Path) -> str | None:
    """Write a message for the line with too few columns, a word in place of a number or an unknown element; else None."""
    from ase.data import atomic_numbers
    from ase.io.extxyz import parse_properties

    where = lambda k: f"{path}, frame {chunk.frame} (line {chunk.line + k})"
    try:
        stated = comment.parse(chunk.lines[1]).values.get("Properties", "species:S:1:pos:R:3")
        _, _, dtype, convert = parse_properties(stated)
    except Exception as error:
        return f"{where(1)}: the comment line cannot be understood ({_first_line(error)})"
    for k, text in enumerate(chunk.lines[2:], 2):
        words = text.split()
        if len(words) < len(convert):
            return f"{where(k)}: has {len(words)} columns, but Properties states {len(convert)}"
        for name, turn, word in zip(dtype.names, convert, words, strict=False):
            try:
                turn(word)
            except ValueError:
                return f"{where(k)}: {word!r} in column {name!r} is not a number"
            if name == "species" and "Z" not in dtype.names and word.capitalize() not in atomic_numbers:
                return f"{where(k)}: {word!r} is no element symbol; write labels of atoms in a column of their own"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
