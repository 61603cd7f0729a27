"""Tables of the item ``crystals``: potentials side by side, beside density-functional theory and experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.markdown import markdown

TITLES = {
    "elastic": "Lattice and elastic constants, with the atoms relaxed, without zero-point motion",
    "phonons": "Phonons, without the splitting of LO and TO modes (none of these potentials has charges)",
    "vacancies": "Vacancies, relaxed in cells that stay",
    "barriers": "Jumps of a vacancy to a neighbouring place: exact saddle points",
    "polymorphs": "Polymorphs, relaxed with their cells: energies above the reference, per atom, of TiO2 per formula unit",
}
COMPARED: dict[str, tuple[tuple[str, ...], int]] = {
    "C11 and C12": (("C11", "C12"), 1), "C44": (("C44", "C44 clamped"), 1),
    "frequencies squared": (("optical at Gamma", "highest"), 2),
    "vacancies": (("vacancy formation", "vacancy migration"), 1),
}  # fmt: skip
"""Quantities whose ratios to those of DFT are averaged, and the power of them that is a second derivative of the energy."""


def crystals(results: Sequence[dict[str, Any]]) -> str:
    """Write a table for each part, the means of curvatures over those of DFT, sources and failures."""
    models = list(dict.fromkeys(line["model"] for line in results))
    found = [table(part, [line for line in results if line["part"] == part], models) for part in TITLES]
    return "\n\n".join(filter(None, [*found, softness(results, models), sources(results), failures(results)]))


def rows_of(results: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Iterate over lines and their rows."""
    return ((line, row) for line in results for row in line["rows"])


def table(part: str, results: Sequence[dict[str, Any]], models: Sequence[str]) -> str:
    """Write the table of one part; empty without results."""
    if not results:
        return ""
    models = [m for m in models if any(line["model"] == m for line in results)]
    values: dict[tuple[str, str, str], dict[str, float | None]] = {}
    known: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line, row in rows_of(results):
        key = row["subject"], row["quantity"], row["unit"]
        values.setdefault(key, {})[line["model"]] = row["value"]
        known[key] = row["published"]
    header = ("crystal", "quantity", "unit", *models, "DFT", "experiment")
    cells = [
        (*key, *(digits(found.get(m)) for m in models), *(of_method(known[key], how) for how in ("DFT", "experiment")))
        for key, found in values.items()
    ]
    return f"**{TITLES[part]}**\n\n{markdown(header, cells)}{sizes(part, results)}"


def digits(value: float | None) -> float | None:
    """Round to four digits as the table shows them, and -0.0 to zero."""
    return None if value is None else float(f"{value:.4g}") + 0.0


def of_method(known: Sequence[dict[str, Any]], method: str) -> str:
    """Write the published numbers of a method."""
    return ", ".join(f"{r['value']:.4g}" for r in known if r["method"] == method)


def sizes(part: str, results: Sequence[dict[str, Any]]) -> str:
    """Say how large the cells were, and how far the size matters."""
    if part == "vacancies":
        said = [
            f"{line['model']}, {line['solid']} " + ", ".join(f"{s['atoms']} atoms {s['formation_eV']:.3f} eV" for s in found)
            for line in results
            if (found := line["details"]["sizes"])
        ]
        return "\n\nBy size of the cell: " + "; ".join(said) + "."
    if part == "barriers":
        said = [
            f"{line['model']}, {line['solid']} {line['details']['atoms']} atoms, curvature "
            f"{saddle['curvature_eV_per_A2']:.2f} eV/Å^2"
            for line in results
            if (saddle := line["details"]["saddle"])
        ]
        return "\n\nSaddle points: " + "; ".join(said) + "."
    if part == "polymorphs":
        said = [f"{line['model']}: {' < '.join(order)}" for line in results if (order := line["details"]["order"])]
        return "\n\nOrder: " + "; ".join(said) + "."
    return ""


def softness(results: Sequence[dict[str, Any]], models: Sequence[str]) -> str:
    """Write means of ratios to DFT and, behind each, their number: below 1 where a potential is soft."""
    rows = []
    for model in models:
        own = [line for line in results if line["model"] == model]
        found = [ratios(own, quantities, power) for quantities, power in COMPARED.values()]
        rows.append((model, *(x for known in found for x in (mean(known), len(known)))))
    header = ("model", *(x for name in COMPARED for x in (name, "of")))
    return f"**Geometric means of ratios to DFT**\n\n{markdown(header, rows)}"


def ratios(results: Sequence[dict[str, Any]], quantities: Sequence[str], power: int) -> list[float]:
    """Compute the ratios of values to those of DFT, where there are such, to a power."""
    return [
        (row["value"] / r["value"]) ** power
        for _, row in rows_of(results)
        for r in row["published"]
        if row["quantity"] in quantities and r["method"] == "DFT" and row["value"] is not None
    ]


def mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean; None of nothing, or where a value is not positive."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values and min(values) > 0 else None


def sources(results: Sequence[dict[str, Any]]) -> str:
    """List the sources with what they are of."""
    found: dict[str, list[str]] = {}
    for _, row in rows_of(results):
        for r in row["published"]:
            of = found.setdefault(f"{r['method']}: {r['source']}", [])
            if (name := f"{row['subject']} {row['quantity']}") not in of:
                of.append(name)
    return "Sources:\n" + "\n".join(f"- {source} ({', '.join(of)})" for source, of in found.items())


def failures(results: Sequence[dict[str, Any]]) -> str:
    """List what failed; empty where nothing did."""
    said = [f"- {line['model']}, {line['part']} of {line['solid']}: {what}" for line in results for what in line["failures"]]
    return "Not sound:\n" + "\n".join(said) if said else ""
