"""Hyperelastic laws: laws of mechanics for any parameters, fits to known materials, files, export and a finite-element bar."""

import ast
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from finite_elements import Block, solved
from pair_crystals import make_argon
from scipy.optimize import brentq

from equipot.artifact import DamagedError
from equipot.structure import Structure
from equipot.workflows.constitutive import (
    Convex,
    Density,
    GroupAverage,
    Law,
    NeoHooke,
    SaintVenantKirchhoff,
    StrainRange,
    StructuralTensors,
    Training,
    Unconstrained,
    ellipticity,
    fit,
    indifference,
    label,
    point_rotations,
    random_gradients,
)
from equipot.workflows.constitutive.baselines import voigt
from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.density import normalised, reference
from equipot.workflows.constitutive.examination import Evaluated, error_of
from equipot.workflows.constitutive.kinematics import random_rotations
from equipot.workflows.constitutive.labelling import elastic_tensor_of, reference_stress, small_strains
from equipot.workflows.constitutive.law import Origin, started

BOUNDS = StrainRange(0.1, 0.12)
FORMS = {
    "convex average": Density(GroupAverage(3), Convex((4, 4))),
    "convex structural": Density(StructuralTensors(powers=(1, 2)), Convex((4, 4))),
    "free average": Density(GroupAverage(3), Unconstrained((4, 4))),
    "free structural": Density(StructuralTensors(((0.0, 0.0, 2.0), (1.0, 1.0, 0.0))), Unconstrained((4, 4)), growth=0.0),
}
CRYSTALS = {"fcc": bulk("Cu", "fcc", a=3.6), "hcp": bulk("Mg", "hcp", a=3.2, c=5.2)}
pytestmark = pytest.mark.usefixtures("double_precision")


def untrained(form, crystal, seed=0):
    """A law with random parameters and a modulus of 10 GPa."""
    rotations = point_rotations(Structure.from_ase(CRYSTALS[crystal]))
    params, constants = started(FORMS[form], rotations, seed)
    constants = constants._replace(scale=0.1 * constants.scale, modulus=jnp.asarray(10.0))
    return Law(FORMS[form], params, constants, reference(FORMS[form], params, constants), Origin("a test", BOUNDS, 0))


@pytest.mark.parametrize("form, crystal", [*((form, "hcp") for form in FORMS), ("convex average", "fcc")])
def test_any_parameters_give_a_law_of_mechanics(form, crystal):
    law = untrained(form, crystal)
    functions = Evaluated(law)
    turned = indifference(law, BOUNDS, 100)
    assert max(turned.energy, turned.stress, turned.symmetry) < 1e-12
    # A rotation that the crystal lacks does change the energy: the test above can fail.
    f = random_gradients(BOUNDS, 100, 1)
    energies, stresses = functions.energies(f), functions.stresses(f)
    if form != "free structural":
        assert np.abs(functions.energies(f @ random_rotations(1, 3)) - energies).max() > 1e-6 * np.abs(energies).max()
    one = np.broadcast_to(np.eye(3), f.shape)
    assert np.abs(functions.energies(one)).max() < 1e-12 and np.abs(functions.stresses(one)).max() < 1e-12 * 10
    e = 1e-6 * np.random.default_rng(0).normal(size=(3, 3))
    slope = (functions.energies(f + e) - functions.energies(f - e)) / 2
    np.testing.assert_allclose(np.einsum("nij,ij->n", stresses, e), slope, atol=1e-8 * np.abs(slope).max() + 1e-14)


def curvatures(law):
    """Lowest eigenvalues of the second derivatives of the energy by F, cof F and J as 19 free numbers, at random ones."""

    def energy(x):
        return normalised(
            law.density, law.params, law.constants, law.terms, (x[:9].reshape(3, 3), x[9:18].reshape(3, 3), x[18])
        )

    rng = np.random.default_rng(0)
    start = np.concatenate([np.eye(3).ravel(), np.eye(3).ravel(), [1.0]])
    points = start + 0.3 * rng.normal(size=(20, 19))
    return np.linalg.eigvalsh(jax.jit(jax.vmap(jax.hessian(energy)))(jnp.asarray(points))).min(axis=1)


@pytest.mark.parametrize("form, crystal", [("convex average", "hcp"), ("convex structural", "fcc")])
def test_a_convex_network_is_polyconvex(form, crystal):
    assert curvatures(untrained(form, crystal)).min() > -1e-10


def test_a_free_network_is_not_polyconvex():
    assert curvatures(untrained("free average", "fcc")).min() < -1e-3


