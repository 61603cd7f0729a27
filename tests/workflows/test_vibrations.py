"""Vibrations against closed forms and ASE: normal modes, infrared intensities, thermochemistry; failures are told."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.morse import MorsePotential
from ase.constraints import FixAtoms
from ase.data import atomic_masses
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo, MSRRHOThermo
from ase.vibrations import Infrared
from ase.vibrations import Vibrations as ASEVibrations
from closed_forms import morse, silicon
from scipy.optimize import brentq

from equipot import units
from equipot.console import Console
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.physics.charges import PerSpecies
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.morse import Morse
from equipot.structure import Structure
from equipot.workflows.task import Task
from equipot.workflows.vibrations import Displacements, QuasiRRHO, VibrationsConfig, command, vibrations
from equipot.workflows.vibrations.infrared import broadened
from equipot.workflows.vibrations.modes import normal_modes
from equipot.workflows.vibrations.symmetry import symmetry_number
from equipot.workflows.vibrations.thermochemistry import Conditions, Harmonic, ideal_gas, oscillator_entropy

AS_IT_IS = VibrationsConfig(relax=False)
FORM = {"cutoff": 6.0, "onset": 0.8, "depth": 0.4, "width": 1.6, "distance": 2.4}
ASE_FORM = {"epsilon": 0.4, "r0": 2.4, "rho0": 1.6 * 2.4, "rcut1": 0.8 * 6.0 / 2.4, "rcut2": 6.0 / 2.4}
PAIR = Atoms("CuAu", positions=[[0, 0, 0], [0, 1.44, 1.92]])
"""At the distance of least energy, 2.4 Å."""


@pytest.fixture(scope="module")
def cluster():
    """Five atoms of copper at rest."""
    x = [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0], [1.2, 0.7, -2.0]]
    atoms = Atoms("Cu5", positions=x, calculator=MorsePotential(**ASE_FORM))
    BFGS(atoms, logfile=None).run(fmax=1e-7, steps=200)
    return atoms


def test_a_pair_vibrates_as_a_spring_with_its_reduced_mass():
    """nu = sqrt(2 D a^2 / mu) / (2 pi), and its energy is that of the unit of wavenumbers."""
    found = vibrations(morse((29, 79), **FORM), PAIR, AS_IT_IS)
    mass = 1 / (1 / atomic_masses[29] + 1 / atomic_masses[79])
    wanted = np.sqrt(2 * 0.4 * 1.6**2 / mass) / (2 * np.pi) / units.THz
    assert found.modes.frequencies == pytest.approx([wanted], rel=1e-9)
    assert found.modes.wavenumbers == pytest.approx([wanted * 1e12 / 2.99792458e10], rel=1e-9)
    # Of cartesian displacements of norm one: that of the relative motion for no other pair than one of equal masses.
    wanted = 1 / (mass * (1 / atomic_masses[29] ** 2 + 1 / atomic_masses[79] ** 2))
    assert found.modes.reduced_masses == pytest.approx([wanted])
    assert found.modes.removed == 5 and found.thermochemistry.zero_point_energy == pytest.approx(found.modes.energies[0] / 2)
    assert not found.failures and "no dipole moment" in found.notes[0]


def test_modes_of_a_cluster_are_those_of_ase(cluster, tmp_path):
    theirs = ASEVibrations(cluster, name=str(tmp_path / "vib"), delta=0.002, nfree=4)
    theirs.run()
    wanted = np.sort(theirs.get_frequencies().real)[6:]
    found = vibrations(morse((29,), **FORM), cluster, AS_IT_IS)
    np.testing.assert_allclose(found.modes.wavenumbers, wanted, atol=0.02)
    assert found.modes.removed == 6 and found.modes.residual < 0.01 and wanted.min() > 20
    moved = vibrations(morse((29,), **FORM), cluster, dataclasses.replace(AS_IT_IS, hessian=Displacements(0.001)))
    np.testing.assert_allclose(moved.modes.wavenumbers, found.modes.wavenumbers, atol=0.005)
    # Mass-weighted displacements are orthonormal, and at right angles to translations and rotations.
    weighted = (found.modes.displacements * np.sqrt(atomic_masses[29])).reshape(9, 15)
    np.testing.assert_allclose(weighted @ weighted.T, np.eye(9), atol=1e-10)
    np.testing.assert_allclose(found.modes.displacements.sum(axis=1), 0, atol=1e-10)
    turned = np.cross(cluster.positions - cluster.positions.mean(axis=0), found.modes.displacements).sum(axis=1)
    np.testing.assert_allclose(turned, 0, atol=1e-10)


def test_modes_of_a_crystal_are_those_of_its_phonons_at_gamma():
    atoms = bulk("Si", a=4 / np.sqrt(3) * 2 ** (1 / 6) * 2.0951)
    found = vibrations(silicon(), atoms, AS_IT_IS)
    assert found.modes.removed == 3 and found.modes.frequencies == pytest.approx([17.8] * 3, abs=0.15)
    thermo = found.thermochemistry
    assert thermo.pressure is None and "Helmholtz energy" in found.summary()
    assert list(thermo.entropies) == ["vibration"]


def test_a_saddle_is_told():
    """Three atoms on a line, which the outer ones press together: it bends with (2 pi nu)^2 = 3 V'(d) / (d m) < 0."""
    slope = lambda r: 2 * 0.4 * 1.6 * (np.exp(-1.6 * (r - 2.4)) - np.exp(-2 * 1.6 * (r - 2.4)))
    d = brentq(lambda r: slope(r) + slope(2 * r), 2.2, 2.4)
    line = Atoms("Cu3", positions=[[0, 0, 0], [0, 0, d], [0, 0, 2 * d]])
    potential = morse((29,), **FORM | {"cutoff": 6.5})
    found = vibrations(potential, line, AS_IT_IS)
    bend = np.sqrt(-3 * slope(d) / d / atomic_masses[29]) / (2 * np.pi) / units.THz
    assert found.modes.removed == 5 and found.modes.frequencies[:2] == pytest.approx([-bend] * 2, rel=1e-6)
    (failure,) = found.failures
    assert "imaginary modes, the structure is not at a minimum" in failure
    assert f"{abs(found.modes.wavenumbers[0]):.2f}i" in found.summary()
    assert found.thermochemistry.zero_point_energy == pytest.approx(found.modes.energies[2:].sum() / 2)
    moved = line.copy()
    moved.positions[2] += [0, 0, 0.1]
    assert any("the largest force is" in failure for failure in vibrations(potential, moved, AS_IT_IS).failures)


