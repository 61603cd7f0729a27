"""Tables of relaxations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.markdown import markdown
from benchmarks.relaxation import OPTBENCH, PARTS

SAME = 1e-4
"""Difference of energies (eV) up to which minima are the same."""


def relaxation(results: Sequence[dict[str, Any]]) -> str:
    """One table for each part."""
    tables = []
    for part in PARTS:
        rows = [r for r in results if r["part"] == part]
        if rows:
            tables.append(f"{TITLES[part]}\n\n{of_part(part, rows)}")
    return "\n\n".join(tables)


TITLES = {
    "molecules": "Molecules, displaced by 0.1 Å, to 0.001 eV/Å:",
    "crystals": "Crystals, strained by 3% and displaced by 0.1 Å, cell and atoms, to 0.001 eV/Å and 0.01 GPa:",
    "lj38": "Clusters of 38 Lennard-Jones atoms from random starts, to 0.01 epsilon/sigma on each atom:",
    "many": "Clusters of 10 to 40 Lennard-Jones atoms, to 0.01 epsilon/sigma on each atom:",
}


def of_part(part: str, rows: Sequence[dict[str, Any]]) -> str:
    """Show calls, times and minima of each method; what was skipped is named below."""
    there = [r for r in rows if "skipped" not in r]
    least = lowest(there)
    header = (
        "method",
        "converged",
        "gradient calls, mean",
        "median",
        "most",
        "Hessian products",
        "CPU s",
        "compiling",
        "lowest minimum",
    )
    body = [
        (
            r["method"], f"{r['converged']}/{len(r['names'])}", r.get("calls_mean"), r.get("calls_median"), r.get("calls_most"),
            r.get("products_mean") or None, r["cpu_s"], r.get("compile_s"),
            f"{int((np.array(r['energies_eV'], float) <= least + SAME).sum())}/{len(r['names'])}",
        )
        for r in there
    ]  # fmt: skip
    if part == "lj38":
        body += [
            (f"OptBench: {name}", None, float(mean), None, float(most), None, None, None, None)
            for name, (mean, _, most) in OPTBENCH.items()
        ]
    skipped = "".join(f"\n\n{r['method']}: {r['skipped']}." for r in rows if "skipped" in r)
    return markdown(header, body) + others(there, least) + skipped


def lowest(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return the lowest energy (eV) that any method found of each structure."""
    return np.nanmin([np.array(r["energies_eV"], float) for r in rows], axis=0)


def others(rows: Sequence[dict[str, Any]], least: np.ndarray) -> str:
    """Name the structures of which methods found a higher minimum, as long as they are few."""
    lines = []
    for r in rows:
        higher = [
            f"{name} +{1000 * (energy - low):.3g} meV"
            for name, energy, low in zip(r["names"], r["energies_eV"], least, strict=True)
            if energy > low + SAME
        ]
        if 0 < len(higher) <= 8:
            lines.append(f"- {r['method']}: {', '.join(higher)}")
    return "\n\nHigher minima:\n" + "\n".join(lines) if lines else ""
