"""Blocks of a page that need no script: text, listings, tables, pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from equipot.pages.block import Block

PNG = b"\x89PNG"
"""First bytes of a PNG file."""


@dataclass(frozen=True)
class Text(Block):
    """Paragraphs of plain text; line breaks in them are kept."""

    paragraphs: Sequence[str]
    alarm: bool = False
    """Whether the text tells of a failure, and is shown as one."""

    @property
    def style(self) -> str:
        """Class of the section in the style sheet."""
        return "alarm" if self.alarm else ""

    def html(self) -> str:
        """Write the paragraphs."""
        return "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in self.paragraphs)


@dataclass(frozen=True)
class Listing(Block):
    """Text of a file, such as a config, which a click shows in a fixed-width font."""

    text: str

    def html(self) -> str:
        """Write the text."""
        return f"<details>\n<summary>show</summary>\n<pre>\n{escape(self.text)}</pre>\n</details>"


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells; the first row has the names of the columns, or empty text throughout where they need none.

    The numbers of a column stand to the right, unless most of its cells are text.

    Raises:
        ValueError: a row of another length than the first.
    """

    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.rows[0]):
                raise ValueError(f"table {self.heading!r}: a row has {len(row)} cells, and the first {len(self.rows[0])}")

    def html(self) -> str:
        """Write the rows."""
        if not self.rows:
            return "<p>No entries.</p>"
        names, *lines = self.rows
        right = [mostly_numbers([line[k] for line in lines]) for k in range(len(names))]
        head = "".join(cell("th", name, number) for name, number in zip(names, right, strict=True))
        written = lambda line: "".join(cell("td", text, right[k] and is_number(text)) for k, text in enumerate(line))
        body = "\n".join(f"<tr>{written(line)}</tr>" for line in lines)
        head = f"<thead><tr>{head}</tr></thead>\n" if any(names) else ""
        return f'<div class="table"><table>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>'


def cell(tag: str, text: str, number: bool) -> str:
    """Write a cell of a table."""
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def mostly_numbers(column: Sequence[str]) -> bool:
    """Whether at least half of the cells that are not empty are numbers."""
    filled = [text for text in column if text.strip()]
    return bool(filled) and 2 * sum(map(is_number, filled)) >= len(filled)


def is_number(text: str) -> bool:
    """Whether the text of a cell is a number or a percentage."""
    try:
        float(text.rstrip("%"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Picture(Block):
    """A PNG image, which is copied into the page when the page is written."""

    png: bytes | Path
    """Content of a PNG file, or its path."""

    def html(self) -> str:
        """Write the image.

        Raises:
            ValueError: the content is not that of a PNG file.
            OSError: the file cannot be read.
        """
        content = self.png if isinstance(self.png, bytes) else self.png.read_bytes()
        if not content.startswith(PNG):
            raise ValueError(f"{self.heading if isinstance(self.png, bytes) else self.png} is no PNG file")
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        return f'<img alt="{escape(self.heading)}" src="{source}">'
