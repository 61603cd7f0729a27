"""The guide: the README, cut at its headings into pages, and the other texts of the repository, with links to each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from equipot.site.checkout import Checkout
from equipot.site.markdown import Section, cut, raised, with_links

SHOWN = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".css": "css", ".js": "javascript"}
"""Endings of files that get a page with their text, and the language in which it is coloured. All other files are copied."""
ORPHAN = "---\norphan: true\n---\n"
"""Head of a page that no list of contents names."""
FENCE = "`````"
"""Longer than any fence in a file that is shown."""
TOCTREE = "```{toctree}\n:maxdepth: %d\n%s\n```\n"


def toctree(documents: list[str], depth: int = 1) -> str:
    """Write a list of contents, of documents without their endings."""
    return TOCTREE % (depth, "\n".join(["", *documents]))


@dataclass(frozen=True)
class Guide:
    """Pages of a checkout; a page that another one links to is made as soon as the link is found."""

    checkout: Checkout
    """Where the texts come from."""
    documents: dict[str, str] = field(default_factory=dict)
    """Sources of the pages, by their file in the sources of the site."""
    copies: dict[str, Path] = field(default_factory=dict)
    """Files that are copied, by their file in the sources of the site."""

    def sections(self) -> list[Section]:
        """Return title, sections and subsections of the README."""
        return cut(self.checkout.readme.read_text(encoding="utf-8"), 3)

    def page_of_section(self, anchor: str) -> str:
        """Return the address of a section of the README.

        Raises:
            ValueError: the README has no such section.
        """
        title, first, *others = self.sections()
        if anchor in (title.slug, first.slug, ""):
            return f"/index.md#{anchor}".removesuffix("#")
        if anchor not in [section.slug for section in others]:
            raise ValueError(f"README.md has no section #{anchor}; mend the link")
        return f"/guide/{anchor}.md"

    def target(self, link: str, file: Path) -> str:
        """Return what a link in a file of the repository becomes in the site; pages and copies that it needs are made.

        Raises:
            ValueError: there is no such file, or it is outside of the repository.
        """
        if "://" in link or link.startswith("mailto:"):
            return link
        name, _, anchor = link.partition("#")
        path = (file.parent / name).resolve() if name else file
        where = file.relative_to(self.checkout.root)
        if not path.is_relative_to(self.checkout.root) or not path.exists():
            raise ValueError(f"{where} links to {link}, which is no file of the repository; mend the link")
        if path == self.checkout.readme:
            return self.page_of_section(anchor)
        return self.page_of(path) + (f"#{anchor}" if anchor else "")

    def page_of(self, path: Path) -> str:
        """Return the address of a file or folder of the repository; its page or copy is made if there is none."""
        relative = path.relative_to(self.checkout.root)
        if path.is_dir():
            if (path / "README.md").exists():
                return self.page_of(path / "README.md")
            return self.make(f"files/{relative}/index.md", lambda: self.listing(path))
        if path.suffix == ".md":
            name = f"{relative.stem.lower()}.md" if len(relative.parts) == 1 else f"files/{relative}"
            return self.make(name, lambda: self.converted(path))
        if path.suffix == ".ipynb":
            return self.make(str(relative), lambda: self.notebook(path))
        if path.suffix in SHOWN:
            return self.make(f"files/{relative}.md", lambda: self.shown(path))
        self.copies[f"files/{relative}"] = path
        return f"/files/{relative}"

    def make(self, name: str, text: Callable[[], str]) -> str:
        """Make a page unless there is one of its name; return its address."""
        if name not in self.documents:
            # Reserved before it is made: pages link to each other.
            self.documents[name] = ""
            self.documents[name] = text()
        return f"/{name}"

    def converted(self, path: Path) -> str:
        """Convert a Markdown file."""
        return with_links(path.read_text(encoding="utf-8"), lambda link: self.target(link, path))

    def notebook(self, path: Path) -> str:
        """Convert a notebook: links in its texts are replaced, outputs stay what they are."""
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                cell["source"] = with_links(text, lambda link: self.target(link, path))
        return json.dumps(notebook)

    def shown(self, path: Path) -> str:
        """Write the page of a file whose text is shown."""
        text = path.read_text(encoding="utf-8")
        return f"{ORPHAN}# {path.relative_to(self.checkout.root)}\n\n{FENCE}{SHOWN[path.suffix]}\n{text}\n{FENCE}\n"

    def listing(self, folder: Path) -> str:
        """Write the page of a folder: its files, with links to those that are shown."""
        lines = [f"{ORPHAN}# {folder.relative_to(self.checkout.root)}", ""]
        for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(("__", "."))):
            shown = path.suffix in SHOWN
            lines.append(f"- [{path.name}]({self.page_of(path)})" if shown else f"- {path.name}")
        return "\n".join(lines) + "\n"

    def write(self, others: list[str]) -> None:
        """Make the pages of README and notebooks, and the front page, whose contents end with the documents ``others``."""
        title, first, *_ = self.sections()
        self.write_sections()
        names = [path.stem for path in self.checkout.notebooks]
        for notebook in self.checkout.notebooks:
            self.page_of(notebook)
        self.make("notebooks/index.md", lambda: "# Notebooks\n\n" + toctree(names))
        for name in ("benchmarks", "CONTRIBUTING.md", "CHANGELOG.md"):
            others = [*others, self.page_of(self.checkout.root / name).removeprefix("/").removesuffix(".md")]
        front = f"# {title.title}\n\n{self.linked(title)}\n## {first.title}\n\n{self.linked(first)}\n## Contents\n\n"
        self.make("index.md", lambda: front + toctree(["guide/index", "notebooks/index", *others], depth=2))

    def write_sections(self) -> None:
        """Make a page of each section of the README but the first one, and one that lists them."""
        sections = self.sections()[2:]
        parents = [k for k, section in enumerate(sections) if section.level == 2]
        for k, end in zip(parents, [*parents[1:], len(sections)], strict=True):
            children = sections[k + 1 : end]
            for section in (sections[k], *children):
                text = f"# {section.title}\n\n{self.linked(section)}"
                contents = "\n" + toctree([child.slug for child in children]) if section is sections[k] and children else ""
                self.documents[f"guide/{section.slug}.md"] = text + contents
        self.documents["guide/index.md"] = "# Guide\n\n" + toctree([sections[k].slug for k in parents], depth=2)

    def linked(self, section: Section) -> str:
        """Return the text of a section of the README as that of a page, with its links replaced."""
        return with_links(raised(section.text, section.level - 1), lambda link: self.target(link, self.checkout.readme))
