"""The model Hessian of stretches, bends and torsions beside derivatives of ASE's distances, angles and dihedrals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.optimize import BFGS

from equipot.data.batch import Shape, find_slots, pad
from equipot.metadata import Metadata
from equipot.physics.stillinger_weber import StillingerWeber
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.relax import LBFGS, Newton, RelaxConfig, relax
from equipot.workflows.relax.valence import (
    ACROSS,
    BEND,
    LINEAR,
    STRETCH,
    TORSION,
    Valence,
    internals_of,
    packed_internals,
    rows_of_model,
)

pytestmark = pytest.mark.usefixtures("double_precision")
CUTOFF, ROOM = 4.0, (64, 12)
BOHR, HARTREE = 0.529177, 27.2114


def shaken(name, seed=0, size=0.05):
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


def model(systems):
    """Slopes by positions and by a strain of a batch, and the coordinates of each system."""
    structures = [Structure.from_ase(a) for a in systems]
    slots = [find_slots(s, CUTOFF) for s in structures]
    found = [internals_of(s, own) for s, own in zip(structures, slots, strict=True)]
    width = max(s.mask.shape[1] for s in slots)
    shape = Shape(sum(map(len, systems)) + 2, width, len(systems) + 1)
    graph = pad(structures, CUTOFF, shape, np.float64, slots)
    internals = packed_internals(found, shape, ROOM, np.dtype(np.float64))
    by_atoms, by_strain = jax.jit(lambda i, g: rows_of_model(i, g, Valence()))(internals, graph)
    return np.asarray(by_atoms), np.asarray(by_strain), found


def kinds(found):
    return {kind: int((found.kind == kind).sum()) for kind in (STRETCH, BEND, LINEAR, ACROSS, TORSION)}


def test_bonds_angles_and_torsions_of_molecules_are_counted():
    for name, expected in {
        "CH4": (4, 6, 0, 0, 0), "C2H6": (7, 12, 0, 0, 9), "H2O": (2, 1, 0, 0, 0), "H2O2": (3, 2, 0, 0, 1),
        "CO2": (2, 0, 1, 1, 0), "C6H6": (12, 18, 0, 0, 24),
    }.items():  # fmt: skip
        atoms = molecule(name)
        structure = Structure.from_ase(atoms)
        assert tuple(kinds(internals_of(structure, find_slots(structure, CUTOFF))).values()) == expected, name
    for element, a in (("Ar", 3.5), ("Cu", 3.6), ("C", 3.567)):
        solid = Structure.from_ase(bulk(element, "diamond" if element == "C" else "fcc", a=a))
        found = kinds(internals_of(solid, find_slots(solid, CUTOFF)))
        assert tuple(found.values()) == ((4, 12, 0, 0, 36) if element == "C" else (0, 0, 0, 0, 0))


@pytest.mark.parametrize("name", ["H2O2", "C2H6"])
def test_slopes_are_those_of_the_coordinates_of_ase(name):
    """k_q (dq/dx)(dq/dx)^T of each coordinate, with q of ASE and the constants of the paper, beside another molecule."""
    atoms = shaken(name)
    by_atoms, by_strain, (_, found) = model([shaken("CH4"), atoms])
    structure = Structure.from_ase(atoms)
    ends = find_slots(structure, CUTOFF).neighbors
    for k, (j, (a, b, c), kind) in enumerate(zip(found.centre, found.slots, found.kind, strict=True)):
        i, m = ends[j, a], ends[j, b]
        last = ends[m, c]
        bonds = {STRETCH: [(j, i)], BEND: [(j, i), (j, m)], TORSION: [(j, i), (j, m), (m, last)]}[kind]

        def value(x, kind=kind, names=(i, j, m, last)):
            moved = Atoms(atoms.numbers, x)
            i, j, m, last = names
            if kind == STRETCH:
                return moved.get_distance(i, j)
            return np.deg2rad(moved.get_angle(i, j, m) if kind == BEND else moved.get_dihedral(i, j, m, last))

        slope, step = np.zeros((len(atoms), 3)), 1e-5
        for p in range(len(atoms)):
            for x in range(3):
                ahead, behind = atoms.positions.copy(), atoms.positions.copy()
                ahead[p, x], behind[p, x] = ahead[p, x] + step, behind[p, x] - step
                change = value(ahead) - value(behind)
                slope[p, x] = ((change + np.pi) % (2 * np.pi) - np.pi) / (2 * step)
        rho = np.prod([weight(atoms, *bond) for bond in bonds])
        constant = {STRETCH: 0.45 * HARTREE / BOHR**2, BEND: 0.15 * HARTREE, TORSION: 2 * 0.005 * HARTREE}[kind]
        ours = by_atoms[1, k, : len(atoms)]
        expected = constant * rho * np.outer(slope, slope)
        np.testing.assert_allclose(np.outer(ours, ours), expected, rtol=2e-2, atol=1e-4 * np.abs(expected).max())
        # A uniform strain moves each atom by its position times the strain.
        np.testing.assert_allclose(by_strain[1, k], atoms.positions.T @ ours, atol=1e-8)
    assert (by_atoms[1, len(found.kind) :] == 0).all() and (by_atoms[2] == 0).all()


def weight(atoms, i, j):
    """rho_ij of the paper, in its atomic units."""
    pair = tuple(sorted(0 if z <= 2 else 1 for z in atoms.numbers[[i, j]]))
    alpha, reference = {(0, 0): (1.0, 1.35), (0, 1): (0.3949, 2.10), (1, 1): (0.28, 2.87)}[pair]
    return np.exp(alpha * (reference**2 - (atoms.get_distance(i, j) / BOHR) ** 2))


def test_straight_angles_are_stiff_in_both_directions():
    atoms = molecule("CO2")
    by_atoms, _, _ = model([atoms])
    flat = by_atoms[0, :, :3].reshape(-1, 9)
    curvatures = np.linalg.eigvalsh(flat.T @ flat)
    # Two stretches and two bends, which are alike; three translations and two rotations cost nothing.
    assert (curvatures[:5] < 1e-9).all() and (curvatures[5:] > 1).all()
    bond = atoms.get_distance(0, 1)
    # A bend by one radian for a way of both ends of bond / 2 against the middle: (1, -2, 1) / bond.
    bend = 0.15 * HARTREE * weight(atoms, 0, 1) * weight(atoms, 0, 2) * 6 / bond**2
    assert (np.abs(curvatures / bend - 1) < 1e-3).sum() == 2


def carbon():
    """The potential of Stillinger and Weber with the bond length of carbon."""
    size = 1.54 / 2.351
    term = StillingerWeber(cutoff=3.77118 * size, sigma=2.0951 * size, epsilon=4.0)
    return Potential(term, {"constants": {"epsilon": np.float64(term.epsilon)}}, Metadata(((6, 0.0),)))


def cage(seed=0):
    """Carbon atoms of adamantane, displaced."""
    x = 0.89
    far = [np.array(p) * 2 * x for p in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    places = [(x, x, x), (x, -x, -x), (-x, x, -x), (-x, -x, x), *far, *(-p for p in far)]
    atoms = Atoms("C10", np.array(places))
    atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
    return atoms


def test_fewer_gradients_and_products_to_the_minimum_of_ase():
    systems = [cage(k) for k in range(4)]
    other = []
    for atoms in systems:
        atoms = atoms.copy()
        atoms.calc = carbon().calculator()
        BFGS(atoms, logfile=None).run(fmax=1e-4, steps=500)
        other.append(atoms.get_potential_energy())
    spent = {}
    for name, optimizer in {
        "plain": LBFGS(valence=None), "valence": LBFGS(), "Newton": Newton(valence=None), "Newton, valence": Newton(),
    }.items():  # fmt: skip
        found = relax(carbon(), systems, RelaxConfig(fmax=1e-4, optimizer=optimizer))
        assert all(x.converged for x in found)
        np.testing.assert_allclose([x.energy for x in found], other, atol=1e-6)
        spent[name] = sum(x.evaluations for x in found), sum(x.products for x in found)
    assert spent["valence"][0] < 0.8 * spent["plain"][0]
    assert spent["Newton, valence"][1] < 0.8 * spent["Newton"][1]


def test_a_cell_with_bonds_relaxes_to_the_minimum_of_ase():
    from ase.filters import FrechetCellFilter

    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    rng = np.random.default_rng(0)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    settings = RelaxConfig(cell="full", fmax=1e-4, smax_GPa=1e-3, symmetry=False)
    (found,) = relax(carbon(), atoms, settings)
    other = atoms.copy()
    other.calc = carbon().calculator()
    BFGS(FrechetCellFilter(other), logfile=None).run(fmax=1e-4, steps=300)
    assert found.converged and found.energy == pytest.approx(other.get_potential_energy(), abs=1e-6)
    assert found.structure.volume == pytest.approx(other.get_volume(), rel=1e-5)


def test_fixed_atoms_stay_and_a_constant_must_be_positive():
    from ase.constraints import FixAtoms

    atoms = cage()
    atoms.set_constraint(FixAtoms([0, 5]))
    (found,) = relax(carbon(), atoms, RelaxConfig(fmax=1e-4))
    assert found.converged
    np.testing.assert_allclose(found.structure.positions[[0, 5]], atoms.positions[[0, 5]], atol=1e-12)
    assert jnp.isfinite(found.energy)
    with pytest.raises(ValueError, match="bend -1.0 must be positive"):
        Valence(bend=-1.0)
