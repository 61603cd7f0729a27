"""A headless Chromium for tests of pages: what a page looks like after its scripts have run, and what it complains of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")

COLLECT = """<script>
window.complaints = [];
addEventListener("error", (event) => complaints.push(String(event.message)));
addEventListener("unhandledrejection", (event) => complaints.push(String(event.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...words) => complaints.push(words.join(" "));
window.answer = (value) => {
  const element = document.createElement("pre");
  element.id = "answer";
  element.textContent = JSON.stringify({ value, complaints });
  document.body.append(element);
};
</script>"""


def chromium(page: Path, *flags: str, size: tuple[int, int] = (1100, 900), virtual_ms: int = 4000) -> str:
    """Open a page; return the standard output."""
    assert PROGRAM is not None
    fixed = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars"]
    fixed += [
        f"--virtual-time-budget={virtual_ms}",
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    # No network: a page that asks for anything would fail.
    fixed += ["--proxy-server=127.0.0.1:9", "--no-first-run", "--disable-background-networking"]
    done = subprocess.run([PROGRAM, *fixed, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def ask(page: Path, script: str, **options):
    """Run a script, which calls ``answer(value)``, in a page after the scripts of the page; return the value.

    The page must not have complained of anything.
    """
    text = page.read_text(encoding="utf-8")
    copy = page.with_name(f"asked-{page.name}")
    text = text.replace("<head>", f"<head>\n{COLLECT}", 1)
    head, _, tail = text.rpartition("</body>")
    copy.write_text(f"{head}<script>{script}</script></body>{tail}", encoding="utf-8")
    dom = chromium(copy, "--dump-dom", **options)
    found = re.search(r'<pre id="answer"[^>]*>(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the script gave no answer; the page is {len(dom)} characters long"
    told = json.loads(unescape(found[1]))
    assert told["complaints"] == []
    return told["value"]


def screenshot(page: Path, path: Path, **options):
    """Return what a page looks like as an array of pixels, (height, width, 3)."""
    import numpy as np
    from PIL import Image

    chromium(page, f"--screenshot={path}", **options)
    return np.asarray(Image.open(path).convert("RGB"))
