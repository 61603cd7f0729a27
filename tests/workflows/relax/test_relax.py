"""Relaxations beside those of ASE and jax-md, in batches and alone, and what is said where one fails."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian, FixedLine
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from pair_crystals import cluster, crystal, make_argon

from equipot.data.batch import centred
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.relax import FIRE, LBFGS, Newton, RelaxConfig, loop, relax
from equipot.workflows.relax.batch import Status, System
from equipot.workflows.relax.bounds import limits
from equipot.workflows.relax.coordinates import Coordinates
from equipot.workflows.relax.loop import Program, relaxed_systems

pytestmark = pytest.mark.usefixtures("double_precision")
OPTIMIZERS = [LBFGS(), FIRE(), Newton()]
STRESS = (0.5, -0.3, 0.2, 0.1, -0.2, 0.3)


def near_minimum(count, seed=0):
    """A cluster near a minimum, so that all methods find that one."""
    atoms = by_ase(cluster(count, spread=0.1), fmax=1e-3)
    atoms.calc = None
    atoms.positions += np.random.default_rng(seed).normal(0, 0.08, atoms.positions.shape)
    return atoms


def by_ase(atoms, fmax=1e-5, **of_cell):
    atoms = atoms.copy()
    atoms.calc = make_argon().calculator()
    moving = FrechetCellFilter(atoms, **of_cell) if of_cell else atoms
    BFGS(moving, logfile=None).run(fmax=fmax, steps=500)
    return atoms


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_clusters_and_crystals_end_where_those_of_ase_do(optimizer):
    molecules = [near_minimum(13), cluster(2), near_minimum(6)]
    found = relax(make_argon(), molecules, RelaxConfig(fmax=1e-5, optimizer=optimizer, max_steps=2000))
    for atoms, relaxed in zip(molecules, found, strict=True):
        assert relaxed.converged and relaxed.fmax <= 1e-5, relaxed.reason
        assert relaxed.energy == pytest.approx(by_ase(atoms).get_potential_energy(), abs=1e-7)
    crystals = [crystal(k) for k in range(3)]
    settings = RelaxConfig(cell="full", fmax=1e-5, smax_GPa=1e-4, optimizer=optimizer, symmetry=False, max_steps=2000)
    for atoms, relaxed in zip(crystals, relax(make_argon(), crystals, settings), strict=True):
        other = by_ase(atoms, fmax=1e-6, mask=[1] * 6)
        assert relaxed.converged, relaxed.reason
        assert relaxed.energy == pytest.approx(other.get_potential_energy(), abs=1e-7)
        assert relaxed.structure.volume == pytest.approx(other.get_volume(), rel=1e-5)
        np.testing.assert_allclose(relaxed.structure.stress, 0, atol=1e-4 * GPa)


def test_labels_are_those_of_the_potential():
    from equipot import evaluate

    for settings, atoms in ((RelaxConfig(), cluster(4)), (RelaxConfig(cell="full"), crystal())):
        (relaxed,) = relax(make_argon(), atoms, settings)
        out = evaluate(make_argon(), relaxed.structure)
        assert relaxed.structure.energy == pytest.approx(float(out.energy[0]), abs=1e-10)
        np.testing.assert_allclose(relaxed.structure.forces, out.forces, atol=1e-9)
        if out.stress is not None:
            np.testing.assert_allclose(relaxed.structure.stress, out.stress[0], atol=1e-9)


def test_the_steps_of_fire_are_those_of_jax_md():
    from jax_md import minimize, space

    from equipot.data.batch import pad
    from equipot.potential import forces_at
    from equipot.structure import Structure

    potential, atoms = make_argon(), cluster(4, spread=0.05)
    graph = pad([Structure.from_ase(atoms)], potential.cutoff, dtype=np.float64)
    _, shift = space.free()
    begin, step = minimize.fire_descent(lambda r, **kwargs: forces_at(potential, graph, r), shift)
    state = begin(jnp.asarray(graph.positions))
    for _ in range(12):
        state = jax.jit(step)(state)
    # One evaluation more than steps: the first is of the start.
    (found,) = relax(potential, atoms, RelaxConfig(fmax=1e-9, max_steps=13, optimizer=FIRE()))
    assert found.evaluations == 13 and not found.converged
    middle = atoms.positions.mean(axis=0)
    # jax-md keeps time step and mixing in half precision.
    way = np.abs(state.position - graph.positions).max()
    np.testing.assert_allclose(found.structure.positions - middle, state.position, atol=0.01 * way)
    assert way > 0.01 and state.n_pos == 0


def test_the_time_step_of_fire_stays_stable():
    """A pair of frequency omega, which velocity Verlet follows up to steps of 2 / omega, from a step ten times as long."""
    omega = np.sqrt(2 * 57.15 * 0.05 / 2.2**2)
    settings = RelaxConfig(fmax=1e-6, optimizer=FIRE(dt_start=20 / omega, dt_max=20 / omega))
    pair = Structure.from_ase(cluster(2, spread=0.02))
    ((system, reason),) = relaxed_systems(Program((make_argon(),), settings), [pair], lambda done, count, text: None)
    assert not reason
    # Not above 0.7 times the change of the curvature along the way; a steeper wall that was met is forgotten slowly.
    assert 0.1 < float(system.walk.memory.dt[0]) * omega < 0.75


def test_under_a_pressure_or_a_stress_the_cell_bears_it():
    settings = RelaxConfig(cell="full", fmax=1e-5, smax_GPa=1e-4, pressure_GPa=3.0, symmetry=False)
    (relaxed,) = relax(make_argon(), crystal(), settings)
    np.testing.assert_allclose(relaxed.structure.stress, -3 * GPa * np.eye(3), atol=2e-4 * GPa)
    other = by_ase(crystal(), fmax=1e-6, mask=[1] * 6, scalar_pressure=3 * GPa)
    assert relaxed.structure.volume == pytest.approx(other.get_volume(), rel=1e-5)
    assert relaxed.energy == pytest.approx(other.get_potential_energy(), abs=1e-6)
    settings = RelaxConfig(cell="full", fmax=1e-5, smax_GPa=1e-4, stress_GPa=STRESS, symmetry=False)
    (relaxed,) = relax(make_argon(), crystal(), settings)
    assert relaxed.converged, relaxed.reason
    s = relaxed.structure.stress / GPa
    np.testing.assert_allclose([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]], STRESS, atol=2e-4)


def test_some_strains_and_shapes():
    atoms = crystal()
    (shape,) = relax(make_argon(), atoms, RelaxConfig(cell="shape", fmax=1e-4, symmetry=False))
    assert shape.converged and shape.structure.volume == pytest.approx(atoms.get_volume(), rel=1e-10)
    (some,) = relax(make_argon(), atoms, RelaxConfig(cell="full", strains=("zz",), fmax=1e-4, symmetry=False))
    assert some.converged and abs(some.structure.stress[2, 2]) < 0.01 * GPa < abs(some.structure.stress[0, 0])
    (even,) = relax(make_argon(), atoms, RelaxConfig(cell="isotropic", fmax=1e-4, symmetry=False))
    ratio = even.structure.cell @ np.linalg.inv(atoms.cell[:])
    np.testing.assert_allclose(ratio, ratio[0, 0] * np.eye(3), atol=1e-12)
    assert abs(np.trace(even.structure.stress)) / 3 < 0.01 * GPa


def test_symmetry_is_kept_and_named():
    from spglib import get_spacegroup

    atoms = bulk("Ar", "hcp", a=2.4, c=4.3)
    (relaxed,) = relax(make_argon(), atoms, RelaxConfig(cell="full", fmax=1e-5))
    s = relaxed.structure
    cell = s.cell, np.linalg.solve(s.cell.T, s.positions.T).T, s.numbers
    assert relaxed.converged and relaxed.group == get_spacegroup(cell, symprec=1e-8).replace(" (", " (") == "P6_3/mmc (194)"


def test_fixed_atoms_and_components_stay():
    atoms = cluster(6, seed=2, spread=0.2)
    atoms.set_constraint([FixAtoms([0, 1]), FixCartesian([3], mask=(True, False, False))])
    (relaxed,) = relax(make_argon(), atoms, RelaxConfig(fmax=1e-5))
    s = relaxed.structure
    assert relaxed.converged
    np.testing.assert_allclose(s.positions[:2], atoms.positions[:2], atol=1e-12)
    assert s.positions[3, 0] == pytest.approx(atoms.positions[3, 0], abs=1e-12)
    assert np.abs(s.forces[0]).max() > 1e-3 and np.abs(s.forces[2]).max() < 1e-5
    assert by_ase(atoms).get_potential_energy() == pytest.approx(relaxed.energy, abs=1e-6)
    assert s.to_ase().constraints[0].index.tolist() == [0, 1]
    atoms.set_constraint(FixedLine(1, (1, 0, 0)))
    with pytest.raises(ValueError, match="FixedLine are not known here"):
        relax(make_argon(), atoms)


def test_a_slab_keeps_its_vacuum():
    slab = fcc111("Ar", (1, 1, 3), a=3.4, vacuum=6.0)
    (relaxed,) = relax(make_argon(), slab, RelaxConfig(cell="full", fmax=1e-4))
    assert relaxed.converged
    np.testing.assert_allclose(relaxed.structure.cell[2], slab.cell[2], atol=1e-10)
    assert abs(relaxed.structure.cell[0, 0] - slab.cell[0, 0]) > 1e-3


def test_batches_that_refill_are_what_each_is_alone():
    molecules = [cluster(2 + k % 5, seed=k) for k in range(9)]
    told = []
    say = lambda done, count, text: told.append((done, count))
    settings = RelaxConfig(fmax=1e-4, batch_size=3)
    together = relax(make_argon(), molecules, settings, say=say)
    assert [len(x.structure) for x in together] == [len(a) for a in molecules]
    for atoms, relaxed in zip(molecules, together, strict=True):
        (alone,) = relax(make_argon(), atoms, RelaxConfig(fmax=1e-4))
        assert relaxed.converged and relaxed.energy == pytest.approx(alone.energy, abs=1e-8)
        assert abs(relaxed.evaluations - alone.evaluations) <= 1
    assert told[-1] == (9, 9) and len({done for done, _ in told}) > 3


def test_newton_needs_few_gradients_and_a_cheaper_hessian_will_do():
    start = near_minimum(13)
    plain, newton = (relax(make_argon(), start, RelaxConfig(fmax=1e-6, optimizer=o))[0] for o in (LBFGS(), Newton()))
    assert newton.converged and newton.evaluations < plain.evaluations / 2 and newton.products > newton.evaluations
    assert newton.energy == pytest.approx(plain.energy, abs=1e-6)
    other = make_argon(cutoff=4.0, epsilon=0.06, sigma=2.1)
    (helped,) = relax(make_argon(), start, RelaxConfig(fmax=1e-6, optimizer=Newton()), cheaper=other)
    assert helped.converged and helped.energy == pytest.approx(newton.energy, abs=1e-6)


def test_failures_are_told():
    (short,) = relax(make_argon(), cluster(13), RelaxConfig(fmax=1e-6, max_steps=3))
    assert not short.converged and "3 evaluations were not enough" in short.reason and short.evaluations == 3
    merged = cluster(3)
    merged.positions[1] = merged.positions[0]
    (lost,) = relax(make_argon(), merged)
    assert not lost.converged and "not finite" in lost.reason
    wide = bulk("Ar", "fcc", a=5.5, cubic=True)
    (small,) = relax(make_argon(), wide, RelaxConfig(cell="isotropic", smax_GPa=0.001))
    assert not small.converged and "collapsed" in small.reason
    with pytest.raises(ValueError, match="does not know Ne"):
        relax(make_argon(), bulk("Ne", "fcc", a=4.0))


def test_a_collapse_is_that_of_the_cell_that_was_given():
    """A target stress that is no pressure renews the reference cell on the way, here at half of the first volume."""
    wide = Structure.from_ase(bulk("Ar", "fcc", a=5.4, cubic=True))
    settings = RelaxConfig(cell="full", stress_GPa=(-0.5, 0, 0, 0, 0, 0))
    at = lambda growth: Coordinates(centred(wide), 2.0 * growth * np.eye(3)[None])  # sqrt(4 atoms) x the strain
    point = lambda growth: SimpleNamespace(
        at=at(growth), force=np.zeros(1), gradient=Coordinates(np.zeros((4, 3)), np.zeros((1, 3, 3)))
    )
    walk = lambda growth: SimpleNamespace(point=point(growth), products=np.zeros(1))
    system = System(0, wide, limits(wide, settings), walk(np.log(0.5) / 3), Status(*np.zeros((4, 1), int)), volume=wide.volume)
    assert loop.abnormal(system, settings) == ""
    again = loop.renewed(system, settings)
    assert again.structure.volume == pytest.approx(wide.volume / 2) and again.walk is None
    small = again._replace(walk=walk(np.log(0.5) / 3))
    assert "collapsed: the volume is 0.25 times" in loop.abnormal(small, settings)


def test_a_symmetry_that_is_found_too_late_is_told():
    """A crystal that is cubic within 0.01 Å, but not within ``symprec``, keeps none of it; one that is exact keeps all."""
    exact = bulk("Ar", "bcc", a=2.8, cubic=True)
    near = exact.copy()
    near.set_cell(near.cell[:] * [[1], [1], [1.002]], scale_atoms=True)
    settings = RelaxConfig(cell="full", fmax=1e-4)
    kept, broken = relax(make_argon(), [exact, near], settings)
    assert kept.group == "Im-3m (229)" and kept.group_change == "" and not kept.broken and not kept.failures
    assert broken.converged and broken.broken and broken.group_change.startswith("Im-3m (229) to ")
    assert broken.energy < kept.energy - 1e-3 and "its symmetry broke" in broken.failures[0]
    for free in (RelaxConfig(cell="full", fmax=1e-4, symmetry=False), RelaxConfig(cell="full", symprec=0.01)):
        (allowed,) = relax(make_argon(), near, free)
        assert not allowed.failures and bool(allowed.group_change) is not free.symmetry


def test_settings_say_what_is_wrong():
    for wrong, text in (
        ({"fmax": 0.0}, "fmax 0.0 eV/Å must be positive"),
        ({"cell": "full", "strains": ("zx",)}, "'zx' is none of xx"),
        ({"strains": ("xx",)}, "only; the cell is fixed"),
        ({"pressure_GPa": 1.0}, "does nothing to a fixed volume"),
        ({"cell": "full", "stress_GPa": (1.0, 2.0)}, "takes six components"),
    ):
        with pytest.raises(ValueError, match=text):
            RelaxConfig(**wrong)