CHARGE = 0.5


@pytest.fixture
def polar(double_precision):
    """Point charges on springs."""
    term = Electrostatics(
        base=Morse(cutoff=6.0, onset=0.8, depth=1.5, width=1.5, distance=1.5), charges=PerSpecies((CHARGE, -CHARGE / 2)),
        elements=(8, 11),
    )  # fmt: skip
    structure = Structure.from_ase(Atoms("ONa2", positions=[[0, 0, 0], [1.5, 0, 0], [-0.5, 1.4, 0]]))
    graph = pad([structure], 6.0, dtype=np.float64, extent=extent_of([structure], term.longest_wave))
    return fresh(term, graph, jax.random.key(0), Metadata(((8, 0.0), (11, 0.0)))).astype("float64")


def test_infrared_intensities_are_those_of_ase(polar, tmp_path):
    atoms = Atoms("ONa2", positions=[[0, 0, 0], [1.5, 0, 0], [-0.5, 1.4, 0]])
    atoms.calc = polar.calculator()
    BFGS(atoms, logfile=None).run(fmax=1e-7, steps=200)
    found = vibrations(polar, atoms, AS_IT_IS)
    theirs = Infrared(atoms, name=str(tmp_path / "ir"), delta=0.002, nfree=4)
    theirs.run()
    theirs.summary(log=str(tmp_path / "log"), intensity_unit="km/mol")
    # Theirs are (D/Å)^2/amu, of which each is 42.2561 km/mol.
    wanted = theirs.intensities[-3:] * 42.2561
    np.testing.assert_allclose(found.infrared, wanted, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found.modes.wavenumbers, theirs.get_frequencies().real[-3:], atol=0.05)
    assert found.infrared.max() > 10
    points, absorption = broadened(found.modes, found.infrared, 5.0)
    # The tails of the lines beyond the ends are lost.
    assert np.trapezoid(absorption, points) == pytest.approx(found.infrared.sum(), rel=0.03)


