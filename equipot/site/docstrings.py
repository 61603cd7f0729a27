"""Docstrings, plain text with ``code``, as reStructuredText.

The docstrings of the package are written to be read in an editor. They use three marks: double (or single) backticks around
code, the sections of Google's style (``Args:``, ``Returns:``, ``Raises:``), and indentation for formulas and tables of columns.
All other characters mean themselves, so what reStructuredText would take for markup is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

SECTION = re.compile(r"(Args|Arguments|Attributes|Example|Examples|Note|Raises|Returns|Warns|Yields):$")
CODE = re.compile(r"``(.+?)``|`([^`\n]+)`", re.DOTALL)
PREPRINT = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
COLUMNS = re.compile(r"\S {3,}\S")
"""Two words of a table that is aligned by spaces."""
MARKUP = re.compile(r"[\\*|`@]|(?<=\w)_(?!\w)")
"""Characters with a meaning in reStructuredText, wherever they stand in a line."""
LISTED = re.compile(r"^( *)(?=(?:\w{1,4}[.)]|\(\w{1,4}\)|[-+•])(?: |$))", re.MULTILINE)
"""The place before what would begin a list: a number, a letter or a dash at the beginning of a line."""
OPENING = " \n'\"([{<-/:"
CLOSING = " \n'\")]}>-/:.,;!?\\"
ENTRY = re.compile(r"(\s+[\w.*, ]+: )(.*)")
"""The name of an argument or of an error, and the text behind it."""


def heading(text: str, line: str) -> list[str]:
    """Write a heading with a line of characters below it, by which reStructuredText tells its level."""
    return [text, line * len(text), ""]


def escaped(text: str) -> str:
    """Escape what reStructuredText would take for markup; preprints become links."""
    return PREPRINT.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", MARKUP.sub(r"\\\g<0>", text))


def inline(text: str) -> str:
    """Convert a text without paragraphs: code in single or double backticks stays code, everything else is escaped."""
    parts, end = [], 0
    for found in CODE.finditer(text):
        # Code begins and ends only beside a space or one of some characters; an escaped space is none for the reader.
        before = r"\ " if found.start() and text[found.start() - 1] not in OPENING else ""
        after = r"\ " if found.end() < len(text) and text[found.end()] not in CLOSING else ""
        parts += [escaped(text[end : found.start()]), f"{before}``{(found[1] or found[2]).strip()}``{after}"]
        end = found.end()
    return LISTED.sub(r"\1\\", "".join([*parts, escaped(text[end:])]))


def to_rest(lines: Sequence[str]) -> list[str]:
    """Convert a docstring without its common indentation, line by line, to lines of reStructuredText.

    Sections stay in Google's style, which ``sphinx.ext.napoleon`` converts.
    """
    head = next((k for k, line in enumerate(lines) if SECTION.match(line)), len(lines))
    return [*body(lines[:head]), *sections(lines[head:])]


def body(lines: Sequence[str]) -> list[str]:
    """Convert the text before the sections, paragraph by paragraph."""
    out: list[str] = []
    for blank, group in groupby(lines, key=lambda line: not line.strip()):
        for literal, paragraph in () if blank else runs(list(group)):
            if literal:
                out += ["::", "", *(f"    {line}" for line in paragraph), ""]
            elif paragraph[0].startswith(">>>"):
                out += [*paragraph, ""]
            elif paragraph[0].startswith("- "):
                out += [*(line[:2] + inline(line[2:]) for line in paragraph), ""]
            else:
                out += [*inline("\n".join(paragraph)).split("\n"), ""]
    return out


def runs(paragraph: list[str]) -> list[tuple[bool, list[str]]]:
    """Split a paragraph into text and what keeps its lines: formulas, which are indented, and tables of columns."""
    if paragraph[0].startswith((">>>", "- ")):
        return [(False, paragraph)]
    if len(paragraph) > 1 and 2 * sum(bool(COLUMNS.search(line)) for line in paragraph) > len(paragraph):
        return [(True, paragraph)] if not paragraph[1].startswith(" ") else split(paragraph)
    return split(paragraph)


def split(paragraph: list[str]) -> list[tuple[bool, list[str]]]:
    """Split a paragraph into indented and other lines."""
    return [(literal, list(group)) for literal, group in groupby(paragraph, key=lambda line: line.startswith(" "))]


def sections(lines: Sequence[str]) -> list[str]:
    """Escape the text of sections; names before a colon belong to the section."""
    out = []
    for line in joined_code(lines):
        entry = ENTRY.match(line)
        if SECTION.match(line):
            out += ["", line]
        elif entry:
            out.append(entry[1] + inline(entry[2]))
        else:
            out.append(inline(line))
    return out


def joined_code(lines: Sequence[str]) -> list[str]:
    """Join a line whose code ends only in the next line with it."""
    out: list[str] = []
    for line in lines:
        if out and out[-1].count("``") % 2:
            out[-1] = f"{out[-1]} {line.strip()}"
        else:
            out.append(line)
    return out
