"""The trajectory of a transport calculation, made by molecular dynamics: equilibration, then constant energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from equipot import md
from equipot.data.read import read_one
from equipot.evaluation import one_structure
from equipot.md.config import MDConfig
from equipot.md.prepare import repeated
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.transport.config import Run


def make_trajectory(potential: Potential, structure: Any, settings: Run, out: str | Path, progress: bool = True) -> Path:
    """Run dynamics into ``out/equilibration`` and ``out/nve``, or continue those that are there; return the latter folder.

    Args:
        potential: Potential.
        structure: Start, ``ase.Atoms`` or ``Structure``.
        settings: Temperature, lengths and copies.
        out: Folder.
        progress: Whether lines of progress are written.

    Raises:
        ValueError: several structures, copies along a direction that does not repeat, or as ``equipot.md.run``.
        Explosion: the system exploded.
    """
    structure, out = one_structure(structure, "a trajectory is"), Path(out)
    if any(n > 1 and not repeats for n, repeats in zip(settings.repeat, structure.pbc, strict=True)):
        raise ValueError(f"repeat is {settings.repeat}, but {structure.name} does not repeat along all of these vectors")
    start = repeated(structure, settings.repeat)
    if settings.equilibration_steps:
        folder = out / "equilibration"
        config = _config(potential, structure, settings, settings.equilibration_steps)
        _continue(potential, start.replace(momenta=None), config, folder, progress)
        last = read_one(str(folder / "trajectory.xyz"), -1)
        assert last.momenta is not None, "frames of equipot md have them"
        still = last.momenta - masses_of(last) * last.momenta.sum(axis=0) / masses_of(last).sum()
        start = start.replace(positions=last.positions, momenta=still)
    drawn = start.momenta is None
    config = replace(
        _config(potential, structure, settings, settings.steps),
        ensemble=md.NVE(), velocities="draw" if drawn else "file", trajectory=_format(settings),
    )  # fmt: skip
    _continue(potential, start, config, out / "nve", progress)
    return out / "nve"


def masses_of(structure: Structure) -> np.ndarray:
    """Return the masses (atoms, 1), amu."""
    from equipot.md.state import masses

    return masses(structure)


def _format(settings: Run) -> md.ExtXYZ | md.H5MD:
    return replace(settings.trajectory or md.ExtXYZ(), every=settings.every)


def _config(potential: Potential, structure: Structure, settings: Run, steps: int) -> MDConfig:
    precision = str(np.dtype(potential.dtype))
    assert precision in ("float32", "float64")
    return MDConfig(
        model="model", structure=structure.source or "structure", ensemble=md.NVTLangevin(), steps=steps,
        timestep_fs=settings.timestep_fs, temperature_K=settings.temperature_K, log_every=settings.every,
        trajectory=md.ExtXYZ(every=_sparse(settings)), seed=settings.seed,
        dtype="float32" if precision == "float32" else "float64",
    )  # fmt: skip


def _sparse(settings: Run) -> int:
    """Steps between frames of the equilibration, of which only the last one is used: a divisor of its length."""
    frames = max(1, settings.equilibration_steps // settings.every)
    parts = next((n for n in range(min(20, frames), 0, -1) if frames % n == 0), 1)
    return settings.every * (frames // parts)


def _continue(potential: Potential, start: Structure, config: MDConfig, folder: Path, progress: bool) -> None:
    resume = (folder / "checkpoint.safetensors").exists() or (folder / "log.csv").exists()
    md.simulate(potential, start, config, folder, resume, progress)
