"""Energies and charges of two fragments against their distance, by the models that ``long-range`` and ``accuracy`` trained.

CC         cation and anion: beyond the cutoff the energy must follow 1/r, and each fragment keep its charge
CP         polar molecule and anion: the total charge must stay on the second
PP         two polar molecules: both must stay neutral
dipeptide  a zwitterion of the test set, broken at a peptide bond between its charged groups: the halves have about -1 and +1 e

Besides the result file there is a plot of the same name.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import jax
import numpy as np
from ase.data import covalent_radii
from ase.io import read

import equipot
from equipot.figures import STYLE, empty_figure, save_figure
from equipot.physics.coulomb import COULOMB
from equipot.potential import Potential

MODELS = ("local", "electrons", "predicted", "flows", "equilibrated")
FAR = (20.0, 100.0)
"""Gaps (Å) between which the exponent of the energy is fitted."""
INFINITE = 1e6
"""Gap (Å) at which fragments no longer interact."""
BOND = 1.25
"""Factor on the sum of covalent radii within which two atoms are bonded."""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with lode_dimers/, dipeptides_spice/")
    sub.add_argument("--long-range", type=Path, default=Path("runs/long-range"), metavar="DIR", help="runs of `long-range`")
    sub.add_argument("--accuracy", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="runs of `accuracy`")


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the curves of each system by each model that has been trained, and the points of the data; plot them."""
    results = []
    with jax.enable_x64(True):
        for result in rows(args.data, args.long_range / "dimers", args.accuracy):
            results.append(result)
            yield result
    draw(results, args.out.with_suffix(".png"))


def rows(data: Path, dimers: Path, dipeptides: Path) -> Iterator[dict[str, Any]]:
    """Yield the curves of each model that has been trained, for each system; for dimers also the points of the data."""
    for name in ("CC", "CP", "PP"):
        train, test = (read(data / "lode_dimers" / f"{name}_{part}.extxyz", ":") for part in ("train", "test"))
        energies = np.array([atoms.get_potential_energy() for atoms in (*train, *test)])
        last = len(train) - 1
        yield {"system": name, "model": "data", "last": last, **in_crystal([*train, *test], energies, last)}
        for model, potential in trained({model: dimers / model for model in MODELS}):
            found = equipot.evaluate(potential, [*train, *test], want="energy").energy
            crystal = in_crystal([*train, *test], np.asarray(found), last)
            yield {"system": name, "model": model, **crystal, **curve(potential, *pair_of(train[0]))}
    for model, potential in trained({model: dipeptides / f"dipeptides-{model}" for model in MODELS}):
        broken = dipeptide(read(data / "dipeptides_spice" / "test.extxyz", 0))
        yield {"system": "dipeptide", "model": model, **curve(potential, *broken)}


def trained(runs: Mapping[str, Path]) -> Iterator[tuple[str, Potential]]:
    """Load the potential of each run that has one, in double precision."""
    for model, folder in runs.items():
        if (folder / "best.eqp").exists():
            yield model, equipot.load(folder / "best.eqp", "float64")


def in_crystal(frames: Sequence[ase.Atoms], energies: np.ndarray, last: int) -> dict[str, Any]:
    """Return energies (eV) from that of frame ``last``, and the distances (Å) between the centres of the molecules."""
    centres = [centre_distance(atoms, np.arange(len(atoms)) < int(atoms.info["indexB"])) for atoms in frames]
    return {"crystal_distance_A": centres, "crystal_energy_eV": (energies - energies[last]).tolist()}


def curve(potential: Potential, atoms: ase.Atoms, first: np.ndarray) -> dict[str, Any]:
    """Compute energies less that of separate fragments (eV), and the charge of the first fragment (e), over the gap (Å).

    The gap is the shortest distance between two atoms of different fragments. ``exponent`` is the n of r^n fitted to the energy
    between two gaps, with r the distance between the centres of the fragments; None where the energy is less than 1e-9 eV.
    """
    start = gap(atoms, first)
    near = np.geomspace(1, FAR[0], 25)
    widened = [0.0, *(near[near > start] - start), *(np.geomspace(*FAR, 9)[1:] - start), INFINITE]
    frames = [apart(atoms, first, more) for more in widened]
    charged = "charges" in {row.name for row in potential.provides}
    out = equipot.evaluate_each(potential, frames, ("energy", *(["charges"] if charged else [])), batch_size=8)
    energy = np.array([o.energy for o in out]) - out[-1].energy
    gaps = np.array([gap(a, first) for a in frames])
    far = (gaps > 0.9 * FAR[0]) & (gaps < 1.1 * FAR[1])
    centres = np.array([centre_distance(a, first) for a in frames])
    seen = bool(np.abs(energy[far]).min() > 1e-9)
    found = {
        "gap_A": gaps[:-1].tolist(),
        "centre_distance_A": centres[:-1].tolist(),
        "energy_eV": energy[:-1].tolist(),
        "exponent": float(np.polyfit(np.log(centres[far]), np.log(np.abs(energy[far])), 1)[0]) if seen else None,
        "energy_times_distance_eV_A": float(energy[far][-1] * centres[far][-1]),
    }
    if charged:
        found["first_charge_e"] = [float(o.charges[first].sum()) for o in out[:-1]]
    return found


