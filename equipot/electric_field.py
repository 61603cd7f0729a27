"""The external homogeneous electric field of a system, as entries of a frame state it: V/Å, the same as eV/(e Å)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

KEY = "electric_field"
"""Entry in which equipot writes the field."""
KEYS = (KEY, "external_field", "efield", "ref_electric_field", "dft_electric_field")
"""Keys of the field in a frame's entries, in lower case; files may spell them in any case."""
STRONG = 10.0
"""Field (V/Å) beyond which a number is a mistake of units: no atom keeps its electrons there."""


def stated(entries: Mapping[str, Any], source: str) -> Float[np.ndarray, " 3"] | None:
    """Read the field (V/Å) from a frame's entries; None where they say nothing of one.

    Raises:
        ValueError: a value that is not three finite numbers, one that no atom survives, or two keys whose values differ.
    """
    found: tuple[str, np.ndarray] | None = None
    for key, value in entries.items():
        if key.lower() in KEYS and value is not None:
            vector = checked(value, f"{source}: info[{key!r}]")
            if found is not None and not np.array_equal(found[1], vector):
                raise ValueError(f"{source}: {found[0]!r} and {key!r} are two different fields; leave one of them out")
            found = key, vector
    return None if found is None else found[1]


def checked(value: Any, what: str) -> Float[np.ndarray, " 3"]:
    """Convert a field (V/Å) to three numbers.

    Raises:
        ValueError: a value that is not three finite numbers, or stronger than ``STRONG``; the message begins with ``what``.
    """
    try:
        vector = np.array(value, np.float64)
    except (TypeError, ValueError):
        vector = np.zeros(0)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{what} is {str(value)[:40]!r}, not a field of three numbers in V/Å")
    if (size := float(np.linalg.norm(vector))) > STRONG:
        raise ValueError(
            f"{what} is a field of {size:.3g} V/Å, beyond {STRONG:g} V/Å, which no atom survives; 1 a.u. is 51.4 V/Å"
        )
    return vector
