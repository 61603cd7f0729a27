"""Lattice constants and bulk moduli of simple solids, beside those of PBE."""

from __future__ import annotations

import argparse
from typing import Any

import ase
import numpy as np
from ase.build import bulk
from ase.eos import EquationOfState
from ase.units import GPa

import equipot

DELTA = "all-electron PBE, Lejaeghere et al., Science 351, aad3000 (2016)"
LADDER = "PBE, Tran, Stelzl, Blaha, J. Chem. Phys. 144, 204120 (2016)"
SOLIDS: dict[str, tuple[ase.Atoms, float, float, float, str]] = {
    "Si": (bulk("Si", "diamond", 5.47), 5.47, 5.470, 88.5, DELTA),
    "Cu": (bulk("Cu", "fcc", 3.63), 3.63, 3.630, 141.3, DELTA),
    "Al": (bulk("Al", "fcc", 4.04), 4.04, 4.040, 78.1, DELTA),
    "Fe": (bulk("Fe", "bcc", 2.83), 2.83, 2.831, 197.7, DELTA),
    "NaCl": (bulk("NaCl", "rocksalt", 5.70), 5.70, 5.70, 24.0, LADDER),
    "MgO": (bulk("MgO", "rocksalt", 4.26), 4.26, 4.26, 149.0, LADDER),
}
"""Primitive cell, its lattice constant (Å), and of PBE: lattice constant (Å), bulk modulus (GPa), source."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Birch-Murnaghan fits to 11 volumes within 6% of the published equilibrium, in float64."""
    calculator = equipot.load(args.model, "float64").calculator()
    rows = []
    for name, (cell, constant, reference, modulus, source) in SOLIDS.items():
        strains = np.linspace(0.94, 1.06, 11) ** (1 / 3)
        volumes, energies = [], []
        for strain in strains:
            atoms = cell.copy()
            atoms.set_cell(cell.cell * strain, scale_atoms=True)
            atoms.calc = calculator
            volumes.append(atoms.get_volume())
            energies.append(atoms.get_potential_energy())
        v0, _, b0 = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
        found = constant * (v0 / cell.get_volume()) ** (1 / 3)
        rows.append({
            "solid": name, "model": args.model, "lattice_constant": found, "published_lattice_constant": reference,
            "bulk_modulus": b0 / GPa, "published_bulk_modulus": modulus, "source": source,
        })  # fmt: skip
        print(f"{name:5s} a = {found:.3f} Å ({reference:.3f}), B = {b0 / GPa:.0f} GPa ({modulus:.0f}; {source})", flush=True)
    return rows
