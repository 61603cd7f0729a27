"""Charge and spin states told apart by one model: a small MACE with ``electrons`` beside one without, on the same frames.

carbon  C10H2 and C10H3+, from the data of 4G-HDNNP (Ko et al., Nat. Commun. 12, 398 (2021)): ``--data PATH`` is a folder with
        fourg_hdnnp_samples/Carbon_chain_4G.extxyz. The two differ by a hydrogen, which a local model sees near one end.
quinone p-benzoquinone as neutral singlet and triplet, cation and anion, by GFN2-xTB (``pip install "equipot[xtb]"``): the same
        distorted geometries in all four states, so that a model that does not see the state can do no better than ``least``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.optimize import BFGS

import equipot
from benchmarks.accuracy import CONFIGS, run_training

SEED = 18
HELD = 28
"""Frames of the carbon chains to test on."""
GEOMETRIES, TESTED, RATTLE = 60, 15, 0.04
"""Distorted geometries of the quinone, those to test on, and the standard deviation of a coordinate (Å)."""
STATES: dict[str, tuple[int, int]] = {"singlet": (0, 0), "triplet": (0, 2), "cation": (1, 1), "anion": (-1, 1)}
"""Charge (e) and unpaired electrons."""
MODELS = {"electrons": [], "without": ["model.electrons=null"]}
"""Overrides of the config for each model."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with fourg_hdnnp_samples/")
    sub.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET", help=", ".join(SETS))
    sub.add_argument("--runs", type=Path, default=Path("runs/charge-states"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train each model on each set, or continue where it stopped; yield the test errors of every state."""
    for name in args.only:
        folder = args.runs.resolve() / name
        files = SETS[name](args.data.resolve(), folder)
        for model, overrides in MODELS.items():
            out = folder / model
            settings = [f"data.train={files['train']}", *overrides, *args.overrides]
            run_training(CONFIGS / "charge-states.yaml", out, settings)
            yield {"set": name, "model": model, "settings": settings[1:], "states": errors(out / "best.eqp", files)}


def errors(potential: Path, files: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Compute the test errors of a potential: MAE of total energies (meV) and of forces (meV/Å) for each state, and for all.

    ``least`` is the smallest MAE of energies (meV) of a model that gives all states of one geometry one energy.
    """
    loaded, frames = equipot.load(potential), {name: read(path, ":") for name, path in files.items() if name != "train"}
    found = {name: deviations(loaded, held) for name, held in frames.items()}
    found["all"] = tuple(np.concatenate(parts) for parts in zip(*found.values(), strict=True))
    table = {
        name: {"energy_mae_meV": 1e3 * float(np.abs(e).mean()), "force_mae_meV_per_A": 1e3 * float(np.abs(f).mean())}
        for name, (e, f) in found.items()
    }
    counts = {len(held[0]) for held in frames.values()}
    if len(counts) == 1:
        energies = np.array([[atoms.get_potential_energy() for atoms in held] for held in frames.values()])
        table["all"]["least_meV"] = 1e3 * float(np.abs(energies - np.median(energies, axis=0)).mean())
    return table


def deviations(potential: Any, frames: Sequence[ase.Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted less labelled energies (eV) and force components (eV/Å)."""
    out = equipot.evaluate_each(potential, frames, ("energy", "forces"))
    energies = np.array([o.energy - atoms.get_potential_energy() for o, atoms in zip(out, frames, strict=True)])
    forces = [(o.forces - atoms.get_forces()).ravel() for o, atoms in zip(out, frames, strict=True)]
    return energies, np.concatenate(forces)


def carbon(data: Path, folder: Path) -> dict[str, Path]:
    """Split the carbon chains: 100 frames to train on, the others to test on, by state."""
    frames = read(data / "fourg_hdnnp_samples" / "Carbon_chain_4G.extxyz", ":")
    order = np.random.default_rng(SEED).permutation(len(frames))
    held = [frames[k] for k in order[:HELD]]
    states = {"C10H2": [a for a in held if len(a) == 12], "C10H3+": [a for a in held if len(a) == 13]}
    return written(folder, {"train": [frames[k] for k in order[HELD:]], **states})


def quinone(data: Path, folder: Path) -> dict[str, Path]:
    """Make the set of p-benzoquinone: every geometry in every state; test geometries are in no training frame."""
    from tblite.ase import TBLite

    atoms = benzoquinone()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01)
    rng = np.random.default_rng(SEED)
    places = atoms.positions + RATTLE * rng.normal(size=(GEOMETRIES, len(atoms), 3))
    frames = {}
    for name, (charge, spin) in STATES.items():
        method = TBLite(method="GFN2-xTB", charge=charge, multiplicity=spin + 1, accuracy=0.1, verbosity=0)
        frames[name] = [labelled(atoms, place, method, charge, spin) for place in places]
    parts = {"train": [f for held in frames.values() for f in held[TESTED:]]}
    return written(folder, {**parts, **{name: held[:TESTED] for name, held in frames.items()}})


def benzoquinone() -> ase.Atoms:
    """Make a rough p-benzoquinone: benzene with oxygen in place of two opposite hydrogens."""
    atoms = molecule("C6H6")
    hydrogens = [k for k, symbol in enumerate(atoms.symbols) if symbol == "H"]
    first = hydrogens[0]
    last = max(hydrogens, key=lambda k: atoms.get_distance(first, k))
    for k in (first, last):
        atoms.symbols[k] = "O"
        atoms.positions[k] *= 1.07
    return atoms


def labelled(atoms: ase.Atoms, positions: np.ndarray, method: Any, charge: int, spin: int) -> ase.Atoms:
    """Return the molecule at other positions (Å), with energy and forces of a method."""
    frame = ase.Atoms(atoms.symbols, positions)
    frame.calc = method
    results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
    frame.info = {"charge": charge, "spin": spin}
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def written(folder: Path, parts: Mapping[str, Sequence[ase.Atoms]]) -> dict[str, Path]:
    """Write each list of frames to a file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.xyz" for name in parts}
    for name, frames in parts.items():
        write(files[name], frames, format="extxyz")
    return files


SETS = {"carbon": carbon, "quinone": quinone}
