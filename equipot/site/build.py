"""Build the site: sources from the checkout, pages from Sphinx, and the folder of the site from both at once."""

from __future__ import annotations

import importlib
import io
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipot import __version__
from equipot.site.api import api_documents
from equipot.site.checkout import Checkout
from equipot.site.commands import command_documents
from equipot.site.guide import Guide
from equipot.site.settings import roots
from equipot.site.settings_pages import settings_documents

MARK = "objects.inv"
"""A file that every site has and hardly any other folder: only a folder with this file is replaced."""
STYLE = Path(__file__).with_name("site.css")
PACKAGES = ("sphinx", "myst_nb", "pydata_sphinx_theme")
"""Packages of the extra ``docs``."""
OPTIONS: Mapping[str, Any] = {
    "project": "equipot",
    "version": __version__,
    "release": __version__,
    "copyright": "the authors of equipot, MIT licence",
    # Followed to where they are defined, names of two modules share one link back from their source, which is wrong for one.
    "viewcode_follow_imported_members": False,
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "equipot.site.extension"],
    "language": "en",
    "smartquotes": False,
    "root_doc": "index",
    "highlight_language": "text",
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "myst_heading_anchors": 4,
    "myst_enable_extensions": ["dollarmath"],
    "myst_dmath_allow_space": False,
    "myst_dmath_allow_digits": False,
    "html_math_renderer": "mathml",
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "toc_object_entries_show_parents": "hide",
    "python_maximum_signature_line_length": 100,
    "napoleon_numpy_docstring": False,
    "napoleon_use_rtype": False,
    "html_theme": "pydata_sphinx_theme",
    "html_title": "equipot",
    "html_context": {"default_mode": "auto"},
    "html_static_path": ["_static"],
    "html_css_files": [STYLE.name],
    "html_sidebars": {page: [] for page in ("index", "changelog", "contributing", "files/**")},
    "html_show_sourcelink": False,
    "html_copy_source": False,
    "html_theme_options": {
        "logo": {"text": "equipot"},
        "navigation_with_keys": False,
        "show_toc_level": 1,
        "header_links_before_dropdown": 6,
        "navbar_end": ["theme-switcher"],
        "footer_start": ["copyright"],
        "footer_end": [],
    },
}
"""Settings of Sphinx."""


def documents(checkout: Checkout) -> Guide:
    """Return the sources of all pages, and the files that are copied beside them.

    Raises:
        ValueError: a text of the repository links to a file that does not exist.
    """
    guide = Guide(checkout)
    guide.write(["settings/index", "commands/index", "api/index"])
    settings = {"train": "training", "evaluate": "data"} | {root.slug: root.slug for root in roots()}
    made = {**settings_documents(), **command_documents(settings), **api_documents()}
    return Guide(checkout, guide.documents | made, guide.copies)


def build(checkout: Checkout, out: Path) -> None:
    """Build the site into the folder ``out``, which holds the old site or the new one at any time.

    Raises:
        ValueError: ``out`` holds something else than a site, a link of a text leads nowhere, or Sphinx warns of something.
        ModuleNotFoundError: the extra ``docs`` is not installed.
    """
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and holds no site; choose another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        sources = Path(folder) / "sources"
        write_sources(documents(checkout), sources)
        run_sphinx(sources, Path(folder) / "html", Path(folder) / "doctrees")
        if out.exists():
            out.rename(Path(folder) / "old")
        (Path(folder) / "html").rename(out)


def write_sources(guide: Guide, folder: Path) -> None:
    """Write sources of pages and copied files into a folder."""
    for name, text in guide.documents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for name, path in guide.copies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / "_static").mkdir()
    shutil.copyfile(STYLE, folder / "_static" / STYLE.name)


def run_sphinx(sources: Path, html: Path, doctrees: Path, builder: str = "html") -> None:
    """Make pages of sources.

    Raises:
        ValueError: Sphinx has warned; the message holds all warnings.
        ModuleNotFoundError: the extra ``docs`` is not installed.
    """
    for package in PACKAGES:
        importlib.import_module(package)
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            sources, None, html, doctrees, builder,
            confoverrides=dict(OPTIONS), status=None, warning=warnings, freshenv=True,
        )  # fmt: skip
        app.build(force_all=True)
    if said := re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue()).replace(f"{sources}/", "").strip():
        raise ValueError(f"{len(said.splitlines())} lines of warnings of Sphinx:\n{said}")
