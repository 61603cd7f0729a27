"""Workflow commands as users type them: files in; exit code, results, page and messages out."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from page_reader import Reader, read

from equipot.cli import main
from equipot.workflows.journal import Journal

UNIT = re.compile(
    r"_(eV|meV|A|A2|A3|GPa|K|THz|fs|ps|amu|e|deg|Pa|km|cm2|W|J|kJ|mPa)(_|$)|_per_(THz|cm|s|K|A|A2|A3|atom)(_|$)"
    r"|_g_cm3$|^[0-9.]+_K$"
)
"""A unit in the name of a result."""
PURE = {
    "converged", "evaluations", "hessian_products", "gradients", "atoms", "is_stable", "soft_modes", "failed_at_strain",
    "strains", "bulk_modulus_derivative", "poisson_ratio_hill", "universal_anisotropy", "chance_to_be_first",
    "climbing_image", "order_checked", "symmetry_broken", "samples", "independent", "coefficients", "frames", "g",
    "coordination", "quality", "segments", "mean", "error", "Ar", "Ne", "Cu", "atoms_of_supercell", "dielectric_tensor",
    "supercell_matrix_columns", "numbers", "share_at_boundary", "displacements", "wave_vectors", "point", "band",
    "share_of_imaginary_modes", "gruneisen", "components_are_with_mass_fluxes", "symmetry_number", "linear",
}  # fmt: skip
"""Results without a unit: counts, shares, strains, answers; mean and error of a quantity that is named above them."""


class Typed(NamedTuple):
    """What a command left."""

    code: int
    told: Any
    """Content of NAME.json; None where there is none."""
    page: Reader | None
    out: str
    """Standard output."""
    err: str

    @property
    def alarms(self) -> str:
        """Text of the page in its paragraphs."""
        return " ".join(self.page.text.get("p", []))


def typed(capsys, name: str, *argv: Any, out: Path, settings: tuple[str, ...] = ()) -> Typed:
    """Run ``equipot NAME ARGV --out OUT --set ...``."""
    capsys.readouterr()
    options = [word for text in settings for word in ("--set", text)]
    code = main([name, *map(str, argv), "--out", str(out), *options])
    said = capsys.readouterr()
    result, page = out / f"{name}.json", out / f"{name}.html"
    told = json.loads(result.read_text(), parse_constant=lambda constant: 1 / 0) if result.exists() else None
    return Typed(code, told, read(page) if page.exists() else None, said.out, said.err)


def without_unit(told: Any, above: str = "") -> set[str]:
    """Names of numbers whose unit is not told."""
    if isinstance(told, dict):
        return {name for key, inner in told.items() if key != "settings" for name in without_unit(inner, key)}
    if isinstance(told, list):
        return {name for inner in told for name in without_unit(inner, above)}
    number = isinstance(told, int | float) and not isinstance(told, bool)
    return {above} if number and above not in PURE and not UNIT.search(above) else set()


def interrupt_after(monkeypatch, pieces: int, number: int = signal.SIGINT) -> list[Any]:
    """Send this process a signal as soon as so many pieces of work are kept; returns the list of the names of kept pieces."""
    kept, add = [], Journal.add

    def adding(self, name, result):
        add(self, name, result)
        kept.append(name)
        if len(kept) == pieces:
            signal.raise_signal(number)

    monkeypatch.setattr(Journal, "add", adding)
    return kept


def assert_alike(a: Any, b: Any, rel: float = 1e-6, atol: float = 1e-8, counts: int = 0, path: str = "") -> None:
    """Results are equal: texts and answers exactly, integers but for ``counts``, other numbers but for rounding."""
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), f"{path}: {a} and {b}"
        for key in a:
            assert_alike(a[key], b[key], rel, atol, counts, f"{path}.{key}")
    elif isinstance(a, list):
        assert isinstance(b, list) and len(a) == len(b), f"{path}: {a} and {b}"
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_alike(x, y, rel, atol, counts, f"{path}[{k}]")
    elif isinstance(a, float) and isinstance(b, float):
        np.testing.assert_allclose(a, b, rtol=rel, atol=atol, err_msg=path)
    elif isinstance(a, int) and isinstance(b, int):
        assert abs(a - b) <= counts, f"{path}: {a} and {b}"
    else:
        assert a == b, f"{path}: {a} and {b}"
