"""The built site: a small one in the fast tests; the whole one, with every public name and every key, in a slow one."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import pytest
from browser import ask, needs_browser

from equipot.site import build as building
from equipot.site.__main__ import main
from equipot.site.checking import check
from equipot.site.checkout import Checkout
from equipot.site.guide import Guide
from equipot.site.names import public_modules, public_names

for package in building.PACKAGES:
    pytest.importorskip(package, reason=f"the site needs {package}: pip install '.[docs]'")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A notebook\n", "\n", "With $a^2 = \\frac{1}{2}$."]},
        {
            "cell_type": "code", "id": "b", "metadata": {}, "execution_count": 1, "source": ["print(6 * 7)"],
            "outputs": [{"name": "stdout", "output_type": "stream", "text": ["stored, not run\n"]}],
        },
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip
README = """\
# Title

Words, and [a notebook](notebooks/a.ipynb), [code](configs/a.yaml), [a section](#more).

## First

    equipot data x.xyz       # a comment

## More

    from x import y

[out](https://example.org)
"""

LOOK = """
addEventListener("load", () => setTimeout(() => answer([
  document.querySelector("h1").innerText,
  document.querySelectorAll("math").length,
  document.documentElement.scrollWidth - innerWidth,
]), 300));
"""
"""Title, number of formulas, and by how much a page is wider than its window, after the scripts of the theme have run."""


def inventory(site: Path) -> dict[str, set[str]]:
    """Names in objects.inv by their kind, such as ``py:class``: four lines of text, then lines of a compressed text."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    found: dict[str, set[str]] = {}
    for line in zlib.decompress(content).decode().splitlines():
        # A name may have spaces: the kind follows the first of them that is a domain with a kind.
        words = line.split(" ")
        at = next(k for k, word in enumerate(words) if ":" in word and k and words[k + 1].lstrip("-").isdigit())
        found.setdefault(words[at], set()).add(" ".join(words[:at]))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The guide of a small repository, built."""
    root = tmp_path_factory.mktemp("small")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"# {name}\n", encoding="utf-8")
    for name, text in (("README.md", README), ("notebooks/a.ipynb", json.dumps(NOTEBOOK)), ("configs/a.yaml", "key: 1\n")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    guide = Guide(Checkout(root))
    guide.write([])
    setting = ".. setting:: a.b.Class.key key: number = 1.0\n\n   Words.\n"
    guide.documents["set.rst"] = f":orphan:\n\nSettings\n========\n\n{setting}\nSee :setting:`a.b.Class.key`.\n"
    building.write_sources(guide, root / "sources")
    building.run_sphinx(root / "sources", root / "html", root / "doctrees")
    return root


def test_small_site_is_whole(small):
    checked = check(small / "html")
    assert checked.broken == checked.loaded == [] and len(checked.inside) > 20
    assert checked.outside["https://example.org"] == ["guide/more.html"]
    page = (small / "html" / "notebooks" / "a.html").read_text(encoding="utf-8")
    assert "stored, not run" in page and "<math" in page
    assert "highlight-bash" in (small / "html" / "index.html").read_text(encoding="utf-8")
    assert "highlight-python" in (small / "html" / "guide" / "more.html").read_text(encoding="utf-8")
    assert inventory(small / "html")["std:setting"] == {"a.b.Class.key"}


def test_links_that_lead_nowhere_are_found(small, tmp_path):
    (tmp_path / "b.html").write_text('<p id="here">', encoding="utf-8")
    links = ["b.html#here", "b.html#there", "none.html", "#x", "mailto:a@b.c", "//cdn.org/x"]
    text = "".join(f'<a href="{link}"></a>' for link in links) + '<script src="https://cdn.org/x.js"></script>'
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    checked = check(tmp_path)
    assert checked.broken == ["a.html: b.html#there", "a.html: none.html", "a.html: #x"]
    assert checked.inside == ["a.html: b.html#here"]
    assert list(checked.outside) == ["//cdn.org/x", "https://cdn.org/x.js"] and checked.loaded == [
        "a.html: https://cdn.org/x.js"
    ]


def test_a_warning_is_an_error(small, tmp_path):
    (tmp_path / "sources" / "_static").mkdir(parents=True)
    (tmp_path / "sources" / "_static" / "site.css").write_text("")
    (tmp_path / "sources" / "index.rst").write_text("Title\n=====\n\n:ref:`nowhere`\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"index.rst:4: WARNING: undefined label: 'nowhere'"):
        building.run_sphinx(tmp_path / "sources", tmp_path / "html", tmp_path / "doctrees")


def test_another_folder_is_not_replaced(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("")
    assert main(["--out", str(tmp_path), "--source", str(ROOT)]) == 2
    assert "holds no site" in capsys.readouterr().err and (tmp_path / "mine.txt").exists()


def test_what_is_missing_is_said(tmp_path, monkeypatch, capsys):
    assert main(["--out", str(tmp_path / "out"), "--source", str(tmp_path)]) == 2
    assert "needs the repository" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    with pytest.raises(ModuleNotFoundError):
        building.run_sphinx(tmp_path, tmp_path, tmp_path)


@needs_browser
def test_small_site_runs_without_complaints(small):
    title, formulas, wider = ask(small / "html" / "notebooks" / "a.html", LOOK)
    assert title.startswith("A notebook") and formulas == 1 and wider <= 0


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site."""
    out = tmp_path_factory.mktemp("site") / "site"
    assert main(["--out", str(out), "--check"]) == 0
    return out


@pytest.mark.slow
def test_every_public_name_and_every_key_is_in_the_inventory(site):
    from equipot import config
    from equipot.site import settings

    found = inventory(site)
    python = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    assert python >= {f"{module}.{name.name}" for module in public_modules() for name in public_names(module)}
    for cls in (cls for _, classes in settings.pages() for cls in classes if not settings.is_open(cls)):
        assert found["std:setting"] >= {f"{cls.__module__}.{cls.__qualname__}.{key}" for key in config.fields(cls)}


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    "page",
    ["index", "guide/uncertainty", "notebooks/tutorial", "settings/training", "commands/relax", "api/equipot", "changelog"],
)
def test_pages_run_without_complaints(site, page):
    title, _, wider = ask(site / f"{page}.html", LOOK)
    assert title and wider <= 0, "the page itself scrolls sideways"
