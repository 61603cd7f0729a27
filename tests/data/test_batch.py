"""Graphs hold structures in single precision without rounding their geometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule

from equipot.data.batch import Shape, on_grid, pad, pad_targets
from equipot.graph import edge_vectors
from equipot.quantities import ENERGIES, ENERGY
from equipot.structure import Structure


def unwrapped():
    """Atoms of a skewed cell, many lattice vectors away from where they began, as in a long trajectory."""
    atoms = bulk("Si", cubic=True) * (3, 2, 2)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.01 * np.arange(9).reshape(3, 3)), scale_atoms=True)
    atoms.positions += np.random.default_rng(0).integers(-20, 20, (len(atoms), 3)) @ atoms.cell[:]
    return atoms


def slab():
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.cell[2, 2] = 517.3
    atoms.pbc = True, True, False
    return atoms


CASES = {"unwrapped": unwrapped, "slab": slab, "molecule": lambda: molecule("C6H6")}


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_double_precision_rounded_once(name, double_precision):
    structures = [Structure.from_ase(CASES[name](), source="test"), Structure.from_ase(molecule("CO"), source="test")]
    single, double = (jax.tree.map(jnp.asarray, pad(structures, 5.0, dtype=dtype)) for dtype in (np.float32, np.float64))
    exact, found = edge_vectors(double), jax.jit(edge_vectors)(single)
    assert found.dtype == jnp.float32 and double.positions_residual is None and double.slot_mask.sum() > 50
    # Half of the last place of a vector, and what the residuals were rounded by: forty cells, a grid of 2^-12 Å, 24 bits.
    assert np.all(np.abs(found - exact) <= 2.0**-24 * np.abs(exact) + 2e-9)
    np.testing.assert_allclose(edge_vectors(single.astype(jnp.float64)), exact, rtol=0, atol=2e-9)


def test_a_grid_is_as_fine_as_single_precision_allows():
    positions, cell = np.random.default_rng(0).uniform(-9, 9, (50, 3)), 20 * np.eye(3)
    shifts = np.array([[1, 0, -1]])
    rounded, lattice = on_grid(positions, cell, shifts)
    assert np.abs(rounded - positions).max() < 64 * 2.0**-24
    assert np.array_equal(rounded, rounded.astype(np.float32)) and np.array_equal(lattice, lattice.astype(np.float32))


def test_energies_of_atoms_are_counted_from_each_isolated_atom():
    water = Structure([8, 1, 1], np.eye(3), labels={"energy": -470.0, "energies": [-440.0, -14.0, -16.0]})
    targets = pad_targets([water], Shape(4, 2, 1), {1: -13.0, 8: -432.0}, [0], np.float64, (ENERGY, ENERGIES))
    np.testing.assert_array_equal(targets.labels["energy"], [-12.0])
    np.testing.assert_array_equal(targets.labels["energies"], [-8.0, -1.0, -3.0, 0.0])
