"""Write blocks as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from equipot import __version__
from equipot.files import write_atomically
from equipot.pages.block import Block
from equipot.pages.markup import asset

FEWEST_LISTED = 4
"""Number of blocks from which a page begins with a list of its headings."""


def write_page(path: Path, title: str, blocks: Sequence[Block]) -> Path:
    """Write a page without links to other files, atomically; its folder is made where there is none.

    Args:
        path: File of the page.
        title: Heading of the page, plain text as all headings are.
        blocks: Blocks in their order.

    Returns:
        The path of the page.

    Raises:
        ValueError: a picture that is no PNG file.
        OSError: a picture cannot be read, or the page cannot be written; an older page is kept.
    """
    content = page_html(title, blocks)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.encode())
    return path


def try_to_write_page(
    path: Path, title: str, blocks: Callable[[], Sequence[Block]], say: Callable[[str], object]
) -> Path | None:
    """Write the page of finished work, which must not be lost with its page: where that fails, say why, and return None.

    Args:
        path: File of the page.
        title: Heading of the page.
        blocks: Function that makes the blocks.
        say: Function that shows a line to the user.
    """
    try:
        return write_page(path, title, blocks())
    except Exception as error:
        # Whatever the reason is: the results stand in other files already.
        say(f"warning: {path} could not be written ({type(error).__name__}: {error}); all other results are there")
        return None


def page_html(title: str, blocks: Sequence[Block]) -> str:
    """Write a page: style, list of headings, blocks, and the scripts that the blocks need, each once."""
    sections = []
    for k, block in enumerate(blocks, 1):
        kind = f' class="{block.style}"' if block.style else ""
        sections.append(f'<section id="s{k}"{kind}>\n<h2>{escape(block.heading)}</h2>\n{block.html()}\n</section>')
    links = "\n".join(f'<a href="#s{k}">{escape(block.heading)}</a>' for k, block in enumerate(blocks, 1))
    listed = [f"<nav>\n{links}\n</nav>"] if len(blocks) >= FEWEST_LISTED else []
    scripts = dict.fromkeys(element for block in blocks for element in block.scripts)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>\n{asset('page.css')}</style>\n</head>\n<body>",
        f"<header>\n<h1>{escape(title)}</h1>",
        *listed,
        "</header>\n<main>",
        *sections,
        "</main>",
        *scripts,
        f"<footer>equipot {__version__}</footer>",
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)
