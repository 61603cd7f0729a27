"""Sets of frames for ``uncertainty``: what potentials are trained on, calibrated on, and tested on.

acac       acetylacetone: trained and calibrated (150 frames) at 300 K, tested on others there and at 600 K
ethanol    trained on 300 frames of ethanol at 500 K, calibrated on 150, tested on others, normal modes and O-H dissociation
mlearn-X   all frames of a metal or silicon in the original training and test sets, drawn anew: 110 to train, 100 to calibrate
solvent    clusters of carbonates by GFN2-xTB: 200 to train, 150 to calibrate, 300 others to test
dipeptides calibrated on the validation set, tested on a formula that is not in the training set
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np

from equipot.data.read import read
from equipot.data.stats import is_isolated_atom
from equipot.structure import Structure

Frames = list[Structure]
NEW = ("Surface", "Vacancy")
"""Groups of mlearn whose atoms are new to a covariance of crystals and melts."""


class Sets(NamedTuple):
    """Frames of a task."""

    train: Frames
    calibrate: Frames
    tests: dict[str, Frames]
    """By name; atoms of each are compared with those of the first."""


class Task(NamedTuple):
    """Sets and the training of a potential."""

    make: Callable[[Path], Sets]
    config: str
    """In benchmarks/configs."""
    settings: tuple[str, ...] = ()
    """Added to the config, with ``{data}`` for the data folder."""


def frames_of(path: Path) -> Frames:
    """Read frames without isolated atoms."""
    return [frame for frame in read(str(path)) if not is_isolated_atom(frame)]


def split(frames: Sequence[Structure], *counts: int) -> list[Frames]:
    """Draw as many frames as each count says; the last set has all that are left."""
    order = np.random.default_rng(0).permutation(len(frames))
    parts = np.split(order, np.cumsum(counts))
    return [[frames[k] for k in part] for part in parts]


def acac(data: Path) -> Sets:
    folder = data / "acac"
    calibrate, rest = split(frames_of(folder / "test_MD_300K.extxyz"), 150)
    tests = {"300 K": rest, "600 K": frames_of(folder / "train_600K.extxyz")}
    return Sets(frames_of(folder / "train_300K.extxyz"), calibrate, tests)


def ethanol(data: Path) -> Sets:
    part = lambda name: frames_of(data / "ethanol_botnet" / f"{name}.extxyz")
    train, _ = split(part("train"), 300)
    calibrate, rest = split(part("test_MD"), 150)
    tests = {
        "MD": rest[:500], "normal mode 874": part("test_norm_mode_874"), "normal mode 3005": part("test_norm_mode_3005"),
        "O-H dissociation": part("test_H_removal"), "diatomics": part("test_dimers"),
    }  # fmt: skip
    return Sets(train, calibrate, tests)


def solid(symbol: str) -> Callable[[Path], Sets]:
    def make(data: Path) -> Sets:
        every = [frame for part in ("train", "test") for frame in frames_of(data / "mlearn" / f"{symbol}_{part}.extxyz")]
        train, calibrate, test = split(every, 110, 100)
        return Sets(train, calibrate, {"test": test})

    return make


def solvent(data: Path) -> Sets:
    calibrate, test, _ = split(frames_of(data / "solvent_gfn2xtb" / "test.extxyz"), 150, 300)
    return Sets(frames_of(data / "solvent_gfn2xtb" / "train.extxyz"), calibrate, {"test": test})


def dipeptides(data: Path) -> Sets:
    part = lambda name: frames_of(data / "dipeptides_spice" / f"{name}.extxyz")
    return Sets(part("train"), part("val"), {"new formula": part("test")})


TASKS = {
    "acac": Task(acac, "acac", ("data.atomic_energies={data}/acac/isolated_atoms.extxyz", "data.valid=25")),
    "ethanol": Task(ethanol, "acac", ("data.atomic_energies={data}/ethanol_botnet/isolated_atoms.extxyz", "data.valid=15")),
    **{f"mlearn-{symbol}": Task(solid(symbol), "mlearn") for symbol in ("Cu", "Si", "Li")},
    "solvent": Task(
        solvent, "acac", ("data.atomic_energies={data}/solvent_gfn2xtb/train.extxyz", "data.valid=15", "training.epochs=200")
    ),
    "dipeptides": Task(dipeptides, "dipeptides-local", ("data.valid={data}/dipeptides_spice/val.extxyz",)),
}
"""By name."""


def groups(frames: Sequence[Structure]) -> tuple[Frames, Frames]:
    """Divide frames of mlearn into crystals and melts, and surfaces and vacancies."""
    known = [frame for frame in frames if frame.info.get("group") not in NEW]
    return known, [frame for frame in frames if frame.info.get("group") in NEW]


def written(frames: Frames, path: Path) -> Path:
    """Write frames for a training run, once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        ase.io.write(path, [frame.to_ase() for frame in frames])
    return path
