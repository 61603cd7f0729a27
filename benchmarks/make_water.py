"""Makes the bundled water clusters with GFN2-xTB: ``pip install "equipot[xtb]"``, then ``python -m benchmarks.make_water``.

water    one to four molecules, close to each other (molecular dynamics at three temperatures) and drawn apart, a third of them
         in a random homogeneous field; with charges and dipole moment.

Before anything is written, forces and dipole moments are compared with central differences of the energy, by positions and by
the field. The text beside the set is written from what was run. Takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import datetime
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite import interface, library

from benchmarks.make_bundled import ACCURACY, METHOD, calculator, isolated_atom, save

SEED = 20261
# tblite 0.8.0 hands an array where its library takes a pointer.
interface.Calculator._interaction["electric-field"] = lambda context, molecule, calculator, field: (
    library.lib.tblite_new_electric_field(library.ffi.from_buffer("double[3]", field))
)
KELVIN = (200, 400, 700)
FRAMES = {"train": {1: 5, 2: 18, 3: 14, 4: 10}, "test": {2: 6, 3: 6, 4: 6}}
"""Frames of each number of molecules at each temperature."""
STRIDE, EQUILIBRATION, STEP_FS = 40, 200, 0.5
APART = 6.0
"""Largest distance by which molecules are drawn apart, Å; a third of the frames are."""
STRONGEST = 0.3
"""Strongest field, V/Å."""
TOLERANCE = 2e-3
"""Largest disagreement with differences of the energy: of forces in eV/Å, of dipole moments in e Å."""


def label(atoms: Atoms, field: np.ndarray, **info: object) -> Atoms:
    """Return a copy with rounded geometry and the labels of exactly that geometry in that field (V/Å)."""
    frame = Atoms(atoms.symbols, np.round(atoms.positions, 6))
    frame.calc = calculator(electric_field=field)
    results = {"energy": round(frame.get_potential_energy(), 7), "forces": np.round(frame.get_forces(), 6)}
    results |= {"charges": np.round(frame.get_charges(), 6), "dipole": np.round(frame.get_dipole_moment(), 6)}
    frame.info = info | ({"electric_field": field} if field.any() else {})
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def cluster(count: int, rng: np.random.Generator) -> Atoms:
    """Return molecules at random places around a centre, 2.8 Å apart, each turned at random."""
    atoms, places = Atoms(), [np.zeros(3)]
    while len(places) < count:
        place = places[rng.integers(len(places))] + 2.8 * _direction(rng)
        if min(np.linalg.norm(place - other) for other in places) > 2.6:
            places.append(place)
    for place in places:
        one = molecule("H2O")
        one.rotate(360 * rng.random(), _direction(rng))
        one.positions += place - one.positions[0]
        atoms += one
    return atoms


def _direction(rng: np.random.Generator) -> np.ndarray:
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


def water(rng: np.random.Generator) -> list[Atoms]:
    """Return all frames, isolated atoms first."""
    frames = [isolated_atom(symbol) for symbol in "HO"]
    for split, counts in FRAMES.items():
        for count, length in counts.items():
            for kelvin in KELVIN:
                frames += trajectory(count, kelvin, length, split, rng)
    return frames


def trajectory(count: int, kelvin: float, length: int, split: str, rng: np.random.Generator) -> list[Atoms]:
    """Run Langevin dynamics of a cluster, and label its frames as they are or drawn apart, without a field or in one."""
    atoms = cluster(count, rng)
    atoms.calc = calculator()
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, kelvin, rng=rng)
    dynamics = Langevin(atoms, STEP_FS * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.run(EQUILIBRATION)
    frames = []
    for k in range(length):
        dynamics.run(STRIDE)
        frame = atoms.copy()
        if k % 3 == 1 and count > 1:
            whole, factor = frame.positions.mean(axis=0), APART * rng.random()
            for m in range(count):
                mine = frame.positions[3 * m : 3 * m + 3]
                away = mine[0] - whole
                mine += factor * away / np.linalg.norm(away)
        field = np.round(STRONGEST * rng.random() * _direction(rng), 6) if k % 3 == 2 else np.zeros(3)
        frames.append(label(frame, field, config_type=f"h2o_{count}_{kelvin}K", split=split))
    return frames


def worst(frames: list[Atoms], step: float = 1e-3) -> tuple[float, float]:
    """Return the largest difference of labels and central differences of the energy: forces (eV/Å), dipole moments (e Å)."""
    force = dipole = 0.0
    for frame in frames:
        field = np.array(frame.info.get("electric_field", np.zeros(3)))
        for axis in range(3):
            energies = {"r": [], "f": []}
            for sign in (1, -1):
                moved = frame.copy()
                moved.positions[1, axis] += sign * step
                moved.calc = calculator(electric_field=field)
                energies["r"].append(moved.get_potential_energy())
                still = frame.copy()
                still.calc = calculator(electric_field=field + sign * step * np.eye(3)[axis])
                energies["f"].append(still.get_potential_energy())
            slope = {key: -(plus - minus) / (2 * step) for key, (plus, minus) in energies.items()}
            force = max(force, abs(slope["r"] - frame.calc.results["forces"][1, axis]))
            dipole = max(dipole, abs(slope["f"] - frame.calc.results["dipole"][axis]))
    return force, dipole


TEXT = """# Bundled set `water`

Made by `python -m benchmarks.make_water` on {date} (seed {seed}) with {method} through tblite {tblite}, ASE {ase},
NumPy {numpy}, Python {python}. SCF accuracy {accuracy}, electronic temperature 300 K.

{train} train and {test} test frames of one to four water molecules and 2 isolated atoms; energy (eV), forces (eV/Å), charges
(e, Mulliken) and dipole moment (e Å). Langevin dynamics at {kelvin} K, step {step} fs, a frame every {stride} steps after
{equilibration}. Of three frames one is as it came, one has its molecules drawn apart by up to {apart} Å, and one is in a
random homogeneous field of up to {strongest} V/Å (`electric_field`). Test frames come from trajectories of their own.

Checked when made, against central differences of the energy, on 4 frames: forces, largest difference {force:.1e} eV/Å; dipole
moments, by the field, largest difference {dipole:.1e} e Å.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "equipot/data/sets")
    out = parser.parse_args().out
    frames = water(np.random.default_rng(SEED))
    force, dipole = worst(frames[-4:])
    if max(force, dipole) > TOLERANCE:
        raise SystemExit(f"labels disagree with differences of the energy: forces {force} eV/Å, dipole moments {dipole} e Å")
    count = lambda split: sum(f.info["split"] == split and len(f) > 1 for f in frames)
    save(frames, out / "water.xyz.xz")
    text = TEXT.format(
        date=datetime.date.today().isoformat(), seed=SEED, method=METHOD, tblite=version("tblite"), ase=version("ase"),
        numpy=version("numpy"), python=platform.python_version(), accuracy=ACCURACY, train=count("train"), test=count("test"),
        kelvin=", ".join(map(str, KELVIN)), step=STEP_FS, stride=STRIDE, equilibration=EQUILIBRATION, apart=APART,
        strongest=STRONGEST, force=force, dipole=dipole,
    )  # fmt: skip
    (out / "water.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
