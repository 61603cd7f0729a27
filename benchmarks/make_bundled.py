"""Makes the bundled reference sets with GFN2-xTB: ``pip install "equipot[xtb]"``, then ``python benchmarks/make_bundled.py``.

ethanol  one molecule, Langevin MD at three temperatures; training and test frames come from different trajectories.
silicon  32 atoms of diamond, randomly strained and displaced as a harmonic crystal at three temperatures, with stress.

Both hold the isolated atoms, by the same method. Before anything is written, forces and stress are compared with central
differences of the energy. The README beside the sets is written from what was run. Takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import datetime
import lzma
import platform
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from equipot.files import write_atomically

METHOD = "GFN2-xTB"
ACCURACY = 0.1
"""Of tblite's SCF: a tenth of its default thresholds."""
FORCE_TOLERANCE, STRESS_TOLERANCE = 1e-3, 1e-3
"""Largest disagreement with differences of the energy: of forces in eV/Å, of stresses relative to the largest component."""
CHECKED = 2
"""Frames of each set that are compared."""
SEED = 20260
MULTIPLICITY = {"H": 2, "C": 3, "O": 3, "Si": 3}

ETHANOL_KELVIN = (300, 600, 1000)
ETHANOL_TRAJECTORIES = {"train": (40, 40), "test": (30,)}
"""Frames of each trajectory at each temperature."""
STEP_FS, STRIDE, EQUILIBRATION = 1.0, 50, 300

SILICON_KELVIN = (150, 300, 600)
SILICON_FRAMES = {"train": 25, "test": 10}
"""Frames at each temperature."""
SILICON_LATTICE = 5.43
STRAIN = 0.02
"""Standard deviation of each strain component."""


def calculator(**settings) -> TBLite:
    return TBLite(method=METHOD, accuracy=ACCURACY, verbosity=0, **settings)


def label(atoms: Atoms, **info) -> Atoms:
    """A copy with rounded geometry and the labels of exactly that geometry."""
    frame = Atoms(atoms.symbols, np.round(atoms.positions, 6), cell=np.round(atoms.cell[:], 6), pbc=atoms.pbc)
    frame.calc = calculator()
    results = {"energy": round(frame.get_potential_energy(), 7), "forces": np.round(frame.get_forces(), 6)}
    if frame.pbc.all():
        results["stress"] = np.round(frame.get_stress(), 9)
    frame.info = info
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def isolated_atom(symbol: str) -> Atoms:
    atom = Atoms(symbol)
    atom.calc = calculator(multiplicity=MULTIPLICITY[symbol])
    energy = round(atom.get_potential_energy(), 7)
    atom.calc = SinglePointCalculator(atom, energy=energy, forces=np.zeros((1, 3)))
    atom.info = {"config_type": "isolated_atom", "split": "train"}
    return atom


def ethanol(rng: np.random.Generator) -> list[Atoms]:
    frames = [isolated_atom(symbol) for symbol in "HCO"]
    for split, lengths in ETHANOL_TRAJECTORIES.items():
        for kelvin in ETHANOL_KELVIN:
            for length in lengths:
                frames += trajectory(kelvin, length, split, rng)
    return frames


def trajectory(kelvin: float, length: int, split: str, rng: np.random.Generator) -> list[Atoms]:
    """Langevin MD from a random conformer of the hydroxyl group."""
    atoms = molecule("CH3CH2OH")
    dihedral = hydroxyl(atoms)
    atoms.rotate_dihedral(*dihedral, 120.0 * rng.integers(3), indices=dihedral[-1:])
    atoms.calc = calculator()
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, kelvin, rng=rng)
    settings = {"temperature_K": kelvin, "friction": 0.02 / units.fs, "fixcm": False}
    dynamics = Langevin(atoms, STEP_FS * units.fs, rng=rng, **settings)
    dynamics.run(EQUILIBRATION)
    frames = []
    for _ in range(length):
        dynamics.run(STRIDE)
        frames.append(label(atoms, config_type=f"md_{kelvin}K", split=split))
    return frames


