"""The work items: which network computes what of which structures, and which programs are asked. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CUTOFF = 5.0
"""Å, of every network."""
WIDE = {"kind": "MACE", "channels": 128, "correlation": 3}
NARROW = {"kind": "MACE", "channels": 32, "correlation": 2}
TRAINED = {"kind": "MACE", "channels": 64, "correlation": 3}
"""MACE with two layers, hidden l <= 1, l_max 3, 8 Bessel functions, a radial MLP of 64, 64, 64 and a readout of 16."""
GATED = {"kind": "NequIP", "channels": 32}
"""NequIP with four layers, l <= 2 with natural parity, 8 Bessel functions and a radial MLP of 64, 64."""

SPLINES = "equipot compressed"
SHARED = ("equipot", SPLINES, "mace-torch", "symmetrix")
"""Programs that run the weights of one model of mace-torch; the others have random weights of the same shapes."""


@dataclass(frozen=True)
class Item:
    """Energy, forces and, of crystals and liquids, stress; or a training step on energies and forces."""

    system: str
    network: dict[str, Any]
    programs: tuple[str, ...]
    training: bool = False

    @property
    def model(self) -> str:
        """Name of the file of shared weights: silicon of every size has one."""
        kind = "si" if self.system.startswith("si") else self.system
        return f"mace-{self.network['channels']}-{self.network['correlation']}-{kind}"


MACES = ("equipot", SPLINES, "mace-torch", "mlip")
NEQUIPS = ("equipot", SPLINES, "nequip", "nequix", "mlip")
ITEMS: dict[str, Item] = {
    "W1-si216": Item("si216", WIDE, (*MACES, "symmetrix")),
    "W1-water192": Item("water192", WIDE, (*MACES, "symmetrix")),
    **{f"W2-si{n}": Item(f"si{n}", NARROW, MACES) for n in (64, 216, 512, 1000, 1728, 4096)},
    "W2-water192": Item("water192", NARROW, MACES),
    "W3": Item("molecules5", TRAINED, ("equipot", "mace-torch", "mlip"), training=True),
    "W4-si216": Item("si216", GATED, NEQUIPS),
    "W4-water192": Item("water192", GATED, NEQUIPS),
    "W4t": Item("molecules5", GATED, ("equipot", "nequip", "nequix", "mlip"), training=True),
}


def chosen(names: list[str]) -> list[str]:
    """Items whose name, or the part of it before the dash, is among ``names``."""
    unknown = [name for name in names if not any(name in (item, item.partition("-")[0]) for item in ITEMS)]
    if unknown:
        raise ValueError(f"no item {unknown[0]}; there are {', '.join(ITEMS)}")
    return [item for item in ITEMS if item in names or item.partition("-")[0] in names]
