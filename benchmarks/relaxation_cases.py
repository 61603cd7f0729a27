"""One method on all structures of a part of ``relaxation``, in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.units import GPa

from benchmarks.relaxation_systems import ARGON, REDUCED, crystals, lennard_jones, lj38, many, molecules

FORCE = 0.001
"""Largest force at the end of molecules and crystals, eV/Å."""
STRESS_GPA = 0.01
"""Largest component of the stress at the end of crystals, GPa."""
MOST = 1000
"""Gradient calls of a structure after which a method has failed."""


class End(NamedTuple):
    """A structure at the end of a method."""

    converged: bool
    calls: int
    energy: float
    """eV."""
    products: int = 0


def relaxation(part: str, method: str, count: int, model: str | None = None) -> dict[str, Any]:
    """Relax ``count`` structures of a part by a method; times are those of this process' processors."""
    import equipot

    systems = {"molecules": molecules, "crystals": crystals}.get(part)
    if systems is None:
        found = lj38(count) if part == "lj38" else many(count)
        named = {str(k): atoms for k, atoms in enumerate(found)}
        potential = lennard_jones(**(REDUCED if part == "lj38" else ARGON))
    else:
        named = systems(count)
        potential = equipot.load(str(model), dtype="float64")
    own = method.partition(" ")[0] in ("L-BFGS", "FIRE", "Newton")
    found, times = (by_equipot if own else by_others)(potential, named, part, method)
    return summary(part, named, found) | times | {"versions": versions(method)}


def summary(part: str, named: Mapping[str, Atoms], found: Mapping[str, End]) -> dict[str, Any]:
    """Collect calls, products and energies of all structures."""
    calls, products = ([getattr(end, name) for end in found.values()] for name in ("calls", "products"))
    return {
        "atoms": [len(a) for a in named.values()],
        "converged": sum(end.converged for end in found.values()),
        "not_converged": [name for name, end in found.items() if not end.converged],
        "calls_mean": float(np.mean(calls)), "calls_median": float(np.median(calls)), "calls_least": min(calls),
        "calls_most": max(calls), "products_mean": float(np.mean(products)), "calls": calls,
        "names": list(named), "energies_eV": [end.energy for end in found.values()],
        "force_limit_eV_per_A": limit(part),
    }  # fmt: skip


def limit(part: str) -> float:
    """Return the largest force at the end of a part, eV/Å."""
    of_clusters = {name: 0.01 * lj["epsilon"] / lj["sigma"] for name, lj in (("lj38", REDUCED), ("many", ARGON))}
    return of_clusters.get(part, FORCE)


def by_equipot(potential: Any, named: Mapping[str, Atoms], part: str, method: str) -> tuple[dict[str, End], dict[str, Any]]:
    """Relax twice, so that the second time nothing is compiled."""
    from equipot.workflows.relax import FIRE, LBFGS, Newton, RelaxConfig, relax

    optimizer: Any = {"L-BFGS": LBFGS(), "FIRE": FIRE(), "Newton": Newton()}[method.split(" ")[0]]
    if part == "lj38" or method.endswith("without model"):
        # The elements of clusters in reduced units are nobody's: no bond lengths follow from them.
        optimizer = dataclasses.replace(optimizer, valence=None)
    settings = RelaxConfig(fmax=limit(part), max_steps=20 * MOST if method == "FIRE" else MOST, optimizer=optimizer)
    if part == "crystals":
        settings = RelaxConfig(
            fmax=FORCE, smax_GPa=STRESS_GPA, cell="full", symmetry=False, optimizer=optimizer, max_steps=MOST
        )
    systems, times = list(named.values()), {}
    for name in ("first", "second"):
        wall, cpu = time.perf_counter(), time.process_time()
        if method.endswith("one by one"):
            found = [relax(potential, atoms, settings)[0] for atoms in systems]
        else:
            found = relax(potential, systems, settings)
        times |= {f"{name}_wall_s": time.perf_counter() - wall, f"{name}_cpu_s": time.process_time() - cpu}
    ends = [End(x.converged, x.evaluations, x.energy, x.products) for x in found]
    facts = {"cpu_s": times["second_cpu_s"], "compile_s": times["first_cpu_s"] - times["second_cpu_s"]}
    return dict(zip(named, ends, strict=True)), times | facts


