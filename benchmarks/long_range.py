"""Models with charges beside models without, on three small sets whose energies depend on what is beyond the cutoff of 5 Å.

dimers  Six pairs of rigid molecules at several distances (Huguenin-Dumittan et al., J. Phys. Chem. Lett. 14, 9612 (2023)), C
        charged, P polar, A apolar: trained on the 10 shortest distances of each, tested on the three longest. The energies are
        of crystals with a period of 30 Å, not of single pairs: the forces of CC are those of ions in such a crystal. The data
        have no charges; those to learn from are of each molecule alone by GFN2-xTB (``pip install "equipot[xtb]"``).
carbon  C10H2 and C10H3+, with Hirshfeld charges, of Ko et al., Nat. Commun. 12, 398 (2021): 100 frames to train on, 28 to test.
slabs   Au2 on MgO(001), pure and doped with Al more than 10 Å below, of the same work: 12 frames to train on, 6 to test.

``--data PATH`` is a folder with lode_dimers/ and fourg_hdnnp_samples/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

import equipot
from benchmarks.accuracy import CONFIGS, facts_of, run_training
from benchmarks.charge_states import carbon, written
from equipot.potential import Potential

CONFIG = CONFIGS / "long-range.yaml"
CLASSES = ("CC", "CP", "CA", "PP", "PA", "AA")
"""Pairs of molecules of ``dimers``."""
SLABS_HELD = 3
"""Slabs of each composition to test on."""
HIRSHFELD = "data.keys={others: {charges: hirshfeld_charges}}"


def models() -> dict[str, list[str]]:
    """Return the overrides of the config for each model."""
    base = yaml.safe_load(CONFIG.read_text())["model"]["base"]
    network = lambda **more: [f"model={json.dumps(base | more)}"]
    return {"local": network(), "electrons": network(electrons={"width": 16}), **sources()}


def sources() -> dict[str, list[str]]:
    """Return the overrides of the config for each model with charges."""
    source = lambda kind: [f"model.charges={{kind: {kind}}}", "training.loss.charges={kind: Huber, scale: 0.03}"]
    return {kind.lower(): source(kind) for kind in ("Predicted", "Flows", "Equilibrated", "Polarizable")}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with lode_dimers/, fourg_hdnnp_samples/")
    sub.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET", help=", ".join(SETS))
    sub.add_argument("--models", nargs="+", choices=list(models()), default=list(models()), metavar="MODEL", help="of each set")
    sub.add_argument("--runs", type=Path, default=Path("runs/long-range"), metavar="DIR", help="folder of the training runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train each model on each set, or continue where it stopped; yield the test errors by part of the set."""
    for name in args.only:
        make, recipe, hirshfeld = SETS[name]
        files = make(args.data.resolve(), args.runs.resolve() / name)
        for model in args.models:
            out = args.runs.resolve() / name / model
            labelled = [HIRSHFELD] if hirshfeld and model in sources() else []
            settings = [*recipe, *labelled, *models()[model], *args.overrides]
            run_training(CONFIG, out, [f"data.train={files['train']}", *settings])
            table = errors(equipot.load(out / "best.eqp"), files)
            yield {"set": name, "variant": model, "settings": settings, **facts_of(out), "errors": table}


def errors(potential: Potential, files: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Compute rms test errors for each part of a set, and for all: total energies (meV), forces (meV/Å), charges (e)."""
    parts = {name: read(path, ":") for name, path in files.items() if name != "train"}
    found = {name: deviations(potential, frames) for name, frames in parts.items()}
    found["all"] = {key: np.concatenate([part[key] for part in found.values()]) for key in next(iter(found.values()))}
    rms = lambda x: float(np.sqrt(np.mean(x**2)))
    return {name: {key: rms(values) for key, values in part.items()} for name, part in found.items()}


def deviations(potential: Potential, frames: Sequence[ase.Atoms]) -> dict[str, np.ndarray]:
    """Return predicted less labelled energies (meV), force components (meV/Å), and charges (e) where the model has some."""
    charged = "charges" in {row.name for row in potential.provides}
    out = equipot.evaluate_each(potential, frames, ("energy", "forces", *(["charges"] if charged else [])))
    pairs = list(zip(out, frames, strict=True))
    rows = {
        "energy_meV": np.array([1e3 * (o.energy - atoms.get_potential_energy()) for o, atoms in pairs]),
        "force_meV_per_A": np.concatenate([1e3 * (o.forces - atoms.get_forces()).ravel() for o, atoms in pairs]),
    }
    if charged:
        rows["charge_e"] = np.concatenate([o.charges - charges_of(atoms) for o, atoms in pairs])
    return rows


def charges_of(atoms: ase.Atoms) -> np.ndarray:
    """Return the labelled charges of a frame, e."""
    return atoms.arrays["hirshfeld_charges"] if atoms.has("hirshfeld_charges") else atoms.get_charges()


def dimers(data: Path, folder: Path) -> dict[str, Path]:
    """Write the pairs of molecules with charges; each pair is a part of the test."""
    frames = {
        (name, part): [charged(atoms) for atoms in read(data / "lode_dimers" / f"{name}_{part}.extxyz", ":")]
        for name in CLASSES
        for part in ("train", "test")
    }
    train = [atoms for name in CLASSES for atoms in frames[name, "train"]]
    return written(folder, {"train": train, **{name: frames[name, "test"] for name in CLASSES}})


def charged(atoms: ase.Atoms) -> ase.Atoms:
    """Return a frame of two molecules, labelled with the charges that each has without the other."""
    first = int(atoms.info["indexB"])
    halves = atoms[:first], atoms[first:]
    totals = [int(atoms.info["chargeA"]), int(atoms.info["chargeB"])]
    # The file of CP has the charges of acetamide and acetate the wrong way round: each would have an odd number of electrons.
    if (halves[0].numbers.sum() - totals[0]) % 2:
        totals.reverse()
    charges = np.concatenate([molecular_charges(half, total) for half, total in zip(halves, totals, strict=True)])
    frame = ase.Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    frame.info = {key: atoms.info[key] for key in ("charge", "indexB", "distance")}
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "charges": charges}
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def molecular_charges(molecule: ase.Atoms, charge: int) -> np.ndarray:
    """Compute the charges (e) of a molecule by GFN2-xTB."""
    from tblite.ase import TBLite

    alone = ase.Atoms(molecule.symbols, molecule.positions)
    alone.calc = TBLite(method="GFN2-xTB", charge=charge, verbosity=0)
    return np.array(alone.get_charges())


def slabs(data: Path, folder: Path) -> dict[str, Path]:
    """Split the slabs: the last frames of each composition in the file are tested on."""
    frames = read(data / "fourg_hdnnp_samples" / "AlAuMgO_4G.extxyz", ":")
    kinds = {"pure": [a for a in frames if 13 not in a.numbers], "doped": [a for a in frames if 13 in a.numbers]}
    train = [atoms for kind in kinds.values() for atoms in kind[:-SLABS_HELD]]
    return written(folder, {"train": train, **{name: kind[-SLABS_HELD:] for name, kind in kinds.items()}})


SETS: dict[str, tuple[Any, list[str], bool]] = {
    "dimers": (
        dimers,
        ["data.valid=6", "training.batch_size=6", "training.loss.energy.scale=0.003", "training.loss.forces.scale=0.02"],
        False,
    ),
    "carbon": (carbon, ["data.valid=10"], True),
    "slabs": (slabs, ["data.valid=2", "training.batch_size=2"], True),
}
"""What writes the files of each set, the overrides of the config, and whether it has Hirshfeld charges."""
