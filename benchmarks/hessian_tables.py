"""Tables of what training on Hessians costs and gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import markdown


def hessians(results: Sequence[dict[str, Any]]) -> str:
    """Mean absolute errors of molecules that were not trained on, at their minima and displaced."""
    shown = {
        "energy_mae_per_atom": ("energy MAE, meV/atom", 1e3), "forces_mae": ("force MAE, meV/Å", 1e3),
        "hessian_mae": ("Hessian MAE, eV/Å^2", 1.0), "frequency_mae_per_cm": ("frequency MAE, cm^-1", 1.0),
    }  # fmt: skip
    rows = [
        (r["learned"], r["seed"], r["minutes"], r["steps"], name, errors["frames"],
         *(errors[key] * factor for key, (_, factor) in shown.items()))
        for r in results
        for name, errors in r["errors"].items()
    ]  # fmt: skip
    header = ("learned", "seed", "minutes", "steps", "unseen molecules", "frames", *(label for label, _ in shown.values()))
    return markdown(header, rows) + relaxed(results)


def relaxed(results: Sequence[dict[str, Any]]) -> str:
    """Gradients of GFN2-xTB until the molecules held out are relaxed, in the mean of those that end."""
    found = [(r["learned"], r["seed"], r["relaxations"]) for r in results if "relaxations" in r]
    if not found:
        return ""
    mean = lambda counts: sum(c for c in counts if c) / max(1, sum(c is not None for c in counts))
    ended = lambda counts: f"{sum(c is not None for c in counts)} of {len(counts)}"
    rows = [("none: ASE's BFGS", None, ended(found[0][2]["BFGS"]), mean(found[0][2]["BFGS"]))]
    rows += [(f"Newton, {name}", seed, ended(r["Newton"]), mean(r["Newton"])) for name, seed, r in found]
    return "\n\n" + markdown(("Hessian of", "seed", "relaxed", "gradients in the mean"), rows)


def hessian_steps(results: Sequence[dict[str, Any]]) -> str:
    """A training step with products of Hessians and without, and their ratio."""
    both = lambda r, key: (r["without"][key], r["with"][key], r["with"][key] / r["without"][key])
    header = (
        "model",
        "frames",
        "CPU ms without",
        "with",
        "ratio",
        "least without",
        "with",
        "ratio",
        "compile s without",
        "with",
    )
    rows = [
        (r["arguments"]["model"], f"{r['frames']} x {r['arguments']['system']}", *both(r, "cpu_ms"), *both(r, "cpu_ms_min"),
         *both(r, "compile_s")[:2])
        for r in results
    ]  # fmt: skip
    return markdown(header, rows)
