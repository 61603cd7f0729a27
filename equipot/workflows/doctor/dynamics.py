"""Check energy conservation in a short run.

Velocity Verlet on the host uses the function that is already compiled: ``equipot md`` would compile the model three times more,
which takes longer than so few steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipot.md import NVE, MDConfig
from equipot.md.prepare import check_start
from equipot.md.state import masses, thermal_momenta
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import fs, kB
from equipot.workflows.doctor.bench import Bench
from equipot.workflows.doctor.evidence import EnergyRun
from equipot.workflows.doctor.findings import Finding, Measure, largest

TEMPERATURE = 300.0
"""Temperature of the initial velocities, K."""
STRONG = 1.0
"""Force on an atom (eV/Å) above which a structure is relaxed first."""
SETTLING = 40
"""Steps of the relaxation."""
STEP = 0.015
"""Displacement per force in the relaxation, Å^2/eV; stable up to stiffnesses of 130 eV/Å^2, and bonds have at most 50."""
LONGEST = 0.05
"""Largest displacement in one step of the relaxation, Å."""
DRIFT = (0.03, 0.1)
"""Drift of the total energy over the run (kT) for a look, and for a defect: 0.1 kT in 0.1 ps heats by T/3 per ps."""
FLUCTUATION = (0.03, 0.3)
"""Fluctuation of the total energy (kT) for a look, and for a defect; long steps alone raise the fluctuation."""
HOT = 2000.0
"""Temperature (K) above which a run tells little about the potential."""
EXPLODED = 20_000.0
"""Temperature (K) at which a run stops."""


def check_can_move(potential: Potential, structure: Structure) -> None:
    """Check that dynamics can start from a structure.

    Raises:
        ValueError: as ``equipot.md.prepare.check_start``.
    """
    check_start(MDConfig("-", "-", NVE()), potential, structure, lambda text: None)


def settled(bench: Bench, structures: Sequence[Structure]) -> list[Structure]:
    """Relax structures with strong forces by some steps of steepest descent, so that a run does not heat up."""
    structures = list(structures)
    for _ in range(SETTLING):
        seen = bench.predict(structures)
        strained = [k for k, s in enumerate(seen) if s.strongest > STRONG]
        if not strained:
            break
        for k in strained:
            move = STEP * seen[k].forces
            length = np.linalg.norm(move, axis=1, keepdims=True)
            move = move * np.minimum(1, LONGEST / np.maximum(length, 1e-12))
            structures[k] = structures[k].replace(positions=structures[k].positions + move)
    return structures


def timestep(structures: Sequence[Structure]) -> float:
    """Choose the time step: 1 fs, or 0.5 fs with hydrogen."""
    return 0.5 if min(masses(s).min() for s in structures) < 3 else 1.0


def constant_energy(
    bench: Bench, structures: Sequence[Structure], steps: int, seed: int
) -> tuple[Finding, tuple[EnergyRun, ...]]:
    """Check energy conservation of all structures over ``steps`` steps from 300 K; an explosion is a defect."""
    runs = carry_at_constant_energy(bench, structures, steps, seed)
    if max(run.temperature[-1] for run in runs) > EXPLODED or not all(np.isfinite(run.total).all() for run in runs):
        measure = Measure("explosions", 1, f"after {runs[0].time[-1]:.0f} fs", 0, 0)
        note = (
            "the system fell apart: see forces, cutoff and dimer wall, or the start is no structure that this potential knows"
        )
        return Finding("dynamics", (measure,), note), runs
    judged = [judge(run) for run in runs]
    measures = tuple(map(largest, zip(*judged, strict=True)))
    hottest = max(run.temperature.max() for run in runs)
    note = ""
    if hottest > HOT:
        note = f"it went up to {hottest:.0f} K from {TEMPERATURE:.0f} K: the start is far from any equilibrium"
    elif Finding("dynamics", measures).verdict != "sound":
        note = (
            f"energy is not conserved with steps of {timestep(structures):g} fs: see forces and cutoff, else try shorter steps"
        )
    return Finding("dynamics", measures, note), runs


def carry_at_constant_energy(bench: Bench, structures: Sequence[Structure], steps: int, seed: int) -> tuple[EnergyRun, ...]:
    """Run all structures at once at constant energy; all runs end when one explodes."""
    dt = timestep(structures) * fs
    mass = [masses(s) for s in structures]
    momenta = [thermal_momenta(s, TEMPERATURE, seed) for s in structures]
    seen = bench.predict(structures)
    rows = []
    for _ in range(steps + 1):
        kinetic = np.array([(p**2 / m).sum() / 2 for p, m in zip(momenta, mass, strict=True)])
        rows.append((kinetic, np.array([s.energy for s in seen])))
        temperature = kinetic / (1.5 * kB * np.array([len(s) for s in structures]))
        if not temperature.max() < EXPLODED:
            break
        half = [p + dt / 2 * s.forces for p, s in zip(momenta, seen, strict=True)]
        structures = [s.replace(positions=s.positions + dt * p / m) for s, p, m in zip(structures, half, mass, strict=True)]
        seen = bench.predict(structures)
        momenta = [p + dt / 2 * s.forces for p, s in zip(half, seen, strict=True)]
    kinetic, potential = np.moveaxis(np.array(rows), 0, -1)
    time = np.arange(len(rows)) * timestep(structures)
    sizes = [len(s) for s in structures]
    return tuple(
        EnergyRun(s.name, time, 1e3 * (k + e - k[0] - e[0]) / n, k / (1.5 * kB * n))
        for s, k, e, n in zip(structures, kinetic, potential, sizes, strict=True)
    )


def judge(run: EnergyRun) -> tuple[Measure, Measure]:
    """Measure drift (between the means of the first and last third) and fluctuation about a straight line, relative to kT."""
    third = max(1, len(run.time) // 3)
    drift = abs(run.total[-third:].mean() - run.total[:third].mean())
    noise = np.std(run.total - np.polyval(np.polyfit(run.time, run.total, 1), run.time))
    thermal = 1e3 * kB * max(TEMPERATURE / 2, float(run.temperature.mean()))
    return (
        Measure("drift", float(drift), f"meV/atom in {run.time[-1]:.0f} fs", *(share * thermal for share in DRIFT)),
        Measure("fluctuation", float(noise), "meV/atom", *(share * thermal for share in FLUCTUATION)),
    )
