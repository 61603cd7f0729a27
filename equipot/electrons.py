"""Total charge and unpaired electrons of a system: how entries state them, and which pairs cannot be.

``spin`` is the number of unpaired electrons in some data and the multiplicity, one more, in others (OMol25, UMA). Inside
equipot it is the number of unpaired electrons everywhere; ``data.spins`` finds out what a file means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

CHARGE = ("charge", "total_charge")
SPIN = ("spin",)
MULTIPLICITY = ("multiplicity", "spin_multiplicity", "mult")
KEYS = (*CHARGE, *SPIN, *MULTIPLICITY)
"""Keys of total charge and spin in a frame's entries, in lower case; files may spell them in any case."""

Meaning = Literal["unpaired", "multiplicity"]
"""What a value of ``spin`` counts: unpaired electrons, or one more than these."""


class Stated(NamedTuple):
    """What the entries of a frame say, as it stands there; None for what they do not say."""

    charge: float | None
    """Total charge, e."""
    spin: float | None
    """Value of ``spin``."""
    multiplicity: float | None


def stated(entries: Mapping[str, Any], source: str) -> Stated:
    """Read charge, spin and multiplicity from a frame's entries; an entry that is None says nothing.

    Raises:
        ValueError: a value that is not one finite number (a boolean is not), or two keys of one meaning whose values differ.
    """
    return Stated(*(_stated(entries, keys, source) for keys in (CHARGE, SPIN, MULTIPLICITY)))


def _stated(entries: Mapping[str, Any], keys: tuple[str, ...], source: str) -> float | None:
    found: tuple[float, str] | None = None
    for key, value in entries.items():
        if key.lower() not in keys or value is None:
            continue
        number = _one_number(value)
        if number is None:
            shown = str(value)[:40]
            raise ValueError(f"{source}: info[{key!r}] is {shown!r}, not one number; correct it or leave it out")
        if found is not None and found[0] != number:
            raise ValueError(f"{source}: {found[1]!r} is {found[0]:g}, but {key!r} {number:g}; leave one of them out")
        found = number, key
    return None if found is None else found[0]


def _one_number(value: Any) -> float | None:
    """Convert to a finite float, or None for anything else; booleans too, since ASE turns bare words of a comment into True."""
    held = np.asarray(value)
    if held.dtype.kind == "b" or held.size != 1:
        return None
    try:
        number = float(held.reshape(()))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def charge_and_spin(entries: Mapping[str, Any], source: str, meaning: Meaning = "unpaired") -> tuple[float, float]:
    """Return total charge (e) and number of unpaired electrons from a frame's entries; what they do not say counts as zero.

    Args:
        meaning: what a value of ``spin`` counts. ``multiplicity`` and its spellings say themselves what they are.

    Raises:
        ValueError: as ``stated``, a multiplicity below one, or a spin that differs from the multiplicity beside it.
    """
    said = stated(entries, source)
    multiplicity, spin = said.multiplicity, said.spin
    if meaning == "multiplicity" and spin is not None:
        if multiplicity is not None and multiplicity != spin:
            raise ValueError(
                f"{source}: spin is {spin:g}, read as a multiplicity, but the multiplicity {multiplicity:g}; leave one out"
            )
        multiplicity, spin = spin, None
    if multiplicity is not None:
        if multiplicity < 1:
            raise ValueError(
                f"{source}: a multiplicity of {multiplicity:g} cannot be: it is the number of unpaired electrons and one more"
            )
        if spin is not None and spin != multiplicity - 1:
            raise ValueError(
                f"{source}: spin is {spin:g}, read as unpaired electrons, but the multiplicity {multiplicity:g}, which is "
                f"{multiplicity - 1:g} of them; leave one of them out"
            )
        spin = multiplicity - 1
    return said.charge or 0.0, spin or 0.0


def impossible(numbers: np.ndarray, repeats: bool, charge: float, spin: float) -> str:
    """Say why a system cannot have a charge (e) and a number of unpaired electrons; empty where it can.

    Whether the number of unpaired electrons is even follows from the number of all electrons in a system that does not repeat;
    bands of a crystal may be filled in part. A fractional charge or spin, an average over states, says nothing of that.

    Args:
        numbers: (atoms,) atomic numbers.
        repeats: whether the system repeats along any direction.
    """
    count = float(np.sum(numbers)) - charge
    if count < 0:
        return f"a charge of {charge:+g} takes more electrons away than there are ({count + charge:g})"
    if spin < 0:
        return f"a spin of {spin:g} is no number of unpaired electrons"
    if spin > count:
        return f"{spin:g} electrons are said to be unpaired, but with charge {charge:+g} there are {count:g} in all"
    if not repeats and count.is_integer() and float(spin).is_integer() and (count - spin) % 2:
        return f"{count:g} electrons (charge {charge:+g}) cannot leave {spin:g} unpaired: both numbers are even, or both odd"
    return ""


CORRECT = "correct charge and spin (unpaired electrons: the multiplicity less one)"
"""Remedy for an impossible pair."""