def pair_of(atoms: ase.Atoms) -> tuple[ase.Atoms, np.ndarray]:
    """Return a frame of dimers as an open system, and which of its atoms are the first molecule."""
    frame = ase.Atoms(atoms.symbols, atoms.positions)
    frame.info["charge"] = int(atoms.info["charge"])
    return frame, np.arange(len(atoms)) < int(atoms.info["indexB"])


def dipeptide(atoms: ase.Atoms) -> tuple[ase.Atoms, np.ndarray]:
    """Return a molecule, and the atoms on one side of that amide bond which cuts it most evenly."""
    bonded = bonds(atoms)
    carbonyl = [k for k in range(len(atoms)) if atoms.numbers[k] == 6 and (atoms.numbers[bonded[k]] == 8).any()]
    amides = [(c, n) for c in carbonyl for n in np.flatnonzero(bonded[c] & (atoms.numbers == 7))]
    sides = [side(bonded, c, n) for c, n in amides]
    return ase.Atoms(atoms.symbols, atoms.positions), min(sides, key=lambda mask: abs(2 * mask.sum() - len(atoms)))


def bonds(atoms: ase.Atoms) -> np.ndarray:
    """Return whether two atoms of a molecule are bonded, (atoms, atoms)."""
    radii = covalent_radii[atoms.numbers]
    return (atoms.get_all_distances() < BOND * (radii[:, None] + radii[None])) & ~np.eye(len(atoms), dtype=bool)


def side(bonded: np.ndarray, start: int, other: int) -> np.ndarray:
    """Mark the atoms that bonds join to ``start`` other than by its bond to ``other``."""
    bonded = bonded.copy()
    bonded[start, other] = bonded[other, start] = False
    reached = np.arange(len(bonded)) == start
    for _ in bonded:
        reached = reached | bonded[reached].any(axis=0)
    return reached


def gap(atoms: ase.Atoms, first: np.ndarray) -> float:
    """Return the shortest distance (Å) between atoms of different fragments."""
    return float(atoms.get_all_distances()[np.ix_(first, ~first)].min())


def centre_distance(atoms: ase.Atoms, first: np.ndarray) -> float:
    """Return the distance (Å) between the mean positions of the fragments."""
    return float(np.linalg.norm(atoms.positions[first].mean(axis=0) - atoms.positions[~first].mean(axis=0)))


def apart(atoms: ase.Atoms, first: np.ndarray, more: float) -> ase.Atoms:
    """Return a system whose second fragment is moved away by ``more`` (Å) along the line of the centres."""
    line = atoms.positions[~first].mean(axis=0) - atoms.positions[first].mean(axis=0)
    moved = atoms.copy()
    moved.positions[~first] += more * line / np.linalg.norm(line)
    return moved


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the energies of CC, and the charge of the first fragment of every system, to a PNG file."""
    from matplotlib import rc_context

    colours = dict(zip(MODELS, ("#8a8f98", "#b59f3b", "#20639b", "#d1603d", "#3caea3"), strict=True))
    systems = list(dict.fromkeys(r["system"] for r in results))
    with rc_context(STYLE):
        figure = empty_figure(11.0, 6.0)
        axes = figure.subplots(2, 3).ravel()
        draw_energies([r for r in results if r["system"] == "CC"], colours, axes[:2])
        for axis, system in zip(axes[2:], systems, strict=True):
            for r in results:
                if r["system"] == system and "first_charge_e" in r:
                    axis.plot(r["gap_A"], r["first_charge_e"], color=colours[r["model"]], label=r["model"], linewidth=1.2)
            axis.set(xscale="log", xlabel="gap (Å)", ylabel="charge of the first fragment (e)", title=system)
            axis.legend()
        save_figure(figure, path)


def draw_energies(results: Sequence[Mapping[str, Any]], colours: Mapping[str, str], axes: Any) -> None:
    """Plot energies in the crystal from the last training point, linear, and of the pair from infinity, logarithmic."""
    last = next(r["last"] for r in results if r["model"] == "data")
    for r in results:
        distances, energy = r["crystal_distance_A"], r["crystal_energy_eV"]
        if r["model"] == "data":
            axes[0].plot(distances[: last + 1], energy[: last + 1], "ko", markersize=3, label="data, trained on")
            axes[0].plot(distances[last + 1 :], energy[last + 1 :], "ko", markersize=5, fillstyle="none", label="tested on")
            continue
        style = {"color": colours[r["model"]], "label": r["model"], "linewidth": 1.2}
        axes[0].plot(distances, energy, **style)
        if np.abs(r["energy_eV"]).max() > 0:
            axes[1].loglog(r["centre_distance_A"], np.abs(r["energy_eV"]), **style)
    line = np.array([5.0, 100.0])
    axes[1].loglog(line, COULOMB / line, "k:", label="Ke / r")
    axes[0].set(xlabel="distance (Å)", ylabel="energy from the last training point (eV)", title="CC, crystal of the data")
    axes[1].set(xlabel="distance (Å)", ylabel="|energy from infinity| (eV)", title="CC alone", ylim=(1e-3, 10))
    for axis in axes:
        axis.legend()
