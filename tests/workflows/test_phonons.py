"""Phonons against closed forms, phonopy with ASE's calculators and the literature; failures are told."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses
from closed_forms import morse, silicon

from equipot import units
from equipot.console import Console
from equipot.evaluation import evaluate
from equipot.physics.morse import Morse
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.phonons import Displacements, PhononsConfig, QHAConfig, bands_figure, phonons, thermal_figure

phonopy = pytest.importorskip("phonopy")
from equipot.workflows.phonons import cell, command, imaginary, pictures, polar, results  # noqa: E402
from equipot.workflows.phonons.quasiharmonic import quasi_harmonic  # noqa: E402
from equipot.workflows.phonons.spectrum import density_of_states, marks_of  # noqa: E402
from equipot.workflows.task import Task  # noqa: E402

COPPER = Morse()
SILICON = bulk("Si", a=4 / np.sqrt(3) * 2 ** (1 / 6) * 2.0951)
FCC = bulk("Cu", a=np.sqrt(2) * COPPER.distance)
QUICK = PhononsConfig(relax="none", supercell=(3, 3, 3), mesh_length=25.0, band_points=21, temperature_step_K=50.0)
THZ = 1 / (2 * np.pi * units.THz)


@pytest.fixture(scope="module")
def copper():
    """Phonons of close-packed springs between nearest neighbours."""
    return phonons(morse(), FCC, QUICK)


@pytest.fixture(scope="module")
def diamond():
    """Phonons of Stillinger-Weber silicon."""
    return phonons(silicon(), SILICON, dataclasses.replace(QUICK, supercell=None, supercell_length=8.0))


@pytest.fixture
def at_rest(monkeypatch):
    """A relaxation that leaves everything in its place, for crystals that symmetry holds there; it records what it is asked."""
    asked = []

    def relax(potential, systems, settings):
        asked.append(settings)
        energy = lambda s: float(evaluate(potential, [s], ("energy",)).energy[0])
        return [SimpleNamespace(structure=s, converged=True, reason="at rest", energy=energy(s)) for s in systems]

    module = ModuleType("equipot.workflows.relax")
    module.relax, module.RelaxConfig = relax, _relax_config()
    monkeypatch.setitem(sys.modules, "equipot.workflows.relax", module)
    return asked


def _relax_config():
    fields = [
        ("cell", str),
        ("fmax", float),
        ("smax_GPa", float, 0.01),
        ("pressure_GPa", float, 0.0),
        ("symmetry", bool, True),
        ("max_steps", int, 1),
    ]
    return dataclasses.make_dataclass("RelaxConfig", fields, frozen=True)


def test_springs_between_nearest_neighbours_have_the_closed_form(copper):
    """Along [100]: omega_L^2 = (8 K / M) sin^2(q a / 4), and half of that for both transverse modes."""
    spring = 2 * COPPER.depth * COPPER.width**2
    (segment,) = [s for s in copper.bands if s.ends == ("Γ", "X")]
    sine = np.sin(np.pi / 2 * np.linspace(0, 1, len(segment.points)))
    longitudinal = THZ * np.sqrt(8 * spring / atomic_masses[29]) * sine
    np.testing.assert_allclose(segment.frequencies[:, 2], longitudinal, atol=1e-5)
    np.testing.assert_allclose(segment.frequencies[:, :2], np.stack([longitudinal / np.sqrt(2)] * 2, 1), atol=1e-5)
    assert longitudinal.max() > 5
    assert not copper.failures and not copper.imaginary
    assert copper.pressure == pytest.approx(0, abs=1e-6) and copper.fmax < 1e-12
    assert copper.crystal.checks.sum_rule < 1e-12 and copper.crystal.checks.boundary < 1e-12
    assert copper.standard.space_group == "Fm-3m (225)" and copper.atoms_of_supercell == 27


def test_silicon_agrees_with_the_literature_and_with_phonopy_and_ase(diamond, double_precision):
    """Stillinger-Weber silicon has its optical modes at Gamma at 17.8 THz, experiment at 15.5."""
    assert diamond.gamma.frequencies[3:] == pytest.approx([17.8] * 3, abs=0.15)
    assert np.abs(diamond.gamma.frequencies[:3]).max() < 1e-4
    assert set(diamond.gamma.irreps) == {"T1u", "T2g"}
    primitive = diamond.standard.primitive
    phonon = phonopy.Phonopy(cell.phonopy_atoms(primitive), supercell_matrix=diamond.matrix, primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=0.005)
    calculator, forces = silicon().calculator(), []
    for moved in phonon.supercells_with_displacements:
        atoms = Atoms(moved.symbols, positions=moved.positions, cell=moved.cell, pbc=True, calculator=calculator)
        forces.append(atoms.get_forces())
    phonon.forces = np.array(forces)
    phonon.produce_force_constants()
    points = np.concatenate([segment.points for segment in diamond.bands])
    theirs = phonon.run_qpoints(points).frequencies
    ours = np.concatenate([segment.frequencies for segment in diamond.bands])
    # The square root makes much of little where a frequency vanishes.
    np.testing.assert_allclose(np.sign(theirs) * theirs**2, np.sign(ours) * ours**2, atol=0.05)
    high = ours > 2
    np.testing.assert_allclose(theirs[high], ours[high], atol=5e-3)
    moved = phonons(
        silicon(),
        SILICON,
        dataclasses.replace(QUICK, supercell_length=8.0, supercell=None, force_constants=Displacements(0.005)),
    )
    np.testing.assert_allclose(moved.gamma.frequencies[3:], diamond.gamma.frequencies[3:], atol=5e-3)


def test_thermal_properties_are_sums_over_the_modes_of_the_mesh(diamond):
    nu = np.asarray(diamond.crystal.phonon.mesh.frequencies)
    points, weights = np.asarray(diamond.crystal.phonon.mesh.qpoints), np.asarray(diamond.crystal.phonon.mesh.weights)
    gamma = np.abs(points).max(axis=1) == 0
    assert gamma.sum() == 1 and len(nu) < weights.sum()
    count = np.repeat(weights[:, None], 6, axis=1)
    count[gamma, :3] = 0
    energies, count = (nu * units.planck * units.THz)[count > 0], count[count > 0] / weights.sum()
    at = int(np.flatnonzero(diamond.thermal.temperature == 300)[0])
    kT = units.kB * 300
    free = np.sum(count * (energies / 2 + kT * np.log(-np.expm1(-energies / kT))))
    heat = np.sum(count * (energies / (2 * kT * np.sinh(energies / 2 / kT))) ** 2) * units.kB
    # phonopy has the constants of another year.
    assert diamond.thermal.free_energy[at] == pytest.approx(free / units.kJ_per_mol, rel=1e-5)
    assert diamond.thermal.heat_capacity[at] == pytest.approx(1e3 * heat / units.kJ_per_mol, rel=1e-5)
    assert diamond.thermal.zero_point_energy == pytest.approx(count @ energies / 2 / units.kJ_per_mol, rel=1e-5)
    assert diamond.dos.total.sum() * np.diff(diamond.dos.frequency)[0] == pytest.approx(6, rel=0.01)


def test_figures_show_what_was_found(diamond):
    bands, density = bands_figure(diamond).axes
    drawn = np.concatenate([line.get_ydata() for line in bands.lines if len(line.get_ydata()) > 2])
    assert np.isclose(np.sort(drawn), np.sort(np.concatenate([s.frequencies.T.ravel() for s in diamond.bands]))).all()
    assert [mark.get_text() for mark in bands.get_xticklabels()] == [name for _, name in diamond.marks]
    assert diamond.marks == marks_of(diamond.bands)
    assert bands.get_ylabel() == "frequency (THz)" and density.get_xlabel() == "modes per THz"
    (heat,) = thermal_figure(diamond.thermal).axes[2].lines
    np.testing.assert_array_equal(heat.get_xdata(), diamond.thermal.temperature)
    np.testing.assert_array_equal(heat.get_ydata(), diamond.thermal.heat_capacity)


def test_bands_begin_and_end_at_named_points(diamond):
    names = [name for _, name in marks_of(diamond.bands)]
    assert names[0] == "Γ" and "U|K" in names and len(names) == len({x for x, _ in marks_of(diamond.bands)})
    for segment in diamond.bands:
        reciprocal = np.linalg.inv(diamond.standard.primitive.cell).T
        length = np.linalg.norm((segment.points[-1] - segment.points[0]) @ reciprocal)
        assert segment.distance[-1] - segment.distance[0] == pytest.approx(length)


STRETCHED = bulk("Cu", a=np.sqrt(2) * (COPPER.distance + 1.2 * np.log(2) / COPPER.width))
"""Neighbours are beyond the inflection of the potential, where springs push apart."""


def test_imaginary_modes_are_named_and_told():
    potential = morse(cutoff=4.9, onset=0.85)
    found = phonons(potential, STRETCHED, QUICK)
    worst = found.imaginary[0]
    lowest = min(segment.frequencies.min() for segment in found.bands)
    assert worst.frequency == pytest.approx(lowest, abs=0.2) and worst.frequency < -1
    assert f"{abs(worst.frequency):.3f}i THz" in found.failures[0] and "parts Cu 100%" in worst.movement
    assert "thermal properties leave out" in found.failures[0] and 0 < found.thermal.imaginary_share < 1
    named = {mode.name for mode in found.imaginary}
    assert "X" in named
    for mode in found.imaginary:
        again = found.crystal.phonon.run_qpoints([mode.point]).frequencies[0]
        assert again[mode.band] == pytest.approx(mode.frequency, abs=1e-6)
    with_less = dataclasses.replace(QUICK, imaginary_tolerance_THz=2 * abs(lowest))
    assert not imaginary.imaginary_modes(found.crystal, found.standard, found.bands, with_less)
    assert "counts as noise" in imaginary.noise(found.crystal, with_less)


def test_a_mode_is_followed_in_the_supercell_in_which_it_repeats(at_rest, double_precision):
    potential = morse(cutoff=4.9, onset=0.85)
    found = phonons(potential, STRETCHED, dataclasses.replace(QUICK, follow=True, follow_amplitude=0.2))
    end = found.followed
    assert end is not None and at_rest[0].cell == "fixed" and at_rest[0].symmetry is False
    assert end.before == "Fm-3m (225)" and end.after != end.before
    # The energy falls as the frequency says, for small displacements.
    small = imaginary.displaced(found.crystal, end.mode, 0.01)
    perfect = evaluate(potential, [found.standard.primitive], ("energy",)).energy[0] * len(small)
    fall = evaluate(potential, [small], ("energy",)).energy[0] - perfect
    scale = imaginary.displaced(found.crystal, end.mode, 0.02).positions - small.positions
    squared = atomic_masses[29] * np.sum(scale**2)
    assert fall == pytest.approx(-squared / 2 * (2 * np.pi * units.THz * end.mode.frequency) ** 2, rel=0.02)
    assert end.gain > 0
    # The cell is relaxed as far as that of the crystal is.
    for said, cell_of in (("none", "fixed"), ("fixed", "fixed"), ("isotropic", "isotropic"), ("full", "full")):
        settings = dataclasses.replace(QUICK, relax=said)
        imaginary.follow(potential, found.crystal, found.standard, end.mode, settings)
        assert at_rest[-1].cell == cell_of
    far = dataclasses.replace(end.mode, point=(0.123, 0.0, 0.0))
    with pytest.raises(ValueError, match="does not repeat within 12 cells"):
        imaginary.displaced(found.crystal, far, 0.1)


ROCK_SALT = bulk("NaCl", "rocksalt", a=5.6)


@pytest.fixture
def salt(tmp_path):
    """A crystal of springs between unlike neighbours, with a file BORN."""
    born = tmp_path / "BORN"
    born.write_text("14.399652\n2.5 0 0 0 2.5 0 0 0 2.5\n1.1 0 0 0 1.1 0 0 0 1.1\n-1.1 0 0 0 -1.1 0 0 0 -1.1\n")
    potential = morse((11, 17), cutoff=3.6, onset=0.85, depth=0.5, width=1.3, distance=2.8)
    return phonons(potential, ROCK_SALT, dataclasses.replace(QUICK, supercell=(2, 2, 2), born=str(born)))


def test_charges_split_longitudinal_and_transverse_optical_modes(salt):
    """omega_LO^2 = omega_TO^2 + 4 pi k Z^2 / (eps V mu), in a crystal of two ions."""
    mass = 1 / (1 / atomic_masses[11] + 1 / atomic_masses[17])
    transverse = THZ * np.sqrt(2 * 2 * 0.5 * 1.3**2 / mass)
    split = THZ**2 * 4 * np.pi * units.coulomb_constant * 1.1**2 / (2.5 * 5.6**3 / 4 * mass)
    assert salt.gamma.frequencies[3:] == pytest.approx([transverse] * 3, abs=1e-3)
    (segment,) = [s for s in salt.bands if s.ends == ("Γ", "X")]
    assert segment.frequencies[0, 5] == pytest.approx(np.sqrt(transverse**2 + split), rel=1e-3)
    assert segment.frequencies[0, 3:5] == pytest.approx([transverse] * 2, abs=1e-3)
    assert any("LO-TO splitting from" in note for note in salt.notes)


def test_a_polar_crystal_without_charges_says_what_is_missing(double_precision):
    potential = morse((11, 17), cutoff=3.6, onset=0.85, depth=0.5, width=1.3, distance=2.8)
    primitive = Structure.from_ase(ROCK_SALT)
    atoms = cell.phonopy_atoms(primitive)
    none, notes = polar.polar_response(potential, primitive, atoms, PhononsConfig())
    assert none is None and "no splitting of LO and TO modes, as the potential has no charges" in notes[0]
    none, notes = polar.polar_response(potential, primitive, atoms, PhononsConfig(non_analytic="none"))
    assert none is None and "switched off" in notes[0]
    assert polar.polar_response(potential, Structure.from_ase(FCC), None, PhononsConfig()) == (None, ())


def test_what_a_potential_says_of_charges_is_used(monkeypatch, double_precision):
    """Its charges are made neutral and symmetric; the dielectric tensor is that of the polarizability per volume."""
    primitive = Structure.from_ase(ROCK_SALT)
    born = np.stack([1.2 * np.eye(3), -np.eye(3)])
    alpha = 0.05 * primitive.volume / (4 * np.pi) * np.eye(3)
    answers = {"born_effective_charges": born, "polarizability": alpha[None]}
    monkeypatch.setattr(polar, "evaluate", lambda p, s, want: {q: answers[q.name] for q in p.provides})
    potential = morse((11, 17))
    provide = lambda *rows: monkeypatch.setattr(Potential, "provides", property(lambda self: rows))
    provide(polar.BORN_CHARGES, polar.POLARIZABILITY)
    found, _ = polar.polar_response(potential, primitive, cell.phonopy_atoms(primitive), PhononsConfig())
    np.testing.assert_allclose(found.born, [1.1 * np.eye(3), -1.1 * np.eye(3)], atol=1e-12)
    np.testing.assert_allclose(found.dielectric, (1 + 0.05 * units.coulomb_constant) * np.eye(3), atol=1e-12)
    provide(polar.BORN_CHARGES)
    none, notes = polar.polar_response(potential, primitive, cell.phonopy_atoms(primitive), PhononsConfig())
    assert none is None and "no polarizability" in notes[0]
    found, _ = polar.polar_response(potential, primitive, cell.phonopy_atoms(primitive), PhononsConfig(dielectric=2.0))
    np.testing.assert_allclose(found.dielectric, 2 * np.eye(3), atol=1e-12)


def test_a_file_of_charges_that_phonopy_does_not_understand_is_refused(tmp_path):
    (tmp_path / "BORN").write_text("1 2 3\n")
    primitive = Structure.from_ase(ROCK_SALT)
    with pytest.raises(ValueError, match="a file BORN has a line of comment"):
        polar.polar_response(
            morse((11, 17)), primitive, cell.phonopy_atoms(primitive), PhononsConfig(born=str(tmp_path / "BORN"))
        )


QHA = dataclasses.replace(QUICK, qha=QHAConfig(7, 0.97, 1.06), max_temperature_K=600.0, mesh_length=15.0)


def test_quasi_harmonic_volumes_have_the_least_free_energy(at_rest, double_precision):
    potential, primitive = morse(), Structure.from_ase(FCC)
    found = quasi_harmonic(potential, primitive, (3 * np.eye(3, dtype=int), 225), QHA, Console(None))
    assert {how.cell for how in at_rest} == {"fixed"} and len(at_rest) == 7 and not found.failures
    volumes = np.linspace(0.97, 1.06, 7) * primitive.volume
    np.testing.assert_allclose(found.volume_grid, volumes, rtol=1e-9)
    free = []
    for volume in volumes:
        size = (volume / primitive.volume) ** (1 / 3)
        at = primitive.replace(cell=size * primitive.cell, positions=size * primitive.positions)
        one = phonons(potential, at, dataclasses.replace(QHA, qha=None))
        free.append(one.energy + one.thermal.free_energy * units.kJ_per_mol)
    for k in (2, 6, 11):
        line = np.polynomial.Polynomial.fit(volumes, [f[k] for f in free], 4)
        roots = line.deriv().roots()
        (least,) = [r.real for r in roots if abs(r.imag) < 1e-9 and volumes[0] < r.real < volumes[-1]]
        assert found.volume[k] == pytest.approx(least, rel=1e-4)
        assert found.bulk_modulus[k] == pytest.approx(least * line.deriv(2)(least) / units.GPa, rel=0.02)
    # Each bond is longer for the heat: beta = gamma Cv / (B V) > 0, and Cp > Cv.
    assert found.thermal_expansion[6] > 1e-5
    slope = (found.volume[7] - found.volume[5]) / (found.temperature[7] - found.temperature[5]) / found.volume[6]
    assert found.thermal_expansion[6] == pytest.approx(slope, rel=0.02)


def test_a_volume_outside_of_the_range_and_imaginary_modes_are_told(at_rest, double_precision):
    potential, primitive = morse(), Structure.from_ase(FCC)
    settings = dataclasses.replace(QHA, qha=QHAConfig(5, 0.94, 0.99))
    found = quasi_harmonic(potential, primitive, (2 * np.eye(3, dtype=int), 225), settings, Console(None))
    assert len(found.failures) == 1 and "leaves the range of volumes" in found.failures[0]
    wide = dataclasses.replace(QHA, qha=QHAConfig(5, 1.0, 1.49))
    far = quasi_harmonic(morse(cutoff=4.9, onset=0.85), primitive, (2 * np.eye(3, dtype=int), 225), wide, Console(None))
    assert any("has imaginary modes" in failure for failure in far.failures)


def test_the_command_writes_files_that_phonopy_goes_on_from(salt, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "phonons", lambda *arguments: salt)
    task = Task("salt.eqp", None, [salt.standard.primitive], tmp_path, False, Console(None))
    outcome = command.run(task, QUICK)
    assert outcome.failures == salt.failures and "modes at Gamma" in outcome.summary
    page = (tmp_path / "phonons.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("Phonons of", "Density of states", "Modes at Gamma", "LO-TO splitting from"))
    record = json.loads((tmp_path / "phonons.json").read_text())
    assert record["gamma"]["frequency_THz"] == salt.gamma.frequencies.tolist()
    assert record["born_effective_charges_e"][0][0][0] == pytest.approx(1.1)
    for name in ("bands.png", "thermal.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    loaded = phonopy.load("phonopy.yaml", log_level=0)
    points = [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0]]
    np.testing.assert_allclose(
        loaded.run_qpoints(points).frequencies, salt.crystal.phonon.run_qpoints(points).frequencies, atol=1e-3
    )
    with pytest.raises(ValueError, match="choose it with FILE@INDEX, FILE@-1 for the last"):
        command.run(task._replace(structures=[salt.standard.primitive] * 2), QUICK)


def test_all_results_can_be_written(copper, tmp_path):
    mode = imaginary.ImaginaryMode((0.5, 0.0, 0.5), "X", 0, -1.0, "atom 0 (Cu) along [1 0 0]")
    followed = imaginary.Followed(mode, copper.standard.primitive, "a", "b", 0.001, True, "done")
    ones = np.ones(3)
    values = {"temperature": 300 * ones, "failures": ()}
    kinds = [field.name for field in dataclasses.fields(_qha()) if field.name not in values]
    full = dataclasses.replace(copper, imaginary=(mode,), followed=followed, qha=_qha()(**values, **dict.fromkeys(kinds, ones)))
    record = json.loads(results.as_json(full, "x"))
    assert record["imaginary_modes"][0]["frequency_THz"] == -1.0 and record["quasi_harmonic"]["temperature_K"] == [300.0] * 3
    assert "1.000 meV/atom lower" in full.summary() and "bulk modulus" in full.summary()
    pictures.draw_quasi_harmonic(full.qha, tmp_path / "quasi-harmonic.png")
    assert (tmp_path / "quasi-harmonic.png").exists()


def _qha():
    from equipot.workflows.phonons.quasiharmonic import QuasiHarmonic

    return QuasiHarmonic


def test_a_crystal_that_is_not_at_rest_or_loses_its_symmetry_is_told(at_rest, monkeypatch):
    atoms = SILICON.copy()
    atoms.positions[1] += [0.05, 0.02, 0]
    settings = dataclasses.replace(QUICK, supercell=(1, 1, 1), mesh_length=8.0)
    found = phonons(silicon(), atoms, settings)
    assert any("not at a minimum" in failure and "largest force" in failure for failure in found.failures)
    assert any("increase supercell_length" in note for note in found.notes)
    shifted = lambda s: s.replace(positions=s.positions + np.array([[0, 0, 0], [0.05, 0.02, 0]]))
    stop = lambda potential, systems, how: [
        SimpleNamespace(structure=shifted(s), converged=False, reason="out of steps") for s in systems
    ]
    monkeypatch.setattr(sys.modules["equipot.workflows.relax"], "relax", stop)
    found = phonons(silicon(), SILICON, dataclasses.replace(settings, relax="full"))
    assert "the relaxation did not come to its end: out of steps" in found.failures
    assert any("changed the space group from Fd-3m (227) to" in failure for failure in found.failures)


def test_standard_cells_and_supercells():
    cubic = cell.standardised(Structure.from_ase(bulk("Si", cubic=True)), 1e-3)
    assert len(cubic.primitive) == 2 and cubic.number == 227
    matrix = cell.supercell_matrix(cubic, 12.0)
    assert cell.shortest_vector(matrix.T @ cubic.primitive.cell) >= 12 and round(np.linalg.det(matrix)) == 64
    slab = cell.standardised(Structure.from_ase(bulk("Mg")), 1e-3)
    np.testing.assert_array_equal(cell.supercell_matrix(slab, 12.0), np.diag([4, 4, 3]))
    skew = Atoms("H", cell=[[3, 0, 0], [2.9, 1.2, 0], [0.3, 0.2, 5]], pbc=True)
    triclinic = cell.standardised(Structure.from_ase(skew), 1e-3)
    assert cell.shortest_vector(cell.supercell_matrix(triclinic, 9.0).T @ triclinic.primitive.cell) >= 9
    with pytest.raises(ValueError, match="more than 40 copies"):
        cell.supercell_matrix(cubic, 1000.0)
    heavy = bulk("Si", cubic=True)
    heavy.set_masses([30.0] * 8)
    assert cell.phonopy_atoms(cell.standardised(Structure.from_ase(heavy), 1e-3).primitive).masses == pytest.approx([30, 30])
    heavy.set_masses([30.0] * 7 + [28.0])
    with pytest.raises(ValueError, match="masses from 28 to 30 amu"):
        cell.standardised(Structure.from_ase(heavy), 1e-3)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]]), "equipot vibrations"),
        ([SILICON, SILICON], "phonons are of one crystal; got 2"),
        (bulk("Cu"), "does not know Cu"),
    ],
)
def test_what_has_no_phonons_is_refused(atoms, message):
    with pytest.raises(ValueError, match=message):
        phonons(silicon(), atoms, QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhononsConfig(fmax=0), "fmax is 0; give a number above zero"),
        (lambda: PhononsConfig(supercell=(0, 1, 1)), "three numbers of at least 1"),
        (lambda: PhononsConfig(temperature_step_K=900.0), "less than three temperatures"),
        (lambda: PhononsConfig(dielectric=0.5), "at least 1, that of vacuum"),
        (lambda: PhononsConfig(band_points=1), "give at least 2"),
        (lambda: QHAConfig(volumes=4), "must be at least 5"),
        (lambda: QHAConfig(smallest=1.1), "must be ascending fractions"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_of_elements_are_those_of_phonopys_whole_mesh(salt):
    phonon = salt.crystal.phonon.replicate()
    phonon.force_constants, phonon.nac_params = salt.crystal.phonon.force_constants, salt.crystal.phonon.nac_params
    phonon.run_mesh(12.0, with_eigenvectors=True)
    ours = density_of_states(phonon)
    phonon.run_mesh(12.0, with_eigenvectors=True, is_mesh_symmetry=False)
    low, high = ours.frequency[[0, -1]]
    theirs = phonon.run_projected_dos(freq_min=low, freq_max=high, freq_pitch=(high - low) / 400)
    for k, name in enumerate(("Na", "Cl")):
        np.testing.assert_allclose(ours.by_element[name], theirs.projected_dos[k][:401], atol=1e-6 * ours.total.max())
    assert np.abs(ours.by_element["Na"] - ours.by_element["Cl"]).max() > 0.1 * ours.total.max()
