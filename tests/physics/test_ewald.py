"""The Ewald sum against Madelung constants, other splittings, repeated cells and finite strains."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from equipot.neighbors import neighbor_list
from equipot.physics.ewald import COULOMB, longest_wave, potentials_of_waves, short_range, wave_counts

TOLERANCE = 1e-15
MADELUNG = {"rocksalt": 1.7475645946331822, "cesiumchloride": 1.7626747730709883, "zincblende": 1.6380550533887892}
"""Energy of an ion pair in units of Ke / (nearest distance); R. E. Crandall, Exp. Math. 8, 367 (1999)."""


def energy(positions, cell, charges, smearing, counts, edges):
    """Energy of one crystal, eV, for given waves and pairs."""
    used = jnp.ones(len(counts), bool)
    smooth = 0.5 * charges @ potentials_of_waves(charges, positions, cell, counts, used, smearing)
    vectors = positions[edges.neighbors] + edges.shifts @ cell - positions[edges.centers]
    r = jnp.linalg.norm(vectors, axis=1)
    return smooth + 0.5 * jnp.sum(charges[edges.centers] * charges[edges.neighbors] * short_range(r, smearing))


def ewald(positions, cell, charges, smearing=1.0):
    counts = wave_counts(cell, longest_wave(smearing, TOLERANCE))
    edges = neighbor_list(positions, cell, (True,) * 3, 8.5 * smearing)
    return float(energy(jnp.asarray(positions), jnp.asarray(cell), jnp.asarray(charges), smearing, counts, edges))


@pytest.fixture
def crystal():
    rng = np.random.default_rng(0)
    cell = np.array([[6.0, 0, 0], [-3.0, 5.2, 0], [0.7, 1.1, 5.5]])
    charges = rng.normal(size=6)
    return rng.uniform(size=(6, 3)) @ cell, cell, charges - charges.mean()


@pytest.mark.parametrize("kind", MADELUNG)
def test_madelung_constants(kind, double_precision):
    name = {"rocksalt": "NaCl", "cesiumchloride": "CsCl", "zincblende": "ZnS"}[kind]
    atoms = bulk(name, kind, a=5.0)
    nearest = {"rocksalt": 0.5, "cesiumchloride": np.sqrt(3) / 2, "zincblende": np.sqrt(3) / 4}[kind] * 5.0
    found = ewald(atoms.positions, atoms.cell.array, np.array([1.0, -1.0]))
    assert -found * nearest / COULOMB == pytest.approx(MADELUNG[kind], abs=1e-12)


def test_the_splitting_does_not_matter(crystal, double_precision):
    assert ewald(*crystal, 0.6) == pytest.approx(ewald(*crystal, 1.3), abs=1e-10)
    positions, cell, charges = crystal
    # Charged, too: the background belongs to the split.
    assert ewald(positions, cell, charges + 0.2, 0.6) == pytest.approx(ewald(positions, cell, charges + 0.2, 1.3), abs=1e-10)


def test_a_repeated_cell_has_the_same_energy_per_cell(crystal, double_precision):
    positions, cell, charges = crystal
    twice = np.concatenate([positions, positions + cell[1]])
    long = cell * [[1], [2], [1]]
    assert ewald(twice, long, np.tile(charges, 2)) == pytest.approx(2 * ewald(*crystal), abs=1e-10)


def test_stress_by_finite_strain(crystal, double_precision):
    positions, cell, charges = (jnp.asarray(x) for x in crystal)
    counts = wave_counts(np.asarray(cell), longest_wave(1.0, TOLERANCE))
    edges = neighbor_list(np.asarray(positions), np.asarray(cell), (True,) * 3, 8.5)
    strained = jax.jit(lambda strain: energy(positions @ strain, cell @ strain, charges + 0.1, 1.0, counts, edges))
    exact, h = jax.grad(strained)(jnp.eye(3)), 1e-4
    for i, j in np.ndindex(3, 3):
        step = h * np.eye(3)[i][:, None] * np.eye(3)[j]
        numeric = (8 * (strained(np.eye(3) + step) - strained(np.eye(3) - step))
                   - (strained(np.eye(3) + 2 * step) - strained(np.eye(3) - 2 * step))) / (12 * h)  # fmt: skip
        assert float(numeric) == pytest.approx(float(exact[i, j]), abs=1e-8)
