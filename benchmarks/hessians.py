"""Training on Hessians of GFN2-xTB beside training on energies and forces alone: frequencies and energies of unseen molecules.

Molecules of H, C, N and O with closed shells are drawn from the G2 set in ASE, relaxed by GFN2-xTB, and displaced at random;
`equipot hessian` labels all of these geometries. A third of the molecules is held out, with all of its geometries. Two runs of
the same network, seed and minutes learn the others, one without the Hessians; their Hessians then are those of Newton steps
by which GFN2-xTB relaxes the molecules held out. Geometries and labels stay in the folder of the
runs, so that a second call goes on where the first one stopped. Needs ``pip install "equipot[xtb]"``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import CONFIGS, evaluated, facts_of, run_training
from benchmarks.learned_newton import relaxations
from benchmarks.record import ROOT

ELEMENTS = {"H", "C", "N", "O"}
DISPLACED = 0.08
"""Standard deviation of each coordinate of a displaced geometry (Å)."""
HELD_OUT = 3
"""One of so many molecules is held out."""
LEARNED: dict[str, tuple[str, ...]] = {
    "energies and forces": ("data.keys.others.hessian=none",),
    "Hessians too": (),
}
"""Settings by what is learned."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--molecules", type=int, default=30, metavar="N", help="molecules, a third of them held out (default: 30)")
    sub.add_argument("--displaced", type=int, default=4, metavar="M", help="displaced geometries of each (default: 4)")
    sub.add_argument("--minutes", type=float, default=20.0, metavar="X", help="length of each run (default: 20)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="K", help="seeds of networks (default: 0)")
    sub.add_argument("--runs", type=Path, default=Path("runs/hessians"), metavar="DIR", help="folder of labels and runs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="any key of the config")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Make the labels, train each run, or continue where it stopped; yield its errors of molecules that it has not seen."""
    folder = args.runs.resolve() / f"{args.molecules}x{args.displaced}"
    folder.mkdir(parents=True, exist_ok=True)
    names = drawn(args.molecules)
    files = labelled(names, args.displaced, folder)
    for seed in args.seeds:
        for learned, settings in LEARNED.items():
            out = folder / f"{learned.replace(' ', '-')}-{args.minutes:g}-{seed}"
            given = [f"data.train={files['train']}", f"seed={seed}", f"training.max_minutes={args.minutes}", *settings]
            run_training(CONFIGS / "hessians.yaml", out, [*given, *args.overrides])
            errors = {
                name: evaluated(out / "best.eqp", files[name], out / f"errors-{name}.json") for name in ("minima", "displaced")
            }
            yield {
                "learned": learned, "seed": seed, "molecules": names, "config": "benchmarks/configs/hessians.yaml",
                "settings": settings, "overrides": args.overrides, **facts_of(out), "errors": errors,
                "relaxations": relaxations(folder / "displaced-geometries.xyz", out / "best.eqp"),
            }  # fmt: skip


def drawn(count: int) -> dict[str, list[str]]:
    """Draw molecules of the G2 set: names of those to train on, and of those held out, whose elements the others have.

    Raises:
        SystemExit: there are not so many, or no such draw is found.
    """
    from ase.build import molecule
    from ase.collections import g2

    def fits(name: str) -> bool:
        atoms = molecule(name)
        closed = not atoms.get_initial_magnetic_moments().any() and atoms.numbers.sum() % 2 == 0
        return len(atoms) > 2 and ELEMENTS >= set(atoms.symbols) and closed

    there = [name for name in g2.names if fits(name)]
    if not 3 <= count <= len(there):
        sys.exit(f"benchmarks: --molecules {count} must be from 3 to {len(there)}")
    elements = lambda names: {symbol for name in names for symbol in molecule(name).symbols}
    for seed in range(1000):
        chosen = [there[k] for k in np.random.default_rng(seed).permutation(len(there))[:count]]
        parts = {"train": sorted(chosen[count // HELD_OUT :]), "test": sorted(chosen[: count // HELD_OUT])}
        if elements(parts["test"]) <= elements(parts["train"]) and len(elements(parts["train"])) == len(ELEMENTS):
            return parts
    sys.exit(f"benchmarks: no {count} molecules whose elements are all to be learned; take more")


def labelled(names: dict[str, list[str]], displaced: int, folder: Path) -> dict[str, Path]:
    """Make geometries and their labels; return the files ``train``, ``minima`` and ``displaced``, the last two of the test."""
    from ase.io import write

    files = {name: folder / f"{name}.h5" for name in ("train", "minima", "displaced")}
    for name, file in files.items():
        if file.exists():
            continue
        geometries = folder / f"{name}-geometries.xyz"
        if not geometries.exists():
            minima = [relaxed(molecule) for molecule in names["train" if name == "train" else "test"]]
            shaken = [atoms for k, minimum in enumerate(minima) for atoms in copies(minimum, displaced, k)]
            write(geometries, {"train": [*minima, *shaken], "minima": minima, "displaced": shaken}[name])
        command = [sys.executable, "-m", "equipot", "hessian", str(geometries), "--calculator", "gfn2-xtb", "--out", str(file)]
        command += ["--set", "options.accuracy=0.01"]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
    return files


def relaxed(name: str) -> Any:
    """Relax a molecule by GFN2-xTB to forces of 1 meV/Å."""
    from ase.build import molecule
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    atoms = molecule(name)
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
    if not BFGS(atoms, logfile=None).run(fmax=1e-3, steps=500):
        sys.exit(f"benchmarks: {name} does not relax")
    atoms.calc = None
    return atoms


def copies(atoms: Any, count: int, seed: int) -> list[Any]:
    """Return displaced copies of a molecule."""
    out, rng = [], np.random.default_rng(seed)
    for _ in range(count):
        copy = atoms.copy()
        copy.positions += rng.normal(0, DISPLACED, copy.positions.shape)
        out.append(copy)
    return out
