"""The tutorial runs, cut short, and the notebook that people read was made from the text that the tests run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "notebooks" / "tutorial.py"
NOTEBOOK = TEXT.with_suffix(".ipynb")
REMEDY = "the notebook is older than its text: python notebooks/execute.py"


def cells_of_text() -> list[tuple[str, str]]:
    """Kind and source of each cell of the percent format."""
    _, *parts = re.split(r"^# %%(.*)\n", TEXT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for mark, body in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in mark:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(("markdown" if "[markdown]" in mark else "code", body.strip()))
    return cells


def cells_of_notebook() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_notebook_and_text_are_the_same():
    found = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells_of_notebook()]
    assert found == cells_of_text(), REMEDY


def test_notebook_holds_the_outputs_of_one_clean_run():
    code = [cell for cell in cells_of_notebook() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), REMEDY
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 6
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000 and str(Path.home()) not in text


@pytest.mark.slow
def test_tutorial_runs(tmp_path):
    environment = {**os.environ, "EQUIPOT_TUTORIAL_FAST": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(TEXT)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    deviation = re.search(r"deviation from differences +(\S+) eV", done.stdout)
    assert float(deviation.group(1)) < 1e-3
    spread = [float(x) for x in re.findall(r"total energy +(\S+) meV standard deviation", done.stdout)]
    assert len(spread) == 4 and spread[2] < spread[1] < spread[0]
    assert (tmp_path / "runs" / "tutorial" / "nve" / "md.png").exists()
