"""Markdown tables of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Numbers to four digits, aligned to the right."""
    show = lambda x: "" if x is None else x if isinstance(x, str) else str(x) if isinstance(x, int) else f"{x:.4g}"
    cells = [list(map(show, row)) for row in rows]
    widths = [max(len(row[k]) for row in [header, *cells]) for k in range(len(header))]
    left = [all(isinstance(row[k], str) for row in rows) for k in range(len(header))]
    aligned = lambda row: (c.ljust(w) if a else c.rjust(w) for c, w, a in zip(row, widths, left, strict=True))
    line = lambda row: f"| {' | '.join(aligned(row))} |"
    rule = "|".join("-" * (w + 1) + ("-" if a else ":") for w, a in zip(widths, left, strict=True))
    return "\n".join([line(list(header)), f"|{rule}|", *map(line, cells)])
