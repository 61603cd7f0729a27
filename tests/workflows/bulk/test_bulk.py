"""Properties of crystals against relations that hold for pair potentials, and against each other."""

import numpy as np
import pytest
from ase.build import bulk
from ase.eos import EquationOfState as Fit
from pair_crystals import make_argon

from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.bulk import EquationOfState, Tension, elastic_tensor, equation_of_state, rank, stress_strain
from equipot.workflows.bulk.tension import failure
from equipot.workflows.relax import RelaxConfig, relax

pytestmark = pytest.mark.usefixtures("double_precision")
TIGHT = RelaxConfig(cell="full", fmax=1e-7, smax_GPa=1e-5)


@pytest.fixture(scope="module")
def relaxed_fcc():
    import jax

    jax.config.update("jax_enable_x64", True)
    (found,) = relax(make_argon(), bulk("Ar", "fcc", a=3.5), TIGHT)
    assert found.converged
    return found


def test_a_pair_potential_obeys_cauchy_and_the_bulk_modulus_is_that_of_the_equation_of_state(relaxed_fcc):
    tensor = elastic_tensor(make_argon(), relaxed_fcc.structure, check=1e-3)
    c = tensor.relaxed
    assert c[0, 1] == pytest.approx(c[3, 3], rel=1e-4)
    assert tensor.asymmetry < 1e-4 and tensor.group_error < 1e-6 and tensor.is_stable and not tensor.soft_modes
    np.testing.assert_allclose(tensor.finite_strains, c, atol=1e-3 * c[0, 0])
    np.testing.assert_allclose(tensor.clamped, c, atol=1e-6)
    curve = equation_of_state(make_argon(), relaxed_fcc.structure, EquationOfState(span=0.03, points=9), TIGHT)
    assert not curve.failures and curve.volume == pytest.approx(relaxed_fcc.structure.volume, rel=1e-4)
    assert curve.bulk_modulus == pytest.approx(tensor.moduli["bulk_modulus_hill_GPa"], rel=0.01)
    assert Fit(curve.volumes, curve.energies, "birchmurnaghan").fit()[2] / GPa == pytest.approx(curve.bulk_modulus)
    # The potential's own pressures are the slopes of its energies.
    slopes = -np.gradient(curve.energies, curve.volumes) / GPa
    np.testing.assert_allclose(slopes[1:-1], curve.pressures[1:-1], atol=0.02 * np.abs(curve.pressures).max())


def test_atoms_that_answer_a_strain_make_a_crystal_softer():
    (found,) = relax(make_argon(), bulk("Ar", "hcp", a=2.4, c=3.95), TIGHT)
    tensor = elastic_tensor(make_argon(), found.structure, check=5e-4)
    c, clamped = tensor.relaxed, tensor.clamped
    assert clamped[0, 0] - c[0, 0] > 0.01 * c[0, 0]
    np.testing.assert_allclose(tensor.finite_strains, c, atol=2e-3 * c[0, 0])
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, rel=1e-6)
    assert c[0, 0] == pytest.approx(c[1, 1]) and c[3, 3] == pytest.approx(c[4, 4])


def test_under_a_pressure_the_coefficients_decide_on_stability():
    settings = RelaxConfig(cell="full", fmax=1e-7, smax_GPa=1e-5, pressure_GPa=5.0)
    (found,) = relax(make_argon(), bulk("Ar", "fcc", a=3.4), settings)
    b = elastic_tensor(make_argon(), found.structure, check=5e-4)
    np.testing.assert_allclose(b.finite_strains, b.relaxed, atol=2e-3 * b.relaxed[0, 0])
    # Cauchy's relation of the stress-strain coefficients under a pressure p: B12 - B44 = 2 p.
    assert b.relaxed[0, 1] - b.relaxed[3, 3] == pytest.approx(10.0, rel=1e-3)
    np.testing.assert_allclose(b.stress, -5 * np.eye(3), atol=1e-3)


def test_a_cell_that_is_no_minimum_and_a_minimum_that_is_outside_are_told(relaxed_fcc):
    (bcc,) = relax(make_argon(), bulk("Ar", "bcc", a=2.8), TIGHT)
    assert bcc.converged
    tensor = elastic_tensor(make_argon(), bcc.structure)
    assert not tensor.is_stable and tensor.eigenvalues[0] < 0
    far = relaxed_fcc.structure.replace(cell=relaxed_fcc.structure.cell * 1.1, positions=relaxed_fcc.structure.positions * 1.1)
    curve = equation_of_state(make_argon(), far, EquationOfState(span=0.05, points=5))
    assert any("no minimum within the volumes" in what for what in curve.failures) and np.isnan(curve.bulk_modulus)
    molecule = Structure.from_ase(bulk("Ar", "fcc", a=3.5)).replace(pbc=np.zeros(3, bool))
    for compute in (elastic_tensor, equation_of_state, stress_strain):
        with pytest.raises(ValueError, match="does not repeat in three directions"):
            compute(make_argon(), molecule)
        with pytest.raises(ValueError, match="of one structure; got 2"):
            compute(make_argon(), [molecule, molecule])


def test_a_crystal_is_pulled_until_it_fails(relaxed_fcc):
    cube = bulk("Ar", "fcc", a=(4 * relaxed_fcc.structure.volume) ** (1 / 3), cubic=True)
    curve = stress_strain(make_argon(), cube, Tension(span=0.3, steps=12), RelaxConfig(fmax=1e-4))
    c = elastic_tensor(make_argon(), relaxed_fcc.structure).relaxed
    young = 1 / np.linalg.inv(c)[0, 0]
    assert curve.stresses[1] / curve.strains[1] == pytest.approx(young, rel=0.15)
    assert curve.strength == pytest.approx(curve.stresses.max()) and not curve.failures
    assert failure(np.array([0, 0.1, 0.2, 0.3]), np.array([0, 5.0, 4.0, 1.0])) == 0.3
    assert failure(np.array([0, 0.1, 0.2]), np.array([0, 1.0, 2.0])) is None


def test_polymorphs_are_ranked():
    starts = [bulk("Ar", "bcc", a=2.8), bulk("Ar", "fcc", a=3.5), bulk("Ar", "hcp", a=2.4, c=3.95)]
    found = relax(make_argon(), starts, TIGHT)
    order = rank(make_argon(), found)
    per_atom = np.array([x.energy / len(x.structure) for x in found])
    assert order.order == tuple(np.argsort(per_atom)) and order.order[-1] == 0
    np.testing.assert_allclose(order.enthalpies, np.sort(per_atom) - per_atom.min())
    assert order.deviations is None and order.chances is None
    other = Structure.from_ase(bulk("NaCl", "rocksalt", a=5.6))
    with pytest.raises(ValueError, match="has another composition"):
        rank(make_argon(), [found[0], type(found[0])(**{**vars(found[1]), "structure": other})])
