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
    """Rows of cells; the first row has the names of the columns. Numbers stand to the right.

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
        # The name of a column stands above its numbers.
        above = [any(is_number(line[k]) for line in lines) for k in range(len(names))]
        head = "".join(cell("th", name, number) for name, number in zip(names, above, strict=True))
        body = "\n".join(f"<tr>{''.join(cell('td', text, is_number(text)) for text in line)}</tr>" for line in lines)
        return f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def cell(tag: str, text: str, number: bool) -> str:
    """Write a cell of a table."""
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


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
