"""Many images at once are what they are one by one."""

import ase.mep
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import FIRE
from test_ase import argon, crystal

from equipot.interfaces import neb
from equipot.interfaces.ase import EquipotCalculator, calculate_together


@pytest.fixture
def counted(monkeypatch):
    """How many structures were calculated by themselves."""
    calls, original = [], EquipotCalculator.calculate
    count = lambda self, *arguments, **named: (calls.append(self), original(self, *arguments, **named))[1]
    monkeypatch.setattr(EquipotCalculator, "calculate", count)
    return calls


def test_results_are_those_of_each_calculator(counted):
    potential = argon(free=-3.0)
    mixed = [crystal(), Atoms("Ar2", [[0, 0, 0], [2.4, 0.1, 0]]), crystal(seed=2), Atoms("Ar3", np.eye(3) * 2.5)]
    alone = [atoms.copy() for atoms in mixed]
    for atoms in (*mixed, *alone):
        atoms.calc = potential.calculator()
    calculate_together(mixed)
    assert not counted
    for together, other in zip(mixed, alone, strict=True):
        energy = other.get_potential_energy()
        assert together.get_potential_energy() == pytest.approx(energy, rel=1e-12)
        assert together.calc.results.keys() == other.calc.results.keys()
        for name, value in other.calc.results.items():
            np.testing.assert_allclose(together.calc.results[name], value, rtol=0, atol=1e-10, err_msg=name)
    assert len(counted) == len(mixed)
    mixed[0].rattle(0.01)
    mixed[0].get_forces()
    assert len(counted) == len(mixed) + 1


def test_what_is_known_or_of_another_kind_is_left_alone(counted):
    known, other, stale = crystal(), bulk("Cu"), crystal(seed=1)
    known.calc = stale_calc = argon().calculator()
    known.get_forces()
    before = known.calc.results
    other.calc, stale.calc = EMT(), argon().calculator()
    calculate_together([known, other, stale])
    assert known.calc.results is before and not other.calc.results and stale.calc.results and len(counted) == 1
    shared = [crystal(seed=k) for k in (3, 4)]
    for atoms in shared:
        atoms.calc = stale_calc
    with pytest.raises(ValueError, match="share a calculator"):
        calculate_together(shared)


def band(kind, potential, **options):
    """A vacancy of a small crystal that moves, and two images between."""
    first = crystal(rattle=0.05) * (2, 1, 1)
    last = first.copy()
    last.positions[0] += [0.4, 0.5, 0.1]
    images = [first, *(first.copy() for _ in range(3)), last]
    for image in images:
        image.calc = potential.calculator()
    made = kind(images, **options)
    made.interpolate()
    return made


@pytest.mark.parametrize(
    "options",
    [
        {"method": "improvedtangent", "climb": True},
        {"method": "aseneb"},
        {"method": "string"},
        {"method": "improvedtangent", "remove_rotation_and_translation": True},
    ],
    ids=str,
)
def test_a_band_moves_as_that_of_ase(options, counted):
    potential = argon()
    mine, other = band(neb.NEB, potential, **options), band(ase.mep.NEB, potential, **options)
    np.testing.assert_allclose(mine.get_forces(), other.get_forces(), rtol=0, atol=1e-10)
    assert len({id(calculator) for calculator in counted}) == (3 if options["method"] == "aseneb" else 5)
    counted.clear()
    FIRE(mine, logfile=None).run(steps=4)
    assert not counted
    FIRE(other, logfile=None).run(steps=4)
    np.testing.assert_allclose(mine.get_positions(), other.get_positions(), rtol=0, atol=1e-9)
    assert mine.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-9)


def test_known_ends_are_not_calculated(counted):
    made = band(neb.NEB, argon(), method="improvedtangent")
    for end in (made.images[0], made.images[-1]):
        end.calc = SinglePointCalculator(end, energy=-1.0, forces=np.zeros((len(end), 3)))
    made.get_forces()
    assert made.energies[0] == -1.0 and not counted