def by_others(potential: Any, named: Mapping[str, Atoms], part: str, method: str) -> tuple[dict[str, End], dict[str, Any]]:
    """Relax one structure after the other by another program, with the calculator of equipot.

    Every structure is evaluated once before the clock starts, so that the calculator is compiled.
    """
    calculator, out = potential.calculator(), {}
    for atoms in named.values():
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms.get_forces()
    wall, cpu = time.perf_counter(), time.process_time()
    for name, atoms in named.items():
        out[name] = by_geometric(calculator, atoms) if method == "geomeTRIC" else by_ase(calculator, atoms, part, method)
    return out, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def counting(calculator: Any) -> tuple[Any, list[int]]:
    """Return a calculator that counts the geometries which it is asked for, with the count in a list of one."""
    from ase.calculators.calculator import Calculator, all_changes

    count, last = [0], [b""]

    class Counting(Calculator):
        implemented_properties = ["energy", "free_energy", "forces", "stress"]

        def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            key = atoms.positions.tobytes() + atoms.cell[:].tobytes()
            count[0] += key != last[0]
            last[0] = key
            twin = atoms.copy()
            wanted = ["energy", "forces", *(["stress"] if atoms.pbc.any() else [])]
            for name in wanted:
                self.results[name] = calculator.get_property(name, twin)
            self.results["free_energy"] = self.results["energy"]

    return Counting(), count


def by_ase(calculator: Any, atoms: Atoms, part: str, method: str) -> End:
    """Run an optimiser of ASE, or Sella, until forces and stress are as small as equipot is asked for."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE, LBFGS, BFGSLineSearch

    atoms = atoms.copy()
    atoms.calc, count = counting(calculator)
    cell = part == "crystals"
    if method == "Sella":
        from sella import Sella

        # Internal coordinates, and for a minimum; what it asks of the cell is left to the test below.
        options = {"optimize_cell": True} if cell else {"internal": True}
        make: Callable[[], Any] = lambda: Sella(atoms, order=0, logfile=None, **options)
    else:
        kind = {"ASE BFGS": BFGS, "ASE LBFGS": LBFGS, "ASE FIRE": FIRE, "ASE BFGSLineSearch": BFGSLineSearch}[method]
        make = lambda: kind(FrechetCellFilter(atoms) if cell else atoms, logfile=None)

    def done() -> bool:
        force = np.linalg.norm(atoms.get_forces(), axis=1).max()
        return bool(force <= FORCE and (not cell or np.abs(atoms.get_stress()).max() <= STRESS_GPA * GPa))

    try:
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            for _ in make().irun(fmax=1e-9, steps=MOST):
                if done() or count[0] > MOST:
                    break
        converged = done()
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        print(f"{method} on {atoms.get_chemical_formula()}: {error}", flush=True)
        converged = False
    return End(converged, count[0], float(atoms.get_potential_energy()))


def by_geometric(calculator: Any, atoms: Atoms) -> End:
    """Run geomeTRIC in its own internal coordinates (TRIC) until forces are small; its other criteria are switched off."""
    import geometric
    from ase.units import Bohr, Hartree
    from geometric.ase_engine import EngineASE
    from geometric.internal import DelocalizedInternalCoordinates
    from geometric.molecule import Molecule
    from geometric.optimize import Optimize
    from geometric.params import OptParams

    counted, count = counting(calculator)
    start = Molecule()
    start.elem, start.xyzs = list(atoms.symbols), [atoms.positions.copy()]
    off = {f"convergence_{name}": 1e3 for name in ("energy", "grms", "drms", "dmax")}
    settings = OptParams(maxiter=MOST, convergence_gmax=FORCE * Bohr / Hartree, **off)
    engine = EngineASE(start, counted)
    coordinates = DelocalizedInternalCoordinates(start, build=True, connect=False, addcart=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(open(os.devnull, "w")):
        path = Path(folder) / "run"
        path.mkdir()
        try:
            found = Optimize(start.xyzs[0].flatten() / Bohr, start, coordinates, engine, str(path), settings)
        except geometric.errors.Error as error:
            print(f"geomeTRIC on {atoms.get_chemical_formula()}: {error}", flush=True)
            return End(False, count[0], float("nan"))
    last = atoms.copy()
    last.positions, last.calc = found.xyzs[-1], calculator
    force = np.linalg.norm(last.get_forces(), axis=1).max()
    return End(bool(force <= 1.01 * FORCE), count[0], float(last.get_potential_energy()))


def versions(method: str) -> dict[str, str]:
    """Return the version of the program of a method."""
    from importlib.metadata import version

    package = {"Sella": "sella", "geomeTRIC": "geometric"}.get(method, "ase" if method.startswith("ASE") else "equipot")
    return {package: version(package)}
