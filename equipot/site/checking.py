"""Links of the pages of a site: those inside lead somewhere, those to the outside are listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TARGETS = {"a": "href", "link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}
"""Attributes that hold addresses, by the elements that have them."""
LOADED = ("link", "script", "img", "source", "iframe")
"""Elements whose addresses a browser loads with the page."""


@dataclass(frozen=True)
class Checked:
    """Links of a site."""

    broken: list[str] = field(default_factory=list)
    """Links inside the site that lead nowhere: page and address."""
    outside: dict[str, list[str]] = field(default_factory=dict)
    """Pages that link to an address on the network, by the address. These are not followed."""
    loaded: list[str] = field(default_factory=list)
    """Addresses on the network that a page loads when it is opened: page and address."""
    inside: list[str] = field(default_factory=list)
    """Links inside the site that lead somewhere: page and address."""


class Page(HTMLParser):
    """Anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchor and the link of an element."""
        found = dict(attrs)
        self.anchors |= {value for key, value in attrs if key in ("id", "name") and value}
        if (address := found.get(TARGETS.get(tag, ""))) and found.get("rel") not in ("canonical", "preconnect"):
            self.links.append((tag, address))


def check(site: Path) -> Checked:
    """Check every link of every page in a folder."""
    found = [path.resolve() for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in found}
    result = Checked()
    for path, page in pages.items():
        where = str(path.relative_to(site.resolve()))
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                result.outside.setdefault(address, []).append(where)
                if tag in LOADED:
                    result.loaded.append(f"{where}: {address}")
                continue
            ok = leads_somewhere(path, unquote(parts.path), unquote(parts.fragment), pages)
            (result.inside if ok else result.broken).append(f"{where}: {address}")
    return result


def leads_somewhere(path: Path, name: str, anchor: str, pages: dict[Path, Page]) -> bool:
    """Whether a link of a page leads to a file, and to an anchor that a page has."""
    target = (path.parent / name).resolve() if name else path
    if target not in pages:
        return target.is_file() and not anchor
    return not anchor or anchor in pages[target].anchors
