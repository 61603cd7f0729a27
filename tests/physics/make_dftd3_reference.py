"""Write ``data/dftd3.json``: energies, forces and stresses of the program s-dftd3 for molecules and crystals.

Run in an environment with ``pip install dftd3 ase`` and this package on the path. Nothing of that program is copied.
"""

from __future__ import annotations

import json
from pathlib import Path

from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import s22
from dftd3.interface import DispersionModel, RationalDampingParam, ZeroDampingParam

from equipot.units import bohr, hartree

MOLECULES = (
    "H2O", "NH3", "CH4", "C6H6", "C2H6", "CH3CONH2", "LiF", "NaCl", "SiH4", "PH3", "SH2", "Cl2", "BF3", "CH3SH",
)  # fmt: skip
COMPLEXES = (
    "Ammonia_dimer", "Water_dimer", "Methane_dimer", "Benzene-methane_complex", "Uracil_dimer_h-bonded",
    "Adenine-thymine_Watson-Crick_complex",
)  # fmt: skip
VARIANTS = (
    ("pbe", "BeckeJohnson", 0.0), ("b3lyp", "BeckeJohnson", 1.0), ("r2scan", "BeckeJohnson", 0.0), ("tpss", "Zero", 0.0),
    ("revpbe", "Zero", 1.0),
)  # fmt: skip
"""Functional, damping and s9."""
PAIRS, TRIPLES, WIDTH = 14.13, 7.37, 2.0
"""Cutoffs of crystals and the width of the switch, Å; no shell of neighbours lies at these distances."""
SWITCHED = ("NaCl, rock salt", "Cu")
"""Crystals computed with a switch as well. That of s-dftd3 acts on energies alone, that of ``D3`` on coordination numbers too;
in these crystals they exceed those of all reference molecules, and the coefficients do not depend on them."""


def crystals() -> dict[str, Atoms]:
    """Rattled crystals, so that no force vanishes by symmetry."""
    made = {
        "NaCl, rock salt": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        "CsCl": bulk("CsCl", "cesiumchloride", a=4.12),
        "Cu": bulk("Cu", "fcc", a=3.61) * (2, 1, 1),
        "Si": bulk("Si", "diamond", a=5.43),
        "Fe": bulk("Fe", "bcc", a=2.87, cubic=True),
        "Mg, hexagonal": bulk("Mg", "hcp", a=3.21, c=5.21),
        "ZnS, hexagonal": bulk("ZnS", "wurtzite", a=3.82, c=6.26),
        "CO2, triclinic": Atoms(
            "CO2CO2", positions=[[0.3, 0.2, 0.1], [1.46, 0.3, 0.2], [-0.86, 0.1, 0.0], [2.1, 3.0, 2.6], [2.3, 4.1, 2.9],
                                 [1.9, 1.9, 2.3]],
            cell=[[5.1, 0.3, -0.2], [1.4, 5.3, 0.5], [-0.7, 1.1, 4.9]], pbc=True,
        ),
    }  # fmt: skip
    for k, atoms in enumerate(made.values()):
        atoms.rattle(0.06, seed=k)
    return made


def structures() -> dict[str, Atoms]:
    """All structures by name."""
    return {name: molecule(name) for name in MOLECULES} | {name: s22[name] for name in COMPLEXES} | crystals()


def damping(functional: str, kind: str, s9: float):
    """Parameters as they are published for the functional."""
    from equipot.physics.damping import BeckeJohnson, Zero

    if kind == "BeckeJohnson":
        own = BeckeJohnson().of(functional)
        return RationalDampingParam(s6=own.s6, s8=own.s8, s9=s9, a1=own.a1, a2=own.a2, alp=14.0)
    zero = Zero().of(functional)
    return ZeroDampingParam(s6=zero.s6, s8=zero.s8, s9=s9, rs6=zero.rs6, rs8=zero.rs8, alp=zero.alpha)


def compute(atoms: Atoms, param, switch: float) -> dict:
    """Energy (eV), forces (eV/Å) and stress (eV/Å^3) with the cutoffs of crystals, or with cutoffs beyond any molecule."""
    periodic = atoms.pbc.any()
    cell = atoms.cell.array / bohr if periodic else None
    model = DispersionModel(atoms.numbers, atoms.positions / bohr, cell, atoms.pbc if periodic else None)
    two, three = (PAIRS, TRIPLES) if periodic else (40.0, 40.0)
    model.set_realspace_cutoff(two / bohr, three / bohr, two / bohr, switch / bohr, switch / bohr)
    out = model.get_dispersion(param, grad=True)
    found = {"energy": float(out["energy"]) * hartree, "forces": (-out["gradient"] * hartree / bohr).tolist()}
    if periodic:
        found["stress"] = (out["virial"] * hartree / atoms.get_volume()).tolist()
    return found


def main() -> None:
    """Write the file."""
    records = []
    for name, atoms in structures().items():
        values = {}
        for functional, kind, s9 in VARIANTS:
            for switch in (0.0, WIDTH) if name in SWITCHED else (0.0,):
                values[f"{functional}-{kind}-{s9:g}-{switch:g}"] = compute(atoms, damping(functional, kind, s9), switch)
        records.append({
            "name": name, "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist() if atoms.pbc.any() else None, "values": values,
        })  # fmt: skip
    import dftd3

    record = {"program": f"dftd3 {dftd3.__version__}", "pairs": PAIRS, "triples": TRIPLES, "structures": records}
    rounded = json.loads(json.dumps(record), parse_float=lambda x: float(f"{float(x):.12g}"))
    (Path(__file__).parent / "data" / "dftd3.json").write_text(json.dumps(rounded))


if __name__ == "__main__":
    main()
