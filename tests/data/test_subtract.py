"""A method that is subtracted from labels: what is run, for what, how often, and what is refused before."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from equipot.data import method as methods
from equipot.data import subtract
from equipot.data.config import DataConfig
from equipot.data.method import Runner, method_of, runner_of, start
from equipot.data.read import find_energies, load_sets
from equipot.data.subtract import subtraction_of
from equipot.metadata import Method
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure

COPPER = Structure([29, 29], [[0, 0, 0], [1.9, 1.7, 0.1]], np.eye(3) * 3.7, True, source="cu.xyz, frame 0")
WATER = Structure([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], source="w.xyz, frame 0")


class Counted(Calculator):
    """The charge and the multiplicity as an energy, and forces of zero; counts its calculations."""

    implemented_properties = ["energy", "forces"]
    default_parameters = {"charge": 0.0, "multiplicity": 1, "factor": 1.0}
    done = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        type(self).done += 1
        energy = self.parameters.factor * (self.parameters.charge + 10 * self.parameters.multiplicity)
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3))}


COUNTED = f"{__name__}:Counted"


def emt(s):
    atoms = s.to_ase()
    atoms.calc = EMT()
    return atoms


def test_a_method_gives_what_ase_gives():
    found = start(method_of({"calculator": "emt"}), "here").run(COPPER)
    atoms = emt(COPPER)
    assert found[ENERGY] == atoms.get_potential_energy()
    np.testing.assert_array_equal(found[FORCES], atoms.get_forces())
    np.testing.assert_allclose(found[STRESS], atoms.get_stress(voigt=False), rtol=1e-12)
    assert set(start(method_of({"calculator": "emt"}), "here").run(WATER)) == {ENERGY, FORCES}


def test_charge_and_multiplicity_are_those_of_the_frame():
    """Where the frame states no spin, an odd number of electrons leaves one unpaired."""
    runner = start(method_of({"calculator": COUNTED, "factor": 2.0}), "here")
    states = (WATER, WATER.replace(charge=1.0, spin=1.0), WATER.replace(spin=2.0))
    assert [runner.run(s)[ENERGY] for s in states] == [20, 42, 60]
    assert runner.run(Structure([1], [[0, 0, 0]]))[ENERGY] == 40
    with pytest.raises(ValueError, match=r"w.xyz, frame 0: 10 electrons .* cannot leave 1 unpaired.*Counted .* cannot be run"):
        runner.check(WATER.replace(spin=1.0))


def test_labels_and_isolated_atoms_are_differences(tmp_path):
    """Frames of isolated atoms, E0 by symbol and E0 from a file all lose what the method gives the atom."""
    both = [COPPER, COPPER.replace(positions=COPPER.positions * 1.02), COPPER.replace(positions=COPPER.positions * 0.99)]
    atom = Structure([29], np.zeros((1, 3)), labels={ENERGY: -40.0}, info={"config_type": "isolated_atom"})
    of_atom = emt(atom).get_potential_energy()
    labelled = []
    for k, s in enumerate(both):
        given = {ENERGY: emt(s).get_potential_energy() - 80.0 - k, FORCES: emt(s).get_forces() + 0.5, STRESS: np.eye(3) * 0.01}
        labelled.append(s.replace(labels=given).to_ase())
    ase.io.write(tmp_path / "frames.xyz", [*labelled, atom.to_ase()])
    ase.io.write(tmp_path / "atom.xyz", atom.to_ase())
    assert abs(of_atom) > 1
    for choice, origin in (("auto", "isolated"), ({"Cu": -40.0}, "config"), (str(tmp_path / "atom.xyz"), "isolated")):
        config = DataConfig(
            str(tmp_path / "frames.xyz"), valid=0, atomic_energies=choice, subtract={"calculator": "emt"}
        )  # fmt: skip
        subtraction = subtraction_of(config, tmp_path / f"run-{origin}")
        ((config, sets),) = subtraction.levels({"": (config, load_sets(config, 0))}, {})[0].values()
        np.testing.assert_allclose([s.energy for s in sets.train], [-80.0, -81.0, -82.0], atol=1e-6)
        np.testing.assert_allclose(np.stack([s.forces for s in sets.train]), 0.5, atol=1e-6)
        stress = [np.eye(3) * 0.01 - emt(s).get_stress(voigt=False) for s in both]
        np.testing.assert_allclose([s.stress for s in sets.train], stress, atol=1e-6)
        found = find_energies(config, sets)
        assert found.origin == origin and found.energies[29] == pytest.approx(-40.0 - of_atom, abs=1e-6)


def run(tmp_path, frames, out="run"):
    return subtract.run(start(method_of({"calculator": COUNTED}), "here"), [frames], tmp_path / out)


def test_a_frame_is_run_once(tmp_path, monkeypatch, capsys):
    """The folder of the run is read first, then the cache, which knows frames by content."""
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counted, "done", 0)
    frames = [s.replace(labels={ENERGY: 0.0}) for s in (WATER, WATER.replace(charge=2.0), WATER)]
    first = run(tmp_path, frames)
    assert Counted.done == 2 and "run for 2 frames" in capsys.readouterr().err
    assert sorted(labels[ENERGY] for labels in first.values()) == [10, 12]
    assert run(tmp_path, frames).keys() == first.keys() == run(tmp_path, frames, "another").keys() and Counted.done == 2
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    run(tmp_path, frames)
    assert Counted.done == 2
    moved = [*frames, WATER.replace(positions=WATER.positions + 0.1, labels={ENERGY: 0.0}), COPPER]
    run(tmp_path, moved)
    # A frame without labels of energy, forces and stress needs nothing. Other options are another method.
    assert Counted.done == 3
    subtract.run(start(method_of({"calculator": COUNTED, "factor": 2.0}), "here"), [frames], tmp_path / "run")
    assert Counted.done == 5


def test_what_was_run_before_an_error_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counted, "done", 0)
    frames = [WATER.replace(charge=float(2 * k), labels={ENERGY: 0.0}) for k in range(3)]
    whole = Counted.calculate

    def broken(self, *arguments):
        if self.parameters.charge == 4:
            raise RuntimeError("no\nconvergence")
        whole(self, *arguments)

    monkeypatch.setattr(Counted, "calculate", broken)
    with pytest.raises(
        ValueError, match=r"w.xyz, frame 0: .*Counted failed \(no convergence\); correct the structure or leave"
    ):
        run(tmp_path, frames)
    monkeypatch.setattr(Counted, "calculate", whole)
    run(tmp_path, frames)
    assert Counted.done == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "GFN2-xTB"}, "subtract: calculator is None; choose from tblite"),
        ({"calculator": "tblit"}, "calculator is 'tblit'; did you mean `tblite`"),
        ({"calculator": "emt", "charge": 1}, "leave charge out: that of each frame is passed on"),
        ({"calculator": "emt", "x": DataConfig}, "options are numbers, words, lists and mappings"),
    ],
)
def test_a_section_that_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("a.xyz", subtract=settings)


def test_what_is_refused_before_anything_is_run(monkeypatch):
    with pytest.raises(ValueError, match="data.subtract: emt has no option 'asap_cutof'; did you mean `asap_cutoff`"):
        method_of({"calculator": "emt", "asap_cutof": True})
    with pytest.raises(ValueError, match="data.subtract: equipot.structure:Structure is no calculator of ASE"):
        method_of({"calculator": "equipot.structure:Structure"})
    absent = methods.Program("no_such_package.ase:XTB", "no-such-package")
    monkeypatch.setattr(methods, "CALCULATORS", {**methods.CALCULATORS, "absent": absent})
    with pytest.raises(ValueError, match="the package no-such-package is missing: pip install no-such-package"):
        method_of({"calculator": "absent"})
    runner = start(method_of({"calculator": "emt"}), "here")
    with pytest.raises(ValueError, match=r"w.xyz, frame 0: has charge 1, of which emt knows nothing; leave it out"):
        runner.check(WATER.replace(charge=1.0))
    with pytest.raises(ValueError, match="has spin 2, of which emt knows nothing"):
        runner.check(WATER.replace(spin=2.0))
    bare = start(method_of({"calculator": COUNTED}), "here")
    with pytest.raises(
        ValueError, match=r"has a label of stress, but .*Counted gives none to subtract; .*data.keys.stress: none"
    ):
        bare.check_labels(COPPER.replace(stress=np.zeros((3, 3))))
    bare.check(COPPER.replace(stress=np.zeros((3, 3))))
    with pytest.raises(ValueError, match="has a label of stress, but emt gives none to subtract where nothing repeats"):
        runner.check_labels(WATER.replace(stress=np.zeros((3, 3))))


def test_a_file_among_the_options_is_known_by_its_content(tmp_path):
    (tmp_path / "parameters.toml").write_text("a = 1")
    settings = {"calculator": COUNTED, "file": str(tmp_path / "parameters.toml")}
    before = method_of(settings)
    (tmp_path / "parameters.toml").write_text("a = 2")
    after = method_of(settings)
    assert before.options == after.options and before.versions[:-1] == after.versions[:-1] and before != after
    with pytest.warns(UserWarning, match="was subtracted by .* here is"):
        runner_of(before, Counted(file=settings["file"]))


def test_only_known_calculators_are_run_by_themselves():
    own = Method(COUNTED, '{"factor": 2.0}', method_of({"calculator": COUNTED}).versions)
    with pytest.raises(ValueError, match="code that a file names is not run without being asked for: give the calculator"):
        runner_of(own)
    with pytest.raises(ValueError, match="not to EMT"):
        runner_of(own, EMT())
    with pytest.raises(ValueError, match="not to other.module:Counted"):
        runner_of(own, "other.module:Counted")
    with pytest.raises(ValueError, match="but the calculator has factor 1.0"):
        runner_of(own, Counted())
    with pytest.raises(ValueError, match="the potential is no correction"):
        runner_of(None, EMT())
    for runner in (runner_of(own, Counted(factor=2.0)), runner_of(own, COUNTED)):
        assert isinstance(runner, Runner) and runner.run(WATER)[ENERGY] == 20
    with pytest.raises(ValueError, match="lj has no option 'restart'"):
        runner_of(Method("lj", '{"restart": "other.py"}', method_of({"calculator": "lj"}).versions))
    assert runner_of(method_of({"calculator": "lj"}), LennardJones()).run(WATER)
    with pytest.raises(ValueError, match="but the calculator has (sigma 2.0|rc 6.0)"):
        runner_of(method_of({"calculator": "lj"}), LennardJones(sigma=2.0))
    with pytest.warns(UserWarning, match=r"emt was subtracted by ase 1.0; here is ase 3"):
        assert runner_of(Method("emt", "{}", (("ase", "1.0"),))).run(COPPER)


@pytest.mark.parametrize("charge", [0, 1])
def test_tblite_gets_charge_and_multiplicity(charge):
    xtb = pytest.importorskip("tblite.ase", reason="tblite is not installed")
    s = WATER.replace(charge=float(charge), spin=float(charge))
    found = start(method_of({"calculator": "tblite", "method": "GFN1-xTB"}), "here").run(s)
    atoms = Atoms(s.numbers, s.positions)
    atoms.calc = xtb.TBLite(method="GFN1-xTB", charge=charge, multiplicity=charge + 1, verbosity=0)
    assert found[ENERGY] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(found[FORCES], atoms.get_forces(), atol=1e-5)
