"""Texts on their way into the site: Markdown, docstrings, links. No Sphinx is needed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from equipot.cli.parser import ANALYSES, WORKFLOWS
from equipot.site.checkout import Checkout
from equipot.site.commands import command_documents
from equipot.site.docstrings import SECTION, inline, to_rest
from equipot.site.guide import Guide
from equipot.site.markdown import cut, raised, with_links
from equipot.site.names import PACKAGE, docs_of, dotted, parsed

ROOT = Path(__file__).resolve().parents[2]
README = """\
# Title

About. See [the file](src/code.py) and [one section](#first-part).

## Set-up

Install.

## Some `code`, and more

    equipot --first line

```python
# no heading [no](link)
```

### First part

A [folder](src), [a picture](src/x.png), [out](https://example.org/a#b), `[no](link)`.

## Last
"""


@pytest.fixture
def checkout(tmp_path):
    """A small repository."""
    for folder in ("configs", "notebooks", "src", "benchmarks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        (tmp_path / name).write_text(f"# {name}\n\n[up](/)\n".replace("[up](/)", ""), encoding="utf-8")
    (tmp_path / "src" / "code.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "src" / "x.png").write_bytes(b"not looked at")
    return Checkout(tmp_path)


def test_markdown_is_cut_at_headings_and_not_at_comments():
    sections = cut(README, 2)
    assert [(section.level, section.slug) for section in sections] == [
        (1, "title"), (2, "set-up"), (2, "some-code-and-more"), (2, "last"),
    ]  # fmt: skip
    assert sections[2].text.startswith("    equipot --first") and "### First part" in sections[2].text
    assert [section.title for section in cut(README, 3)][3] == "First part"
    joined = "".join(f"{'#' * s.level} {s.title}\n{s.text}" for s in cut(README, 3))
    assert joined.split() == README.split(), "a word of the text is lost"
    assert raised("### A\n```\n### B\n```\n", 1) == "## A\n```\n### B\n```\n"
    with pytest.raises(ValueError, match="above the first heading"):
        cut("words\n# Title\n", 1)


def test_links_in_code_stay():
    assert with_links("[a](b) `[a](b)` ![c](b)\n```\n[a](b)\n```", str.upper) == "[a](B) `[a](b)` ![c](B)\n```\n[a](b)\n```"


def test_guide_has_a_page_for_each_section_and_each_file_that_is_linked(checkout):
    guide = Guide(checkout)
    guide.write([])
    made = guide.documents
    assert {"index.md", "guide/some-code-and-more.md", "guide/first-part.md", "guide/last.md"} <= set(made)
    assert "files/src/code.py.md" in made and "x = 1" in made["files/src/code.py.md"]
    assert "(/files/src/code.py.md)" in made["index.md"] and "(/guide/first-part.md)" in made["index.md"]
    assert "Install." in made["index.md"] and "guide/set-up.md" not in made
    assert "(/files/src/index.md)" in made["guide/first-part.md"] and "https://example.org/a#b" in made["guide/first-part.md"]
    assert guide.copies == {"files/src/x.png": checkout.root / "src" / "x.png"}


@pytest.mark.parametrize("link", ["nowhere.md", "../outside", "#no-section", "src/none.py#a"])
def test_a_link_that_leads_nowhere_is_refused(checkout, link):
    checkout.readme.write_text(README + f"\n[broken]({link})\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape("README.md")):
        Guide(checkout).write([])


def test_what_is_missing_without_a_checkout_is_said(tmp_path):
    with pytest.raises(ValueError, match="has no README.md, .*notebooks: an installed package holds the code alone"):
        Checkout(tmp_path)


def test_commands_have_all_options():
    pages = command_documents({"relax": "relax"})
    assert {f"commands/{name}.rst" for name in (*WORKFLOWS, *ANALYSES, "train", "md")} <= set(pages)
    assert ".. option:: -o NAME.eqp, --output NAME.eqp" in pages["commands/guard.rst"]
    assert ".. option:: STRUCTURE" in pages["commands/relax.rst"] and ":doc:`/settings/relax`" in pages["commands/relax.rst"]
    assert ".. option:: --dtype {float32,float64}" in pages["commands/relax.rst"]
    assert r"NAME.eqp\@HEAD" in pages["commands/relax.rst"], "no address of e-mail"


def docstrings(file: Path) -> list[str]:
    """Every docstring of a file of the package, and every string below a constant or a field."""
    nodes = ast.walk(parsed(dotted(file)))
    found = [ast.get_docstring(node) for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    return [text for text in [*found, *docs_of(dotted(file)).values()] if text]


def test_no_docstring_is_taken_for_markup():
    """What docutils understands of a docstring is what is written there: no message, and not a word more or less."""
    docutils, nodes = pytest.importorskip("docutils.core"), pytest.importorskip("docutils.nodes")
    bare = lambda words: re.sub(r"[`\s]|(?m:^ *- )", "", words)
    for file in PACKAGE.rglob("*.py"):
        rest, plain = [], []
        for text in docstrings(file):
            lines = text.splitlines()
            head = next((k for k, line in enumerate(lines) if SECTION.match(line)), len(lines))
            # Sections are left to napoleon: their lines stand for themselves here, but for those with half of some code.
            below = [line.strip() for line in lines[head:] if line.count("``") % 2 == 0]
            rest += [*to_rest(lines[:head]), "", *(f"{inline(line)}\n" for line in below)]
            plain += [*lines[:head], *below]
        document = docutils.publish_doctree("\n".join(rest), settings_overrides={"report_level": 1, "halt_level": 1})
        assert bare(document.astext()) == bare("\n".join(plain)), file.name
        links = [node["refuri"] for node in document.findall(nodes.reference)]
        assert all(link.startswith("https://") for link in links), f"{file.name}: {links}"


def test_formulas_and_tables_keep_their_lines_and_code_is_code():
    text = "Do it::with *x* and ``a_``.\n\n    E = sum_i |k_i|\n\nhost    pairs of\ndevice  a list in   x\n"
    text += "\nArgs:\n    from_: where ``b``_1."
    assert to_rest(text.splitlines()) == [
        r"Do it::with \*x\* and ``a_``.", "", "::", "", "        E = sum_i |k_i|", "",
        "::", "", "    host    pairs of", "    device  a list in   x", "", "", "Args:", r"    from_: where ``b``\ _1.",
    ]  # fmt: skip
    assert inline("arXiv:2106.09685, `equipot x`s") == (
        r"`arXiv:2106.09685 <https://arxiv.org/abs/2106.09685>`__, ``equipot x``\ s"
    )