def test_a_pair_of_point_charges_absorbs_as_in_closed_form(polar):
    """A = N_A / (12 eps_0 c^2) q^2 / mu, for the part of the charges that moves against each other."""
    pair = Structure(np.array([8, 11]), np.array([[0, 0, 0], [0, 0, 1.4]]))
    found = vibrations(polar, pair, AS_IT_IS)
    mass = 1 / (1 / atomic_masses[8] + 1 / atomic_masses[11])
    charges = _charges_of(polar, pair)
    by_mode = (charges[0] / atomic_masses[8] - charges[1] / atomic_masses[11]) * np.sqrt(mass)
    assert found.infrared == pytest.approx([974.8801 * by_mode**2], rel=1e-6)
    assert np.ptp(charges) == pytest.approx(1.5 * CHARGE, rel=1e-6)


def _charges_of(potential, structure):
    from equipot.evaluation import evaluate

    return np.asarray(evaluate(potential, [structure], ("charges",)).charges)


GASES = [
    ("H", "monatomic", 0.5),
    ("CO", "linear", 0.0),
    ("CO2", "linear", 0.0),
    ("H2O", "nonlinear", 0.0),
    ("CH3", "nonlinear", 0.5),
]


@pytest.mark.parametrize(("name", "geometry", "spin"), GASES)
def test_thermochemistry_is_that_of_ase(name, geometry, spin):
    atoms = molecule(name)
    structure = dataclasses.replace(Structure.from_ase(atoms), spin=2 * spin)
    count = {"monatomic": 0, "linear": 3 * len(atoms) - 5, "nonlinear": 3 * len(atoms) - 6}[geometry]
    energies = np.linspace(0.02, 0.4, count) if count else np.zeros(0)
    sigma = symmetry_number(structure, 0.05)
    theirs = IdealGasThermo(energies, geometry, -3.0, atoms=atoms, symmetrynumber=sigma, spin=spin)
    for temperature, pressure in ((298.15, 101325.0), (700.0, 1e4)):
        found = ideal_gas(-3.0, energies, structure, Conditions(temperature, pressure, sigma, Harmonic()))
        assert found.enthalpy == pytest.approx(theirs.get_enthalpy(temperature, verbose=False), abs=1e-9)
        assert found.entropy == pytest.approx(theirs.get_entropy(temperature, pressure, verbose=False), abs=1e-10)
        assert found.gibbs_energy == pytest.approx(theirs.get_gibbs_energy(temperature, pressure, verbose=False), abs=1e-7)
        step = 0.01
        hot, cold = (
            ideal_gas(0.0, energies, structure, Conditions(temperature + d, pressure, sigma, Harmonic())) for d in (step, -step)
        )
        assert found.heat_capacity == pytest.approx((hot.enthalpy - cold.enthalpy) / (2 * step), rel=1e-6)


def test_low_frequencies_as_free_rotors_are_those_of_ase():
    """Grimme's entropy, with 100 1/cm; far above that, the harmonic one."""
    atoms = molecule("CH3CH2OH")
    energies = units.per_cm * np.array([15.0, 60.0, 120.0, 400.0, 3000.0])
    theirs = MSRRHOThermo(energies, atoms, tau=100.0)
    inertia = float(np.mean(atoms.get_moments_of_inertia()))
    found = QuasiRRHO(100.0).entropy(energies, 350.0, inertia)
    assert found.sum() == pytest.approx(theirs.get_entropy(350.0, verbose=False), rel=1e-6)
    plain = oscillator_entropy(energies, 350.0)
    assert found[0] < 0.9 * plain[0] and found[-1] == pytest.approx(plain[-1], rel=0.02)
    structure = Structure.from_ase(atoms)
    gas = ideal_gas(0.0, energies, structure, Conditions(350.0, 1e5, 1, QuasiRRHO(100.0)))
    assert gas.entropies["vibration"] == pytest.approx(found.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("H2O", 2),
        ("NH3", 3),
        ("CH4", 12),
        ("C6H6", 12),
        ("C2H6", 6),
        ("C2H4", 4),
        ("CO2", 2),
        ("CO", 1),
        ("H", 1),
        ("CH3OH", 1),
    ],
)
def test_symmetry_numbers_are_found(name, number):
    assert symmetry_number(Structure.from_ase(molecule(name)), 0.05) == number


def test_an_isotope_is_another_atom():
    atoms = molecule("CH4")
    masses = atoms.get_masses()
    masses[1] = 2.014
    atoms.set_masses(masses)
    assert symmetry_number(Structure.from_ase(atoms), 0.05) == 3