@pytest.mark.parametrize("form", ["convex average", "convex structural"])
def test_the_energy_grows_without_limit_as_the_volume_vanishes(form):
    law = untrained(form, "fcc")
    sizes = 10.0 ** -np.arange(2.0, 6.0)
    energies = Evaluated(law).energies(np.cbrt(sizes)[:, None, None] * np.eye(3))
    # 1 / J^2 with the coefficient of the law.
    np.testing.assert_allclose(energies[1:] / energies[:-1], 100, rtol=0.2)
    assert np.isinf(law.energy(np.diag([1.0, 1.0, -1.0])))


def test_ellipticity_is_that_of_waves():
    law = untrained("free average", "fcc", seed=1)
    found = ellipticity(law, BOUNDS, 1.5, 50)
    assert found.lost_inside > 0 and found.inside < 0
    # The energy along the worst wave is not convex: its second difference.
    tangent = Evaluated(law).tangents(found.worst[None])[0]
    best = 0.0
    for n in np.random.default_rng(0).normal(size=(300, 3)):
        n /= np.linalg.norm(n)
        values, vectors = np.linalg.eigh(np.einsum("iJkL,J,L->ik", tangent, n, n))
        best = min(best, values[0])
        wave = 1e-3 * np.outer(vectors[:, 0], n)
        around = Evaluated(law).energies(found.worst + np.array([-1, 0, 1])[:, None, None] * wave)
        second = (around[0] - 2 * around[1] + around[2]) / 1e-6
        if values[0] < 0.9 * found.inside:
            assert second == pytest.approx(values[0], rel=0.02)
            break
    assert best < 0.9 * found.inside
    kept = ellipticity(untrained("convex average", "fcc"), BOUNDS, 1.5, 50)
    assert kept.lost_inside == kept.lost_outside == 0


@pytest.fixture(scope="module")
def argon():
    """A Lennard-Jones crystal without stress, with energies and stresses of deformed cells by the Cauchy-Born rule."""
    jax.config.update("jax_enable_x64", True)
    potential = make_argon()
    cell = lambda a: Structure.from_ase(bulk("Ar", "fcc", a=a))
    size = brentq(lambda a: np.trace(reference_stress(potential, cell(a))), 3.3, 3.6, xtol=1e-10)
    crystal = cell(size)
    find = lambda gradients: label(potential, crystal, gradients, "affine").data
    return crystal, find


@pytest.fixture(scope="module")
def trained(argon):
    jax.config.update("jax_enable_x64", True)
    crystal, find = argon
    data = find(random_gradients(BOUNDS, 80, 0))
    form = Density(GroupAverage(4), Unconstrained((8, 8)))
    said = []
    training = Training(adam_steps=0, lbfgs_steps=300)
    found = fit(data, point_rotations(crystal), form, training, bounds=BOUNDS, say=lambda *line: said.append(line))
    assert said[-1][:2] == (300, 300)
    return data, found


def test_labels_are_those_of_an_elastic_body(argon):
    """P is the derivative of W; a pair potential obeys Cauchy's relation at zero stress."""
    crystal, find = argon
    f = random_gradients(BOUNDS, 5, 3)
    e = 1e-5 * np.random.default_rng(1).normal(size=(3, 3))
    data, up, down = find(f), find(f + e), find(f - e)
    slope = (up.energies - down.energies) / 2
    np.testing.assert_allclose(np.einsum("nij,ij->n", data.stresses, e), slope, atol=1e-7 * np.abs(slope).max())
    c = voigt(elastic_tensor_of(find(small_strains(1e-4)), 1e-4, point_rotations(crystal)))
    assert c[0, 1] == pytest.approx(c[3, 3], rel=1e-5) and c[0, 0] > c[0, 1] > 0


def test_a_trained_law_is_better_than_classical_ones_on_unseen_deformations(argon, trained):
    crystal, find = argon
    data, fitted = trained
    rotations = point_rotations(crystal)
    c = elastic_tensor_of(find(small_strains(1e-3)), 1e-3, rotations)
    others = SaintVenantKirchhoff(c), SaintVenantKirchhoff.fitted(data, rotations), NeoHooke.fitted(data)
    test = find(random_gradients(BOUNDS, 40, 9))
    error = lambda law: error_of(law.energies(test.gradients), law.stresses(test.gradients), test)
    mine = error(Evaluated(fitted.law))
    assert mine.relative < 0.02 and mine.stress < 0.2 * min(error(law).stress for law in others)
    turned = indifference(fitted.law, BOUNDS)
    assert max(turned.energy, turned.stress, turned.symmetry) < 1e-12
    np.testing.assert_allclose(voigt(np.asarray(fitted.law.elastic_tensor())), voigt(c), atol=0.05 * voigt(c)[0, 0])


