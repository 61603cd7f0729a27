"""A report as one HTML page that holds its tables and figures itself, to be sent or kept as a file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from equipot.files import write_atomically

NAME = "uncertainty.html"
"""Name of the page in its folder."""
NOTES = (
    "An interval of 90% holds the truth of nine in ten values: of frames of the same kind as those that calibrated it (split "
    "conformal prediction, each frame counted once), and on average over them, not for each atom or each kind of environment.",
    "That promise ends with a shift. Far from the structures that the estimate rests on and was calibrated on (hotter, denser, "
    "another phase, another composition) errors grow faster than deviations, and fewer values are within their intervals. A "
    "large novelty says where that may be so; a test set from there says by how much.",
    "A rank correlation of 0 or a retained error of 1 means that the deviations tell no better than chance which values are "
    "wrong. An estimate is worth its cost if it beats the line of the norm of the features.",
)
"""What intervals promise and what they do not, for the notes of a page."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #e6e8eb; text-align: left; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } p { max-width: 48rem; }
"""


def write_page(
    folder: Path,
    title: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    figures: Mapping[str, Path],
    notes: Sequence[str] = NOTES,
) -> Path:
    """Write a page without links to other files into a folder, atomically.

    Args:
        folder: Folder of the page ``NAME``; made where there is none.
        title: Heading of the page, as text; so are all headings, cells and notes.
        tables: Rows of cells by heading; the first row holds the names of the columns.
        figures: PNG files by heading, which are copied into the page.
        notes: Paragraphs.

    Returns:
        The path of the page.

    Raises:
        ValueError: a row of another length than the first, or a figure that is no PNG file.
        OSError: a figure cannot be read, or the page cannot be written; an older page is kept.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    for heading, rows in tables.items():
        parts += [f"<h2>{escape(heading)}</h2>", table_html(heading, rows)]
    for heading, path in figures.items():
        parts += [f"<h2>{escape(heading)}</h2>", image_html(heading, path)]
    if notes:
        parts += ["<h2>Notes</h2>", *(f"<p>{escape(note)}</p>" for note in notes)]
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    text = f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    write_atomically(folder / NAME, text.encode())
    return folder / NAME


def table_html(heading: str, rows: Sequence[Sequence[str]]) -> str:
    """Write rows of cells as a table of HTML; numbers stand to the right.

    Raises:
        ValueError: a row of another length than the first.
    """
    for row in rows:
        if len(row) != len(rows[0]):
            raise ValueError(f"table {heading!r}: a row has {len(row)} cells, and the first {len(rows[0])}")
    names = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0]) if rows else ""
    lines = ["".join(cell_html(cell) for cell in row) for row in rows[1:]]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def cell_html(text: str) -> str:
    """Write a cell of a table."""
    try:
        float(text.rstrip("%"))
    except ValueError:
        return f"<td>{escape(text)}</td>"
    return f'<td class="number">{escape(text)}</td>'


def image_html(heading: str, path: Path) -> str:
    """Write a PNG file as an image of HTML that holds the file.

    Raises:
        ValueError: it is no PNG file.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        raise ValueError(f"{path} is no PNG file")
    return f'<img alt="{escape(heading)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
