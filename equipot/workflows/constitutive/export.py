"""Write a law as a Python module that needs numpy alone, for a finite-element code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipot import __version__
from equipot.files import write_atomically
from equipot.workflows.constitutive import plain

HEADING = '''"""Hyperelastic law of {source}.

Written by equipot {version}; it needs numpy alone. F = dx/dX is the deformation gradient, (3, 3) or with any leading
axes; columns belong to the reference. The functions to call are at the end of the file.
"""
'''

FUNCTIONS = """

def energy(F):
    \"\"\"Compute the energy W per volume of the reference, GPa (10^9 J/m^3): (..., 3, 3) -> (...).\"\"\"
    return energy_of(LAW, F)


def first_piola_kirchhoff(F):
    \"\"\"Compute the first Piola-Kirchhoff stress P = dW/dF, GPa: (..., 3, 3) -> (..., 3, 3).\"\"\"
    return stress_of(LAW, F)


def cauchy(F):
    \"\"\"Compute the Cauchy stress P F^T / J, GPa, positive under tension: (..., 3, 3) -> (..., 3, 3).\"\"\"
    return cauchy_of(LAW, F)


def tangent(F):
    \"\"\"Compute A_iJkL = dP_iJ / dF_kL, GPa: (..., 3, 3) -> (..., 3, 3, 3, 3).\"\"\"
    return tangent_of(LAW, F)


def distance(F):
    \"\"\"Measure deformations in units of the range of the training data, (..., 3, 3) -> (...); more than 1 is outside.\"\"\"
    return distance_of(LAW, F)
"""


def write_module(path: str | Path, law: Mapping[str, Any], source: str) -> None:
    """Write a module with ``energy``, ``first_piola_kirchhoff``, ``cauchy``, ``tangent`` and ``distance`` of a law.

    Args:
        path: File, a name with the suffix .py that Python can import.
        law: Arrays and numbers of ``Law.plain``; they are written with all digits.
        source: Where the law comes from, for the heading.

    Raises:
        ValueError: a name that is no module's.
        OSError: the file cannot be written; an older file is kept.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(f"{path.name} cannot be imported by Python; choose a name such as law.py")
    said = " ".join(source.split()).replace("\\", "/").replace('"', "'")
    heading = f"{HEADING.format(source=said, version=__version__)}\n"
    body = inspect.getsource(plain).split('"""', 2)[2].lstrip("\n")
    text = f"{heading}{body}\n\nLAW = {written(law)}\n{FUNCTIONS}"
    write_atomically(path, text.encode())


def written(value: Any) -> str:
    """Write nested mappings, lists, tuples of integers, and arrays as Python, so that reading gives the same numbers."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {written(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, tuple):
        return repr(value)
    array = np.asarray(value, np.float64)
    return repr(float(array)) if array.ndim == 0 else f"np.array({array.tolist()!r})"
