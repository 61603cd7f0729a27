"""Ensembles of molecular dynamics; each class holds the parameters and the integrator of one ensemble.

The package offers ``Ensemble`` and the classes in ``Ensemble.builtin_kinds``: a new ensemble is a file here and a line there.
"""

from __future__ import annotations

import importlib
from typing import Any

from equipot.md.ensembles.base import Ensemble

__all__ = ["Ensemble", *Ensemble.builtin_kinds]


def builtin() -> dict[str, type[Ensemble]]:
    """Import the built-in ensembles: classes by the value of ``kind`` in a config."""
    return {name: __getattr__(name) for name in Ensemble.builtin_kinds}


def __getattr__(name: str) -> Any:
    if name in Ensemble.builtin_kinds:
        module, _, cls = Ensemble.builtin_kinds[name].partition(":")
        return getattr(importlib.import_module(module), cls)
    raise AttributeError(f"module 'equipot.md.ensembles' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *Ensemble.builtin_kinds})
