"""Lattice constants and bulk moduli of simple solids, beside those of PBE."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase.build import bulk
from ase.collections import dcdft
from ase.eos import EquationOfState
from ase.units import GPa

import equipot

DELTA = "all-electron PBE (WIEN2k), Lejaeghere et al., Science 351, aad3000 (2016), as ASE gives it"
GPAW = "PBE, table of bulk tests in GPAW's documentation"
TRAN = "all-electron PBE, Tran et al., Phys. Rev. B 75, 115131 (2007), as in GPAW's documentation"


@dataclass(frozen=True)
class Solid:
    """A cubic crystal, and what is published of it."""

    structure: str
    constant: float
    """Lattice constant, Å."""
    modulus: float
    """Bulk modulus, GPa."""
    source: str

    def cell(self, name: str) -> ase.Atoms:
        """The primitive cell."""
        return bulk(name, self.structure, self.constant)


def element(name: str, structure: str, atoms: int) -> Solid:
    """``atoms`` in the cubic cell."""
    found = dcdft.data[name]
    return Solid(structure, (atoms * found["wien2k_volume"]) ** (1 / 3), found["wien2k_B"], DELTA)


def solids() -> dict[str, Solid]:
    """The crystals by name."""
    dcdft["Si"]  # reads the table
    return {
        "Si": element("Si", "diamond", 8),
        "Cu": element("Cu", "fcc", 4),
        "Al": element("Al", "fcc", 4),
        "Fe": element("Fe", "bcc", 2),
        "NaCl": Solid("rocksalt", 5.714, 23.7, TRAN),
        "MgO": Solid("rocksalt", 4.259, 147.8, GPAW),
    }


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Birch-Murnaghan fits to 11 volumes within 6% of the published equilibrium, in float64."""
    calculator = equipot.load(args.model, "float64").calculator()
    rows = []
    for name, solid in solids().items():
        cell = solid.cell(name)
        strains = np.linspace(0.94, 1.06, 11) ** (1 / 3)
        volumes, energies = [], []
        for strain in strains:
            atoms = cell.copy()
            atoms.set_cell(cell.cell * strain, scale_atoms=True)
            atoms.calc = calculator
            volumes.append(atoms.get_volume())
            energies.append(atoms.get_potential_energy())
        v0, _, b0 = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
        found = solid.constant * (v0 / cell.get_volume()) ** (1 / 3)
        rows.append({
            "solid": name, "model": args.model, "lattice_constant": found, "published_lattice_constant": solid.constant,
            "bulk_modulus": b0 / GPa, "published_bulk_modulus": solid.modulus, "source": solid.source,
        })  # fmt: skip
        print(f"{name:5s} a = {found:.3f} Å ({solid.constant:.3f}), B = {b0 / GPa:.0f} GPa ({solid.modulus:.0f})", flush=True)
    return rows
