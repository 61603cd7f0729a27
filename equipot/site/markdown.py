"""Markdown of the repository: its sections, and its links."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEADING = re.compile(r"(#{1,6}) +(.+?) *$")
LINK = re.compile(r"(\]\()([^()\s]+)(\))")
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
"""Fenced code and code in a line, in which nothing is a link."""


@dataclass(frozen=True)
class Section:
    """A heading with the text below it, up to the next heading."""

    level: int
    """Number of ``#`` of the heading."""
    title: str
    """Text of the heading."""
    text: str
    """Text below the heading."""

    @property
    def slug(self) -> str:
        """The heading as part of an address, as GitHub makes it."""
        return slug(self.title)


def slug(title: str) -> str:
    """Convert a heading to the anchor by which links on GitHub reach it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def cut(text: str, deepest: int) -> list[Section]:
    """Cut Markdown at its headings down to a level; deeper headings stay in the text of their section.

    Raises:
        ValueError: text stands above the first heading.
    """
    found: list[tuple[int, str, list[str]]] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading and len(heading[1]) <= deepest:
            found.append((len(heading[1]), heading[2], []))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"{line[:60]!r} stands above the first heading; begin the file with `# Title`")
    return [Section(level, title, "\n".join(lines).strip("\n") + "\n") for level, title, lines in found]


def raised(text: str, by: int) -> str:
    """Move the headings of a text up by some levels."""
    out, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        out.append(line[by:] if not fenced and HEADING.match(line) and line.startswith("#" * (by + 1)) else line)
    return "\n".join(out) + "\n"


def with_links(text: str, target: Callable[[str], str]) -> str:
    """Replace the target of every link outside of code."""
    parts = CODE.split(text)
    # A heading or a label may be code: `](` belongs to the text after it.
    return "".join(part if CODE.fullmatch(part) else LINK.sub(lambda m: m[1] + target(m[2]) + m[3], part) for part in parts)


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings of a text."""
    return {section.slug for section in cut(f"# \n{text}", 6)}
