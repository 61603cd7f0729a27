"""The laws of physics, each over every term and every system, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from systems import (
    ALONE,
    CHIRAL,
    COLLECTIVE,
    CUTOFF,
    ELEMENTS,
    MOLECULE,
    SHAPE,
    SYSTEMS,
    TERMS,
    VANISH,
    graph,
    potential,
    structure,
)

from equipot.data.batch import Shape, pad
from equipot.potential import evaluate, hessian, hessian_vector_product, interaction_energy

WANT = ("energy", "forces", "stress", "energies", "virials")
_evaluate = jax.jit(evaluate, static_argnames="want")
_energy = jax.jit(interaction_energy)

every_term = pytest.mark.parametrize("term", TERMS)
local_terms = pytest.mark.parametrize("term", [name for name in TERMS if name not in COLLECTIVE])
main_terms = pytest.mark.parametrize("term", ["mace", "nequip", "collective", "sum"])
every_crystal = pytest.mark.parametrize("system", [s for s in SYSTEMS if s.pbc.any()], ids=lambda s: s.source)
every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.source)


def predict(term, *systems, shape=SHAPE):
    out = _evaluate(potential(term), graph(*systems, shape=shape), want=WANT)
    return jax.tree.map(np.asarray, out)


def relative(a, b):
    """Largest deviation over the largest magnitude; the floor (eV, Å) is for what vanishes by symmetry."""
    return np.max(np.abs(a - b), initial=0.0) / max(1e-3, np.max(np.abs(b), initial=0.0))


def rotation(seed, handedness):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.sign(np.linalg.det(q)) == handedness else -q


@pytest.mark.parametrize(
    "term", ["mace", "mace-plain-l2", "mace-agnesi-correlation-4", "mace-attention-zbl", "nequip-rotations", "sum"]
)
def test_single_precision_stays_single_where_jax_has_64_bits(term):
    """One constant in double precision, and all that follows from it would be computed in it, at twice the cost."""
    single, known = potential(term).astype("float32"), pad([MOLECULE], CUTOFF, SHAPE)
    jaxpr = jax.make_jaxpr(lambda potential, graph: interaction_energy(potential, graph))(single, known)
    assert not doubles(jaxpr.jaxpr, known.num_atoms)


def doubles(jaxpr, atoms):
    """Features of atoms or pairs in double precision that make others double, in it and in what it calls."""
    strong = lambda x: x.dtype == jnp.float64 and not x.weak_type and len(x.shape) > 1 and max(x.shape) >= atoms
    found = [x.aval for equation in jaxpr.eqns for x in equation.outvars if strong(x.aval)]
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            found += doubles(inner, atoms)
    return found


@every_system
def test_the_systems_have_neighbours(system):
    """Without, the laws below would say nothing."""
    mask = graph(system).slot_mask[: len(system)]
    assert mask.any(axis=1).all() == (system.source not in ALONE)


@every_term
@every_system
@pytest.mark.parametrize("handedness", [1, -1], ids=["rotation", "rotation and reflection"])
def test_energy_is_invariant_and_the_rest_turns_along(term, system, handedness):
    if handedness == -1 and term in CHIRAL:
        pytest.skip("this term knows left from right")
    q = rotation(7, handedness)
    n = len(system)
    turned = system.replace(positions=system.positions @ q.T, cell=system.cell @ q.T)
    before, after = predict(term, system), predict(term, turned)
    assert relative(after.interaction[:1], before.interaction[:1]) < 1e-10
    assert relative(after.forces[:n], before.forces[:n] @ q.T) < 1e-10
    if system.pbc.any():
        assert relative(after.stress[0], q @ before.stress[0] @ q.T) < 1e-10


@pytest.mark.parametrize("term", CHIRAL)
def test_a_chiral_term_tells_mirror_images_apart(term):
    (triclinic,) = (s for s in SYSTEMS if s.source == "triclinic")
    mirrored = triclinic.replace(positions=triclinic.positions * [1, 1, -1], cell=triclinic.cell * [1, 1, -1])
    assert relative(predict(term, mirrored).interaction[0], predict(term, triclinic).interaction[0]) > 1e-6


@every_term
@every_system
def test_translation_and_permutation(term, system):
    n = len(system)
    order = np.random.default_rng(0).permutation(n)
    # Whole lattice vectors are part of the translation: an atom may lie outside the cell.
    images = np.random.default_rng(1).integers(-2, 3, (n, 3)) * system.pbc
    moved = system.positions + [0.3, -1.7, 2.9] + images @ system.cell
    before = predict(term, system)
    after = predict(term, system.replace(positions=moved[order], numbers=system.numbers[order]))
    assert relative(after.interaction[:1], before.interaction[:1]) < 1e-10
    assert relative(after.forces[:n], before.forces[:n][order]) < 1e-10
    assert relative(after.interactions[:n], before.interactions[:n][order]) < 1e-10
    if system.pbc.any():
        assert relative(after.stress[0], before.stress[0]) < 1e-10


@every_term
@every_system
def test_forces_are_minus_the_gradient(term, system):
    made, base = potential(term), graph(system)
    forces = predict(term, system).forces
    h = 3e-5
    energies = {}
    units = np.eye(3 * len(system)).reshape(-1, len(system), 3)
    for step in (-2, -1, 1, 2):
        energies[step] = np.array([
            _energy(made, base.replace(positions=_shifted(base, h * step * unit)))[0] for unit in units
        ])  # fmt: skip
    slope = (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12 * h)
    assert np.abs(forces[: len(system)].reshape(-1) + slope).max() < 1e-7


def _shifted(base, displacement):
    positions = base.positions.copy()
    positions[: len(displacement)] += displacement
    return positions


@every_term
@every_crystal
def test_stress_is_the_derivative_by_strain(term, system):
    made, base = potential(term), graph(system)
    stress = predict(term, system).stress[0]
    h = 3e-5
    numeric = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            values = {}
            for step in (-2, -1, 1, 2):
                strain = np.zeros((3, 3))
                strain[i, j] += h * step / 2
                strain[j, i] += h * step / 2
                deform = np.eye(3) + strain
                strained = base.replace(positions=base.positions @ deform, cell=base.cell @ deform)
                values[step] = float(_energy(made, strained)[0])
            numeric[i, j] = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h) / system.volume
    assert np.abs(stress - numeric).max() < 1e-8


@every_term
@every_system
def test_parts_sum_to_the_whole(term, system):
    out = predict(term, system)
    assert relative(out.interactions.sum(), out.interaction[0]) < 1e-12
    assert np.abs(out.forces.sum(axis=0)).max() < 1e-12
    if system.pbc.any():
        assert relative(out.virials.sum(axis=0) / system.volume, out.stress[0]) < 1e-12
        assert relative(out.stress[0], out.stress[0].T) < 1e-14
    else:
        assert np.isnan(out.stress[0]).all()
    # An internal torque would turn an isolated system by itself.
    if not system.pbc.any():
        assert np.abs(np.cross(system.positions, out.forces[: len(system)]).sum(axis=0)).max() < 1e-10


@local_terms
def test_two_far_copies_have_twice_the_energy(term):
    for system in (s for s in SYSTEMS if not s.pbc.any()):
        both = structure(
            np.tile(system.numbers, 2), np.concatenate([system.positions, system.positions + [0, 0, 50.0]]), source="two"
        )
        assert relative(predict(term, both).interaction[0], 2 * predict(term, system).interaction[0]) < 1e-12


@local_terms
@every_crystal
def test_a_repeated_cell_has_the_energy_of_its_parts(term, system):
    """The same crystal described by a cell of twice the length."""
    axis = np.flatnonzero(system.pbc)[0]
    cell = system.cell.copy()
    cell[axis] *= 2
    double = system.replace(
        numbers=np.tile(system.numbers, 2),
        positions=np.concatenate([system.positions, system.positions + system.cell[axis]]),
        cell=cell,
    )
    one, two = predict(term, system), predict(term, double)
    assert relative(two.interaction[0], 2 * one.interaction[0]) < 1e-11
    assert relative(two.stress[0], one.stress[0]) < 1e-11


@pytest.mark.parametrize("rows", [(0, 1), (0,), (2,), ()], ids=str)
def test_virials_are_the_derivative_by_strain_where_lattice_vectors_are_missing(rows):
    """There is no stress without a volume; completed rows of the cell turn with the others."""
    cell = np.zeros((3, 3))
    cell[list(rows)] = np.array([[5.1, 0.3, 0.8], [1.9, 4.6, 0.4], [-0.8, 1.1, 5.3]])[list(rows)]
    pbc = [k in rows for k in range(3)]
    positions = np.random.default_rng(0).uniform(0, 4, (5, 3))
    open_system = structure(np.array(ELEMENTS)[[0, 1, 2, 3, 1]], positions, cell, pbc, "open")
    made, base = potential("collective"), graph(open_system)
    virial = predict("collective", open_system).virials.sum(axis=0)
    assert np.abs(virial).max() > 1e-3
    h = 1e-4
    for i, j in ((0, 0), (1, 2), (0, 1), (2, 2), (0, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        plus, minus = (
            float(_energy(made, base.replace(positions=base.positions @ deform, cell=base.cell @ deform))[0])
            for deform in (np.eye(3) + strain, np.eye(3) - strain)
        )
        assert abs(virial[i, j] - (plus - minus) / (2 * h)) < 1e-6


@every_term
def test_padding_and_batching_change_nothing(term):
    molecule, slab = SYSTEMS[6], SYSTEMS[3]
    n, m = len(molecule), len(slab)
    alone = [predict(term, molecule), predict(term, slab)]
    together = predict(term, molecule, slab)
    assert relative(together.interaction, [alone[0].interaction[0], alone[1].interaction[0]]) < 1e-13
    assert relative(together.forces[:n], alone[0].forces[:n]) < 1e-12
    assert relative(together.forces[n : n + m], alone[1].forces[:m]) < 1e-12
    assert relative(together.stress[1], alone[1].stress[0]) < 1e-12
    assert not together.forces[n + m :].any()


@main_terms
def test_without_padding_and_without_jit(term):
    plain = jax.tree.map(np.asarray, evaluate(potential(term), pad([SYSTEMS[7]], CUTOFF, dtype=np.float64), WANT))
    padded = predict(term, SYSTEMS[7])
    assert relative(plain.interaction, padded.interaction[:1]) < 1e-13
    assert relative(plain.forces, padded.forces[:2]) < 1e-12


@local_terms
def test_smooth_through_the_cutoff(term):
    """A third atom crosses the cutoff: energy and forces are continuous and match the list without it."""

    def at(r):
        return structure([8, 6, 1], [[0, 0, 0], [1.2, 0, 0], [-r * 0.6, r * 0.8, 0]], source="crossing")

    gaps = []
    for h in (1e-2, 1e-3):
        inside, outside = predict(term, at(CUTOFF - h)), predict(term, at(CUTOFF + h))
        gaps.append((abs(inside.interaction[0] - outside.interaction[0]), np.abs(inside.forces - outside.forces).max()))
    # An envelope that leaves with the third power: a step ten times smaller shrinks energies 1000-fold and forces 100-fold.
    (e1, f1), (e2, f2) = gaps
    power = VANISH.get(term, 3)
    assert e2 < 100 * 1e-3**power and f2 < 100 * 1e-3 ** (power - 1)
    assert e2 <= e1 / (0.3 * 10**power) + 1e-13 and f2 <= f1 / (0.3 * 10 ** (power - 1)) + 1e-12


@main_terms
def test_hessian_is_the_derivative_of_the_forces(term):
    made, base = potential(term), graph(SYSTEMS[7], shape=Shape(4, 6, 1))
    forces = jax.jit(lambda r: evaluate(made, base.replace(positions=r), ("forces",)).forces)
    matrix = np.asarray(jax.jit(hessian)(made, base)).reshape(12, 12)[:6, :6]
    h = 3e-5
    columns = []
    for unit in np.eye(6).reshape(6, 2, 3):
        plus, minus = (forces(_shifted(base, sign * h * unit))[:2] for sign in (1, -1))
        columns.append(-(plus - minus).reshape(-1) / (2 * h))
    scale = max(1.0, np.abs(matrix).max())
    assert np.abs(matrix - np.stack(columns, axis=1)).max() < 1e-5 * scale
    assert np.abs(matrix - matrix.T).max() < 1e-10 * scale
    direction = np.random.default_rng(0).normal(size=(4, 3))
    direction[2:] = 0
    product = jax.jit(hessian_vector_product)(made, base, jnp.asarray(direction))[:2].reshape(-1)
    assert np.abs(product - matrix @ direction[:2].reshape(-1)).max() < 1e-10 * scale


@every_term
def test_an_unknown_element_is_never_a_number(term):
    alien = structure([8, 14], [[0, 0, 0], [0, 0, 1.6]], source="alien")
    assert np.isnan(predict(term, alien).interaction[0])
    with pytest.raises(ValueError, match="alien: the potential does not know Si; it was trained on H, C, O, Cu"):
        potential(term).check([alien])


@pytest.mark.parametrize("term", ["collective", "sum"])
def test_a_loss_of_forces_and_stress_has_the_right_gradient(term):
    """As training takes it: a derivative by parameters of derivatives by positions and cell."""
    made, base = potential(term), graph(SYSTEMS[1], MOLECULE)

    @jax.jit
    def loss(params):
        out = evaluate(made.replace(variables={**made.variables, "params": params}), base, ("forces", "stress"))
        return 1e3 * jnp.sum(out.forces**2) + 1e6 * jnp.sum(out.stress[0] ** 2)

    params = made.variables["params"]
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)
    at = lambda h: loss(jax.tree.map(lambda x, d: x + h * d, params, direction))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(loss)(params), direction)))
    h = 1e-4
    numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert abs(slope) > 0.1 and slope == pytest.approx(float(numeric), rel=1e-7)