def test_isotopes_shift_frequencies():
    heavy = PAIR.copy()
    heavy.set_masses([63.546 * 4, 196.967 * 4])
    potential = morse((29, 79), **FORM)
    ratio = vibrations(potential, heavy, AS_IT_IS).modes.frequencies / vibrations(potential, PAIR, AS_IT_IS).modes.frequencies
    assert ratio == pytest.approx(0.5, rel=1e-5)


def test_an_atom_has_no_modes():
    found = vibrations(morse((29,), **FORM), Atoms("Cu"), VibrationsConfig())
    assert len(found.modes.frequencies) == 0 and found.thermochemistry.zero_point_energy == 0 and not found.failures
    assert set(found.thermochemistry.entropies) == {"translation", "rotation", "vibration", "electrons"}


def test_modes_in_a_field_keep_their_rotations():
    """A dipole librates: only translations are free."""
    x = np.array([[0, 0, 0], [0, 0, 1.0]])
    pair = Structure(np.array([1, 1]), x, field=np.array([0, 0, 0.1]))
    hessian = np.diag([1.0, 1, 1, 1, 1, 1]).reshape(2, 3, 2, 3)
    assert normal_modes(hessian, pair).removed == 3
    assert normal_modes(hessian, pair.replace(field=np.zeros(3))).removed == 5


def test_structures_are_relaxed_first(monkeypatch, cluster):
    """By the positions alone; what did not come to its end is told."""
    asked = []

    def relax(potential, systems, settings):
        asked.append(settings)
        return [SimpleNamespace(structure=Structure.from_ase(cluster), converged=False, reason="out of steps") for _ in systems]

    module = ModuleType("equipot.workflows.relax")
    fields = [("cell", str), ("fmax", float), ("symmetry", bool), ("max_steps", int)]
    module.relax, module.RelaxConfig = relax, dataclasses.make_dataclass("RelaxConfig", fields)
    monkeypatch.setitem(sys.modules, "equipot.workflows.relax", module)
    moved = cluster.copy()
    moved.rattle(0.05, seed=0)
    found = vibrations(morse((29,), **FORM), moved)
    assert asked[0].cell == "fixed" and found.fmax < 1e-5
    assert found.failures == ("the relaxation did not come to its end: out of steps",)


def test_the_command_writes_results_and_a_figure(polar, tmp_path):
    pair = Structure(np.array([8, 11]), np.array([[0, 0, 0], [0, 0, 1.4]]))
    task = Task("polar.eqp", polar, [pair], tmp_path, False, Console(None))
    outcome = command.run(task, dataclasses.replace(AS_IT_IS, symmetry_number=1))
    assert "IR (km/mol)" in outcome.summary and outcome.failures
    page = (tmp_path / "vibrations.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("Normal modes", "Thermochemistry", "Infrared spectrum", "symmetry number"))
    record = json.loads((tmp_path / "vibrations.json").read_text())
    assert record["thermochemistry"]["symmetry_number"] == 1 and len(record["modes"]["wavenumber_per_cm"]) == 1
    assert record["modes"]["infrared_intensity_km_per_mol"][0] > 0
    assert (tmp_path / "spectrum.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VibrationsConfig(temperature_K=0), "temperature_K is 0; give a number above zero"),
        (lambda: VibrationsConfig(symmetry_number=0), "at least 1, or left out"),
        (lambda: QuasiRRHO(0.0), "wavenumber 0 of QuasiRRHO must be positive"),
        (lambda: vibrations(silicon(), [PAIR, PAIR]), "of one structure; got 2"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fixed_atoms_do_not_vibrate():
    """nu = sqrt(2 D a^2 / m) / (2 pi) of the free atom alone, and two motions that cost nothing."""
    pair = PAIR.copy()
    pair.set_constraint(FixAtoms([1]))
    found = vibrations(morse((29, 79), **FORM), pair, AS_IT_IS)
    wanted = np.sqrt(2 * 0.4 * 1.6**2 / atomic_masses[29]) / (2 * np.pi) / units.THz
    assert found.modes.removed == 3 and found.modes.frequencies == pytest.approx([0, 0, wanted], abs=1e-6)
    assert np.abs(found.modes.displacements[:, 1]).max() == 0
    assert found.thermochemistry.pressure is None
    assert any("2 modes within 1 1/cm of zero count as no vibration" in note for note in found.notes)
