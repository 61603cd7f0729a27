"""Starts, counts and tables of the benchmark of relaxations."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import relaxation_tables  # noqa: E402
from benchmarks.relaxation_cases import by_ase, counting, relaxation  # noqa: E402
from benchmarks.relaxation_systems import crystals, lj38, many, molecules, random_cluster  # noqa: E402


def test_random_clusters_are_as_dense_as_those_of_optbench():
    """Of its published clusters 0 and others: 38 atoms in a cube of 3.62, nearest distances from 0.496 to 0.806."""
    for seed in range(3):
        positions = random_cluster(np.random.default_rng(seed))
        assert positions.shape == (38, 3) and np.abs(positions).max() <= 3.63 / 2
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1) + 10 * np.eye(38)
        assert 0.496 <= distances.min() < 0.6 and distances.min(axis=1).max() <= 0.806
    first, again = lj38(1)[0], lj38(1)[0]
    np.testing.assert_array_equal(first.positions, again.positions)


def test_structures_are_many_and_displaced():
    found = molecules(30)
    assert len(found) == 30 and all(set(a.symbols) <= set("HCNO") and not a.pbc.any() for a in found.values())
    solids = crystals(20)
    assert len(solids) == 20 and all(a.pbc.all() and 2 <= len(a) <= 8 for a in solids.values())
    sizes = [len(a) for a in many(20)]
    assert min(sizes) >= 10 and max(sizes) <= 40 and len(set(sizes)) > 5


def test_gradient_calls_of_ase_are_counted_once_a_geometry():
    atoms = Atoms("Ar3", [[0, 0, 0], [3.9, 0, 0], [1.9, 3.2, 0.1]])
    calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=20.0)
    atoms.calc, count = counting(calculator)
    start, optimizer = atoms.copy(), BFGS(atoms, logfile=None)
    for _ in range(3):
        atoms.get_forces(), atoms.get_potential_energy()
    assert count == [1]
    optimizer.run(fmax=1e-3)
    assert count[0] == optimizer.nsteps + 1
    found = by_ase(calculator, start, "molecules", "ASE BFGS")
    assert found.converged and found.calls == count[0] and found.energy == pytest.approx(-3 * 0.0104, rel=1e-3)


def test_methods_find_minima_of_lj38():
    row = relaxation("lj38", "L-BFGS", 2)
    assert row["converged"] == 2 and len(row["calls"]) == 2 and row["cpu_s"] > 0
    # The global minimum is -173.93 epsilon; no minimum is lower.
    assert all(-173.93 <= energy < -140 for energy in row["energies_eV"])


def test_the_table_names_higher_minima_and_what_was_skipped():
    row = {
        "part": "molecules", "converged": 2, "calls_mean": 10.0, "calls_median": 9.0, "calls_most": 12, "products_mean": 0.0,
        "cpu_s": 1.0, "names": ["H2O", "CO2"],
    }  # fmt: skip
    rows = [
        row | {"method": "L-BFGS", "energies_eV": [-1.0, -2.0]},
        row | {"method": "FIRE", "energies_eV": [-1.0, -1.99]},
        {"part": "molecules", "method": "Sella", "skipped": "sella is not installed"},
    ]
    shown = relaxation_tables.relaxation(rows)
    assert "- FIRE: CO2 +10 meV" in shown and "Sella: sella is not installed." in shown
    assert "| L-BFGS" in shown and "2/2" in shown and "1/2" in shown
