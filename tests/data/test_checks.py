"""Every defect that users' data have is named with file, frame and remedy; right data raise no alarm."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from equipot.data import bundled
from equipot.data.checks.frames import check
from equipot.data.checks.pair_fit import fit
from equipot.data.checks.report import DataError
from equipot.data.checks.work import work
from equipot.data.config import DataConfig
from equipot.data.read import load_data
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure
from equipot.units import GPa, hartree, kcal_per_mol


def replaced(frames, k, **changes):
    """The frames with one of them changed."""
    return [f.replace(**changes) if j == k else f for j, f in enumerate(frames)]


def with_entry(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def everywhere(frames, change):
    return [f.replace(**change(f)) for f in frames]


def message(frames, **limits):
    with pytest.raises(DataError) as error:
        check({"train": frames}, **limits).raise_errors()
    return str(error.value)


def test_right_data_are_quiet(crystals, molecules):
    report = check({"train": crystals[:8], "valid": crystals[8:]})
    assert not report.problems and str(report).count("\n") == 1
    assert "8 frames of 16 atoms (Cu), energy in all, forces in all, stress in all" in str(report)
    assert not check({"train": molecules}).problems


DEFECTS = {
    "nan energy": (lambda f: {"energy": np.nan}, "energy holds NaN or infinity", "calculate the frame again"),
    "nan forces": (lambda f: {"forces": with_entry(f.forces, (2, 1), np.nan)}, "forces hold NaN or infinity", "remove it"),
    "inf stress": (lambda f: {"stress": with_entry(f.stress, (0, 0), np.inf)}, "stress holds NaN", "remove it"),
    "nan position": (lambda f: {"positions": with_entry(f.positions, 1, np.nan)}, "positions hold NaN", "remove it"),
    "no labels": (lambda f: dict(energy=None, forces=None, stress=None), "has no energy, forces or stress", "data.keys"),
    "huge force": (lambda f: {"forces": with_entry(f.forces, (5, 2), 1e4)}, "force on atom 5 .* 1e[+]04 eV", "data.max_force"),
    "same place": (lambda f: {"positions": with_entry(f.positions, 3, f.positions[7])}, "at the same place", "remove one"),
    "same place by an image": (
        lambda f: {"positions": with_entry(f.positions, 3, f.positions[7] + f.cell[1])}, "atoms 3 .*7 .* at the same place", "",
    ),
    "too close": (
        lambda f: {"positions": with_entry(f.positions, 3, f.positions[7] + [0.2, 0, 0])}, "0.200 Å apart", "data.min_distance",
    ),
    "no volume": (lambda f: {"cell": f.cell * [[1], [1], [0]]}, "is periodic, but its cell has no volume", "F F F"),
    "flat cell": (lambda f: {"cell": f.cell[[0, 1, 1]]}, "is periodic, but its cell has no volume", "F F F"),
    "no element": (lambda f: {"numbers": with_entry(f.numbers, 0, 0)}, "Z = 0", "give every atom an element"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_broken_frame_is_named(crystals, name):
    change, what, remedy = DEFECTS[name]
    text = message(replaced(crystals, 6, **change(crystals[6])))
    assert text.startswith("cu.xyz, frame 6: ") and remedy in text and "\n" not in text
    assert re.search(what, text)


def test_many_errors_are_counted_not_listed(crystals):
    broken = everywhere(crystals, lambda f: {"energy": np.nan})
    text = message(broken)
    assert text.count("\n") == 3 and "and the same in 9 more frames" in text


LABEL_MISTAKES = {
    "negative stress": (lambda f: {"stress": -f.stress}, "reverse its sign"),
    "GPa": (lambda f: {"stress": f.stress / GPa}, "GPa: set data.units.stress"),
    "kbar and negative": (lambda f: {"stress": -10 * f.stress / GPa}, "kbar"),
    "divided by GPa": (lambda f: {"stress": f.stress * GPa}, "divided by 160.2"),
    "times the volume": (lambda f: {"stress": f.stress * f.volume}, "data.keys.virial"),
    "shear order": (lambda f: {"stress": shuffled(f.stress)}, "shear stresses look as if written in the order"),
    "gradients": (lambda f: {"forces": -f.forces}, "gradients"),
    "Hartree": (lambda f: {"energy": f.energy / hartree}, "Hartree"),
    "kcal/mol": (lambda f: {"energy": f.energy / kcal_per_mol}, "kcal/mol"),
    "no stress": (lambda f: {"stress": np.zeros((3, 3))}, "every stress is zero"),
}


def shuffled(s):
    """xx, yy, zz, xy, yz, zx read as xx, yy, zz, yz, xz, xy."""
    yz, xz, xy = s[0, 1], s[1, 2], s[0, 2]
    return np.array([[s[0, 0], xy, xz], [xy, s[1, 1], yz], [xz, yz, s[2, 2]]])


@pytest.mark.parametrize("name", LABEL_MISTAKES)
def test_labels_of_the_wrong_sign_or_unit_are_named(crystals, name):
    change, remedy = LABEL_MISTAKES[name]
    text = message(everywhere(crystals, change))
    assert "cu.xyz: " in text and remedy in text and "\n" not in text


@pytest.fixture(scope="module")
def strained():
    """A crystal of copper under uniaxial strains, volume changes and shears, labelled by EMT."""
    strains = [np.diag([e, 0, 0]) for e in np.linspace(-0.06, 0.06, 9)] + [e * np.eye(3) for e in (-0.03, -0.01, 0.01, 0.03)]
    strains += [np.array([[0, e, 0], [e, 0, 0], [0, 0, 0]]) for e in (0.01, 0.02, 0.03)]
    frames = []
    for k, strain in enumerate(strains):
        atoms = bulk("Cu", a=3.58, cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = EMT()
        labels = dict(energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress(voigt=False))
        frames.append(Structure.from_ase(atoms).replace(source=f"strained.xyz, frame {k}", **labels))
    return frames


def test_a_stress_off_the_derivative_of_the_energy_is_named(strained):
    """Only the diagonal is off, as by a Pulay stress: the forces of a perfect crystal say nothing about it."""
    assert not check({"train": strained}).problems
    shifted = [f.replace(stress=f.stress + 1.5 * GPa * np.eye(3)) for f in strained]
    [found] = check({"train": shifted}).problems
    assert found.severity == "warning"
    pressure = float(re.search(r"derivative of the energy by ([-.\d]+) GPa", str(found))[1])
    np.testing.assert_allclose(pressure, 1.5, atol=0.1)
    assert "training.loss.stress.weight: 0" in str(found)


@pytest.fixture(scope="module")
def crystals_slabs_and_clusters():
    """Copper with many-body energies; crystals and clusters have one composition, but no one pair fit."""
    frames = []
    for k in range(6):
        crystal, slab = bulk("Cu", cubic=True), fcc111("Cu", (2, 2, 2), vacuum=6, periodic=False)
        cluster = Atoms("Cu4", positions=[[0, 0, 0], [2.4, 0, 0], [0, 2.4, 0], [0, 0, 2.4]])
        for atoms in (crystal, slab, cluster):
            atoms.rattle(0.1, seed=k)
            atoms.calc = EMT()
            s = Structure.from_ase(atoms, source=f"mixed.xyz, frame {len(frames)}")
            frames.append(s.replace(energy=float(atoms.get_potential_energy()), forces=atoms.get_forces()))
    return frames


def test_crystals_and_clusters_are_not_compared(crystals_slabs_and_clusters):
    assert not check({"train": crystals_slabs_and_clusters}).problems
    assert "gradients" in message(everywhere(crystals_slabs_and_clusters, lambda f: {"forces": -f.forces}))
    assert "Hartree" in message(everywhere(crystals_slabs_and_clusters, lambda f: {"energy": f.energy / hartree}))


def test_a_file_of_which_a_part_has_gradients_is_refused(crystals, molecules):
    wrong = everywhere(molecules, lambda f: dict(energy=-10 * f.energy, forces=10 * f.forces, source="cu.xyz, frame 0"))
    assert "gradients" in message(wrong)
    assert "gradients" in message([*crystals, *wrong])


def test_a_slab_whose_vectors_are_parallel_is_named(molecules):
    flat = everywhere(molecules, lambda f: {"cell": [[5.0, 0, 0], [10, 0, 0], [0, 0, 0]], "pbc": [True, True, False]})
    assert "m.xyz, frame 0: is periodic, but its cell has no volume" in message(flat)


def test_only_the_file_with_the_mistake_is_blamed(crystals):
    wrong = [f.replace(stress=-f.stress, source=f.source.replace("cu", "other")) for f in crystals]
    shifted = [f.replace(positions=f.positions + 0.01) for f in wrong]
    assert message([*crystals, *shifted]).startswith("other.xyz: the stress is -")


def test_pair_fit_reproduces_pair_forces_and_virials(crystals):
    found = fit(crystals)
    assert found.correlation > 0.999
    off = lambda t: t - np.trace(t, axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3
    labels = np.array([f.stress * f.volume for f in crystals])
    np.testing.assert_allclose(off(found.virials), off(labels), atol=0.05 * np.abs(off(labels)).max())


def test_duplicates_leaks_and_contradictions(crystals):
    copy = crystals[1].replace(source="cu.xyz, frame 99")
    assert "frame 99: is the same as cu.xyz, frame 1" in str(check({"train": [*crystals, copy]}))
    assert "frame 99: is in the test set, and in the train set" in str(check({"train": crystals, "test": [copy]}))
    assert "another energy" in message([*crystals, copy.replace(energy=copy.energy + 1)])


def test_charges_that_the_model_does_not_see(crystals):
    mixed = replaced(crystals, 2, charge=1.0)
    assert "frame 2: has charge 1 and cu.xyz, frame 0 0, but the model does not see the charge" in str(check({"train": mixed}))
    assert "charge" not in str(check({"train": mixed}, needs=("charge",)))
    assert "charge" not in str(check({"train": [s.replace(charge=1.0) for s in crystals]}))
    assert "spin 2" in str(check({"train": replaced(crystals, 1, spin=2.0)}))


def test_lone_atoms_and_partial_labels_are_warnings(molecules):
    away = with_entry(molecules[3].positions, 0, [50.0, 0, 0])
    report = check({"train": replaced(molecules, 3, positions=away)})
    assert not report.errors and "frame 3: atom 0 (Si) has no neighbour within 5 Å" in report.warnings[0]
    report = check({"train": replaced(molecules, 2, forces=None)})
    assert "m.xyz, frame 2: has no forces, as 1 of 10 frames" in report.warnings[0]
    report = check({"train": everywhere(molecules, lambda f: {"forces": None})})
    assert "m.xyz: no frame has forces; set data.keys.forces" in report.warnings[0]


def test_an_energy_outlier_is_named(crystals):
    many = [f.replace(energy=f.energy + 1e-3 * k, positions=f.positions + k) for k in range(3) for f in crystals]
    many = replaced(many, 17, energy=many[17].energy + 50)
    assert any("frame 5: the energy is +3." in line and "converged" in line for line in check({"train": many}).warnings)


def test_bohr_taken_for_angstrom(crystals):
    stretched = everywhere(crystals, lambda f: {"positions": f.positions / 0.529177, "cell": f.cell / 0.529177})
    assert any("set data.units.length to bohr" in line for line in check({"train": stretched}).warnings)


def test_elements_that_training_does_not_have(crystals, molecules):
    with pytest.raises(DataError, match=r"m.xyz, frame 0: contains O \(as 10 frames do\), which no training frame has"):
        check({"train": crystals, "test": molecules}).raise_errors()


def test_load_data_refuses_broken_data(crystals, write):
    path = write(replaced(crystals, 4, energy=np.nan))
    with pytest.raises(DataError, match="data.xyz, frame 4: energy holds NaN"):
        load_data(DataConfig(str(path), valid=0), 0)


def labelled(atoms, source):
    """A frame with labels of EMT."""
    atoms.calc = EMT()
    labels = {
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(voigt=False),
    }
    return Structure.from_ase(atoms).replace(source=source, **labels)


@pytest.mark.parametrize("stress", [True, False], ids=["stress", "no stress"])
def test_strained_crystals_whose_forces_are_nearly_zero_are_right(stress):
    """Positions rounded to 1e-3 Å give forces that tell nothing of the energy of a strain."""
    for seed in range(12):
        rng, frames = np.random.default_rng(seed), []
        for k in range(8 + seed):
            atoms = bulk("Pt", "fcc", a=3.95, cubic=True)
            atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.004, (3, 3))), scale_atoms=True)
            atoms.positions = np.round(atoms.positions, 3)
            frame = labelled(atoms, f"pt.xyz, frame {k}")
            frames.append(frame if stress else frame.replace(stress=None))
        assert not check({"train": frames}).problems


def test_isotropic_stresses_are_not_zero():
    """A vacancy with a breathing shell keeps cubic symmetry."""
    frames = []
    for k in range(8):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        hole = atoms.positions[0].copy()
        del atoms[0]
        away = (atoms.positions - hole) @ np.linalg.inv(atoms.cell[:])
        away = (away - np.round(away)) @ atoms.cell[:]
        r = np.linalg.norm(away, axis=1, keepdims=True)
        atoms.positions += np.where(r < 2.8, 0.02 * (k - 3.5) * away / r, 0)
        frames.append(labelled(atoms, f"vacancy.xyz, frame {k}"))
    traceless = np.array([f.stress - np.trace(f.stress) * np.eye(3) / 3 for f in frames])
    assert np.abs(traceless).max() < 1e-12 < np.abs([f.stress for f in frames]).max()
    assert not check({"train": frames}).problems
    assert "gradients" in message(everywhere(frames, lambda f: {"forces": -f.forces}))


def test_the_work_between_near_frames_is_the_change_of_energy(crystals, molecules):
    """Factors of one within their errors; those of a mistake where there is one."""
    found = work(molecules, range(len(molecules)))
    assert found.forces.value == pytest.approx(1, abs=0.1) and abs(found.forces.value - 1) < 3 * found.forces.error
    wrong = everywhere(molecules, lambda f: {"forces": -f.forces / kcal_per_mol})
    assert work(wrong, range(10)).forces.value == pytest.approx(-kcal_per_mol * found.forces.value)
    strained = work(crystals, range(len(crystals)))
    for factor in (strained.forces, strained.stress):
        assert factor is None or abs(factor.value - 1) < 3 * factor.error + 0.02


def test_every_refusal_of_a_judgement_names_a_switch(crystals, write):
    path = write(everywhere(crystals, lambda f: {"forces": -f.forces}))
    with pytest.raises(DataError, match="if it is right, data.checks.force_sign: warn goes past it"):
        load_data(DataConfig(str(path), valid=0), 0)
    data = load_data(DataConfig(str(path), valid=0, checks={"force_sign": "warn"}), 0)
    assert any("gradients" in line for line in data.report.warnings)
    data = load_data(DataConfig(str(path), valid=0, checks={"force_sign": "skip"}), 0)
    assert not any("gradients" in line for line in data.report.warnings)
    with pytest.raises(ValueError, match="checks: there is no check 'force_sing'; did you mean `force_sign`"):
        DataConfig(str(path), checks={"force_sing": "warn"})


SIZES = {
    "energy": (lambda f: {"energy": -4209.8 / kcal_per_mol}, "times that of all electrons .* it looks like kcal/mol"),
    "forces": (lambda f: {"forces": f.forces * 28 / rms(f.forces)}, "the forces are typically 28 eV/Å, .* kcal/mol/Å"),
    "stress": (
        lambda f: {"stress": f.stress * 1.4e7 / rms(f.stress)},
        "stress are typically 1.4e[+]07 .* like bar or Pa",
    ),
}


def rms(x):
    return np.sqrt(np.mean(x**2))


@pytest.mark.parametrize("name", SIZES)
def test_impossible_magnitudes_are_refused_with_the_likely_unit(crystals, name):
    change, expected = SIZES[name]
    ethanol = [Structure([6, 6, 8, *[1] * 6], 1.2 * np.arange(27).reshape(9, 3) ** 0.9) for _ in range(3)]
    frames = everywhere(ethanol if "energy" in name else crystals, change)
    errors = [str(problem) for problem in check({"train": frames}).errors if problem.kind.endswith("_size")]
    assert len(errors) == 1 and re.search(expected, errors[0]), errors
    right = everywhere(ethanol, lambda f: {"energy": -4209.8})
    assert not [p for p in check({"train": right}).problems if p.kind.endswith("_size")]


def test_placeholders_of_weight_zero_are_no_mistakes(crystals):
    """Energies of zero beside forces, zero stresses, another energy of the same geometry: none of them counts."""
    idle = everywhere(crystals, lambda f: {"energy": 0.0, "stress": 0 * f.stress, "label_weights": {ENERGY: 0.0, STRESS: 0.0}})
    assert not check({"train": idle}).problems
    copy = crystals[1].replace(energy=0.0, label_weights={ENERGY: 0.0})
    assert not check({"train": [*crystals, copy]}).errors
    assert "every training frame has weight zero" in message(everywhere(crystals, lambda f: {"weight": 0.0}))


def test_forces_that_were_never_calculated_are_named_and_hide_no_stress(crystals, write):
    still = everywhere(crystals, lambda f: {"forces": 0 * f.forces, "stress": None})
    [found] = check({"train": still}).problems
    assert (found.kind, found.severity, found.where) == ("force_zero", "warning", "cu.xyz")
    assert "set data.keys.forces to none" in str(found) and "data.checks.force_zero: skip" in str(found)
    both = everywhere(still, lambda f: {"stress": np.zeros((3, 3))})
    assert "cu.xyz: every stress is zero; it was not calculated: set data.keys.stress to none" in message(both)
    assert "every stress is zero" in message(everywhere(both, lambda f: {"forces": None}))
    skipped = load_data(DataConfig(str(write(still)), valid=0, checks={"force_zero": "skip"}), 0)
    assert not skipped.report.warnings


def test_single_frames_without_forces_or_stress_are_named(crystals):
    found = lambda frames: [(p.kind, p.severity, p.where) for p in check({"train": frames}).problems]
    one = replaced(crystals, 5, forces=0 * crystals[5].forces)
    assert found(one) == [("force_zero", "warning", "cu.xyz, frame 5")]
    [problem] = check({"train": one}).problems
    assert "unlike in other frames of the file" in problem.what and "forces_weight=0" in problem.remedy
    most = [*everywhere(crystals[:-1], lambda f: {"forces": 0 * f.forces, "stress": None}), crystals[-1].replace(stress=None)]
    assert found(most) == [("force_zero", "warning", f.source) for f in most[:-1]]
    one = replaced(crystals, 5, stress=0 * crystals[5].stress)
    assert found(one) == [("stress_zero", "warning", "cu.xyz, frame 5")]
    idle = replaced(crystals, 5, forces=0 * crystals[5].forces, label_weights={FORCES: 0.0})
    assert not found(idle)


@pytest.mark.parametrize("name", ["Cu", "Si", "NaCl", "Mg"])
def test_forces_that_are_zero_by_symmetry_beside_others_are_right(crystals, name):
    lattice = {"NaCl": {"crystalstructure": "rocksalt", "a": 5.64}, "Si": {"a": 5.43, "cubic": True}}.get(name, {})
    atoms = bulk(name, **lattice) * (2, 2, 2)
    still = Structure.from_ase(atoms).replace(source="cu.xyz, frame 99", energy=-30.0, forces=np.zeros((len(atoms), 3)))
    far = Structure(
        [1, 1], [[0, 0, 0], [9.0, 0, 0]], labels={ENERGY: 0.0, FORCES: np.zeros((2, 3))}, source="cu.xyz, frame 100"
    )
    assert not [p for p in check({"train": [*crystals, still, far]}).problems if p.kind == "force_zero"]
    moved = still.replace(positions=np.round(still.positions, 3))
    assert not [p for p in check({"train": [*crystals, moved]}).problems if p.kind == "force_zero"]
    moved = still.replace(positions=still.positions + np.random.default_rng(0).normal(0, 0.05, still.positions.shape))
    assert [p.where for p in check({"train": [*crystals, moved]}).problems if p.kind == "force_zero"] == ["cu.xyz, frame 99"]


def test_forces_as_large_as_those_of_a_molecule_in_kcal_are_a_warning():
    frames = [s for s in bundled.load("ethanol/train") if len(s) > 1][:40]
    assert not [p for p in check({"train": frames}).problems if p.kind == "force_size"]
    # Frames of a colder run: the unit is no longer beyond doubt.
    cold = everywhere(frames, lambda f: {"forces": f.forces * 0.7 / rms(f.forces) / kcal_per_mol})
    [found] = [p for p in check({"train": cold}).problems if p.kind == "force_size"]
    assert found.severity == "warning" and "typically 16.1 eV/Å" in found.what
    assert "if they are in kcal/mol/Å, set data.units.forces to that" in found.remedy


def test_forces_of_close_dimers_are_a_warning_only():
    """They are what a repulsion of nuclei is learnt from."""
    force = lambda r: np.array([[0, 0, -4000 / r**6], [0, 0, 4000 / r**6]])
    pairs = [
        Structure([74, 74], [[0, 0, 0], [0, 0, r]], labels={ENERGY: -5.0, FORCES: force(r)}, source=f"dimers.xyz, frame {k}")
        for k, r in enumerate(np.linspace(1.4, 2.3, 20))
    ]
    assert [p.severity for p in check({"train": pairs}).problems if p.kind == "force_size"] == ["warning"]
    # The primitive cell of a crystal has two atoms, too.
    cells = [s.replace(cell=5.0 * np.eye(3), pbc=np.ones(3, bool)) for s in pairs]
    assert [p.severity for p in check({"train": cells}).problems if p.kind == "force_size"] == ["error"]


def test_every_unit_that_explains_an_energy_is_named():
    """Water with pseudopotentials has -17.2 Hartree."""
    where = [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]
    water = [Structure([8, 1, 1], where, labels={ENERGY: -45168.0 - k}, source=f"w.xyz, frame {k}") for k in range(5)]
    [found] = [p for p in check({"train": water}).problems if p.kind == "energy_size"]
    assert "kcal/mol or kJ/mol" in found.remedy


def test_the_force_on_the_only_atom_of_a_cell_is_zero_by_symmetry():
    frames = [labelled(bulk("Cu", a=3.5 + 0.02 * k), f"volumes.xyz, frame {k}") for k in range(6)]
    still = everywhere(frames, lambda f: {"forces": 0 * f.forces})
    assert not check({"train": still}).problems
    assert "every stress is zero" in message(everywhere(still, lambda f: {"stress": 0 * f.stress}))


def test_an_empty_neighbourhood_is_no_crash():
    labels = {"energy": -1.0, "forces": np.zeros((1, 3))}
    alone = [Structure([18], np.full((1, 3), float(k)), labels=labels, charge=1.0) for k in range(5)]
    assert not check({"train": alone}).errors
