"""What a wall does: networks that fuse hot atoms with it and without, and a published potential at short range.

carbon   A crystal of a closed form (Lennard-Jones), on which the default of ``Wall.share_in_training`` was chosen.
silicon  The bundled set, GFN2-xTB up to 600 K, and
ethanol  the bundled set, GFN2-xTB up to 1,000 K: on these the default is only checked, with networks of two seeds.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.data
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
from equipot.data.bundled import load
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
STEPS, EVERY = 2000, 20
"""Steps (1 fs) of a hot run, and steps between frames."""
COLD_STEPS, FRAMES = 1000, 40
"""Steps of the cold run, and frames at its end that make the training set."""
FUSED = 0.4
"""Share of the sum of the covalent radii below which two atoms have fused: half of the length of a bond, or less."""
MODEL = {"kind": "MACE", "channels": 8, "l_max": 1, "hidden_l": 0, "correlation": 2, "radial": {"mlp": [16]}}
TRAINING = {"epochs": 60, "batch_size": 4, "devices": 1}
CUTOFFS = {"silicon": 4.0, "ethanol": 4.0}
"""Å, of the networks for the bundled sets."""
SEEDS = (1, 2)
"""Seeds of the networks and of the runs for each of these."""
PARITY = Path(__file__).parent / "parity" / "references" / "sevennet-0.json"
POINTS = 40
"""Distances of a scan, from a twentieth of the inner radius to that radius."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="sevennet-0", help="a potential: NAME.eqp, or a name of `equipot models`")
    sub.add_argument("--elements", type=int, default=30, help="how many of its elements are scanned, from the lightest on")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of the hot runs, of the scans and of the structures of the parity benchmark."""
    potential = equipot.load(args.model)
    yield unchanged(potential) | {"model": args.model}
    yield scans(potential, potential.elements[: args.elements]) | {"model": args.model}
    with tempfile.TemporaryDirectory() as folder:
        for name in CUTOFFS:
            for seed in SEEDS:
                yield from bundled(name, seed, Path(folder))
        yield from closed_form(Path(folder))


def closed_form(folder: Path) -> Iterator[dict[str, Any]]:
    """Train on a cold crystal, and run hot: the closed form, and the network as it is and with walls of two sizes."""
    variables = {"constants": {name: np.asarray(getattr(REFERENCE, name)) for name in ("epsilon", "sigma")}}
    reference = Potential(REFERENCE, variables, Metadata(((6, 0.0),))).astype("float64")
    crystal = bulk("C", "fcc", 2.35, cubic=True) * 2
    frames = trajectory(reference, crystal, COLD, COLD_STEPS, 0)[-FRAMES:]
    ase.io.write(folder / "cold.xyz", frames)
    data = {"train": str(folder / "cold.xyz"), "valid": 0.1, "atomic_energies": {"C": 0.0}}
    bare = trained(data, REFERENCE.cutoff, 0, folder / "carbon")
    seen = closest_distances([Structure.from_ase(frame) for frame in frames], bare.cutoff)
    potentials = {"reference": reference, "none": bare}
    potentials |= {"half of the radii": guard(bare, Wall()), "as in training": fitted(guard(bare, Wall()), seen)}
    for name, potential in potentials.items():
        yield {"system": "carbon", "wall": name, **hot(potential, crystal, 0)}


def bundled(name: str, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Train on a bundled set, and run its first frame hot: without a wall, and with that of a training."""
    frames = [frame for frame in load(f"{name}/train") if len(frame) > 1]
    bare = trained({"train": f"bundled:{name}/train", "valid": 0.1}, CUTOFFS[name], seed, folder / f"{name}-{seed}")
    seen = closest_distances(frames, bare.cutoff)
    for wall, potential in {"none": bare, "as in training": fitted(guard(bare, Wall()), seen)}.items():
        yield {"system": name, "wall": wall, **hot(potential, frames[0].to_ase(), seed)}


def trained(data: dict[str, Any], cutoff: float, seed: int, out: Path) -> Potential:
    """Train a small network without a wall, in float64 afterwards."""
    settings = {"data": data, "model": MODEL | {"cutoff": cutoff}, "training": TRAINING, "seed": seed}
    return equipot.load(train(config.build(TrainConfig, settings), out, progress=None), "float64")


def hot(potential: Potential, atoms: ase.Atoms, seed: int) -> dict[str, Any]:
    """Run atoms hot, and say when two of them fused, if any did."""
    frames = trajectory(potential, atoms, HOT, STEPS, seed)
    shares = np.array([closest_share(frame) for frame in frames])
    fused = np.flatnonzero(shares < FUSED)
    outer = outer_radii(potential) if isinstance(potential.term, Guarded) else None
    return {
        "seed": seed, "temperature_K": HOT, "steps": STEPS, "frames": len(frames),
        "closest_over_radii": float(shares.min()), "fused_after_fs": (int(fused[0]) + 1) * EVERY if len(fused) else None,
        "lowest_energy_eV": float(min(frame.get_potential_energy() for frame in frames)),
        "outer_radii_A": None if outer is None else {
            "-".join(ase.data.chemical_symbols[z] for z in pair): round(float(outer[pair]), 3)
            for pair in itertools.combinations_with_replacement(potential.elements, 2)
        },
    }  # fmt: skip


def closest_share(atoms: ase.Atoms) -> float:
    """Return the shortest distance between two atoms, as a share of the sum of their covalent radii."""
    first, second = np.triu_indices(len(atoms), 1)
    own = ase.data.covalent_radii[atoms.numbers]
    return float(np.min(atoms.get_all_distances(mic=True)[first, second] / (own[first] + own[second])))


def trajectory(potential: Potential, start: ase.Atoms, kelvin: float, steps: int, seed: int) -> list[ase.Atoms]:
    """Run atoms at constant temperature; the frames until the end, or until two atoms are one."""
    atoms = start.copy()
    atoms.calc = potential.calculator()
    rng = np.random.default_rng(seed)
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
        if closest_share(atoms) < FUSED / 2:
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
