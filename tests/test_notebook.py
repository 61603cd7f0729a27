"""The notebooks run, cut short, and what people read was made from the texts that the tests run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compilation import QUICK

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "notebooks" / f"{name}.py" for name in ("tutorial", "polar", "uncertainty", "crystal", "reaction")]
REMEDY = "the notebook is older than its text: python notebooks/execute.py"
texts = pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])


def cells_of_text(text: Path) -> list[tuple[str, str]]:
    """Kind and source of each cell of the percent format."""
    _, *parts = re.split(r"^# %%(.*)\n", text.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for mark, body in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in mark:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(("markdown" if "[markdown]" in mark else "code", body.strip()))
    return cells


def cells_of_notebook(text: Path) -> list[dict]:
    return json.loads(text.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]


def test_every_text_has_its_notebook():
    found = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == {text.stem for text in TEXTS}


@texts
def test_notebook_and_text_are_the_same(text):
    found = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells_of_notebook(text)]
    assert found == cells_of_text(text), REMEDY


@texts
def test_notebook_holds_the_outputs_of_one_clean_run(text):
    code = [cell for cell in cells_of_notebook(text) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), REMEDY
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 4
    whole = text.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(whole) < 1_000_000 and str(Path.home()) not in whole


def run(text: Path, folder: Path, **variables: str) -> str:
    """What a notebook's text prints, cut short."""
    environment = {**os.environ, "EQUIPOT_TUTORIAL_FAST": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(text)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_tutorial_runs(tmp_path):
    printed = run(TEXTS[0], tmp_path)
    deviation = re.search(r"deviation from differences +(\S+) eV", printed)
    assert float(deviation.group(1)) < 1e-3
    spread = [float(x) for x in re.findall(r"total energy +(\S+) meV standard deviation", printed)]
    assert len(spread) == 4 and spread[2] < spread[1] < spread[0]
    assert (tmp_path / "runs" / "tutorial" / "nve" / "md.png").exists()


@pytest.mark.slow
def test_polar_molecules_run(tmp_path):
    printed = run(TEXTS[1], tmp_path)
    moment, slope = (float(re.search(rf"{label} +(\S+) e Å", printed).group(1)) for label in ("along the axis", "by the field"))
    assert moment == pytest.approx(slope, abs=2e-4)
    assert float(re.search(r"over that of point dipoles: (\S+)", printed).group(1)) == pytest.approx(1, abs=0.02)
    free, wide, tight = (float(x) for x in re.findall(r"limits.*: dipole moment +(\S+) e Å", printed))
    assert abs(tight) < abs(wide) <= abs(free)


@pytest.mark.slow
def test_uncertainty_runs(tmp_path):
    printed = run(TEXTS[2], tmp_path)
    held = re.findall(r"^(last layer|norm of features) +test .* (\d+)% +\S+$", printed, flags=re.MULTILINE)
    assert len(held) == 4 and all(abs(int(share) - 90) <= 8 for _, share in held)
    new, outside = re.search(r"novelty above 1: (\d+) of (\d+) outside", printed).groups()
    assert new == outside
    deviations = [float(x) for x in re.findall(r"^(?:anti - gauche|C-O) .* ± (\S+) ", printed, flags=re.MULTILINE)]
    assert len(deviations) == 2 and all(x > 0 for x in deviations)
    assert (tmp_path / "runs" / "uncertainty" / "md" / "log.csv").exists()


NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"


def numbers(pattern: str, printed: str) -> list[tuple[float, ...]]:
    """Numbers of every line that a pattern finds, whose gaps are written as #."""
    found = re.findall(re.escape(pattern).replace(r"\ ", r"\s+").replace(r"\#", NUMBER), printed)
    assert found, f"{pattern!r} is not in what the notebook prints"
    return [tuple(map(float, line if isinstance(line, tuple) else (line,))) for line in found]


@pytest.mark.slow
def test_crystal_runs(tmp_path):
    """What is printed beside each other agrees: the potential's numbers, and those of pencil and paper."""
    printed = run(TEXTS[3], tmp_path, XLA_FLAGS=QUICK)
    for pattern, tolerance in (
        ("lattice constant # Å, pencil and paper #", 1e-5),
        ("energy per atom # eV, pencil and paper #", 1e-5),
        ("bulk modulus # GPa, pencil and paper #", 5e-3),
        ("optical modes at Γ # THz, pencil and paper #", 1e-4),
    ):
        ((found, paper),) = numbers(pattern, printed)
        assert found == pytest.approx(paper, rel=tolerance), pattern
    table = [numbers(f"\n{name} # # ", printed)[0] for name in ("C11", "C12", "C44", "C44, atoms clamped")]
    assert all(found == pytest.approx(paper, rel=1e-4) for found, paper in table)
    ((gain,),) = numbers(" becomes P6_3/mmc (194): # eV per atom lower", printed)
    ((expected,),) = numbers("pencil and paper: # eV, from", printed)
    assert gain == pytest.approx(expected, rel=1e-3)
    ((slope, young),) = numbers("slope at the beginning # GPa, Young's modulus along [100] #", printed)
    assert slope == pytest.approx(young, rel=0.05)


@pytest.mark.slow
def test_reaction_runs(tmp_path):
    """Numbers agree with those of ASE, of tables and of publications."""
    printed = run(TEXTS[4], tmp_path, XLA_FLAGS=QUICK)
    ((x, y, x_known, y_known),) = numbers("saddle point [# #], published (#, #)", printed)
    assert (x, y) == pytest.approx((x_known, y_known), abs=2e-6)
    ((ours, ases),) = numbers("barrier # eV, by ASE #", printed)
    assert ours == pytest.approx(ases, abs=1e-3)
    ((ours,),), ((ases,),) = numbers("prefactor # THz, imag", printed), numbers("prefactor # THz by dif", printed)
    assert ours == pytest.approx(ases, rel=0.01)
    assert numbers("eV/Å, energy #", printed) == [pytest.approx((-44.326801,), abs=2e-6)]
    entropies = numbers("K: entropy # J/K/mol, tables #;", printed)
    assert len(entropies) == 4 and all(found == pytest.approx(known, abs=0.5) for found, known in entropies)
    ((peak,),) = numbers("first peak of g(r) at # Å", printed)
    assert peak == pytest.approx(3.7, abs=0.2)
    # Whether 125 atoms diffuse within 100 ps depends on the rounding of the machine; where they do not, the page says so.
    if "displacements are not diffusive" not in printed:
        ((coefficient, error),) = numbers("D = (# +- #) 1e-5", printed)
        assert 1 < coefficient < 4 and 0 < error < 1
