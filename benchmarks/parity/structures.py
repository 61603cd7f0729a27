"""Structures of every kind on which converted potentials are compared with their source; needs ASE and NumPy only.

Molecules, metals, semiconductors, oxides, salts, layers, surfaces, one-atom cells, strained triclinic cells: over 40 elements.
Most are displaced at random (fixed seeds), so that no force vanishes by symmetry.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.build import add_adsorbate, bulk, fcc111, graphene, make_supercell, molecule, mx2, surface
from ase.spacegroup import crystal


def rattled(atoms: ase.Atoms, seed: int, amplitude: float = 0.08, strain: float = 0.0) -> ase.Atoms:
    """Displaced and, where periodic, sheared at random."""
    rng = np.random.default_rng(seed)
    if strain:
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += amplitude * rng.normal(size=(len(atoms), 3))
    return atoms


def perovskite(a: str, b: str, x: str, length: float) -> ase.Atoms:
    return crystal(
        [a, b, x], [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)], spacegroup=221, cellpar=[length] * 3 + [90] * 3
    )  # fmt: skip


def rutile(metal: str, a: float, c: float) -> ase.Atoms:
    return crystal([metal, "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[a, a, c, 90, 90, 90])


def adsorbed() -> ase.Atoms:
    slab, carbon_down = fcc111("Pd", (2, 2, 3), vacuum=7.0), molecule("CO")[[1, 0]]
    add_adsorbate(slab, carbon_down, 1.9, "ontop")
    slab.pbc = (True, True, False)
    return slab


def structures() -> dict[str, ase.Atoms]:
    """All of them by name."""
    left = bulk("MgO", "rocksalt", 4.25)
    left.set_cell(left.cell[[1, 0, 2]])
    slab = surface(bulk("Ti", "hcp", 2.95, 4.68), (1, 0, 1), 2, vacuum=6.0)
    slab.pbc = (True, True, False)
    sheet = graphene("CC", a=2.46, size=(2, 2, 1), vacuum=8.0)
    sheet.pbc = (True, True, False)
    layered = mx2("MoS2", size=(2, 1, 1), vacuum=8.0)
    layered.pbc = (True, True, False)
    wire = ase.Atoms("AuAg", [[0, 0, 0], [0.3, 0, 2.7]], cell=[[12, 0, 0], [0, 12, 0], [0, 0, 5.4]], pbc=(False, False, True))
    return {
        "ethanol": rattled(molecule("CH3CH2OH"), 1),
        "thiophene": rattled(molecule("C4H4S"), 2),
        "chloromethane": rattled(molecule("CH3Cl"), 3),
        "phosphine": rattled(molecule("PH3"), 4),
        "silane fluoride": rattled(molecule("SiF4"), 5),
        "hydrazine": rattled(molecule("N2H4"), 6),
        "lithium dimer": rattled(molecule("Li2"), 7),
        "silicon": rattled(bulk("Si", "diamond", 5.43, cubic=True), 8),
        "germanium, strained": rattled(bulk("Ge", "diamond", 5.66, cubic=True), 9, strain=0.04),
        "gallium arsenide": rattled(bulk("GaAs", "zincblende", 5.65), 10, strain=0.05),
        "zinc oxide": rattled(bulk("ZnO", "wurtzite", 3.25, 5.2), 11),
        "aluminium nitride": rattled(bulk("AlN", "wurtzite", 3.11, 4.98), 12),
        "copper, one atom": bulk("Cu", "fcc", 3.61),
        "tungsten, one atom, strained": rattled(bulk("W", "bcc", 3.17), 13, 0.0, strain=0.05),
        "iron": rattled(bulk("Fe", "bcc", 2.83, cubic=True), 14),
        "cobalt": rattled(bulk("Co", "hcp", 2.51, 4.07), 15),
        "aluminium": rattled(make_supercell(bulk("Al", "fcc", 4.05), [[1, 1, 0], [0, 2, 1], [-1, 0, 2]]), 16, strain=0.03),
        "nickel-platinum": rattled(crystal(["Ni", "Pt"], [(0, 0, 0), (0.5, 0.5, 0)], spacegroup=123,
                                           cellpar=[3.81, 3.81, 3.58, 90, 90, 90]), 17),
        "titanium slab": rattled(slab, 18),
        "carbon monoxide on palladium": rattled(adsorbed(), 19, 0.05),
        "graphene": rattled(sheet, 20, 0.05),
        "molybdenum disulfide": rattled(layered, 21),
        "gold-silver wire": rattled(wire, 22),
        "sodium chloride": rattled(bulk("NaCl", "rocksalt", 5.64), 23, strain=0.05),
        "magnesium oxide, left-handed": rattled(left, 24, strain=0.03),
        "calcium fluoride": rattled(bulk("CaF2", "fluorite", 5.46), 25),
        "caesium chloride": rattled(bulk("CsCl", "cesiumchloride", 4.12), 26),
        "potassium bromide": rattled(bulk("KBr", "rocksalt", 6.6), 27),
        "rubidium iodide": rattled(bulk("RbI", "rocksalt", 7.34), 28),
        "strontium titanate": rattled(perovskite("Sr", "Ti", "O", 3.91), 29),
        "barium zirconate": rattled(perovskite("Ba", "Zr", "O", 4.2), 30, strain=0.02),
        "lanthanum manganite": rattled(perovskite("La", "Mn", "O", 3.88), 31),
        "rutile": rattled(rutile("Ti", 4.59, 2.96), 32),
        "tin oxide": rattled(rutile("Sn", 4.74, 3.19), 33),
        "ruthenium oxide": rattled(rutile("Ru", 4.49, 3.11), 34),
        "ceria": rattled(bulk("CeO2", "fluorite", 5.41), 35),
        "uranium dioxide": rattled(bulk("UO2", "fluorite", 5.47), 36),
        "lead telluride": rattled(bulk("PbTe", "rocksalt", 6.46), 37),
        "indium antimonide": rattled(bulk("InSb", "zincblende", 6.48), 38),
        "cadmium selenide": rattled(bulk("CdSe", "zincblende", 6.05), 39),
        "vanadium nitride": rattled(bulk("VN", "rocksalt", 4.13), 40),
        "chromium boride": rattled(bulk("CrB", "rocksalt", 4.2), 41),
        "hafnium carbide": rattled(bulk("HfC", "rocksalt", 4.64), 42),
        "bismuth": rattled(crystal("Bi", [(0, 0, 0.234)], spacegroup=166, cellpar=[4.55, 4.55, 11.85, 90, 90, 120],
                                   primitive_cell=True), 43),
        "compressed hydrogen fluoride": rattled(ase.Atoms("HF", [[0, 0, 0], [0, 0, 0.7]]), 44, 0.0),
    }  # fmt: skip


def as_record(name: str, atoms: ase.Atoms) -> dict[str, Any]:
    """What is needed to build the structure anywhere, exactly."""
    return {
        "name": name,
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell[:].tolist() if atoms.pbc.any() else np.zeros((3, 3)).tolist(),
        "pbc": atoms.pbc.tolist(),
    }


def as_atoms(record: dict[str, Any]) -> ase.Atoms:
    """The inverse of ``as_record``."""
    return ase.Atoms(record["numbers"], record["positions"], cell=record["cell"], pbc=record["pbc"])


def arguments(head: bool = False) -> argparse.Namespace:
    """Of a script that writes references: ``checkpoint``, ``out``, ``only``, and ``head`` where there may be several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*")
    if head:
        parser.add_argument("--head")
    return parser.parse_args()


def provenance(script: str, checkpoint: Path, packages: Sequence[str], **facts: Any) -> dict[str, Any]:
    """What references come from: the script, the checkpoint, and the versions of ``packages`` and of what all of them use."""
    return {
        "by": f"benchmarks/parity/{Path(script).name}",
        "source": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        **facts,
        "dtype": "float64",
        **{name: importlib.metadata.version(name) for name in (*packages, "numpy", "ase")},
    }


def write(path: str | Path, provenance: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """References: energy (eV), forces (eV/Å) and stress (eV/Å^3, ASE's sign; none for what is not periodic in space)."""
    Path(path).write_text(json.dumps({"provenance": provenance, "structures": records}) + "\n", encoding="utf-8")
    largest = max(np.abs(record["forces"]).max() for record in records)
    print(f"{path}: {len(records)} structures, largest force {largest:.1f} eV/Å")


if __name__ == "__main__":
    made = structures()
    elements = set().union(*(set(atoms.numbers.tolist()) for atoms in made.values()))
    print(f"{len(made)} structures, {len(elements)} elements, {sum(map(len, made.values()))} atoms")