def hydroxyl(atoms: Atoms) -> tuple[int, int, int, int]:
    """The atoms of the C-C-O-H dihedral of ethanol."""
    symbols, distance = np.array(atoms.get_chemical_symbols()), atoms.get_all_distances()
    oxygen = int(np.flatnonzero(symbols == "O")[0])
    carbons = np.flatnonzero(symbols == "C")
    near = int(carbons[np.argmin(distance[oxygen, carbons])])
    far = int(next(c for c in carbons if c != near))
    hydrogens = np.flatnonzero(symbols == "H")
    hydrogen = int(hydrogens[np.argmin(distance[oxygen, hydrogens])])
    return far, near, oxygen, hydrogen


def silicon(rng: np.random.Generator) -> list[Atoms]:
    primitive = bulk("Si", "diamond", SILICON_LATTICE)
    crystal = make_supercell(bulk("Si", "diamond", SILICON_LATTICE, cubic=True), [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    crystal.wrap()
    modes = harmonic_modes(crystal, primitive)
    frames = [isolated_atom("Si"), label(crystal, config_type="crystal", split="train")]
    for split, count in SILICON_FRAMES.items():
        for kelvin in SILICON_KELVIN:
            for _ in range(count):
                strain = rng.normal(scale=STRAIN, size=(3, 3))
                atoms = crystal.copy()
                atoms.positions += modes @ rng.normal(scale=np.sqrt(units.kB * kelvin), size=modes.shape[-1])
                atoms.set_cell(crystal.cell[:] @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
                frames.append(label(atoms, config_type=f"harmonic_{kelvin}K", split=split))
    return frames


def harmonic_modes(crystal: Atoms, primitive: Atoms, step: float = 0.02) -> np.ndarray:
    """(atoms, 3, modes) displacement of each vibration per sqrt(eV) of thermal energy.

    The Hessian of a crystal follows from displacing the atoms of one primitive cell: translations give the rest.
    """
    n = len(crystal)
    hessian = np.zeros((n, 3, n, 3))
    fractional = np.linalg.inv(primitive.cell[:])
    offsets = (crystal.positions[:, None] - crystal.positions[None]) @ fractional
    equivalent = np.all(np.abs(offsets - np.round(offsets)) < 1e-6, axis=-1)
    for first in {int(np.argmax(row)) for row in equivalent}:
        for axis in range(3):
            pull = []
            for sign in (1, -1):
                atoms = crystal.copy()
                atoms.positions[first, axis] += sign * step
                atoms.calc = calculator()
                pull.append(atoms.get_forces())
            column = -(pull[0] - pull[1]) / (2 * step)
            for other in np.flatnonzero(equivalent[first]):
                shift = crystal.positions[other] - crystal.positions[first]
                hessian[:, :, other, axis] = column[image_of(crystal, shift)]
    matrix = hessian.reshape(3 * n, 3 * n)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    stiff = values > 1e-2
    print(f"silicon: {stiff.sum()} vibrations, softest {values[stiff][0]:.2f} eV/Å^2, next below {values[~stiff][-1]:.1e}")
    return (vectors[:, stiff] / np.sqrt(values[stiff])).reshape(n, 3, -1)


def image_of(crystal: Atoms, shift: np.ndarray) -> np.ndarray:
    """For each atom, the one that a lattice translation by ``shift`` carries onto it."""
    offsets = (crystal.positions[:, None] - shift - crystal.positions[None]) @ np.linalg.inv(crystal.cell[:])
    return np.argmin(np.sum(np.abs(offsets - np.round(offsets)), axis=-1), axis=1)


def worst_force_error(frame: Atoms, step: float = 1e-3) -> float:
    """Largest difference (eV/Å) of labelled forces and central differences of the energy, over two atoms."""
    worst = 0.0
    for atom in (0, len(frame) - 1):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = frame.copy()
                moved.positions[atom, axis] += sign * step
                moved.calc = calculator()
                energies.append(moved.get_potential_energy())
            worst = max(worst, abs(-(energies[0] - energies[1]) / (2 * step) - frame.calc.results["forces"][atom, axis]))
    return worst


def worst_stress_error(frame: Atoms, step: float = 1e-3) -> float:
    """Largest difference (eV/Å^3) of the labelled stress and (1/V) dE/d(strain) by central differences."""
    worst = 0.0
    for voigt, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            moved = frame.copy()
            moved.set_cell(frame.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
            moved.calc = calculator()
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step) / frame.get_volume()
        worst = max(worst, abs(slope - frame.calc.results["stress"][voigt]))
    return worst


def save(frames: list[Atoms], path: Path) -> None:
    text = StringIO()
    write(text, frames, format="extxyz")
    write_atomically(path, lzma.compress(text.getvalue().encode(), preset=9 | lzma.PRESET_EXTREME))


README = """# Bundled reference sets

Made by `benchmarks/make_bundled.py` on {date} (seed {seed}) with {method} through tblite {tblite}, ASE {ase}, NumPy {numpy},
Python {python}. SCF accuracy {accuracy}, electronic temperature 300 K, Gamma point only.

- **ethanol**: {ethanol_train} train and {ethanol_test} test frames of 9 atoms and 3 isolated atoms; energy, forces. Langevin MD
  at {ethanol_kelvin} K, step {step} fs, a frame every {stride} steps after {equilibration}, from a random conformer of the
  hydroxyl group. Test frames come from trajectories of their own.
- **silicon**: {silicon_train} train and {silicon_test} test frames of 32 atoms and 1 isolated atom; energy, forces, stress.
  Diamond with a = {lattice} Å, under a random strain (standard deviation {strain} for each component), displaced as the
  harmonic crystal at {silicon_kelvin} K; the first frame is the perfect crystal.

Energies are total energies in eV and include the electronic entropy term (they are the free energies whose derivatives the
forces are). Forces are in eV/Å, stress in eV/Å^3 with ASE's sign (positive under tension). `split` says train or test;
`config_type=isolated_atom` marks the isolated atoms, calculated with multiplicities {multiplicity}.

Checked when made, against central differences of the energy: forces on two atoms in {checked} frames of each set, largest
difference {force_ethanol:.1e} eV/Å (ethanol) and {force_silicon:.1e} eV/Å (silicon); all six stress components of {checked}
silicon frames, largest difference {stress_error:.1e} eV/Å^3 (largest component in the set: {stress_largest:.2f} eV/Å^3).

A GFN2-xTB crystal at the Gamma point is a model system: good for learning and for tests, not for the properties of silicon.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "equipot/data/sets")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        begun = [pool.submit(make, np.random.default_rng(SEED + k)) for k, make in enumerate((ethanol, silicon))]
        sets = dict(zip(("ethanol", "silicon"), (task.result() for task in begun), strict=True))
    count = lambda name, split: sum(f.info["split"] == split and len(f) > 1 for f in sets[name])
    force = {name: max(map(worst_force_error, frames[-CHECKED:])) for name, frames in sets.items()}
    stress = max(map(worst_stress_error, sets["silicon"][-CHECKED:]))
    largest = max(np.abs(f.calc.results["stress"]).max() for f in sets["silicon"] if f.pbc.all())
    print(f"labels against differences of the energy: forces {force} eV/Å, stress {stress:.1e} of {largest:.2f} eV/Å^3")
    if max(force.values()) > FORCE_TOLERANCE or stress > STRESS_TOLERANCE * largest:
        raise SystemExit(f"labels disagree with differences of the energy: forces {force} eV/Å, stress {stress} eV/Å^3")
    for name, frames in sets.items():
        save(frames, out / f"{name}.xyz.xz")
    text = README.format(
        date=datetime.date.today().isoformat(), seed=SEED, method=METHOD, tblite=version("tblite"), ase=version("ase"),
        numpy=version("numpy"), python=platform.python_version(), accuracy=ACCURACY,
        ethanol_train=count("ethanol", "train"), ethanol_test=count("ethanol", "test"),
        silicon_train=count("silicon", "train"), silicon_test=count("silicon", "test"),
        ethanol_kelvin=", ".join(map(str, ETHANOL_KELVIN)), silicon_kelvin=", ".join(map(str, SILICON_KELVIN)),
        step=STEP_FS, stride=STRIDE, equilibration=EQUILIBRATION, lattice=SILICON_LATTICE, strain=STRAIN,
        multiplicity=", ".join(f"{k} {v}" for k, v in MULTIPLICITY.items()),
        checked=CHECKED, force_ethanol=force["ethanol"], force_silicon=force["silicon"], stress_error=stress,
        stress_largest=largest,
    )  # fmt: skip
    (out / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
