"""Stillinger-Weber and Morse against matscipy, ASE, the literature and sums over triples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.morse import MorsePotential
from closed_forms import morse, silicon
from matscipy.calculators.manybody import Manybody
from matscipy.calculators.manybody.explicit_forms.stillinger_weber import Stillinger_Weber_PRB_31_5262_Si
from matscipy.calculators.manybody.explicit_forms.stillinger_weber import (
    StillingerWeber as MatscipyStillingerWeber,
)

from equipot import units
from equipot.evaluation import evaluate, evaluate_each, hessian_of
from equipot.models.mace import MACE
from equipot.physics import LennardJones, closed_form
from equipot.physics.morse import Morse
from equipot.physics.stillinger_weber import StillingerWeber
from equipot.structure import Structure

A = 4 / np.sqrt(3) * 2 ** (1 / 6) * 2.0951
"""Lattice parameter at which each of four bonds has the least pair energy, and all angles are tetrahedral, Å."""


@pytest.fixture
def rattled():
    """Silicon far from its symmetry, in a cell that is not cubic."""
    atoms = bulk("Si", a=A, cubic=True)
    atoms.rattle(0.15, seed=1)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + [[0.03, 0.02, 0], [0, -0.02, 0.04], [0.01, 0, 0.02]]), scale_atoms=True)
    return atoms


def test_stillinger_weber_agrees_with_matscipy(double_precision, rattled):
    potential = silicon()
    found = evaluate(potential, rattled)
    rattled.calc = Manybody(**MatscipyStillingerWeber(Stillinger_Weber_PRB_31_5262_Si))
    # Their cosine of the angle has twelve digits.
    np.testing.assert_allclose(found.energy[0], rattled.get_potential_energy(), atol=1e-9)
    np.testing.assert_allclose(found.forces, rattled.get_forces(), atol=1e-9)
    np.testing.assert_allclose(found.stress[0], rattled.get_stress(voigt=False), atol=1e-10)
    theirs = rattled.calc.get_property("hessian", rattled).todense()
    np.testing.assert_allclose(hessian_of(potential, rattled).reshape(24, 24), theirs, atol=1e-7)


def test_stillinger_weber_of_a_cluster_is_the_sum_over_pairs_and_triples(double_precision):
    """With powers, range and angle that are not those of silicon."""
    parameters = {"attractive_power": 1.5, "repulsive_power": 5.0, "angle_range": 0.7, "cosine": -0.1, "angle_strength": 12.0}
    potential = silicon(**parameters)
    x = np.random.default_rng(0).uniform(0, 3.6, (5, 3)) + 1.4 * np.array(list(itertools.product([0, 1], repeat=3)))[:5]
    term = StillingerWeber(**parameters)
    energy, a = 0.0, term.cutoff / term.sigma
    for i, j in itertools.combinations(range(5), 2):
        r = np.linalg.norm(x[i] - x[j]) / term.sigma
        if r < a:
            energy += term.pair_strength * (term.repulsion * r**-5 - r**-1.5) * np.exp(1 / (r - a))
    triples = 0
    for i in range(5):
        for j, k in itertools.combinations([n for n in range(5) if n != i], 2):
            u, v = x[j] - x[i], x[k] - x[i]
            r, s = np.linalg.norm(u), np.linalg.norm(v)
            if max(r, s) < term.cutoff:
                triples += 1
                fall = np.exp(0.7 / (r / term.sigma - a) + 0.7 / (s / term.sigma - a))
                energy += 12.0 * fall * (u @ v / r / s + 0.1) ** 2
    assert triples > 5
    found = evaluate(potential, Atoms("Si5", positions=x)).energy[0]
    assert found == pytest.approx(term.epsilon * energy, abs=1e-10)


def test_silicon_has_the_published_energy_and_elastic_constants(double_precision):
    """-4.3363 eV at 5.431 Å; C11 151.4, C12 76.4, C44 56.4 GPa: Balamane, Halicioglu and Tiller, PRB 46, 2250 (1992)."""
    potential, atoms = silicon(), bulk("Si", a=A)
    assert pytest.approx(5.431, abs=2e-4) == A
    out = evaluate(potential, atoms)
    assert out.energy[0] / 2 == pytest.approx(-2 * 2.1683, abs=1e-6)
    assert np.abs(out.stress).max() < 1e-6 and np.abs(out.forces).max() < 1e-12
    step, strained = 1e-4, []
    for sign, (a, b) in itertools.product((1, -1), ((0, 0), (1, 2))):
        strain = np.zeros((3, 3))
        strain[a, b] = strain[b, a] = sign * step * (1 if a == b else 0.5)
        strained.append(atoms.copy())
        strained[-1].set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
    out = evaluate_each(potential, strained)
    stress = np.array([one.stress for one in out])
    along = (stress[0] - stress[2]) / (2 * step) / units.GPa
    sheared = (stress[1] - stress[3]) / (2 * step) / units.GPa
    # The sublattices shift until the forces of the shear vanish; what the shift does to the stress is the same coupling.
    forces = (out[1].forces - out[3].forces)[0, 0] / (2 * step)
    spring = hessian_of(potential, atoms)[0, 0, 0, 0]
    relaxed = sheared[1, 2] - forces**2 / spring / atoms.get_volume() / units.GPa
    assert along[0, 0] == pytest.approx(151.4, abs=0.3) and along[1, 1] == pytest.approx(76.4, abs=0.3)
    assert relaxed == pytest.approx(56.4, abs=0.3)


def test_morse_agrees_with_ase(double_precision, rattled):
    """Within the onset, in the switch and beyond."""
    rattled.set_cell(rattled.cell[:] * 1.1, scale_atoms=True)
    rattled.calc = MorsePotential(epsilon=0.3, r0=2.5, rho0=1.2 * 2.5, rcut1=1.3, rcut2=2.0)
    potential = morse((14,), cutoff=5.0, onset=0.65, depth=0.3, width=1.2, distance=2.5)
    found = evaluate(potential, rattled)
    np.testing.assert_allclose(found.energy[0], rattled.get_potential_energy(), atol=1e-10)
    np.testing.assert_allclose(found.forces, rattled.get_forces(), atol=1e-10)
    np.testing.assert_allclose(found.stress[0], rattled.get_stress(voigt=False), atol=1e-11)


def test_a_term_in_closed_form_becomes_a_potential_in_double_precision(double_precision, rattled):
    found = evaluate(closed_form(StillingerWeber(), "Si"), rattled)
    expected = evaluate(silicon(), rattled)
    np.testing.assert_array_equal(found.energy, expected.energy)
    np.testing.assert_array_equal(found.forces, expected.forces)
    both = closed_form(LennardJones(cutoff=20.0, epsilon=0.1, sigma=3.0), "Xe", "Ar", "Xe")
    assert both.elements == (18, 54) and both.dtype == np.float64
    # A number that single precision does not hold.
    pair = Atoms("ArXe", positions=[[0, 0, 0], [0, 0, 2 ** (1 / 6) * 3]])
    assert evaluate(both, pair).energy[0] == pytest.approx(-0.1, abs=1e-15)


@pytest.mark.parametrize(
    ("term", "elements", "message"),
    [
        (StillingerWeber(), (), "name the elements"),
        (StillingerWeber(), ("Si", "Sy"), "'Sy' is no element"),
        (LennardJones(), ("Ar",), "cutoff"),
        (MACE(cutoff=3.0, elements=(14,), channels=1, l_max=0, layers=1), ("Si",), "has variables that are trained"),
    ],
)
def test_what_has_no_closed_form_is_refused(double_precision, term, elements, message):
    with pytest.raises(ValueError, match=message):
        closed_form(term, *elements)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Morse(onset=1.0), "onset 1 must be a fraction of the cutoff"),
        (lambda: StillingerWeber(sigma=0.0), "sigma 0 must be positive"),
        (lambda: StillingerWeber(cosine=-109.47), "cosine -109.47 must be from -1 to 1"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_energies_vanish_at_the_cutoff_with_all_derivatives(double_precision):
    """In single precision too, an exponential of a huge negative number has no slope that is not a number."""
    potential = silicon()
    for gap in (1e-3, 1e-5, 1e-9, 1e-15):
        pair = Structure(np.array([14, 14]), np.array([[0, 0, 0], [3.77118 - gap, 0, 0]]))
        out = evaluate(potential, pair)
        assert abs(out.energy[0]) < 1e-200 and np.abs(out.forces).max() < 1e-200
        assert np.isfinite(hessian_of(potential, pair)).all()
