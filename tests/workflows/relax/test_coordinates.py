"""Gradients, Hessian products and projections of the coordinates of a relaxation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pair_crystals import cluster, crystal, make_argon
from scipy.linalg import expm

from equipot.data.batch import Shape
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax import LBFGS, RelaxConfig
from equipot.workflows.relax.batch import Room, System, enlarged, landscape_of, packed, relisted
from equipot.workflows.relax.bounds import limits
from equipot.workflows.relax.coordinates import Coordinates, exponential

pytestmark = pytest.mark.usefixtures("double_precision")
STRESS = (0.5, -0.3, 0.2, 0.1, -0.2, 0.3)


def landscape(structures, settings):
    potential = make_argon()
    systems = [System(k, Structure.from_ase(a), limits(Structure.from_ase(a), settings)) for k, a in enumerate(structures)]
    systems = [relisted(s, (potential,), settings) for s in systems]
    shape = Shape(sum(map(len, structures)) + 3, 1, len(structures) + 1)
    room = enlarged(Room((shape,), (None,), ((),)), systems, (potential,), settings.skin)
    device = packed(systems, (potential,), room, LBFGS(), settings.moves_cells)
    return landscape_of((potential,), device.graphs, device.bounds, settings.moves_cells), device.walk.trial


def directions(at, seed=0):
    rng = np.random.default_rng(seed)
    strain = rng.normal(size=at.strain.shape)
    return Coordinates(jnp.asarray(rng.normal(size=at.positions.shape)), jnp.asarray(strain + np.swapaxes(strain, 1, 2)))


def along(at, direction, t):
    return jax.tree.map(lambda x, v: x + t * v, at, direction)


@pytest.mark.parametrize("settings", [
    RelaxConfig(), RelaxConfig(cell="full", symmetry=False), RelaxConfig(cell="isotropic", pressure_GPa=2.0, symmetry=False),
    RelaxConfig(cell="shape", symmetry=False), RelaxConfig(cell="full", stress_GPa=STRESS, symmetry=False),
    RelaxConfig(cell="full", strains=("xx", "xy"), symmetry=False),
], ids=["fixed", "full", "pressure", "shape", "stress", "some strains"])  # fmt: skip
def test_gradients_and_products_are_derivatives_of_the_energy(settings):
    scene, at = landscape([crystal(), crystal(1)], settings)
    at = along(at, scene.project(directions(at, 1)), 0.02)
    direction = scene.project(directions(at))
    point = jax.jit(scene.point)
    size = 2e-5
    ahead, behind = point(along(at, direction, size)), point(along(at, direction, -size))
    slope = scene.dot(point(at).gradient, direction)
    np.testing.assert_allclose(slope, (ahead.energy - behind.energy) / (2 * size), rtol=1e-6, atol=1e-7)
    product = scene.product(at, direction)
    difference = jax.tree.map(lambda x, y: (x - y) / (2 * size), ahead.gradient, behind.gradient)
    for found, expected in zip(product, difference, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-9)
    assert (np.abs(slope[:2]) > 1e-3).all()


def test_a_projection_is_idempotent_and_symmetric():
    settings = RelaxConfig(cell="full")
    cube = crystal(strain=0, rattle=0)
    scene, at = landscape([cube, cube], settings)
    assert scene.bounds.images.shape[0] == 192
    a, b = directions(at), directions(at, 3)
    once, twice = scene.project(a), scene.project(scene.project(a))
    for x, y in zip(once, twice, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)
    np.testing.assert_allclose(scene.dot(once, b), scene.dot(a, scene.project(b)), atol=1e-10)
    # A cube of one kind of atom can only grow, and no atom of it can move.
    np.testing.assert_allclose(once.positions, 0, atol=1e-12)
    np.testing.assert_allclose(once.strain[0], np.trace(once.strain[0]) / 3 * np.eye(3), atol=1e-12)


def test_a_symmetric_field_is_its_own_projection():
    """In rutile the oxygens may move along one line, in a cell of four layers along a screw axis no plane is fixed."""
    u = 0.3
    rutile = Atoms("Ar6", scaled_positions=[
        (0, 0, 0), (0.5, 0.5, 0.5), (u, u, 0), (-u, -u, 0), (0.5 - u, 0.5 + u, 0.5), (0.5 + u, 0.5 - u, 0.5),
    ], cell=[5.0, 5.0, 3.4], pbc=True)  # fmt: skip
    x, y = 0.13, 0.27
    screw = Atoms("Ar4", scaled_positions=[(x, y, 0.05), (-y, x, 0.3), (-x, -y, 0.55), (y, -x, 0.8)], cell=[5, 5, 7], pbc=True)
    for atoms, free in ((rutile, 1), (screw, 3)):
        scene, at = landscape([atoms], RelaxConfig(cell="full"))
        assert scene.bounds.images.shape[0] > 1
        once = scene.project(directions(at))
        for a, b in zip(once, scene.project(once), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        # The forces of a symmetric crystal are symmetric without a projection.
        point = scene.point(at)
        np.testing.assert_allclose(scene.project(point.found.forces).positions, point.found.forces.positions, atol=1e-10)
        assert np.abs(point.found.forces.positions).max() > 1e-3
        flat = [np.asarray(scene.project(directions(at, k)).positions).ravel() for k in range(6)]
        assert np.linalg.matrix_rank(flat, tol=1e-8) == free


def test_a_stress_or_strain_that_breaks_the_symmetry_is_not_ignored():
    cube = Structure.from_ase(crystal(strain=0, rattle=0))
    whole = limits(cube, RelaxConfig(cell="full"))
    assert len(whole.rotations) == 192 and np.linalg.matrix_rank(whole.strains) == 1
    pulled = limits(cube, RelaxConfig(cell="full", stress_GPa=(1.0, 0, 0, 0, 0, 0)))
    assert len(pulled.rotations) == 64 and np.linalg.matrix_rank(pulled.strains) == 2 and "64 of 192" in pulled.group
    one = limits(cube, RelaxConfig(cell="full", strains=("xx",)))
    assert np.linalg.matrix_rank(one.strains) == 1 and one.strains[0, 0] == pytest.approx(1)


def test_nearly_symmetric_positions_are_made_symmetric():
    atoms = bulk("Ar", "hcp", a=2.4, c=4.0)
    rattled = atoms.copy()
    rattled.positions += np.random.default_rng(0).normal(0, 2e-5, rattled.positions.shape)
    own = limits(Structure.from_ase(rattled), RelaxConfig(symprec=1e-3))
    even = rattled.positions + own.misfit
    between = lambda positions: positions[1] - positions[0]
    np.testing.assert_allclose(between(even), between(atoms.positions), atol=1e-9)
    assert np.abs(between(rattled.positions) - between(atoms.positions)).max() > 5e-6


def test_the_exponential_is_that_of_scipy():
    x = np.random.default_rng(0).normal(size=(5, 3, 3)) * 0.4
    np.testing.assert_allclose(jax.vmap(exponential)(jnp.asarray(x)), [expm(m) for m in x], rtol=1e-14, atol=1e-15)


def test_a_shape_keeps_its_volume_and_a_slab_its_vacuum():
    settings = RelaxConfig(cell="shape", symmetry=False)
    scene, at = landscape([crystal()], settings)
    moved = scene.placed(along(at, scene.project(directions(at)), 0.3))
    volumes = np.abs(np.linalg.det(np.asarray(moved.cell[:1])))
    assert volumes[0] == pytest.approx(crystal().get_volume(), rel=1e-12)
    slab = crystal()
    slab.pbc = (True, True, False)
    scene, at = landscape([slab], RelaxConfig(cell="full"))
    strain = np.asarray(scene.project(directions(at)).strain[0])
    normal = np.cross(slab.cell[0], slab.cell[1])
    np.testing.assert_allclose(strain @ (normal / np.linalg.norm(normal)), 0, atol=1e-12)
    assert np.linalg.matrix_rank(strain, tol=1e-8) == 2


def test_the_target_is_a_pressure_or_a_stress():
    structure = Structure.from_ase(crystal())
    np.testing.assert_allclose(limits(structure, RelaxConfig(cell="full", pressure_GPa=3)).target, -3 * GPa * np.eye(3))
    target = limits(structure, RelaxConfig(cell="full", stress_GPa=STRESS)).target / GPa
    assert target[0, 0] == pytest.approx(0.5) and target[1, 2] == target[2, 1] == pytest.approx(0.1)
    assert cluster(3).pbc.any() == np.False_
    with pytest.raises(ValueError, match="has no cell to relax"):
        limits(Structure.from_ase(cluster(3)), RelaxConfig(cell="full"))