def test_a_polyconvex_law_learns_a_polyconvex_material():
    f = random_gradients(BOUNDS, 60, 4)
    hooke = NeoHooke(30.0, 40.0)
    data = Deformations(f, hooke.stresses(f), hooke.energies(f))
    form = Density(StructuralTensors((), (1,)), Convex((6,)))
    law = fit(data, np.eye(3)[None], form, Training(adam_steps=0, lbfgs_steps=100)).law
    test = random_gradients(BOUNDS, 30, 5)
    assert (
        error_of(hooke.energies(test), Evaluated(law).stresses(test), Deformations(test, hooke.stresses(test))).relative < 0.02
    )
    c = voigt(np.asarray(law.elastic_tensor()))
    assert (c[0, 0], c[0, 1], c[3, 3]) == pytest.approx((100, 40, 30), rel=0.05)


def test_a_law_survives_its_file(trained, tmp_path):
    law = trained[1].law
    law.save(tmp_path / "law.safetensors")
    again = Law.load(tmp_path / "law.safetensors")
    assert again.density == law.density and again.origin == law.origin
    f = random_gradients(BOUNDS, 80, 6)
    np.testing.assert_array_equal(Evaluated(again).energies(f), Evaluated(law).energies(f))
    whole = (tmp_path / "law.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(DamagedError):
        Law.load(tmp_path / "cut.safetensors")


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", ["trained", "convex average"])
def test_the_exported_module_agrees_and_needs_numpy_alone(form, trained, tmp_path):
    law = trained[1].law if form == "trained" else untrained(form, "hcp")
    law.export(tmp_path / "law.py")
    tree = ast.parse((tmp_path / "law.py").read_text())
    assert [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names] == ["numpy"]
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    module, functions = imported(tmp_path / "law.py"), Evaluated(law)
    f = random_rotations(50, 7) @ random_gradients(BOUNDS, 50, 7, 0.0, 2.0)
    pairs = [
        (module.energy(f), functions.energies(f)),
        (module.first_piola_kirchhoff(f), functions.stresses(f)),
        (module.tangent(f), functions.tangents(f)),
        (module.cauchy(f[0]), law.cauchy(f[0])),
    ]
    for mine, exact in pairs:
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-10 * np.abs(exact).max())
    np.testing.assert_allclose(module.distance(f), BOUNDS.distance(f))
    assert module.energy(f.reshape(5, 10, 3, 3)).shape == (5, 10)
    with pytest.raises(ValueError, match="determinant"):
        module.energy(-np.eye(3))


def test_the_exported_module_runs_where_jax_is_not(trained, tmp_path):
    trained[1].law.export(tmp_path / "law.py")
    code = "import sys, json, law, numpy as np; seen = [name in sys.modules for name in ('jax', 'equipot')]; "
    code += "print(json.dumps([float(law.energy(np.eye(3))), *seen]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    energy, *heavy = json.loads(done.stdout)
    assert abs(energy) < 1e-12 and heavy == [False, False]


def test_a_bar_of_finite_elements_under_tension_is_the_homogeneous_body(trained, tmp_path):
    """A cubic law along [100]: both sides of the bar contract alike, by as much as makes the stress across vanish."""
    trained[1].law.export(tmp_path / "law.py")
    law, stretch = imported(tmp_path / "law.py"), 1.06
    across = brentq(lambda b: law.first_piola_kirchhoff(np.diag([stretch, b, b]))[1, 1], 0.9, 1.05, xtol=1e-14)
    expected = np.diag([stretch, across, across])
    block = Block((3, 2, 2), (3.0, 1.0, 1.0))
    fixed = block.nodes == 0
    fixed[block.nodes[:, 0] == 3, 0] = True
    # From an affine stretch whose inner nodes are moved, so that Newton's method has something to do.
    start = block.nodes * [stretch, 1.0, 1.0]
    start[~fixed] += 0.01 * np.random.default_rng(0).normal(size=(~fixed).sum())
    places, forces = solved(block, law, fixed, start)
    np.testing.assert_allclose(places, block.nodes @ expected, atol=1e-9)
    end = block.nodes[:, 0] == 3
    assert forces[end, 0].sum() == pytest.approx(law.first_piola_kirchhoff(expected)[0, 0], rel=1e-9)


def test_what_is_no_law_is_refused(trained, tmp_path):
    data, fitted = trained
    with pytest.raises(ValueError, match="double precision"):
        fitted.law.energy(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="too few"):
        fit(data.chosen(np.arange(5)), np.eye(3)[None])
    with pytest.raises(ValueError, match="imported by Python"):
        fitted.law.export(tmp_path / "my-law.py")
    with pytest.raises(ValueError, match="determinant"):
        label(make_argon(), Structure.from_ase(CRYSTALS["fcc"]).replace(numbers=np.array([18])), -np.eye(3)[None], "affine")
