"""The script of chemiscope, which shows structures in three dimensions, from the installed package.

chemiscope (https://chemiscope.org, 3-clause BSD) ships its viewer as one script, which is copied into a page together with the
licences of chemiscope and of the libraries in it. No file of chemiscope is a part of equipot, and its modules are not imported.
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from equipot.pages.markup import packed

SCRIPT = "chemiscope/sphinx/static/chemiscope.min.js"
NOTICES = ("chemiscope/static/chemiscope-widget.mjs.LICENSE.txt", "LICENSE")
"""Ends of the paths of licence texts in the package: of the libraries in the script, and of chemiscope."""
REMEDY = "pip install 'equipot[viewer]', and write the page again"


def installed() -> Distribution | None:
    """Return chemiscope as it is installed; None where it is not."""
    try:
        return distribution("chemiscope")
    except PackageNotFoundError:
        return None


def missing() -> str:
    """Say in a sentence why there is no viewer, and how to get one; empty where there is one."""
    found = installed()
    if found is None:
        return f"The 3-D viewer needs the package chemiscope: {REMEDY}."
    if not Path(str(found.locate_file(SCRIPT))).is_file():
        return f"chemiscope {found.version} has no script {SCRIPT}; the 3-D viewer needs a version that has: {REMEDY}."
    return ""


@cache
def elements() -> tuple[str, ...]:
    """Write the script, compressed, and the licences that it comes under, as elements of a page.

    Raises:
        OSError: chemiscope is not installed, or its script cannot be read.
    """
    found = installed()
    if found is None:
        raise FileNotFoundError(missing())
    text = Path(str(found.locate_file(SCRIPT))).read_text(encoding="utf-8")
    paths = [str(path) for path in found.files or () if str(path).endswith(NOTICES)]
    notices = "\n\n".join(Path(str(found.locate_file(path))).read_text(encoding="utf-8") for path in sorted(paths))
    licence = f"The viewer in this page is chemiscope {found.version}, https://chemiscope.org\n\n{notices}"
    return (
        f"<details>\n<summary>Licences of the viewer</summary>\n<pre>{escape(licence)}</pre>\n</details>",
        f'<script type="text/plain" id="chemiscope">{packed(text)}</script>',
    )
