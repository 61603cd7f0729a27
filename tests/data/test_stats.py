"""E0 by every route, with what the data leave undetermined; scale, shift and neighbours against known answers."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from equipot.data.batch import find_slots
from equipot.data.checks.isolated import isolated_atoms
from equipot.data.checks.report import DataError
from equipot.data.compositions import fit_energies, undetermined
from equipot.data.config import DataConfig
from equipot.data.read import load_data
from equipot.data.stats import (
    LONGEST,
    atomic_energies,
    is_isolated_atom,
    isolated_energies,
    statistics,
    typical_cutoff,
)
from equipot.quantities import ENERGY, FORCES, LABELLED
from equipot.structure import Structure

E0 = {1: -13.6, 6: -1029.0, 8: -2042.0}
ELEMENTS = (1, 6, 8)


def frame(formula, energy=None, source="", **info):
    """Atoms far apart with a given composition."""
    numbers = np.repeat(ELEMENTS, formula)
    energy = sum(E0[int(z)] for z in numbers) if energy is None else energy
    return Structure(
        numbers, 20.0 * np.arange(len(numbers))[:, None] * [1, 0, 0], labels={"energy": energy}, source=source, info=info
    )


def test_fit_recovers_what_compositions_determine():
    counts = np.array([[6, 2, 1], [4, 1, 1], [4, 1, 0], [2, 0, 1]])
    fit = fit_energies(counts, counts @ list(E0.values()), ELEMENTS)
    assert fit.energies == pytest.approx(E0, abs=1e-8) and fit.rms < 1e-8 and not fit.undetermined


@pytest.mark.parametrize(
    ("counts", "open_combinations"),
    [
        ([[6, 2, 1]], ("C +1 eV with H -0.333 eV", "O +1 eV with H -0.167 eV")),
        ([[6, 2, 1], [4, 1, 1]], ("O +1 eV with H -0.5 eV with C +1 eV",)),
        ([[4, 0, 2], [2, 0, 1], [0, 1, 0]], ("O +1 eV with H -0.5 eV",)),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], ()),
    ],
)
def test_undetermined_combinations_are_named(counts, open_combinations):
    assert undetermined(np.array(counts, float), "HCO") == open_combinations


def test_a_rank_deficient_fit_still_predicts_its_compositions_and_warns():
    frames = [frame((6, 2, 1)), frame((4, 1, 1)), frame((12, 4, 2))]
    found = atomic_energies(frames, {}, "auto")
    assert found.origin == "fit" and "determine 2 of 3" in found.warnings[0] and "O +1 eV" in found.warnings[0]
    for f in frames:
        assert sum(found.energies[int(z)] for z in f.numbers) == pytest.approx(f.energy, abs=1e-6)
    single = atomic_energies(frames[:1], {}, "fit").energies
    assert len({round(e, 9) for e in single.values()}) == 1


def test_undetermined_changes_are_invisible_in_the_data():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, size=(4, 6)).astype(float)
    symbols = dict(zip(("H", "Li", "C", "N", "O", "F"), range(6), strict=True))
    names = undetermined(counts, list(symbols))
    assert len(names) == 2
    for name in names:
        change = np.zeros(6)
        for part in name.split(" with "):
            symbol, amount, _ = part.split()
            change[symbols[symbol]] = float(amount)
        assert np.abs(counts @ change).max() < 0.05 * np.abs(counts).max()


def ion(formula, charge, cost, spin=0.0):
    """Atoms far apart that lack ``charge`` electrons, at the expense of ``cost`` eV."""
    neutral = frame(formula)
    return neutral.replace(energy=neutral.energy + cost, charge=charge, spin=spin)


SEVERAL = ((6, 2, 1), (4, 1, 1), (4, 1, 0), (2, 0, 1))


def test_neutral_frames_give_e0_whatever_ions_stand_beside_them():
    """Ionisation energies differ from molecule to molecule: no column of one energy would make room for them."""
    ions = [ion(formula, 1.0, cost) for formula, cost in zip(SEVERAL, (9.1, 10.7, 12.6, 13.8), strict=True)]
    found = atomic_energies([*map(frame, SEVERAL), *ions], {}, "fit")
    assert found.energies == pytest.approx(E0, abs=1e-8) and not found.warnings


def test_the_energy_of_an_electron_is_no_part_of_e0():
    """No neutral frames, and few: then one energy for each sign of the charge is fitted besides, and left out of E0."""
    cost = {1.0: 10.0, 2.0: 20.0, -1.0: -1.5, -0.5: -0.75}
    ions = [ion(formula, charge, cost[charge]) for formula in SEVERAL for charge in cost]
    few = [frame(SEVERAL[0]), *ions]
    for frames in (ions, few):
        found = atomic_energies(frames, {}, "fit")
        assert found.energies == pytest.approx(E0, abs=1e-7) and not found.warnings


def test_charges_that_compositions_cannot_be_told_from():
    """A molecule, and the same with a proton more: the energy of H and that of the charge are one number."""
    frames = [frame((2, 10, 0)), ion((3, 10, 0), 1.0, 7.0)]
    [warning] = atomic_energies(frames, {}, "fit").warnings
    assert "determine 2 of 3 energies of elements and charges" in warning
    assert "positive charge +1 eV with H -1 eV with C +0.2 eV" in warning


def test_the_constants_of_charge_and_spin():
    """For a model that sees them, beside the shift of the elements; for another one the shift takes what it can."""
    cost = {(1.0, 1.0): 9.0 + 0.3, (-1.0, 1.0): -2.0 + 0.3, (0.0, 2.0): 0.6, (0.0, 0.0): 0.0, (-0.5, 0.0): -1.0}
    frames = [ion(formula, q, e, s) for formula in SEVERAL for (q, s), e in cost.items()]
    shifted = {z: e - 0.5 for z, e in E0.items()}
    seen = statistics(frames, None, 3.0, shifted, ("charge", "spin"))
    np.testing.assert_allclose(seen.electron_shift, [9.0, -2.0, 0.3], atol=1e-8)
    np.testing.assert_allclose(seen.shift, 0.5, atol=1e-8)
    assert seen.energy_rms < 1e-8
    blind = statistics(frames, None, 3.0, shifted)
    assert not blind.electron_shift.any() and blind.energy_rms > 0.1


def test_isolated_atoms_give_e0_and_are_not_trained_on(molecules, write):
    free = [
        Structure([z], np.zeros((1, 3)), labels={"energy": e, "forces": np.zeros((1, 3))}, info={"config_type": "IsolatedAtom"})
        for z, e in ((14, -100.0), (8, -40.0))
    ]
    bound = [m.replace(energy=m.energy - 3 * 140.0) for m in molecules]
    data = load_data(DataConfig(str(write([*free, *bound])), valid=2), 0)
    assert data.atomic_energies == {8: -40.0, 14: -100.0} and data.origin == "isolated"
    assert len(data.train) == 8 and len(data.valid) == 2
    atoms = str(write(free, "atoms.xyz"))
    separate = DataConfig(str(write(bound)), valid=2, atomic_energies=atoms)
    assert load_data(separate, 0).atomic_energies == data.atomic_energies
    fitted = load_data(DataConfig(str(write(bound)), valid=2, atomic_energies="fit"), 0)
    assert fitted.origin == "fit" and any("determine 1 of 2" in line for line in fitted.report.warnings)
    with pytest.raises(ValueError, match="no isolated-atom frame for O, Si"):
        load_data(DataConfig(str(write(bound)), valid=2, atomic_energies="isolated"), 0)
    with pytest.raises(ValueError, match="'isolatd' is none of auto, isolated, fit"):
        load_data(DataConfig(str(write(bound)), valid=2, atomic_energies="isolatd"), 0)


@pytest.mark.parametrize("compositions", ["one", "several"])
def test_an_isolated_atom_of_another_calculation_is_named(molecules, write, compositions):
    free = lambda z, e: Structure([z], np.zeros((1, 3)), labels={"energy": e}, info={"config_type": "IsolatedAtom"})
    bound = [m.replace(energy=m.energy - 3 * 140.0) for m in molecules]
    if compositions == "several":
        # The same clusters without one of their atoms, as if it were bound by nothing.
        less = {0: -100.0, 5: -40.0}
        bound += [
            Structure(np.delete(m.numbers, k), np.delete(m.positions, k, 0), labels={"energy": m.energy - 420 - e}, info=m.info)
            for k, e in less.items() for m in molecules
        ]  # fmt: skip
    atoms = lambda o: str(write([free(14, -100.0), free(8, o), *bound]))
    assert load_data(DataConfig(atoms(-40.0), valid=2), 0).origin == "isolated"
    blamed = (
        "the isolated O atom .* -300"
        if compositions == "several"
        else r"one of the isolated atoms \(O, Si\) .* -15\d\.?\d* eV/atom"
    )
    with pytest.raises(DataError, match=rf"{blamed}.*set data.atomic_energies to fit; .*isolated_energy: warn"):
        load_data(DataConfig(atoms(260.0), valid=2), 0)
    data = load_data(DataConfig(atoms(260.0), valid=2, checks={"isolated_energy": "warn"}), 0)
    assert data.origin == "isolated" and any("does not belong" in line for line in data.report.warnings)


def test_a_doubtful_binding_is_a_warning_and_ions_are_not_judged():
    frames = [
        Structure([7, 1, 1, 1], np.eye(4, 3), labels={"energy": -1538.8 - k % 2}, source=f"a.xyz, frame {k}") for k in range(30)
    ]
    ions = [
        Structure([7, 1, 1, 1, 1], np.eye(5, 3), labels={"energy": -1548.0 - k % 2}, charge=1.0, source=f"b.xyz, frame {k}")
        for k in range(30)
    ]
    assert not list(isolated_atoms([*frames, *ions], {7: -1485.2, 1: -13.6}))
    for off in (40.0, -45.0):
        [found] = isolated_atoms([*frames, *ions], {7: -1485.2 + off, 1: -13.6})
        assert found.severity == "warning" and "may not belong to the energies of the other frames" in found.what


def test_e0_from_the_config(molecules):
    assert atomic_energies(molecules, {}, {"Si": -1.0, "O": -2}).energies == {8: -2.0, 14: -1.0}
    with pytest.raises(ValueError, match="no E0 for O; add it"):
        atomic_energies(molecules, {}, {"Si": -1.0})
    with pytest.raises(ValueError, match="'Sl' is not the symbol"):
        atomic_energies(molecules, {}, {"Sl": -1.0})


def test_what_is_an_isolated_atom():
    atom = Structure([1], np.zeros((1, 3)))
    cube = lambda a: atom.replace(cell=a * np.eye(3), pbc=np.ones(3, bool))
    assert is_isolated_atom(atom) and is_isolated_atom(cube(20.0)) and not is_isolated_atom(cube(3.0))
    assert is_isolated_atom(cube(6.0).replace(info={"config_type": "isolated_atom"}))
    sheared = [[10.5, 0, 0], [10.5, 2.55, 0], [5, 1.2, 10.4]]
    assert not is_isolated_atom(atom.replace(cell=np.array(sheared), pbc=np.ones(3, bool)))
    assert not is_isolated_atom(atom.replace(cell=20 * np.ones((3, 3)), pbc=np.ones(3, bool)))
    assert not is_isolated_atom(atom.replace(charge=1.0)) and not is_isolated_atom(frame((2, 0, 0)))


def test_isolated_atoms_that_disagree():
    atoms = [frame((1, 0, 0), -13.6, "a.xyz, frame 0"), frame((1, 0, 0), -12.0, "b.xyz, frame 3")]
    with pytest.raises(ValueError, match=r"b.xyz, frame 3: the isolated H atom has -12.0000 eV, but -13.6000 eV in a.xyz"):
        isolated_energies(atoms)
    with pytest.raises(ValueError, match="without an energy"):
        isolated_energies([atoms[0].replace(energy=None)])


@pytest.mark.parametrize("energy", ["nan", "inf"])
@pytest.mark.parametrize("choice", ["auto", "fit", "a file"])
def test_the_energy_of_an_isolated_atom_must_be_finite(molecules, write, tmp_path, energy, choice):
    """Alone, or beside a right one of the same element: neither may become E0 or pass unseen."""
    atom = "1\nProperties=species:S:1:pos:R:3 config_type=isolated_atom energy={}\n{} 0 0 0\n"
    atoms = [atom.format(-1.0, "Si"), atom.format(-1.0, "O"), atom.format(energy, "O")]
    bound, free = write(molecules, "bound.xyz"), tmp_path / "atoms.xyz"
    for held in (atoms, [atoms[0], atoms[2]]):
        free.write_text("".join(held))
        files = str(bound) if choice == "a file" else (str(free), str(bound))
        config = DataConfig(files, valid=0, atomic_energies=str(free) if choice == "a file" else choice)
        expected = rf"atoms.xyz, frame {len(held) - 1}: the energy of the isolated O atom is {energy}, .*; calculate the frame"
        with pytest.raises(ValueError, match=expected):
            load_data(config, 0)


def test_e0_of_the_config_must_be_finite(molecules):
    with pytest.raises(ValueError, match="data.atomic_energies: O has nan; give a finite energy"):
        atomic_energies(molecules, {}, {"Si": -1.0, "O": np.nan})


def test_statistics(molecules):
    cutoff, energies = 3.0, {8: -0.5, 14: -0.25}
    stats = statistics(molecules, None, cutoff, energies)
    found = [find_slots(m, cutoff) for m in molecules]
    assert stats.elements == (8, 14)
    assert stats.avg_num_neighbors == pytest.approx(sum(f.mask.sum() for f in found) / 60)
    assert stats.avg_num_neighbors == statistics(molecules, found, cutoff, energies).avg_num_neighbors
    forces = np.concatenate([m.forces for m in molecules])
    assert stats.force_rms == pytest.approx(np.sqrt(np.mean(forces**2)))
    np.testing.assert_allclose(stats.scale, stats.force_rms)
    left = [m.energy - sum(energies[int(k)] for k in m.numbers) - sum(stats.shift[(m.numbers == 14) * 1]) for m in molecules]
    assert abs(np.mean(left)) < 1e-9
    assert stats.energy_rms == pytest.approx(np.sqrt(np.mean(np.square(left))) / 6)


NOTHING = {"frame": {"weight": 0.0}, "labels": {"label_weights": dict.fromkeys(LABELLED, 0.0)}}


@pytest.mark.parametrize("without", NOTHING)
def test_frames_of_weight_zero_have_no_influence(molecules, without):
    """Placeholders in the labels, another geometry: whatever stands in such a frame, nothing estimated changes."""
    placeholders = [
        m.replace(energy=0.0, forces=m.forces * 7, positions=m.positions * 1.2, **NOTHING[without]) for m in molecules
    ]
    both = [*molecules[:5], *placeholders, *molecules[5:]]
    right, found = atomic_energies(molecules, {}, "fit"), atomic_energies(both, {}, "fit")
    assert found.energies == pytest.approx(right.energies, abs=1e-9)
    expected, got = (statistics(frames, None, 3.0, {8: -0.5, 14: -0.25}) for frames in (molecules, both))
    np.testing.assert_allclose(got.shift, expected.shift, atol=1e-9)
    np.testing.assert_allclose(got.scale, expected.scale)
    for name in ("avg_num_neighbors", "force_rms", "energy_rms"):
        assert getattr(got, name) == pytest.approx(getattr(expected, name))
    assert typical_cutoff(both, 3) == typical_cutoff(molecules, 3)


def test_an_energy_of_weight_zero_sets_no_e0(molecules):
    """Ethanol with energy=0 and config_energy_weight=0 in every second frame; its forces still count."""
    half = [m.replace(energy=0.0, label_weights={ENERGY: 0.0}, forces=2 * m.forces) for m in molecules]
    right, found = (atomic_energies(frames, {}, "fit").energies for frames in (molecules, [*molecules, *half]))
    assert found == pytest.approx(right, abs=1e-9)
    a, b = (statistics(frames, None, 3.0, right) for frames in (molecules, [*molecules, *half]))
    np.testing.assert_allclose(a.shift, b.shift, atol=1e-9)
    assert b.force_rms == pytest.approx(a.force_rms * np.sqrt(2.5)) and b.energy_rms == pytest.approx(a.energy_rms)
    atoms = [frame((1, 0, 0), 0.0).replace(label_weights={ENERGY: 0.0}), frame((0, 1, 0), -1029.0)]
    assert isolated_energies(atoms) == {6: -1029.0}


def test_a_frame_of_weight_two_is_a_frame_twice(molecules):
    twice = [*molecules, *molecules[:4]]
    heavy = [m.replace(weight=2.0) if k < 4 else m for k, m in enumerate(molecules)]
    by_label = [m.replace(label_weights={ENERGY: 2.0, FORCES: 2.0}) if k < 4 else m for k, m in enumerate(molecules)]
    expected = statistics(twice, None, 3.0, {8: -0.5, 14: -0.25})
    for frames in (heavy, by_label):
        got = statistics(frames, None, 3.0, {8: -0.5, 14: -0.25})
        np.testing.assert_allclose(got.shift, expected.shift, rtol=1e-12)
        assert got.force_rms == pytest.approx(expected.force_rms) and got.energy_rms == pytest.approx(expected.energy_rms)
    assert statistics(heavy, None, 3.0, {8: 0, 14: 0}).avg_num_neighbors == pytest.approx(expected.avg_num_neighbors)
    counts, energies = np.array([[1, 0], [0, 1], [1, 1], [2, 1.0]]), np.array([1.0, 2.0, 4.0, 3.0])
    weighted = fit_energies(counts, energies, (1, 8), np.array([1.0, 3.0, 1.0, 2.0]))
    repeated = fit_energies(counts[[0, 1, 1, 1, 2, 3, 3]], energies[[0, 1, 1, 1, 2, 3, 3]], (1, 8))
    assert weighted.energies == pytest.approx(repeated.energies) and weighted.rms == pytest.approx(repeated.rms)


def test_statistics_without_forces(molecules):
    bare = [m.replace(forces=None) for m in molecules]
    stats = statistics(bare, None, 3.0, {8: 0.0, 14: 0.0})
    assert np.isnan(stats.force_rms) and np.all(stats.scale == stats.energy_rms)


@pytest.mark.parametrize("neighbors, shell", [(11, 0.5**0.5), (15, 1.0), (36, 1.5**0.5)])
def test_a_typical_cutoff_reaches_the_shell_that_holds_the_neighbours(neighbors, shell):
    """An fcc atom has 12, 6 and 24 neighbours at a/sqrt(2), a and a sqrt(3/2)."""
    crystal = Structure.from_ase(bulk("Cu", a=3.6, cubic=True))
    assert typical_cutoff([crystal] * 3, neighbors) == pytest.approx(3.6 * shell, abs=0.006)


def test_a_small_molecule_is_seen_as_a_whole():
    assert typical_cutoff([Structure.from_ase(molecule("H2O"))]) == LONGEST
