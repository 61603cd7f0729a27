"""What a wall does: a network that fuses hot atoms with it and without, and a published potential at short range."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.io
import jax
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

import equipot
from equipot import config
from equipot.convert.certificate import read_references
from equipot.data.closest import closest_distances
from equipot.metadata import Metadata
from equipot.physics.guard import Guarded, Wall, fitted, guard, outer_radii
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.training import TrainConfig, train
from equipot.workflows.doctor.bench import Bench
from equipot.workflows.doctor.examination import SMALL
from equipot.workflows.doctor.walls import dimer

REFERENCE = LennardJones(cutoff=3.5, epsilon=0.5, sigma=1.4)
"""The closed form that the network learns, of carbon's size."""
COLD, HOT = 300.0, 3000.0
"""Temperatures (K) of the training data and of the runs."""
STEPS, EVERY, FRAMES = 4000, 20, 40
"""Steps (1 fs) of a run, steps between frames, and frames of the training set."""
FUSED = 0.6
"""Distance (Å) below which two atoms have fused: at half of that of the training data."""
SETTINGS = {
    "model": {
        "kind": "MACE", "cutoff": 3.5, "channels": 8, "l_max": 1, "hidden_l": 0, "correlation": 2, "radial": {"mlp": [16]},
    },
    "training": {"epochs": 60, "batch_size": 4, "devices": 1},
    "seed": 0,
}  # fmt: skip
PARITY = Path(__file__).parent / "parity" / "references" / "sevennet-0.json"
POINTS = 40
"""Distances of a scan, from a twentieth of the inner radius to that radius."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")
    sub.add_argument("--elements", type=int, default=30, help="how many of its elements are scanned, from the lightest on")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of the hot runs, of the scans and of the structures of the parity benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        yield from hot_runs(Path(folder))
    potential = equipot.load(args.model)
    yield scans(potential, potential.elements[: args.elements]) | {"model": args.model}
    yield unchanged(potential) | {"model": args.model}


def hot_runs(folder: Path) -> Iterator[dict[str, Any]]:
    """Train on a cold crystal, and run hot: as it is, and with walls of two sizes."""
    variables = {"constants": {name: np.asarray(getattr(REFERENCE, name)) for name in ("epsilon", "sigma")}}
    reference = Potential(
        REFERENCE,
        variables,
        Metadata(((6, 0.0),)),
    ).astype("float64")
    frames = trajectory(reference, COLD, STEPS // 4)[-FRAMES:]
    ase.io.write(folder / "cold.xyz", frames)
    data = {"train": str(folder / "cold.xyz"), "valid": 0.1, "atomic_energies": {"C": 0.0}}
    best = train(config.build(TrainConfig, {"data": data, **SETTINGS}), folder / "run", progress=None)
    bare = equipot.load(best, "float64")
    seen = closest_distances([Structure.from_ase(frame) for frame in frames], bare.cutoff)
    potentials = {"reference": reference, "none": bare}
    potentials |= {"half of the radii": guard(bare, Wall()), "as in training": fitted(guard(bare, Wall()), seen)}
    for name, potential in potentials.items():
        hot = trajectory(potential, HOT, STEPS)
        closest = np.array([frame.get_all_distances(mic=True)[np.triu_indices(len(frame), 1)].min() for frame in hot])
        fused = np.flatnonzero(closest < FUSED)
        yield {
            "wall": name, "closest_in_training_A": float(seen[6, 6]), "temperature_K": HOT, "steps": STEPS,
            "closest_A": float(closest.min()), "fused_after_fs": int(fused[0]) * EVERY if len(fused) else None,
            "outer_radius_A": float(outer_radii(potential)[6, 6]) if isinstance(potential.term, Guarded) else None,
            "lowest_energy_eV": float(min(frame.get_potential_energy() for frame in hot)), "frames": len(hot),
        }  # fmt: skip


def trajectory(potential: Potential, kelvin: float, steps: int) -> list[ase.Atoms]:
    """Run a crystal at constant temperature; the frames until the end, or until two atoms have fused."""
    atoms = bulk("C", "fcc", 2.35, cubic=True) * 2
    atoms.calc = potential.calculator()
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng)
    frames = []
    for _ in range(steps // EVERY):
        try:
            dynamics.run(EVERY)
        except ValueError:
            # Atoms closer than 0.1 Å, or an energy that is not a number, are an error of the calculator.
            break
        frames.append(atoms.copy())
        frames[-1].calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        if atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() < FUSED / 2:
            break
    return frames


def scans(potential: Potential, elements: tuple[int, ...]) -> dict[str, Any]:
    """Count the pairs of elements whose energy rises all the way from the inner radius to a twentieth of it."""
    guarded = guard(potential, Wall())
    inner = outer_radii(guarded) / (1 + guarded.term.wall.width)
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    structures = [dimer(a, b, x * inner[a, b]) for a, b in pairs for x in np.linspace(0.05, 1, POINTS)]
    row: dict[str, Any] = {"pairs": len(pairs), "points": POINTS}
    for dtype in ("float64", "float32"):
        for name, model in (("bare", potential), ("guarded", guarded)):
            with jax.enable_x64(dtype == "float64"):
                seen = Bench(model.astype(dtype), SMALL).predict(structures)
            energy = np.array([s.energy for s in seen]).reshape(len(pairs), POINTS)
            row[f"monotone_{name}_{dtype}"] = int(np.sum(np.all(np.diff(energy, axis=1) < 0, axis=1)))
    return row


def unchanged(potential: Potential) -> dict[str, Any]:
    """Measure the largest changes by a wall on the structures of the parity benchmark."""
    records = read_references(PARITY)["structures"]
    structures = [Structure(*(np.array(r[key]) for key in ("numbers", "positions", "cell", "pbc"))) for r in records]
    row: dict[str, Any] = {"structures": len(structures)}
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            bare = potential.astype(dtype)
            pair = [equipot.evaluate_each(model, structures) for model in (bare, guard(bare, Wall()))]
        row[f"energy_{dtype}_eV"] = max(abs(float(a.energy) - float(b.energy)) for a, b in zip(*pair, strict=True))
        row[f"forces_{dtype}_eV/A"] = max(float(np.abs(a.forces - b.forces).max()) for a, b in zip(*pair, strict=True))
    return row
