"""The figures of a training run in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipot.console import Console, duration
from equipot.units import GPa

FIGURES = (
    ("E", "energy_mae_per_atom", 1e3, "meV/atom"),
    ("F", "forces_mae", 1e3, "meV/Å"),
    ("S", "stress_mae", 1 / GPa, "GPa"),
)


def errors_text(row: Mapping[str, Any], prefix: str = "valid_") -> str:
    """Write mean absolute errors in words, such as ``E 1.2 meV/atom  F 34.5 meV/Å``."""
    found = [(symbol, row[prefix + key] * factor, unit) for symbol, key, factor, unit in FIGURES if prefix + key in row]
    return "  ".join(f"{symbol} {value:.3g} {unit}" for symbol, value, unit in found)


def show_epoch(console: Console, row: Mapping[str, Any], epochs: int, left: float) -> None:
    """Report the figures of an epoch out of ``epochs``; ``left`` is the time until the end (s)."""
    figures = f"epoch {row['epoch']:4d}/{epochs}  loss {row['loss']:.4g}"
    if "valid_loss" in row:
        figures += f"  valid {row['valid_loss']:.4g}  MAE {errors_text(row)}"
    rest = f"lr {row['learning_rate']:.2g}  {duration(left)} left"
    console.progress(figures, after=rest, always=row["epoch"] == epochs)
