"""Molecular dynamics on the device, in chunks of many steps, with Nosé-Hoover chains of jax-md.

>>> from equipot import md
>>> md.run(md.MDConfig(model="model.eqp", structure="start.xyz", ensemble=md.NVTCSVR(), steps=10_000), "runs/md")

The ensembles offered here are those of ``Ensemble.builtin_kinds``.
"""

from __future__ import annotations

from typing import Any

from equipot.md import ensembles
from equipot.md.config import MDConfig
from equipot.md.driver import Explosion, Summary, run, simulate
from equipot.md.ensembles import Ensemble
from equipot.md.gate import Gate, Halted
from equipot.md.trajectory import H5MD, ExtXYZ

__all__ = [
    "H5MD",
    "Ensemble",
    "Explosion",
    "ExtXYZ",
    "Gate",
    "Halted",
    "MDConfig",
    "Summary",
    "run",
    "simulate",
    *Ensemble.builtin_kinds,
]


def __getattr__(name: str) -> Any:
    if name in Ensemble.builtin_kinds:
        return getattr(ensembles, name)
    raise AttributeError(f"module 'equipot.md' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *Ensemble.builtin_kinds})
